//! The Docker Engine by bare HTTP/1.1 over one keep-alive socket: what no deployer can be faster than.
//!
//! Always true: a call is one write and one read; nothing is parsed that is not asked for.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// A call that takes longer is broken.
const LIMIT: Duration = Duration::from_secs(60);

/// An open connection.
#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
    connection: BufReader<UnixStream>,
}

impl Engine {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        Ok(Self { socket: socket.to_owned(), connection: open(socket)? })
    }

    /// A call that must succeed; its answer, null where there is none. Streams are read to their end.
    pub(super) fn call(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.call_with(method, path, "", body)
    }

    /// As [`Self::call`], with further header lines, each ended by `\r\n`.
    pub(super) fn call_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &Value,
    ) -> Result<Value> {
        send(self.connection.get_mut(), method, path, headers, body)?;
        let answer = receive(&mut self.connection)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if !(200..400).contains(&answer.status) {
            bail!("{method} {path}: status {}: {text}", answer.status);
        }
        // A pull's answer is a stream of objects, of which an error is the last.
        if text.contains("\"errorDetail\"") {
            bail!("{method} {path}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// `docker exec` of a command that must succeed; gives its output as the Engine frames it.
    pub(super) fn exec(&mut self, container: &str, argv: &[&str]) -> Result<String> {
        let body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": argv});
        let made = self.call("POST", &format!("/containers/{container}/exec"), &body)?;
        let id = made["Id"].as_str().context("an exec has an id")?.to_owned();
        // Its output ends with its connection, so it cannot have the one that is kept.
        let mut own = open(&self.socket)?;
        let body = json!({"Detach": false, "Tty": false});
        send(own.get_mut(), "POST", &format!("/exec/{id}/start"), "", &body)?;
        let answer = receive(&mut own)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let ended = self.call("GET", &format!("/exec/{id}/json"), &Value::Null)?;
        if ended["ExitCode"] != 0 {
            bail!("{} in {container}: {} {text}", argv.join(" "), ended["ExitCode"]);
        }
        Ok(text)
    }
}

fn open(socket: &Path) -> Result<BufReader<UnixStream>> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("connect to the Engine at {}", socket.display()))?;
    stream.set_read_timeout(Some(LIMIT)).context("limit a call's time")?;
    stream.set_write_timeout(Some(LIMIT)).context("limit a call's time")?;
    Ok(BufReader::new(stream))
}

fn send(
    stream: &mut UnixStream,
    method: &str,
    path: &str,
    headers: &str,
    body: &Value,
) -> Result<()> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
         {headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).with_context(|| format!("send {method} {path}"))
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

fn receive(connection: &mut BufReader<UnixStream>) -> Result<Answer> {
    let mut line = String::new();
    connection.read_line(&mut line).context("read an answer")?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("no answer of HTTP: {line:?}"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        connection.read_line(&mut line).context("read a header")?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<u64>().ok(),
            "transfer-encoding" => chunked = value == "chunked",
            _ => {}
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => {
            connection.take(length).read_to_end(&mut body).context("read a body")?;
        }
        None if chunked => chunks(connection, &mut body)?,
        None if status == 204 || status == 304 => {}
        // What an exec prints: to the end of the connection.
        None => {
            connection.read_to_end(&mut body).context("read a body")?;
        }
    }
    Ok(Answer { status, body })
}

fn chunks(connection: &mut BufReader<UnixStream>, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).context("read a chunk's length")?;
        let length = u64::from_str_radix(line.trim(), 16)
            .with_context(|| format!("no chunk's length: {line:?}"))?;
        connection.take(length).read_to_end(body).context("read a chunk")?;
        line.clear();
        connection.read_line(&mut line).context("read a chunk's end")?;
        if length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Serves one connection with fixed answers, and gives what was asked.
    fn answering(
        answers: &'static [&'static str],
    ) -> (PathBuf, std::thread::JoinHandle<Vec<String>>) {
        let dir = tempfile::tempdir().unwrap().keep();
        let path = dir.join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                asked.push(text.lines().next().unwrap_or_default().to_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            std::fs::remove_dir_all(dir).unwrap();
            asked
        });
        (path, asked)
    }

    #[test]
    fn one_connection_carries_many_calls_and_every_kind_of_body() {
        let (path, asked) = answering(&[
            "HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"Id\":\"a\"}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        ]);
        let mut engine = Engine::connect(&path).unwrap();
        assert_eq!(engine.call("POST", "/x", &json!({"b": 1})).unwrap()["Id"], "a");
        assert_eq!(engine.call("GET", "/y", &Value::Null).unwrap()["a"], 1);
        assert_eq!(engine.call("POST", "/z", &Value::Null).unwrap(), Value::Null);
        let refused = engine.call("GET", "/none", &Value::Null).unwrap_err().to_string();
        assert!(refused.contains("status 404"), "{refused}");
        let lines =
            ["POST /x HTTP/1.1", "GET /y HTTP/1.1", "POST /z HTTP/1.1", "GET /none HTTP/1.1"];
        assert_eq!(asked.join().unwrap(), lines);
    }
}
