//! One group commit: the requests that share a `COMMIT`, and what waits for it.

use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::tables::{Counters, Rows, unavailable};
use super::writer::Request;
use crate::store::apply::{self, ApplyError};
use crate::store::kv::{Event, Lease, LeaseId, Revision, StoreError};
use crate::store::lease::Leases;
use crate::store::txn::{Txn, TxnOutcome};

/// A request's answer; sent as it is after the commit, or replaced by the commit's failure.
type Answer = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// Requests applied inside one open SQL transaction, not yet durable.
pub(super) struct Group<'a> {
    rows: Rows<'a>,
    leases: &'a mut Leases,
    before: Counters,
    counters: Counters,
    events: Vec<(Revision, Vec<Event>)>,
    answers: Vec<Answer>,
}

/// What is left of a group after its commit: what to tell to whom.
pub(super) struct Committed {
    pub(super) counters: Counters,
    pub(super) events: Vec<(Revision, Vec<Event>)>,
    pub(super) answers: Vec<Answer>,
}

/// A group that could not be committed; its answers tell its requests so.
pub(super) struct Failure {
    error: rusqlite::Error,
    answers: Vec<Answer>,
    unserved: Option<Box<Request>>,
}

impl<'a> Group<'a> {
    pub(super) fn begin(
        connection: &'a Connection,
        counters: Counters,
        leases: &'a mut Leases,
    ) -> rusqlite::Result<Self> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let rows = Rows(connection);
        Ok(Self {
            rows,
            leases,
            before: counters,
            counters,
            events: Vec::new(),
            answers: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn txn(
        &mut self,
        txn: &Txn,
        reply: oneshot::Sender<Result<TxnOutcome, StoreError>>,
    ) -> rusqlite::Result<()> {
        match self.apply(txn) {
            Ok(outcome) => self.answer(reply, Ok(outcome)),
            Err(ApplyError::Refused(error)) => self.answer(reply, Err(error)),
            Err(ApplyError::Failed(error)) => {
                self.answer(reply, Err(unavailable(&error)));
                return Err(error);
            }
        }
        Ok(())
    }

    fn apply(&mut self, txn: &Txn) -> Result<TxnOutcome, ApplyError<rusqlite::Error>> {
        let next = self.counters.revision.next();
        let applied = apply::apply(&mut self.rows, self.leases, txn, next)?;
        self.record(next, applied.events)?;
        Ok(TxnOutcome {
            succeeded: applied.succeeded,
            revision: self.counters.revision,
            results: applied.results,
        })
    }

    pub(super) fn grant(
        &mut self,
        ttl: Duration,
        now: Duration,
        reply: oneshot::Sender<Result<Lease, StoreError>>,
    ) -> rusqlite::Result<()> {
        self.counters.last_lease += 1;
        let id = LeaseId(self.counters.last_lease);
        self.answer(reply, Ok(Lease { id, ttl }));
        self.rows.write_lease(id, ttl)?;
        self.leases.start(id, ttl, now);
        Ok(())
    }

    pub(super) fn keep_alive(
        &mut self,
        id: LeaseId,
        now: Duration,
        reply: oneshot::Sender<Result<(), StoreError>>,
    ) {
        let kept = self.leases.keep_alive(id, now);
        self.answer(reply, if kept { Ok(()) } else { Err(StoreError::LeaseNotFound { id }) });
    }

    pub(super) fn revoke(
        &mut self,
        id: LeaseId,
        reply: oneshot::Sender<Result<(), StoreError>>,
    ) -> rusqlite::Result<()> {
        if !self.leases.is_alive(id) {
            self.answer(reply, Err(StoreError::LeaseNotFound { id }));
            return Ok(());
        }
        self.answer(reply, Ok(()));
        self.end_lease(id)
    }

    /// Ends a lease that lapsed or was revoked, with its keys.
    pub(super) fn end_lease(&mut self, id: LeaseId) -> rusqlite::Result<()> {
        let next = self.counters.revision.next();
        let events = apply::drop_lease(&mut self.rows, id, next)?;
        self.rows.remove_lease(id)?;
        self.leases.end(id);
        self.record(next, events)
    }

    pub(super) fn compact(
        &mut self,
        oldest: Revision,
        reply: oneshot::Sender<Result<(), StoreError>>,
    ) -> rusqlite::Result<()> {
        let current = self.counters.revision;
        if oldest > current {
            self.answer(reply, Err(StoreError::FutureRevision { current }));
            return Ok(());
        }
        self.answer(reply, Ok(()));
        if oldest > self.counters.oldest {
            self.counters.oldest = oldest;
            self.rows.forget_events(oldest)?;
        }
        Ok(())
    }

    /// Makes the group durable.
    pub(super) fn commit(self) -> Result<Committed, Failure> {
        let Self { rows, before, counters, events, answers, leases: _ } = self;
        let committed = (|| {
            if counters != before {
                rows.write_counters(counters)?;
            }
            rows.0.execute_batch("COMMIT")
        })();
        match committed {
            Ok(()) => Ok(Committed { counters, events, answers }),
            Err(error) => Err(Failure { error, answers, unserved: None }),
        }
    }

    /// Gives up after a failed request; `unserved` is one that was not applied any more.
    pub(super) fn fail(self, error: rusqlite::Error, unserved: Option<Request>) -> Failure {
        Failure { error, answers: self.answers, unserved: unserved.map(Box::new) }
    }

    fn record(&mut self, revision: Revision, events: Vec<Event>) -> rusqlite::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.rows.write_events(revision, &events)?;
        self.counters.revision = revision;
        self.events.push((revision, events));
        Ok(())
    }

    fn answer<T: Send + 'static>(
        &mut self,
        reply: oneshot::Sender<Result<T, StoreError>>,
        outcome: Result<T, StoreError>,
    ) {
        self.answers.push(Box::new(move |failure| {
            // A caller that went away wants no answer.
            let _ = reply.send(match failure {
                None => outcome,
                Some(failure) => Err(failure),
            });
        }));
    }
}

impl Failure {
    /// The group could not even begin.
    pub(super) fn at_start(error: rusqlite::Error, unserved: Option<Request>) -> Self {
        Self { error, answers: Vec::new(), unserved: unserved.map(Box::new) }
    }

    /// Tells every request of the group.
    pub(super) fn tell(self) -> rusqlite::Error {
        let told = unavailable(&self.error);
        for answer in self.answers {
            answer(Some(told.clone()));
        }
        if let Some(request) = self.unserved {
            request.refuse(told);
        }
        self.error
    }
}
