//! A blocking HTTP/1.1 client that hides nothing: a cut answer is an error, not a short body.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything in the suite takes; a test that hangs ends here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request to be sent; `host` becomes the `Host` header.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Whether `Content-Length` tells how long the body is.
    announced: bool,
}

/// An answer, complete.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    headers: Vec<(String, String)>,
    /// When its last byte was read.
    pub(crate) at: Instant,
}

impl Answer {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

impl Ask {
    pub(crate) fn get(address: SocketAddr, host: &str, path: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            method: "GET",
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            announced: true,
        }
    }

    pub(crate) fn post(mut self, body: &[u8]) -> Self {
        self.method = "POST";
        self.body = body.to_vec();
        self
    }

    /// Another method, without a body of its own.
    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Bytes to follow the headers, whose length no header tells.
    pub(crate) fn raw_body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.announced = false;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it on a connection of its own and reads the whole answer.
    pub(crate) fn send(&self) -> io::Result<Answer> {
        let mut stream = connect(self.address)?;
        self.clone().header("Connection", "close").write(&mut stream)?;
        read_answer(&mut BufReader::new(stream))
    }

    /// The same in another thread.
    pub(crate) fn send_aside(self) -> JoinHandle<io::Result<Answer>> {
        std::thread::spawn(move || self.send())
    }

    /// Writes it to a connection that stays open.
    pub(crate) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.path, self.host);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.method != "GET" && self.announced {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        stream.write_all(&self.body)
    }
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads one answer and leaves the connection at its end.
pub(crate) fn read_answer<R: Read>(reader: &mut BufReader<R>) -> io::Result<Answer> {
    let mut answer = read_head(reader)?;
    let mut body = Vec::new();
    if answer.header("Transfer-Encoding").eq_ignore_ascii_case("chunked") {
        loop {
            let size =
                usize::from_str_radix(read_line(reader)?.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend(&chunk[..size]);
        }
    } else if let Ok(length) = answer.header("Content-Length").parse() {
        body = vec![0; length];
        reader.read_exact(&mut body)?;
    }
    answer.body = String::from_utf8_lossy(&body).into_owned();
    answer.at = Instant::now();
    Ok(answer)
}

/// Reads status and headers only.
pub(crate) fn read_head<R: Read>(reader: &mut BufReader<R>) -> io::Result<Answer> {
    let status = read_line(reader)?;
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status line"))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else {
            return Ok(Answer { status, body: String::new(), headers, at: Instant::now() });
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_line<R: Read>(reader: &mut BufReader<R>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::Error::from(ErrorKind::UnexpectedEof));
    }
    Ok(line)
}
