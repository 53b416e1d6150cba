//! Keeps what the controller must not forget: ordered keys with revisions, in etcd's meaning.
//!
//! In: compare-and-swap transactions, reads, watches, leases. Out: entries, and events in the
//! order of their revisions. Always true: what a call answered is durable (promise 1), revisions
//! only grow, all writes of one transaction share one revision, and a transaction larger than
//! [`MAX_TXN_OPS`] or [`MAX_TXN_BYTES`] is refused by **every** implementation, so that code
//! written against one never fails on another.
//!
//! Implementations: [`sqlite::Sqlite`] on disk and [`memory::Memory`] for tests and simulated
//! time. Both pass the suite in `contract.rs`; a third one must, too.

mod apply;
#[cfg(test)]
mod contract;
pub mod epoch;
mod kv;
mod lease;
pub mod memory;
pub mod sqlite;
mod txn;
mod watch;

pub use kv::{
    Entry, Event, Key, Lease, LeaseId, MAX_PAGE, MAX_PAGE_BYTES, Page, Range, Revision, Snapshot,
    Store, StoreError, StoreFuture,
};
pub use txn::{Compare, MAX_TXN_BYTES, MAX_TXN_OPS, Op, OpResult, Txn, TxnOutcome};
pub use watch::{WATCH_DEPTH, Watch, WatchBatch};
