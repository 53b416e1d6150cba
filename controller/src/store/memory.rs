//! A [`Store`] in memory, for tests and simulated time: no threads, no disk, nothing survives.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::apply::{self, ApplyError, Tables};
use super::kv::{
    Entry, Event, Key, Lease, LeaseId, MAX_PAGE_BYTES, Page, Range, Revision, Store, StoreError,
    StoreFuture,
};
use super::lease::Leases;
use super::txn::{Txn, TxnOutcome};
use super::watch::{Watch, WatchBatch, Watchers};
use crate::clock::Clock;

/// How often [`Memory::expire_leases`] looks for lapsed leases.
const EXPIRY_TICK: Duration = Duration::from_millis(50);

/// A store whose contents live as long as this value.
///
/// A lapsed lease is noticed by the next call, or by [`Memory::expire_leases`] if that runs.
pub struct Memory {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    entries: Entries,
    history: VecDeque<WatchBatch>,
    revision: Revision,
    oldest: Revision,
    leases: Leases,
    last_lease: u64,
    watchers: Watchers,
}

#[derive(Default)]
struct Entries(BTreeMap<Key, Entry>);

impl Memory {
    /// An empty store at revision 1; leases lapse by `clock`'s monotonic time.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            entries: Entries::default(),
            history: VecDeque::new(),
            revision: Revision(1),
            oldest: Revision(1),
            leases: Leases::default(),
            last_lease: 0,
            watchers: Watchers::default(),
        };
        Self { clock, state: Mutex::new(state) }
    }

    /// Deletes the keys of lapsed leases without waiting for a call, until dropped.
    pub async fn expire_leases(&self) {
        loop {
            tokio::time::sleep(EXPIRY_TICK).await;
            drop(self.state());
        }
    }

    /// The state as of now: lapsed leases are gone.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for id in state.leases.lapsed(self.clock.monotonic()) {
            state.end_lease(id);
        }
        state
    }

    fn txn_now(&self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        txn.validate()?;
        let mut state = self.state();
        let next = state.revision.next();
        let State { entries, leases, .. } = &mut *state;
        let applied = match apply::apply(entries, leases, txn, next) {
            Ok(applied) => applied,
            Err(ApplyError::Refused(error)) => return Err(error),
            Err(ApplyError::Failed(never)) => match never {},
        };
        state.record(next, applied.events);
        Ok(TxnOutcome {
            succeeded: applied.succeeded,
            revision: state.revision,
            results: applied.results,
        })
    }

    fn range_now(&self, range: &Range) -> Page {
        let state = self.state();
        let mut page = Page { entries: Vec::new(), more: false, revision: state.revision };
        let mut bytes = 0;
        for entry in state.entries.under(&range.prefix, range.after.as_ref()) {
            if page.entries.len() == range.capped_limit() || bytes >= MAX_PAGE_BYTES {
                page.more = true;
                break;
            }
            bytes += entry.key.len() + entry.value.len();
            page.entries.push(entry.clone());
        }
        page
    }

    fn watch_now(&self, prefix: Key, from: Revision) -> Result<Watch, StoreError> {
        let mut state = self.state();
        if from < state.oldest {
            return Err(StoreError::Compacted { oldest: state.oldest });
        }
        let since = state.history.iter().filter(|batch| batch.revision >= from);
        let history = since
            .map(|batch| WatchBatch {
                revision: batch.revision,
                events: batch
                    .events
                    .iter()
                    .filter(|event| event.key().starts_with(&prefix))
                    .cloned()
                    .collect(),
            })
            .filter(|batch| !batch.events.is_empty())
            .collect();
        Ok(state.watchers.add(prefix, from, history))
    }

    fn grant_now(&self, ttl: Duration) -> Lease {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.last_lease += 1;
        let id = LeaseId(state.last_lease);
        state.leases.start(id, ttl, now);
        Lease { id, ttl }
    }

    fn compact_now(&self, oldest: Revision) -> Result<(), StoreError> {
        let mut state = self.state();
        if oldest > state.revision {
            return Err(StoreError::FutureRevision { current: state.revision });
        }
        state.oldest = state.oldest.max(oldest);
        state.history.retain(|batch| batch.revision >= oldest);
        Ok(())
    }
}

impl State {
    fn record(&mut self, revision: Revision, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.revision = revision;
        self.watchers.publish(revision, &events);
        self.history.push_back(WatchBatch { revision, events });
    }

    fn end_lease(&mut self, id: LeaseId) {
        self.leases.end(id);
        let next = self.revision.next();
        match apply::drop_lease(&mut self.entries, id, next) {
            Ok(events) => self.record(next, events),
            Err(never) => match never {},
        }
    }
}

impl Entries {
    fn under<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
    ) -> impl Iterator<Item = &'a Entry> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.clone()),
            Some(_) | None => Bound::Included(prefix.clone()),
        };
        let range = self.0.range((start, Bound::Unbounded));
        range.map(|(_, entry)| entry).take_while(move |entry| entry.key.starts_with(prefix))
    }
}

impl Tables for Entries {
    type Error = Infallible;

    fn entry(&mut self, key: &Key) -> Result<Option<Entry>, Infallible> {
        Ok(self.0.get(key).cloned())
    }

    fn keys_under(&mut self, prefix: &Key) -> Result<Vec<Key>, Infallible> {
        Ok(self.under(prefix, None).map(|entry| entry.key.clone()).collect())
    }

    fn keys_of_lease(&mut self, lease: LeaseId) -> Result<Vec<Key>, Infallible> {
        let held = self.0.values().filter(|entry| entry.lease == Some(lease));
        Ok(held.map(|entry| entry.key.clone()).collect())
    }

    fn write(&mut self, entry: &Entry) -> Result<(), Infallible> {
        self.0.insert(entry.key.clone(), entry.clone());
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> Result<(), Infallible> {
        self.0.remove(key);
        Ok(())
    }
}

impl Store for Memory {
    fn get(&self, key: Key) -> StoreFuture<'_, Option<Entry>> {
        Box::pin(async move { Ok(self.state().entries.0.get(&key).cloned()) })
    }

    fn range(&self, range: Range) -> StoreFuture<'_, Page> {
        Box::pin(async move { Ok(self.range_now(&range)) })
    }

    fn txn(&self, txn: Txn) -> StoreFuture<'_, TxnOutcome> {
        Box::pin(async move { self.txn_now(&txn) })
    }

    fn watch(&self, prefix: Key, from: Revision) -> StoreFuture<'_, Watch> {
        Box::pin(async move { self.watch_now(prefix, from) })
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        Box::pin(async move { Ok(self.grant_now(ttl)) })
    }

    fn keep_alive(&self, id: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let kept = self.state().leases.keep_alive(id, self.clock.monotonic());
            if kept { Ok(()) } else { Err(StoreError::LeaseNotFound { id }) }
        })
    }

    fn revoke(&self, id: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut state = self.state();
            if !state.leases.is_alive(id) {
                return Err(StoreError::LeaseNotFound { id });
            }
            state.end_lease(id);
            Ok(())
        })
    }

    fn compact(&self, oldest: Revision) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.compact_now(oldest) })
    }
}
