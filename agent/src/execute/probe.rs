//! Why kamal-proxy did not find a container healthy, in a sentence: its question is asked once more, from the host.
//!
//! In: a container that runs, and what kamal-proxy asked it. Out: words. Always true: it changes nothing, ends within the
//! health check's own timeout, and says no more than was seen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use dhow_proto::model::kamal;
use dhow_proto::model::template::RoleTemplate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Worker;
use crate::engine::{LogQuery, ObservedContainer};

/// kamal-proxy's own defaults.
const PATH: &str = "/up";
const TIMEOUT: Duration = Duration::from_secs(5);
/// A host reaches its own containers in less than a millisecond, or never.
const CONNECT: Duration = Duration::from_secs(2);
/// Of an answer's head; the rest does not matter.
const HEAD: usize = 8 * 1024;
/// Docker's own name server inside every container.
const DOCKER_DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// What kamal-proxy asks.
struct Question<'a> {
    address: &'a str,
    port: u16,
    path: String,
    /// The `Host` header: kamal-proxy knows a container by its short id.
    host: String,
    within: Duration,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Refused,
    NotReached,
    Silence,
    Closed,
    NotHttp,
    Status { status: u16, location: Option<String> },
}

impl Worker {
    /// The reason in a sentence; none where the container cannot be asked. `since`: when kamal-proxy began to ask.
    pub(super) async fn why_unhealthy(
        &self,
        view: &ObservedContainer,
        template: &RoleTemplate,
        since: SystemTime,
    ) -> Option<String> {
        let proxy = template.proxy.as_ref()?;
        let health = proxy.health_path.as_deref().unwrap_or(PATH);
        let question = Question {
            address: &view.address,
            port: proxy.app_port,
            path: format!("/{}", health.trim_start_matches('/')),
            host: format!("{}:{}", view.short_id(), proxy.app_port),
            within: proxy.health_timeout_s.map_or(TIMEOUT, Duration::from_secs),
        };
        let said = self.last_check(view.short_id(), since).await;
        if view.address.is_empty() {
            return said.map(|said| format!("its last health check: {said}"));
        }
        let heard = ask(&question).await;
        let mut text = sentence(&question, &heard, listeners(view.pid).as_deref());
        let followed = matches!(heard, Heard::Status { status: 300..=399, .. });
        if let Some(said) = said.filter(|_| followed || heard == Heard::NotReached) {
            text.push_str(&format!(" ({said})"));
        }
        Some(text)
    }

    /// kamal-proxy's last word on a target. Its log is also that of the requests, so only its end is read.
    async fn last_check(&self, short_id: &str, since: SystemTime) -> Option<String> {
        let query =
            LogQuery { lines: 2000, bytes: 256 * 1024, since: Some(since), timestamps: false };
        let lines = self.engine.logs(kamal::PROXY_CONTAINER, &query).await.ok()?;
        lines.iter().rev().find_map(|line| failed_check(line, short_id))
    }
}

/// The error of a line that tells of a failed check of this target.
fn failed_check(line: &str, short_id: &str) -> Option<String> {
    if !line.contains("Healthcheck failed") {
        return None;
    }
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if !line.get("url")?.as_str()?.contains(short_id) {
        return None;
    }
    Some(line.get("error")?.as_str()?.chars().take(200).collect())
}

async fn ask(question: &Question<'_>) -> Heard {
    let connect = TcpStream::connect((question.address, question.port));
    let mut stream = match tokio::time::timeout(CONNECT, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Heard::Refused;
        }
        Ok(Err(_)) | Err(_) => return Heard::NotReached,
    };
    let talk = async {
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kamal-proxy\r\nConnection: close\r\n\r\n",
            question.path, question.host
        );
        let mut answer = Vec::new();
        if stream.write_all(head.as_bytes()).await.is_ok() {
            let mut buffer = [0; 1024];
            while answer.len() < HEAD && !ends_head(&answer) {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => answer.extend_from_slice(&buffer[..n]),
                }
            }
        }
        answer
    };
    match tokio::time::timeout(question.within, talk).await {
        Err(_) => Heard::Silence,
        Ok(answer) => read_head(&answer),
    }
}

fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|w| w == b"\r\n\r\n")
}

fn read_head(bytes: &[u8]) -> Heard {
    if bytes.is_empty() {
        return Heard::Closed;
    }
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| {
        let (version, rest) = line.split_once(' ')?;
        version.starts_with("HTTP/").then(|| rest.get(..3)?.parse().ok()).flatten()
    });
    let Some(status) = status else { return Heard::NotHttp };
    let location = lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| printable(value.trim()))
    });
    Heard::Status { status, location }
}

/// From a stranger: bounded, and nothing that moves a cursor.
fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Where the container's processes listen; none where that cannot be read.
fn listeners(pid: Option<u32>) -> Option<Vec<(IpAddr, u16)>> {
    let pid = pid?;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).ok();
    let mut found = listening(&read("tcp")?);
    // A kernel without IPv6 has no such file.
    found.extend(listening(&read("tcp6").unwrap_or_default()));
    Some(found)
}

/// The rows of `/proc/net/tcp` and `tcp6` in state LISTEN (0A), Docker's own left out.
fn listening(table: &str) -> Vec<(IpAddr, u16)> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let state = words.nth(1)?;
        (state == "0A").then_some(())?;
        Some((address_of(address)?, u16::from_str_radix(port, 16).ok()?))
    });
    rows.filter(|(address, _)| *address != IpAddr::V4(DOCKER_DNS)).collect()
}

/// Words of 32 bits as the kernel has them in memory.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok();
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?.to_ne_bytes());
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

fn sentence(question: &Question<'_>, heard: &Heard, listeners: Option<&[(IpAddr, u16)]>) -> String {
    let Question { port, path, .. } = question;
    let within = question.within.as_secs();
    match heard {
        Heard::Refused => refused(*port, listeners),
        Heard::NotReached => format!("port {port} of the container cannot be reached"),
        Heard::Silence => {
            format!(
                "the app did not answer within {within} s when GET {path} was asked on port {port}"
            )
        }
        Heard::Closed => {
            format!("the app closes connections to port {port} without answering GET {path}")
        }
        Heard::NotHttp => format!(
            "what listens on port {port} does not speak plain HTTP (kamal-proxy does not speak HTTPS to apps)"
        ),
        Heard::Status { status: 200..=299, .. } => format!(
            "GET {path} on port {port} answers by now, but too late: give the app a longer deploy_timeout"
        ),
        Heard::Status { status: status @ 300..=399, location } => {
            let to = location.as_deref().unwrap_or("nowhere");
            format!(
                "GET {path} on port {port} is answered with a redirect (status {status}) to {to}, which does not lead \
                 to a healthy answer: let the app answer {path} itself"
            )
        }
        Heard::Status { status, .. } => {
            format!("GET {path} on port {port} is answered with status {status} instead of 200")
        }
    }
}

fn refused(port: u16, listeners: Option<&[(IpAddr, u16)]>) -> String {
    let nothing = format!("connection refused: nothing listens on port {port} of the container");
    let Some(listeners) = listeners else { return nothing };
    let local = listeners.iter().any(|(address, at)| *at == port && address.is_loopback());
    if local {
        return format!(
            "connection refused: the app listens on port {port} of its loopback address alone, where kamal-proxy \
             cannot reach it: let it listen on 0.0.0.0"
        );
    }
    let mut others: Vec<u16> = listeners.iter().map(|(_, at)| *at).collect();
    others.sort_unstable();
    others.dedup();
    match others.as_slice() {
        [] => format!("{nothing}; the app has opened no port at all yet"),
        [one] => format!("{nothing}; the app listens on port {one}: is proxy.app_port wrong?"),
        many => {
            let list: Vec<String> = many.iter().take(10).map(ToString::to_string).collect();
            format!(
                "{nothing}; the app listens on ports {}: is proxy.app_port wrong?",
                list.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tokio::net::TcpListener;

    use super::*;

    fn question(address: &str, port: u16) -> Question<'_> {
        let (path, host) = ("/up".to_owned(), format!("0123456789ab:{port}"));
        Question { address, port, path, host, within: Duration::from_secs(1) }
    }

    /// Answers one connection with these bytes; none: never.
    async fn heard(answer: Option<&'static [u8]>) -> Heard {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 512];
            let n = stream.read(&mut asked).await.unwrap();
            let asked = String::from_utf8_lossy(&asked[..n]).into_owned();
            assert!(asked.contains(&format!("Host: 0123456789ab:{port}\r\n")), "{asked}");
            match answer {
                Some(answer) => stream.write_all(answer).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        let heard = ask(&question("127.0.0.1", port)).await;
        server.abort();
        heard
    }

    #[tokio::test]
    async fn what_an_app_answers_is_told_apart() {
        let status = |status, location: Option<&str>| Heard::Status {
            status,
            location: location.map(str::to_owned),
        };
        assert_eq!(heard(Some(b"HTTP/1.1 500 Oops\r\n\r\n")).await, status(500, None));
        let moved = b"HTTP/1.0 301 Moved\r\nlocation: https://x/up\r\n\r\nbody";
        assert_eq!(heard(Some(moved)).await, status(301, Some("https://x/up")));
        assert_eq!(heard(Some(b"")).await, Heard::Closed);
        assert_eq!(heard(Some(b"\x15\x03\x01\x00\x02\x02\x16")).await, Heard::NotHttp);
        assert_eq!(heard(None).await, Heard::Silence);
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(ask(&question("127.0.0.1", free)).await, Heard::Refused);
    }

    #[test]
    fn listeners_are_read_from_the_kernels_tables() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: 00000000:0BB8 00000000:0000 0A 00000000:00000000\n\
             1: 0B00007F:9C4F 00000000:0000 0A 00000000:00000000\n\
             2: 0100007F:0050 00000000:0000 0A 00000000:00000000\n\
             3: 0100007F:0050 0100007F:D431 01 00000000:00000000\n";
        let found = listening(table);
        let text: Vec<String> = found.iter().map(|(a, p)| format!("{a}:{p}")).collect();
        assert_eq!(text, ["0.0.0.0:3000", "127.0.0.1:80"]);
        let six = "head\n 0: 00000000000000000000000001000000:1F90 0:0 0A 0\n";
        assert_eq!(listening(six), [("::1".parse().unwrap(), 8080)]);
    }

    #[test]
    fn each_cause_has_a_sentence_of_its_own() {
        let ask = question("172.18.0.2", 80);
        let any = |port| (IpAddr::from([0, 0, 0, 0]), port);
        let local = (IpAddr::from([127, 0, 0, 1]), 80);
        let location = Some("https://shop.example/up".to_owned());
        type Listeners = Option<Vec<(IpAddr, u16)>>;
        let causes: [(Heard, Listeners); 11] = [
            (Heard::Refused, None),
            (Heard::Refused, Some(vec![])),
            (Heard::Refused, Some(vec![any(3000)])),
            (Heard::Refused, Some(vec![any(9000), any(3000)])),
            (Heard::Refused, Some(vec![local])),
            (Heard::NotReached, None),
            (Heard::Silence, None),
            (Heard::Closed, None),
            (Heard::NotHttp, None),
            (Heard::Status { status: 301, location }, None),
            (Heard::Status { status: 403, location: None }, None),
        ];
        let told: Vec<String> =
            causes.iter().map(|(heard, at)| sentence(&ask, heard, at.as_deref())).collect();
        expect![[r#"
            connection refused: nothing listens on port 80 of the container
            connection refused: nothing listens on port 80 of the container; the app has opened no port at all yet
            connection refused: nothing listens on port 80 of the container; the app listens on port 3000: is proxy.app_port wrong?
            connection refused: nothing listens on port 80 of the container; the app listens on ports 3000, 9000: is proxy.app_port wrong?
            connection refused: the app listens on port 80 of its loopback address alone, where kamal-proxy cannot reach it: let it listen on 0.0.0.0
            port 80 of the container cannot be reached
            the app did not answer within 1 s when GET /up was asked on port 80
            the app closes connections to port 80 without answering GET /up
            what listens on port 80 does not speak plain HTTP (kamal-proxy does not speak HTTPS to apps)
            GET /up on port 80 is answered with a redirect (status 301) to https://shop.example/up, which does not lead to a healthy answer: let the app answer /up itself
            GET /up on port 80 is answered with status 403 instead of 200"#]]
        .assert_eq(&told.join("\n"));
    }

    #[test]
    fn the_proxys_own_word_is_found_in_its_log() {
        let line = r#"{"level":"INFO","msg":"Healthcheck failed","url":"http://0123456789ab:80/up","error":"unexpected status (500)"}"#;
        assert_eq!(failed_check(line, "0123456789ab").as_deref(), Some("unexpected status (500)"));
        assert_eq!(failed_check(line, "ba9876543210"), None);
        assert_eq!(failed_check("Healthcheck failed", "0123456789ab"), None);
    }
}
