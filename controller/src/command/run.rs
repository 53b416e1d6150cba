//! `dhow-controller run`: serves until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Common;
use crate::clock::SystemClock;
use crate::server;
use crate::services::services;
use crate::settings::{LogFormat, Settings};
use crate::transport::raise_open_files;

/// The flags of `run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    common: Common,
    /// Address and port for agents and people; 0.0.0.0:7443 by default [env: DHOW_LISTEN]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl Run {
    /// Serves until SIGTERM or SIGINT.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let settings = self.common.settings(self.listen, None)?;
        start_log(&settings)?;
        // Before anything else, so that a signal during the start is not lost.
        let mut terminate = signal(SignalKind::terminate()).context("could not watch signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("could not watch signals")?;
        if let Some(files) = raise_open_files() {
            tracing::info!(files, "limit of open files; each agent needs one");
        }
        let running = server::start(settings, Arc::new(SystemClock::new()), services).await?;
        tracing::info!(address = %running.address, "serving");
        notify(sd_notify::NotifyState::Ready);
        let stop = async {
            tokio::select! {
                // Cancel-safe: either signal means the same.
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            notify(sd_notify::NotifyState::Stopping);
        };
        running.until(stop).await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Does nothing when systemd did not start us.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "could not tell systemd");
    }
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log)
        .with_context(|| format!("{:?} is no log filter", settings.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would report a closed stderr by printing to it, and that panics.
        .log_internal_errors(false);
    let started = match settings.log_format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("could not start the log: {error}"))
}
