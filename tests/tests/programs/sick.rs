//! A Docker Engine that says it is there and does nothing else: what is asked of it beyond that gets no answer.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Longest wait for a request on a connection: nobody else is served meanwhile.
const READ: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub(crate) struct SickEngine {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SickEngine {
    /// Listens on a socket.
    pub(crate) fn start(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket).context("the socket of an Engine")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever hangs up early has its answer.
                let _ = stream.and_then(answer);
            }
        });
        Ok(Self { socket: socket.to_owned(), stop, thread: Some(thread) })
    }
}

impl Drop for SickEngine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // It looks up where somebody comes.
        if UnixStream::connect(&self.socket).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(READ))?;
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            read => request.extend(&bytes[..read]),
        }
    }
    let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
    let (kind, body) = if line.contains("/_ping ") {
        ("text/plain", "OK")
    } else if line.contains("/version ") {
        ("application/json", r#"{"Version":"20.10.0","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#)
    } else {
        return Ok(());
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())
}
