//! A store whose user can be paused between any two of its calls, and woken up later: a process that was stopped.

use std::sync::Arc;
use std::time::Duration;

use dhow_controller::store::memory::Memory;
use dhow_controller::store::{
    Entry, Key, Lease, LeaseId, Page, Range, Revision, Store, StoreFuture, Txn, TxnOutcome, Watch,
};
use tokio::sync::watch;

/// The store of one controller process.
pub(crate) struct Gate {
    inner: Arc<Memory>,
    open: watch::Receiver<bool>,
}

impl Gate {
    pub(crate) fn new(inner: Arc<Memory>, open: watch::Receiver<bool>) -> Self {
        Self { inner, open }
    }

    async fn pass(&self) {
        let mut open = self.open.clone();
        // The other end is gone with the simulation only.
        let _ = open.wait_for(|open| *open).await;
    }
}

impl Store for Gate {
    fn get(&self, key: Key) -> StoreFuture<'_, Option<Entry>> {
        Box::pin(async move {
            self.pass().await;
            self.inner.get(key).await
        })
    }

    fn range(&self, range: Range) -> StoreFuture<'_, Page> {
        Box::pin(async move {
            self.pass().await;
            self.inner.range(range).await
        })
    }

    fn txn(&self, txn: Txn) -> StoreFuture<'_, TxnOutcome> {
        Box::pin(async move {
            self.pass().await;
            self.inner.txn(txn).await
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
            self.pass().await;
            self.inner.keep_alive(id).await
        })
    }

    fn revoke(&self, id: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.pass().await;
            self.inner.revoke(id).await
        })
    }

    fn compact(&self, oldest: Revision) -> StoreFuture<'_, ()> {
        self.inner.compact(oldest)
    }
}
