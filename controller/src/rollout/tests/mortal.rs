//! A store that tells nothing any more once its user died, at a write of a test's choice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::memory::Memory;
use crate::store::{
    Entry, Key, Lease, LeaseId, Op, Page, Range, Revision, Store, StoreFuture, Txn, TxnOutcome,
    Watch,
};

/// A store whose user can be made to die right after a write: it never hears of it, nor of anything after.
pub(super) struct Mortal {
    inner: Arc<Memory>,
    writes: AtomicUsize,
    last: AtomicUsize,
    is_dead: AtomicBool,
    died: Notify,
}

impl Mortal {
    pub(super) fn new(inner: Arc<Memory>) -> Self {
        Self {
            inner,
            writes: AtomicUsize::new(0),
            last: AtomicUsize::new(usize::MAX),
            is_dead: AtomicBool::new(false),
            died: Notify::new(),
        }
    }

    pub(super) fn die_after(&self, write: Option<usize>) {
        self.writes.store(0, Ordering::SeqCst);
        self.last.store(write.unwrap_or(usize::MAX), Ordering::SeqCst);
    }

    pub(super) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// Its user dies now.
    pub(super) fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_waiters();
    }

    pub(super) fn revive(&self) {
        self.last.store(usize::MAX, Ordering::SeqCst);
        self.is_dead.store(false, Ordering::SeqCst);
    }

    pub(super) async fn dead(&self) {
        let died = self.died.notified();
        if !self.is_dead.load(Ordering::SeqCst) {
            died.await;
        }
    }

    async fn alive(&self) {
        if self.is_dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl Store for Mortal {
    fn get(&self, key: Key) -> StoreFuture<'_, Option<Entry>> {
        Box::pin(async move {
            self.alive().await;
            self.inner.get(key).await
        })
    }

    fn range(&self, range: Range) -> StoreFuture<'_, Page> {
        Box::pin(async move {
            self.alive().await;
            self.inner.range(range).await
        })
    }

    fn txn(&self, txn: Txn) -> StoreFuture<'_, TxnOutcome> {
        Box::pin(async move {
            self.alive().await;
            let writes = txn.then_ops.iter().any(|op| !matches!(op, Op::Get { .. }));
            let outcome = self.inner.txn(txn).await;
            if writes
                && self.writes.fetch_add(1, Ordering::SeqCst) + 1
                    >= self.last.load(Ordering::SeqCst)
            {
                self.die();
            }
            self.alive().await;
            outcome
        })
    }

    fn watch(&self, prefix: Key, from: Revision) -> StoreFuture<'_, Watch> {
        self.inner.watch(prefix, from)
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        self.inner.grant(ttl)
    }

    fn keep_alive(&self, id: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.alive().await;
            self.inner.keep_alive(id).await
        })
    }

    fn revoke(&self, id: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.alive().await;
            self.inner.revoke(id).await
        })
    }

    fn compact(&self, oldest: Revision) -> StoreFuture<'_, ()> {
        self.inner.compact(oldest)
    }
}
