//! Following a prefix: what a watcher holds, and what an implementation keeps of its watchers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::kv::{Event, Key, Revision, StoreError};

/// How many unread batches a watcher may leave before it counts as too slow.
///
/// A stage of a rollout on 1,000 hosts is eight transactions; 256 lets a watcher miss a few
/// seconds of a busy store without a re-read.
pub const WATCH_DEPTH: usize = 256;

/// All changes of one revision under a watched prefix, in the order they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The revision all of them have.
    pub revision: Revision,
    /// The changes; never empty.
    pub events: Vec<Event>,
}

/// The changes under a prefix, in the order of their revisions, none missing.
#[derive(Debug)]
pub struct Watch {
    history: VecDeque<WatchBatch>,
    live: mpsc::Receiver<WatchBatch>,
    lagged: Arc<AtomicBool>,
}

impl Watch {
    /// Waits for the next batch. Cancel-safe: a batch not returned is returned next time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Lagged`] when this watcher was too slow, [`StoreError::Closed`] when the
    /// store shut down; both are final.
    pub async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        if let Some(batch) = self.history.pop_front() {
            return Ok(batch);
        }
        match self.live.recv().await {
            Some(batch) => Ok(batch),
            None if self.lagged.load(Ordering::Acquire) => Err(StoreError::Lagged),
            None => Err(StoreError::Closed),
        }
    }
}

/// The watchers of one store, kept by the one who orders its writes.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    list: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    prefix: Key,
    from: Revision,
    live: mpsc::Sender<WatchBatch>,
    lagged: Arc<AtomicBool>,
}

impl Watchers {
    /// Adds a watcher that first gets `history`: all events since `from` under `prefix`.
    pub(super) fn add(&mut self, prefix: Key, from: Revision, history: Vec<WatchBatch>) -> Watch {
        let (sender, live) = mpsc::channel(WATCH_DEPTH);
        let lagged = Arc::new(AtomicBool::new(false));
        self.list.push(Watcher { prefix, from, live: sender, lagged: Arc::clone(&lagged) });
        Watch { history: history.into(), live, lagged }
    }

    /// Tells every watcher what changed at `revision`; never waits for one.
    pub(super) fn publish(&mut self, revision: Revision, events: &[Event]) {
        self.list.retain(|watcher| watcher.tell(revision, events));
    }
}

impl Watcher {
    /// Whether the watcher stays.
    fn tell(&self, revision: Revision, events: &[Event]) -> bool {
        if self.live.is_closed() {
            return false;
        }
        if revision < self.from {
            return true;
        }
        let events: Vec<Event> =
            events.iter().filter(|event| event.key().starts_with(&self.prefix)).cloned().collect();
        if events.is_empty() {
            return true;
        }
        match self.live.try_send(WatchBatch { revision, events }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                // Before the sender goes, so that the watcher knows why its channel ended.
                self.lagged.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}
