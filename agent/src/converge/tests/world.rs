//! An agent without a controller, on a model Engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dhow_proto::model::intent::Intent;
use dhow_proto::model::status::{Phase, Status};
use dhow_proto::model::{BlobDigest, BlobRef, Document as _, Unit};
use dhow_proto::seal::HostKey;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::converge::{self, Rooms};
use crate::engine::fake::FakeEngine;
use crate::execute::tests::world::{Role, World, folder};
use crate::ledger::{Disk, Events, Ledger};
use crate::notify::Watchdog;
use crate::session::{BlobSource, Board, FetchError, NotFetched};
use crate::testing::PATIENCE;

/// Blobs that a controller would give.
#[derive(Clone)]
struct Source {
    blobs: Arc<Mutex<BTreeMap<BlobDigest, Bytes>>>,
    online: watch::Sender<bool>,
}

impl BlobSource for Source {
    fn fetch(&self, blobs: Vec<BlobRef>) -> BoxFuture<'_, Result<Vec<Bytes>, NotFetched>> {
        let known = self.blobs.lock().unwrap();
        let found = blobs.iter().map(|blob| {
            let not = || NotFetched { blob: blob.digest, error: FetchError::Offline };
            known.get(&blob.digest).cloned().ok_or_else(not)
        });
        let found = found.collect();
        Box::pin(std::future::ready(found))
    }

    fn kept(&self, blobs: &[BlobRef]) -> Option<Vec<Bytes>> {
        let known = self.blobs.lock().unwrap();
        blobs.iter().map(|blob| known.get(&blob.digest).cloned()).collect()
    }

    fn online(&self) -> watch::Receiver<bool> {
        self.online.subscribe()
    }
}

struct EngineClock(FakeEngine);

impl Clock for EngineClock {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}

/// The agent's loops; they end when it is stopped or dropped.
pub(super) struct Agent {
    pub(super) world: Arc<World>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) events: Arc<Events>,
    pub(super) board: Board,
    pub(super) host_key: Arc<HostKey>,
    source: Source,
    dir: Arc<tempfile::TempDir>,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Agent {
    /// On a host with a proxy and the images v1 to v3.
    pub(super) async fn start() -> Self {
        let world = Arc::new(World::ready().await);
        let source = Source { blobs: Arc::default(), online: watch::Sender::new(true) };
        let dir = Arc::new(folder());
        Self::on(world, source, dir, Arc::new(HostKey::generate().unwrap()))
    }

    fn on(
        world: Arc<World>,
        source: Source,
        dir: Arc<tempfile::TempDir>,
        host_key: Arc<HostKey>,
    ) -> Self {
        let io = Arc::new(Disk);
        let path = |part: &str| dir.path().join(part);
        let clock = Arc::new(EngineClock(world.engine.clone()));
        let ledger = Arc::new(Ledger::open(&path("ledger"), io.clone()).unwrap());
        let events = Arc::new(Events::open(&path("events"), io, clock.now()).unwrap());
        let board = Board::new();
        let rooms = Rooms {
            ledger: ledger.clone(),
            events: events.clone(),
            board: board.clone(),
            worker: world.worker.clone(),
            source: Arc::new(source.clone()),
            host: "h1".parse().unwrap(),
            host_key: host_key.clone(),
            clock,
        };
        let shutdown = CancellationToken::new();
        let task = Some(tokio::spawn(converge::run(rooms, Watchdog::none(), shutdown.clone())));
        Self { world, ledger, events, board, host_key, source, dir, shutdown, task }
    }

    /// Stops the loops and starts new ones on the same disk and Engine.
    pub(super) async fn restart(mut self) -> Self {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task.take().unwrap()).await;
        ended.expect("the loops did not end").unwrap();
        Self::on(self.world.clone(), self.source.clone(), self.dir.clone(), self.host_key.clone())
    }

    /// A first agent on this host.
    pub(super) fn at(world: World) -> Self {
        let source = Source { blobs: Arc::default(), online: watch::Sender::new(true) };
        let host_key = Arc::new(HostKey::generate().unwrap());
        Self::on(Arc::new(world), source, Arc::new(folder()), host_key)
    }

    /// Ends the loops wherever they are, as `kill -9` does, and starts new ones on the same disk.
    pub(super) async fn killed(mut self, world: World) -> Self {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
        let (source, dir) = (self.source.clone(), self.dir.clone());
        Self::on(Arc::new(world), source, dir, self.host_key.clone())
    }

    pub(super) fn give_blob(&self, bytes: Vec<u8>) -> BlobRef {
        let blob = BlobRef::of(&bytes);
        self.source.blobs.lock().unwrap().insert(blob.digest, bytes.into());
        blob
    }

    /// Connects to a controller that gives what it has, or cuts the connection.
    pub(super) fn connected(&self, yes: bool) {
        self.source.online.send_replace(yes);
    }

    pub(super) fn offer(&self, intent: &Intent) {
        self.ledger.accept(&intent.to_bytes()).unwrap();
    }

    /// Gives the role's template and offers its intent.
    pub(super) fn offer_role(&self, role: &Role) -> Intent {
        self.give_blob(role.template.to_bytes());
        let intent = role.wanted().intent;
        self.offer(&intent);
        intent
    }

    /// The unit's first status that is as asked for.
    pub(super) async fn status(&self, unit: &Unit, is: impl Fn(&Status) -> bool) -> Arc<Status> {
        let mut changes = self.board.changes();
        let wait = async {
            loop {
                if let Some(status) = self.board.get(unit).filter(|s| is(s)) {
                    return status;
                }
                changes.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(1200), wait).await;
        found.unwrap_or_else(|_| panic!("it never came to be; now: {:?}", self.board.get(unit)))
    }

    pub(super) async fn settled(&self, unit: &Unit, number: u64) -> Arc<Status> {
        self.status(unit, |s| s.generation.number == number && s.phase == Phase::Settled).await
    }

    /// Waits for a condition that no status tells of, for at most ten minutes of the model's time.
    pub(super) async fn until(&self, what: &str, is: impl Fn() -> bool) {
        for _ in 0..600 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("not within ten minutes: {what}; {:?}", self.world.containers());
    }

    pub(super) fn calls(&self, name: &str) -> usize {
        self.world.engine.calls().iter().filter(|c| *c == name).count()
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.events.after(0).into_iter().map(|e| e.text).collect()
    }
}

/// `v1` of the role web as the generation `number`.
pub(super) fn web(version: &str, number: u64) -> Role {
    Role { number, ..Role::web(version) }
}
