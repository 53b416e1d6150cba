//! The default [`Store`]: one SQLite file, written by one thread.
//!
//! In: requests over bounded channels, from any number of tasks. Out: answers, sent only after
//! the commit that holds them is on disk (WAL with `synchronous=FULL`). Always true: one process
//! at a time has the store open, and what a reader sees is committed.
//!
//! ```text
//! txn, grant, … ──▶ writer thread: group ─▶ COMMIT ─▶ watchers, answers
//! get, range    ──▶ reader thread: its own connection, never waits for a commit
//! ```

mod group;
mod reader;
mod schema;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::kv::{
    Entry, Key, Lease, LeaseId, Page, Range, Revision, Store, StoreError, StoreFuture,
};
use super::txn::{Txn, TxnOutcome};
use super::watch::Watch;
use crate::clock::Clock;

pub use schema::OpenError;

/// Requests waiting for a thread before callers wait themselves: two full groups.
const QUEUE_DEPTH: usize = 1024;

/// A store in an SQLite file. Dropping it finishes the requests it has and closes the file.
#[derive(Debug)]
pub struct Sqlite {
    // Options, so that `drop` can end the threads by closing their queues, then wait for them.
    writes: Option<mpsc::Sender<writer::Request>>,
    reads: Option<mpsc::Sender<reader::Request>>,
    threads: Vec<JoinHandle<()>>,
}

impl Sqlite {
    /// Opens the store in the file `path`, creating it (mode 0600) when it does not exist.
    ///
    /// Blocks for the time of an integrity check. Leases found in it begin their ttl anew, by
    /// `clock`'s monotonic time.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: in use by another process, written by a newer dhow, damaged, not ours, or
    /// not readable.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let opened = schema::open(path)?;
        let read_connection = schema::open_reader(path)?;
        let (writes, write_queue) = mpsc::channel(QUEUE_DEPTH);
        let (reads, read_queue) = mpsc::channel(QUEUE_DEPTH);
        let writer = writer::Writer::new(opened, clock)?;
        let threads = vec![
            spawn("store-writer", move || writer.run(write_queue))?,
            spawn("store-reader", move || reader::run(&read_connection, read_queue))?,
        ];
        Ok(Self { writes: Some(writes), reads: Some(reads), threads })
    }

    /// Waits until the store stopped by itself, which it does after a disk error: what is on disk
    /// is then uncertain, and only opening it again tells.
    pub async fn stopped(&self) {
        if let Some(writes) = &self.writes {
            writes.closed().await;
        }
    }

    async fn write<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> writer::Request,
    ) -> Result<T, StoreError> {
        ask(self.writes.as_ref(), request).await
    }

    async fn read<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> reader::Request,
    ) -> Result<T, StoreError> {
        ask(self.reads.as_ref(), request).await
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.writes = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a store thread panicked");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(OpenError::Io)
}

async fn ask<R, T>(
    queue: Option<&mpsc::Sender<R>>,
    request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> R,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let queue = queue.ok_or(StoreError::Closed)?;
    queue.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
    answer.await.map_err(|_| StoreError::Closed)?
}

impl Store for Sqlite {
    fn get(&self, key: Key) -> StoreFuture<'_, Option<Entry>> {
        Box::pin(self.read(|reply| reader::Request::Get { key, reply }))
    }

    fn range(&self, range: Range) -> StoreFuture<'_, Page> {
        Box::pin(self.read(|reply| reader::Request::Range { range, reply }))
    }

    fn txn(&self, txn: Txn) -> StoreFuture<'_, TxnOutcome> {
        Box::pin(async move {
            txn.validate()?;
            self.write(|reply| writer::Request::Txn { txn, reply }).await
        })
    }

    fn watch(&self, prefix: Key, from: Revision) -> StoreFuture<'_, Watch> {
        Box::pin(self.write(move |reply| writer::Request::Watch { prefix, from, reply }))
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        Box::pin(self.write(move |reply| writer::Request::Grant { ttl, reply }))
    }

    fn keep_alive(&self, id: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(self.write(move |reply| writer::Request::KeepAlive { id, reply }))
    }

    fn revoke(&self, id: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(self.write(move |reply| writer::Request::Revoke { id, reply }))
    }

    fn compact(&self, oldest: Revision) -> StoreFuture<'_, ()> {
        Box::pin(self.write(move |reply| writer::Request::Compact { oldest, reply }))
    }
}
