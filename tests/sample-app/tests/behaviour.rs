//! The app as a process: what tests of deployments rely on.

#![expect(
    clippy::unwrap_used,
    reason = "a test may end with a panic, and its helpers are part of it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An app that listens; killed when dropped.
struct App {
    child: Child,
    port: u16,
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sample-app"));
    command
        .env("APP_PORT", "0")
        .env("APP_VERSION", "v7")
        .envs(env.iter().copied())
        .stdout(Stdio::piped());
    command
}

fn start(env: &[(&str, &str)]) -> App {
    let mut child = command(env).spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("listens on port") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the app ended");
    }
    let port = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
    // Read on, so that the app never waits for its log to be read.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    App { child, port }
}

impl App {
    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        BufReader::new(stream)
    }

    fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn terminate(&self) {
        let told =
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_answer_says_the_version_and_no_answer_shows_a_value_of_the_environment() {
    let app = start(&[("SECRET", "hunter2")]);
    for path in ["/", "/up", "/env", "/env/SECRET", "/headers", "/status/404", "/nowhere"] {
        let answer = app.get(path);
        assert!(answer.contains("x-version: v7"), "{path}: {answer}");
        assert!(!answer.contains("hunter2"), "{path}: {answer}");
    }
    assert!(app.get("/env").contains("\nSECRET\n"));
    let digest = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
    assert!(app.get("/env/SECRET").ends_with(&format!("{digest}\n")));
    assert!(app.get("/env/NONE").starts_with("HTTP/1.1 404"));
}

#[test]
fn health_can_be_set_by_the_environment_and_changed_while_it_runs() {
    let app = start(&[("APP_UP_STATUS", "500")]);
    assert!(app.get("/up").starts_with("HTTP/1.1 500"));
    app.get("/control/up?status=302&location=/x");
    let answer = app.get("/up");
    assert!(answer.starts_with("HTTP/1.1 302") && answer.contains("location: /x"), "{answer}");
    app.get("/control/up?status=200&location=&healthy_in_ms=100");
    assert!(app.get("/up").starts_with("HTTP/1.1 503"));
    until("it is healthy", || app.get("/up").starts_with("HTTP/1.1 200"));
    assert!(app.get("/control/checks").contains("\"status\":500"));
}

#[test]
fn sigterm_lets_a_request_in_flight_finish() {
    let mut app = start(&[]);
    let mut slow = app.connect();
    slow.get_mut().write_all(b"GET /slow?ms=700 HTTP/1.1\r\nHost: app\r\n\r\n").unwrap();
    until("the request is in", || app.get("/control/requests").contains("\"open\":1"));
    app.terminate();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("v7\n"), "{answer}");
    assert_eq!(app.child.wait().unwrap().code(), Some(0));
}

#[test]
fn it_can_ignore_sigterm() {
    let mut app = start(&[("APP_IGNORE_SIGTERM", "true")]);
    app.terminate();
    // Long enough for the signal to have come.
    app.get("/slow?ms=300");
    assert!(app.get("/").ends_with("v7\n"));
    assert!(app.child.try_wait().unwrap().is_none());
}

#[test]
fn it_can_crash_at_start_and_later() {
    let at_start = command(&[("APP_CRASH_AFTER_MS", "0")]).output().unwrap();
    assert_eq!(at_start.status.code(), Some(1));
    let mut later = start(&[("APP_CRASH_AFTER_MS", "300"), ("APP_CRASH_STATUS", "3")]);
    assert_eq!(later.child.wait().unwrap().code(), Some(3));
    let mut asked = start(&[]);
    let mut stream = asked.connect();
    stream
        .get_mut()
        .write_all(b"GET /control/crash?status=4 HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    assert_eq!(asked.child.wait().unwrap().code(), Some(4));
}

#[test]
fn a_job_writes_heartbeats_and_ends_at_sigterm() {
    let mut child = command(&[("APP_MODE", "job"), ("APP_HEARTBEAT_MS", "20")]).spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().ends_with("heartbeat 3")));
    assert!(
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success()
    );
    log.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn kept_connections_side_by_side_get_every_answer() {
    const CONNECTIONS: usize = 8;
    const REQUESTS: usize = 500;
    let app = start(&[]);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut stream = app.connect();
                for _ in 0..REQUESTS {
                    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").unwrap();
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
                    while line != "v7\n" {
                        line.clear();
                        assert_ne!(stream.read_line(&mut line).unwrap(), 0);
                    }
                }
            });
        }
    });
    let rate = (CONNECTIONS * REQUESTS) as f64 / started.elapsed().as_secs_f64();
    // Printed, not judged: the machine may be busy.
    println!("{rate:.0} requests a second");
    assert!(
        app.get("/control/requests").contains(&format!("\"total\":{}", CONNECTIONS * REQUESTS))
    );
}

/// Reads from a connection until `end` has come.
fn read_until(stream: &mut BufReader<TcpStream>, end: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(end) {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "ended before {end:?}: {seen}");
        seen += &line;
    }
    seen
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn it_can_start_late_be_healthy_late_and_answer_up_slowly_or_with_a_redirect() {
    let began = Instant::now();
    let late = start(&[("APP_START_DELAY_MS", "700"), ("APP_HEALTHY_AFTER_MS", "1500")]);
    assert!(began.elapsed() >= Duration::from_millis(700), "listened after {:?}", began.elapsed());
    assert!(late.get("/").ends_with("v7\n"), "it serves before it is healthy");
    until("it is healthy", || late.get("/up").starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() >= Duration::from_millis(1500), "healthy after {:?}", began.elapsed());
    let slow = start(&[("APP_UP_DELAY_MS", "400")]);
    let asked = Instant::now();
    assert!(slow.get("/up").starts_with("HTTP/1.1 200"));
    assert!(asked.elapsed() >= Duration::from_millis(400));
    let moved = start(&[("APP_UP_STATUS", "302"), ("APP_UP_LOCATION", "/")]).get("/up");
    assert!(moved.starts_with("HTTP/1.1 302") && moved.contains("location: /\r\n"), "{moved}");
}

#[test]
fn it_can_take_its_time_to_stop() {
    let mut app = start(&[("APP_STOP_DELAY_MS", "600")]);
    let told = Instant::now();
    app.terminate();
    assert_eq!(app.child.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() >= Duration::from_millis(600), "stopped after {:?}", told.elapsed());
}

#[test]
fn it_can_flood_its_log_and_write_a_line_a_request() {
    let mut child = command(&[
        ("APP_LOG_LINES_PER_S", "500"),
        ("APP_LOG_LINE_BYTES", "120"),
        ("APP_LOG_REQUESTS", "true"),
    ])
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let port: u16 = lines
        .find_map(|line| Some(line.split_once("listens on port ")?.1.parse().unwrap()))
        .unwrap();
    let app = App { child, port };
    let mut flood = lines.by_ref().filter(|line| line.starts_with("flood ")).take(300);
    assert!(flood.all(|line| line.len() == 120));
    app.get("/slow?ms=1");
    assert!(lines.any(|line| line == "GET /slow?ms=1 200"));
}

#[test]
fn bodies_come_back_whole_or_as_length_and_digest() {
    let app = start(&[]);
    let post = |path: &str| {
        let mut stream = app.connect();
        let head = "Host: app\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        stream.get_mut().write_all(format!("POST {path} HTTP/1.1\r\n{head}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let echo = post("/echo");
    assert!(echo.contains("x-body-length: 5") && body(&echo) == "hello", "{echo}");
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(body(&post("/upload")), format!("5 {digest}\n"));
    assert_eq!(body(&app.get("/download?bytes=70000")).len(), 70_000);
    assert!(app.get("/download?bytes=10&chunked=1").contains("transfer-encoding: chunked"));
    assert_eq!(app.get("/disconnect"), "");
    let path = app.get("/a/b?c=d");
    assert!(path.contains("x-path: /a/b?c=d"), "{path}");
}

#[test]
fn events_and_sockets_stay_open_until_sigterm() {
    let mut app = start(&[]);
    let mut events = app.connect();
    events.get_mut().write_all(b"GET /events?every_ms=10 HTTP/1.1\r\nHost: app\r\n\r\n").unwrap();
    let seen = read_until(&mut events, "id: 3\n");
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    let mut socket = app.connect();
    let handshake = "GET /socket HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.get_mut().write_all(handshake.as_bytes()).unwrap();
    let head = read_until(&mut socket, "\r\n\r\n");
    // The example of RFC 6455, 1.3.
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // A text of three bytes, masked with zeros; it comes back without a mask.
    socket.get_mut().write_all(b"\x81\x83\0\0\0\0abc").unwrap();
    let mut frame = [0; 5];
    socket.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x03abc");
    app.terminate();
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).unwrap();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(app.child.wait().unwrap().code(), Some(0));
}

#[test]
fn assets_are_files_of_a_directory_and_nothing_above_it() {
    let dir = std::env::temp_dir().join(format!("sample-app-assets-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("css")).unwrap();
    std::fs::write(dir.join("app-v7.js"), "seven").unwrap();
    std::fs::write(dir.join("css/a.css"), "a").unwrap();
    let app = start(&[("APP_ASSETS_DIR", dir.to_str().unwrap())]);
    assert_eq!(body(&app.get("/assets/app-v7.js")), "seven");
    assert_eq!(body(&app.get("/assets/css/a.css")), "a");
    for missing in ["/assets/app-v8.js", "/assets/../../etc/passwd", "/assets/"] {
        assert!(app.get(missing).starts_with("HTTP/1.1 404"), "{missing}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
