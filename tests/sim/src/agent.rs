//! An agent process: session, ledger and converge loops of the real one, on a model Engine and a model disk.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use dhow_agent::answers::Answers;
use dhow_agent::clock::Clock as _;
use dhow_agent::converge;
use dhow_agent::engine::Engine;
use dhow_agent::execute::{Place, Worker, WorkerSettings};
use dhow_agent::host::Homes;
use dhow_agent::ledger::{Blobs, Events, Ledger};
use dhow_agent::notify::Watchdog;
use dhow_agent::session::{Board, Connector, Fetcher, Rooms, SessionSettings};
use dhow_agent::supervise::Supervisor;
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// Where the ledger is on the model disk.
pub(crate) const LEDGER: &str = "/ledger";

/// Runs until it is killed.
pub(crate) async fn run(world: Arc<World>, index: usize) -> anyhow::Result<()> {
    let host = &world.hosts[index];
    let (stored, clock) = (host.stored.clone(), Arc::new(host.clock.clone()));
    let io = Arc::new(host.disk.clone());
    let ledger =
        Ledger::open(Path::new(LEDGER), io.clone()).context("could not open the ledger")?;
    let ledger = Arc::new(ledger);
    let blobs = Arc::new(Blobs::open(Path::new("/blobs"), io.clone())?);
    let events = Arc::new(Events::open(Path::new("/events"), io, clock.now())?);
    let engine: Arc<dyn Engine> = Arc::new(host.engine.clone());
    let settings = WorkerSettings {
        homes: Homes { base: host.dir.join("home"), passwd: host.dir.join("passwd") },
        memory: host.dir.join("memory"),
        breakpoints: world.breakpoints(),
        place: Place::Caller,
    };
    let now = Arc::clone(&clock);
    let worker = Worker::new(Arc::clone(&engine), settings, Arc::new(move || now.now()));
    let board = Board::new();
    let fetcher = Fetcher::new(blobs);
    let loops = converge::Rooms {
        ledger: Arc::clone(&ledger),
        events: Arc::clone(&events),
        board: board.clone(),
        worker: Arc::new(worker),
        source: Arc::new(fetcher.clone()),
        host: stored.host.clone(),
        host_key: Arc::clone(&stored.host_key),
        clock: clock.clone(),
    };
    let session = SessionSettings {
        state_dir: host.dir.clone(),
        agent_version: "0.1.0".to_owned(),
        binary_digest: Vec::new(),
        boot_id: String::new(),
        outside: clock.clone(),
    };
    let rooms = Rooms { ledger, events, board, clock };
    let answers = Arc::new(Answers::new(engine));
    let connector = Connector::new(rooms, session, stored, answers, fetcher)?;
    let mut supervisor = Supervisor::new(CancellationToken::new());
    supervisor.start("converge", |shutdown| converge::run(loops, Watchdog::none(), shutdown));
    supervisor.start("session", |shutdown| connector.run(shutdown));
    supervisor.run().await.context("the agent ended")
}
