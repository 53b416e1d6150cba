//! The thread that reads, on a connection of its own.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::tables::{Rows, unavailable};
use crate::store::kv::{Entry, Key, Page, Range, StoreError};

/// Something to read, and where the answer goes.
#[derive(Debug)]
pub(super) enum Request {
    Get { key: Key, reply: oneshot::Sender<Result<Option<Entry>, StoreError>> },
    Range { range: Range, reply: oneshot::Sender<Result<Page, StoreError>> },
}

/// Answers until every sender of `queue` is gone. A caller that went away is no failure.
pub(super) fn run(connection: &Connection, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.blocking_recv() {
        match request {
            Request::Get { key, reply } => {
                let _ = reply.send(Rows(connection).get(&key).map_err(|error| unavailable(&error)));
            }
            Request::Range { range, reply } => {
                let _ =
                    reply.send(read_page(connection, &range).map_err(|error| unavailable(&error)));
            }
        }
    }
}

fn read_page(connection: &Connection, range: &Range) -> rusqlite::Result<Page> {
    // Unchecked: nothing else runs on this connection.
    let txn = connection.unchecked_transaction()?;
    let page = Rows(&txn).page(range)?;
    txn.commit()?;
    Ok(page)
}
