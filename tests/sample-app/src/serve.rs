//! Accepts connections until SIGTERM, then finishes what is in flight.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::control::Control;
use crate::routes;
use crate::settings::Settings;

/// What every connection shares. `stopping` turns true at SIGTERM.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) control: Arc<Control>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Serves until SIGTERM (or SIGINT), then lets requests in flight end; there is no limit to that,
/// because whoever stops the app has one.
pub(crate) async fn serve(settings: Settings) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let (stop, stopping) = watch::channel(false);
    let control = Arc::new(Control::new(&settings));
    // Signals count from now on, so a delayed start can be stopped too.
    tokio::select! {
        () = tokio::time::sleep(settings.start_delay) => {}
        _ = terminated.recv(), if !settings.ignore_sigterm => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    }
    let address = (Ipv4Addr::UNSPECIFIED, settings.port);
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listen on {address:?}"))?;
    println!("sample-app {} listens on port {}", settings.version, listener.local_addr()?.port());
    let app = Arc::new(App { settings, control, stopping });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(app.clone(), stream));
                }
                // Out of file descriptors: the next accept may succeed.
                Err(error) => println!("sample-app cannot accept: {error}"),
            },
            // Reaps what ended, so that the set does not grow.
            Some(_) = connections.join_next() => {}
            _ = terminated.recv() => {
                if !app.settings.ignore_sigterm { break; }
                println!("sample-app {} ignores SIGTERM", app.settings.version);
            }
            _ = interrupted.recv() => break,
        }
    }
    println!("sample-app {} stops", app.settings.version);
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
    tokio::time::sleep(app.settings.stop_delay).await;
    println!("sample-app {} stopped", app.settings.version);
    Ok(())
}

/// Ends at SIGTERM. Cancel-safe.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn connection(app: Arc<App>, stream: TcpStream) {
    // Small answers should not wait for the peer's acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut stopping = app.stopping.clone();
    let service = service_fn(|request| routes::answer(app.clone(), request));
    let serving =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = stopped(&mut stopping) => serving.as_mut().graceful_shutdown(),
    }
    // A broken connection is the peer's business.
    let _ = serving.await;
}
