//! `dhow-agent run`: converges this host until told to stop.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use dhow_proto::breakpoint::Breakpoints;
use rustix::fs::FlockOperation;
use sd_notify::NotifyState;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;

use super::Common;
use crate::answers::Answers;
use crate::clock::{Clock as _, SystemClock};
use crate::converge;
use crate::engine::Engine;
use crate::engine::docker::Docker;
use crate::execute::{Place, Worker, WorkerSettings};
use crate::host::Homes;
use crate::ledger::{Blobs, Disk, Events, Ledger, collect_blobs};
use crate::notify::{Watchdog, tell};
use crate::session::{Board, Connector, Fetcher, IdentityError, Rooms, SessionSettings, Stored};
use crate::settings::{Layer, Settings};
use crate::supervise::Supervisor;

/// Options of run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Address of the Docker Engine; Docker's own socket by default [env: DHOW_DOCKER_HOST]
    #[arg(long, value_name = "unix:///PATH")]
    docker_host: Option<String>,
    /// Base of the apps' paths where a config names no ssh.user; /root by default [env: DHOW_AGENT_HOME]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let flags = Layer { docker_host: args.docker_host, home: args.home, ..Layer::default() };
    let settings = args.common.settings(flags)?;
    start_log(&settings)?;
    // Before anything else, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("could not watch signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not watch signals")?;
    let shutdown = CancellationToken::new();
    let _alone = alone(&settings.state_dir)?;
    let supervisor = start(&settings, &shutdown)?;
    tell(NotifyState::Ready);
    let stop = shutdown.clone();
    let signals = async move {
        tokio::select! {
            // Cancel-safe: either signal means the same.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        tell(NotifyState::Stopping);
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = supervisor.run() => ended?,
        () = signals => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Opens everything and starts the tasks.
fn start(settings: &Settings, shutdown: &CancellationToken) -> anyhow::Result<Supervisor> {
    let state = &settings.state_dir;
    let stored = Stored::load(state)?;
    let io: Arc<Disk> = Arc::new(Disk);
    let clock = Arc::new(SystemClock);
    let ledger =
        Ledger::open(&state.join("ledger"), io.clone()).context("could not open the ledger")?;
    let ledger = Arc::new(ledger);
    let blobs =
        Blobs::open(&state.join("blobs"), io.clone()).context("could not open the blobs")?;
    let blobs = Arc::new(blobs);
    let events = Events::open(&state.join("events"), io, clock.now())
        .context("could not open the events")?;
    let events = Arc::new(events);
    let engine: Arc<dyn Engine> = Arc::new(Docker::connect(settings.docker_host.as_deref())?);
    let worker_settings = WorkerSettings {
        homes: Homes { base: settings.home.clone(), passwd: PathBuf::from("/etc/passwd") },
        memory: state.join("memory"),
        breakpoints: Breakpoints::at(settings.breakpoints.clone()),
        place: Place::BlockingThread,
    };
    let now = clock.clone();
    let worker = Worker::new(engine.clone(), worker_settings, Arc::new(move || now.now()));
    let board = Board::new();
    let fetcher = Fetcher::new(blobs.clone());
    let loops = converge::Rooms {
        ledger: ledger.clone(),
        events: events.clone(),
        board: board.clone(),
        worker: Arc::new(worker),
        source: Arc::new(fetcher.clone()),
        host: stored.host.clone(),
        host_key: stored.host_key.clone(),
        clock: clock.clone(),
    };
    let session = SessionSettings {
        state_dir: state.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        binary_digest: binary_digest(),
        boot_id: boot_id(Path::new("/proc/sys/kernel/random/boot_id")),
        outside: Arc::new(dhow_proto::dial::Machine),
    };
    let rooms = Rooms { ledger: ledger.clone(), events, board, clock };
    tracing::info!(host.name = %stored.host, home = %settings.home.display(), "agent starts");
    let connector =
        Connector::new(rooms, session, stored, Arc::new(Answers::new(engine)), fetcher)?;
    let mut supervisor = Supervisor::new(shutdown.clone());
    let watchdog = Watchdog::of_the_service();
    supervisor.start("converge", |shutdown| converge::run(loops, watchdog, shutdown));
    supervisor.start("blobs", |shutdown| collect_blobs(ledger, blobs, shutdown));
    supervisor.start("session", |shutdown| connector.run(shutdown));
    Ok(supervisor)
}

/// SHA-256 of this program; empty where it cannot be read.
fn binary_digest() -> Vec<u8> {
    // Piece by piece: memory that was once needed stays with the process.
    let digest = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(std::env::current_exe()?)?;
        let (mut digest, mut piece) = (Sha256::new(), vec![0; 16 * 1024]);
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(digest.finalize().to_vec()),
                n => digest.update(&piece[..n]),
            }
        }
    };
    digest().unwrap_or_default()
}

fn boot_id(path: &Path) -> String {
    std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// Crates that print what they send, which may hold secrets, at their lower levels: silent whatever is asked for.
const SILENT: [&str; 5] = ["bollard", "h2", "hyper", "hyper_util", "tonic"];

fn is_silent(target: &str) -> bool {
    SILENT.contains(&target.split("::").next().unwrap_or(target))
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    // Not an `EnvFilter`: its regular expressions would be a tenth of what an idle agent keeps in memory.
    let filter: Targets =
        settings.log.parse().with_context(|| format!("{:?} is no log filter", settings.log))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // It would report a closed stderr by printing to it, and that panics.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry()
        .with(filter_fn(|metadata| !is_silent(metadata.target())))
        .with(filter)
        .with(lines);
    // Not `init`: that takes up the records of the `log` crate too, and bollard writes bodies there.
    tracing::subscriber::set_global_default(subscriber).context("could not start the log")
}

/// Held while the agent runs: two of them on one ledger would undo each other.
fn alone(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join("lock");
    let file = match File::options().create(true).truncate(false).write(true).open(&path) {
        Ok(file) => file,
        // Without the folder nobody ever joined here.
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(IdentityError::NotJoined),
        Err(error) => return Err(error).context(format!("could not open {}", path.display())),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => bail!("another dhow-agent works with {}", state_dir.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_requests_is_silent() {
        for target in ["bollard::docker", "hyper_util::client", "h2::codec", "hyper"] {
            assert!(is_silent(target), "{target}");
        }
        assert!(!is_silent("dhow_agent::converge"));
    }

    #[test]
    fn a_second_agent_on_one_state_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = alone(dir.path()).unwrap();
        assert!(alone(dir.path()).unwrap_err().to_string().contains("another dhow-agent"));
        drop(first);
        alone(dir.path()).unwrap();
    }
}
