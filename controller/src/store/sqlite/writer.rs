//! The thread that writes: it owns the connection, the leases and the watchers.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::group::{Committed, Failure, Group};
use super::schema::{OpenError, Opened};
use super::tables::{Counters, Rows, unavailable};
use crate::clock::Clock;
use crate::store::kv::{Key, Lease, LeaseId, Revision, StoreError};
use crate::store::lease::Leases;
use crate::store::txn::{Txn, TxnOutcome};
use crate::store::watch::{Watch, Watchers};

/// How often to look for lapsed leases while there are any and nothing else happens. Far below
/// any lease's ttl.
const LEASE_TICK: Duration = Duration::from_millis(50);

/// A group is committed at the latest after this time, although more requests wait. There is no
/// wait for more: requests that come during a commit make up the next group by themselves.
const GROUP_TIME: Duration = Duration::from_millis(20);

/// And at the latest with this many requests.
const GROUP_LEN: usize = 512;

/// Something to write, or that must be ordered with writes; and where the answer goes.
#[derive(Debug)]
pub(super) enum Request {
    Txn { txn: Txn, reply: oneshot::Sender<Result<TxnOutcome, StoreError>> },
    Grant { ttl: Duration, reply: oneshot::Sender<Result<Lease, StoreError>> },
    KeepAlive { id: LeaseId, reply: oneshot::Sender<Result<(), StoreError>> },
    Revoke { id: LeaseId, reply: oneshot::Sender<Result<(), StoreError>> },
    Compact { oldest: Revision, reply: oneshot::Sender<Result<(), StoreError>> },
    Watch { prefix: Key, from: Revision, reply: oneshot::Sender<Result<Watch, StoreError>> },
}

/// The state of the thread.
pub(super) struct Writer {
    connection: Connection,
    clock: Arc<dyn Clock>,
    counters: Counters,
    leases: Leases,
    watchers: Watchers,
    timer: Runtime,
    // Last, so that the lock outlives the connection.
    _lock: File,
}

/// Whether the thread goes on.
enum Next {
    Continue,
    Stop,
}

impl Writer {
    pub(super) fn new(opened: Opened, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let Opened { connection, lock } = opened;
        let counters = Rows(&connection).counters()?;
        // Only for waiting on the queue with a time-out.
        let timer = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(OpenError::Io)?;
        let mut writer = Self {
            connection,
            clock,
            counters,
            leases: Leases::default(),
            watchers: Watchers::default(),
            timer,
            _lock: lock,
        };
        writer.reload_leases()?;
        Ok(writer)
    }

    /// Works until every sender of `queue` is gone, or the disk fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        loop {
            let request = match self.wait(&mut queue) {
                Waited::Closed => return,
                Waited::Tick => None,
                Waited::Request(request) => Some(request),
            };
            if let Next::Stop = self.turn(request, &mut queue) {
                return;
            }
        }
    }

    fn wait(&self, queue: &mut mpsc::Receiver<Request>) -> Waited {
        let received = if self.leases.is_empty() {
            Ok(queue.blocking_recv())
        } else {
            self.timer.block_on(async { tokio::time::timeout(LEASE_TICK, queue.recv()).await })
        };
        match received {
            Err(_) => Waited::Tick,
            Ok(None) => Waited::Closed,
            Ok(Some(request)) => Waited::Request(request),
        }
    }

    /// One group: `first` and what waits in the queue, then the commit, then the answers.
    fn turn(&mut self, first: Option<Request>, queue: &mut mpsc::Receiver<Request>) -> Next {
        let lapsed = self.leases.lapsed(self.clock.monotonic());
        if first.is_none() && lapsed.is_empty() {
            return Next::Continue;
        }
        let mut left_over = None;
        let result = self.fill(first, lapsed, queue, &mut left_over);
        let next = match result {
            Ok(committed) => {
                self.publish(committed);
                Next::Continue
            }
            Err(failure) => self.recover(failure),
        };
        if let Some((prefix, from, reply)) = left_over {
            // After the commit, so that its history and what follows leave no gap between them.
            let _ = reply.send(self.watch(prefix, from));
        }
        next
    }

    fn fill(
        &mut self,
        first: Option<Request>,
        lapsed: Vec<LeaseId>,
        queue: &mut mpsc::Receiver<Request>,
        watch: &mut Option<WatchRequest>,
    ) -> Result<Committed, Failure> {
        let started = Instant::now();
        let mut group = match Group::begin(&self.connection, self.counters, &mut self.leases) {
            Ok(group) => group,
            Err(error) => return Err(Failure::at_start(error, first)),
        };
        for id in lapsed {
            if let Err(error) = group.end_lease(id) {
                return Err(group.fail(error, first));
            }
        }
        let mut request = first;
        while let Some(current) = request.take() {
            if let Request::Watch { prefix, from, reply } = current {
                *watch = Some((prefix, from, reply));
                break;
            }
            if let Err(error) = serve(&mut group, current, self.clock.monotonic()) {
                return Err(group.fail(error, None));
            }
            if group.len() < GROUP_LEN && started.elapsed() < GROUP_TIME {
                request = queue.try_recv().ok();
            }
        }
        group.commit()
    }

    fn publish(&mut self, committed: Committed) {
        self.counters = committed.counters;
        for (revision, events) in &committed.events {
            self.watchers.publish(*revision, events);
        }
        for answer in committed.answers {
            answer(None);
        }
    }

    /// Rolls back, and decides whether what is on disk can still be trusted.
    fn recover(&mut self, failure: Failure) -> Next {
        // Fails when SQLite rolled back by itself, as it does after some errors.
        let _ = self.connection.execute_batch("ROLLBACK");
        let error = failure.tell();
        let may_pass = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        );
        // After a failed fsync the kernel may drop what it could not write and report success next
        // time: only a new start reads what is really there.
        if !may_pass {
            tracing::error!(error = %error, "the store failed and stops");
            return Next::Stop;
        }
        tracing::error!(error = %error, "the store could not write");
        match self.reload_leases() {
            Ok(()) => Next::Continue,
            Err(error) => {
                tracing::error!(error = %error, "the store failed and stops");
                Next::Stop
            }
        }
    }

    /// Makes the leases in memory those on disk; ones that were known keep their deadlines.
    fn reload_leases(&mut self) -> rusqlite::Result<()> {
        let now = self.clock.monotonic();
        let stored = Rows(&self.connection).leases()?;
        self.leases.retain(|id| stored.iter().any(|(stored, _)| *stored == id));
        for (id, ttl) in stored {
            if !self.leases.is_alive(id) {
                self.leases.start(id, ttl, now);
            }
        }
        Ok(())
    }

    fn watch(&mut self, prefix: Key, from: Revision) -> Result<Watch, StoreError> {
        let oldest = self.counters.oldest;
        if from < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let history =
            Rows(&self.connection).history(&prefix, from).map_err(|error| unavailable(&error))?;
        Ok(self.watchers.add(prefix, from, history))
    }
}

type WatchRequest = (Key, Revision, oneshot::Sender<Result<Watch, StoreError>>);

enum Waited {
    Request(Request),
    Tick,
    Closed,
}

/// Applies one request to the group; on failure its answer is already with the group.
fn serve(group: &mut Group<'_>, request: Request, now: Duration) -> rusqlite::Result<()> {
    match request {
        Request::Txn { txn, reply } => group.txn(&txn, reply),
        Request::Grant { ttl, reply } => group.grant(ttl, now, reply),
        Request::KeepAlive { id, reply } => {
            group.keep_alive(id, now, reply);
            Ok(())
        }
        Request::Revoke { id, reply } => group.revoke(id, reply),
        Request::Compact { oldest, reply } => group.compact(oldest, reply),
        Request::Watch { reply, .. } => {
            // Served after the commit by the caller.
            let _ = reply.send(Err(StoreError::Closed));
            Ok(())
        }
    }
}

impl Request {
    pub(super) fn refuse(self, error: StoreError) {
        // A caller that went away wants no answer.
        match self {
            Self::Txn { reply, .. } => drop(reply.send(Err(error))),
            Self::Grant { reply, .. } => drop(reply.send(Err(error))),
            Self::KeepAlive { reply, .. }
            | Self::Revoke { reply, .. }
            | Self::Compact { reply, .. } => drop(reply.send(Err(error))),
            Self::Watch { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}
