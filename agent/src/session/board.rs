//! What every unit says now: written by the converge loops, read by the session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dhow_proto::model::Unit;
use dhow_proto::model::status::Status;
use tokio::sync::watch;

/// The newest status of each unit. Cheap to clone; all clones are one board.
#[derive(Clone, Debug)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    statuses: Mutex<BTreeMap<Unit, Arc<Status>>>,
    engine_reachable: AtomicBool,
    engine_breaks: AtomicU64,
    changes: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(Inner {
            statuses: Mutex::default(),
            engine_reachable: AtomicBool::new(false),
            engine_breaks: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }))
    }
}

impl Board {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the status of its unit.
    pub fn post(&self, status: Status) {
        self.lock().insert(status.unit.clone(), Arc::new(status));
        self.0.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The status of a unit, if it has said anything.
    pub fn get(&self, unit: &Unit) -> Option<Arc<Status>> {
        self.lock().get(unit).cloned()
    }

    /// All of them, sorted by unit.
    pub fn all(&self) -> Vec<Arc<Status>> {
        self.lock().values().cloned().collect()
    }

    /// Moves with every status.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether the Docker Engine answered last time.
    pub fn engine_reachable(&self) -> bool {
        self.0.engine_reachable.load(Ordering::Relaxed)
    }

    /// Notes whether the Docker Engine answers.
    pub fn set_engine_reachable(&self, reachable: bool) {
        self.0.engine_reachable.store(reachable, Ordering::Relaxed);
    }

    /// Grows whenever the connection to the Docker Engine was lost: whatever was under way then may have been cut short.
    pub fn engine_breaks(&self) -> u64 {
        self.0.engine_breaks.load(Ordering::Relaxed)
    }

    /// Notes that the connection to the Docker Engine was lost.
    pub fn note_engine_break(&self) {
        self.0.engine_breaks.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Unit, Arc<Status>>> {
        self.0.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
