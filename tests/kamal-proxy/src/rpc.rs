//! What the short-lived client and the server say to each other over the unix socket: one JSON
//! line each way. (The real proxy speaks Go's net/rpc; nobody but its own client can.)

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::options::{RolloutSplit, ServiceOptions, TargetOptions};
use crate::router::Router;

/// A command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Deploy(Box<Deploy>),
    Remove { service: String },
    Pause { service: String, drain_timeout: i64, max_pause: i64 },
    Stop { service: String, drain_timeout: i64, message: String },
    Resume { service: String },
    List,
    RolloutDeploy(RolloutDeploy),
    RolloutSet { service: String, split: RolloutSplit },
    RolloutStop { service: String },
}

/// `deploy`, with all its options.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deploy {
    pub(crate) service: String,
    pub(crate) targets: Vec<String>,
    pub(crate) readers: Vec<String>,
    pub(crate) options: ServiceOptions,
    pub(crate) target_options: TargetOptions,
    pub(crate) deploy_timeout: i64,
    pub(crate) drain_timeout: i64,
    pub(crate) force: bool,
}

/// `rollout deploy`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RolloutDeploy {
    pub(crate) service: String,
    pub(crate) targets: Vec<String>,
    pub(crate) readers: Vec<String>,
    pub(crate) deploy_timeout: i64,
    pub(crate) drain_timeout: i64,
}

/// Where the socket is: `$XDG_RUNTIME_DIR`, else `$TMPDIR`, else `/tmp`.
pub(crate) fn socket_path() -> PathBuf {
    let dir = ["XDG_RUNTIME_DIR", "TMPDIR"]
        .into_iter()
        .find_map(|name| std::env::var_os(name).filter(|dir| !dir.is_empty()));
    dir.map_or_else(|| "/tmp".into(), PathBuf::from).join("kamal-proxy.sock")
}

/// Sends a command and waits for its end, however long that takes.
pub(crate) fn call(request: &Request) -> Result<String, String> {
    let path = socket_path();
    let mut stream = UnixStream::connect(&path).map_err(|error| {
        format!("dial unix {}: connect: {}", path.display(), dial_error(&error))
    })?;
    let mut line = serde_json::to_string(request).map_err(|error| error.to_string())?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(|_| "unexpected EOF")?;
    let mut answer = String::new();
    let read = BufReader::new(stream).read_line(&mut answer);
    if read.is_err() || !answer.ends_with('\n') {
        return Err("unexpected EOF".to_owned());
    }
    serde_json::from_str::<Result<String, String>>(&answer).map_err(|error| error.to_string())?
}

fn dial_error(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Opens the socket; one that a killed server left behind is replaced.
pub(crate) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Serves clients for ever. Each command runs to its end whether or not its client still listens.
pub(crate) async fn serve(listener: UnixListener, router: Arc<Router>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let router = router.clone();
        tokio::spawn(async move {
            let (reader, mut writer) = stream.into_split();
            let mut line = String::new();
            if tokio::io::BufReader::new(reader).read_line(&mut line).await.is_err() {
                return;
            }
            let answer = match serde_json::from_str(&line) {
                Ok(request) => router.carry_out(request).await,
                Err(error) => Err(error.to_string()),
            };
            if let Ok(mut line) = serde_json::to_vec(&answer) {
                line.push(b'\n');
                // The client may be gone; the command is done all the same.
                let _ = writer.write_all(&line).await;
            }
        });
    }
}
