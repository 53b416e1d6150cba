//! `kamal-proxy run`: start order, listeners, stop order.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::front::{self, Inbound, Scheme};
use crate::log;
use crate::router::Router;
use crate::rpc;
use crate::tls;

/// How long requests may finish after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A handshake that takes longer is not a client's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Ports to listen on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) https: u16,
}

/// Serves until SIGTERM or SIGINT. The order matters: clients may take an existing socket for a
/// proxy that listens, and one that listens for a proxy that knows its services.
pub(crate) async fn run(ports: Ports) -> Result<(), String> {
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let router = Router::restore(data_dir().join("kamal-proxy.state"));
    let tls = tls::server_config(&router).map_err(|error| error.to_string())?;
    let connections = Connections {
        router: router.clone(),
        stop: CancellationToken::new(),
        open: TaskTracker::new(),
    };
    let http = listen(ports.http).await?;
    let https = listen(ports.https).await?;
    let accepting = [
        tokio::spawn(accept(http, ports.http, None, connections.clone())),
        tokio::spawn(accept(https, ports.https, Some(tls), connections.clone())),
    ];
    let socket = rpc::socket_path();
    let clients = rpc::listen(&socket)
        .map_err(|error| format!("listen unix {}: {error}", socket.display()))?;
    let commands = tokio::spawn(rpc::serve(clients, router));
    log::info("Server started", json!({"http": ports.http, "https": ports.https}));
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    // Socket and listeners first: nobody may come in any more.
    let _ = std::fs::remove_file(&socket);
    commands.abort();
    connections.stop.cancel();
    for accepting in accepting {
        let _ = accepting.await;
    }
    connections.open.close();
    let _ = tokio::time::timeout(STOP_TIMEOUT, connections.open.wait()).await;
    log::info("Server stopped", json!({}));
    Ok(())
}

/// Where state and certificates lie; created if missing, by any command.
pub(crate) fn data_dir() -> PathBuf {
    use std::os::unix::fs::DirBuilderExt as _;
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let dir = home.map_or_else(std::env::temp_dir, PathBuf::from).join(".config/kamal-proxy");
    // Without it nothing survives a restart, and nothing else is wrong: as in the real proxy.
    let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    dir
}

/// Listens on all addresses, of both families where the machine has both.
async fn listen(port: u16) -> Result<TcpListener, String> {
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await;
    let bound = match both {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        other => other,
    };
    bound.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => format!("listen tcp :{port}: bind: address already in use"),
        ErrorKind::PermissionDenied => format!("listen tcp :{port}: bind: permission denied"),
        _ => format!("listen tcp :{port}: {error}"),
    })
}

/// What all connections share.
#[derive(Clone)]
struct Connections {
    router: Arc<Router>,
    stop: CancellationToken,
    open: TaskTracker,
}

async fn accept(
    listener: TcpListener,
    port: u16,
    tls: Option<Arc<ServerConfig>>,
    connections: Connections,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.stop.cancelled() => return,
        };
        let Ok((stream, client)) = accepted else {
            // Out of file descriptors: let some connection end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let (tls, connections) = (tls.clone(), connections.clone());
        connections.open.clone().spawn(connection(
            stream,
            Inbound { scheme: Scheme::Http, port, client },
            tls,
            connections,
        ));
    }
}

async fn connection(
    stream: TcpStream,
    inbound: Inbound,
    tls: Option<Arc<ServerConfig>>,
    connections: Connections,
) {
    // Small answers should not wait for the peer's acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return serve(stream, inbound, connections).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream));
    match handshake.await {
        Ok(Ok(stream)) => {
            serve(stream, Inbound { scheme: Scheme::Https, ..inbound }, connections).await
        }
        Ok(Err(error)) => log_handshake(&error, inbound),
        Err(_) => log_handshake(&io::Error::from(ErrorKind::TimedOut), inbound),
    }
}

fn log_handshake(error: &io::Error, inbound: Inbound) {
    let fields = json!({"remote_addr": inbound.client.to_string(), "error": error.to_string()});
    log::write(log::Level::Debug, "TLS handshake failed", fields);
}

async fn serve<S>(stream: S, inbound: Inbound, connections: Connections)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = connections.router;
    let service = service_fn(move |request| front::answer(router.clone(), inbound, request));
    let serving = http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = connections.stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    // A broken connection is the client's business.
    let _ = serving.await;
}
