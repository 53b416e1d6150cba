//! What a transaction means, for every implementation that keeps its own tables.

use super::kv::{Entry, Event, Key, LeaseId, Revision, StoreError};
use super::lease::Leases;
use super::txn::{Op, OpResult, Txn};

/// The tables of one implementation, seen by the transaction that changes them.
pub(super) trait Tables {
    /// How reading and writing them fails.
    type Error;

    /// What is stored under `key`.
    fn entry(&mut self, key: &Key) -> Result<Option<Entry>, Self::Error>;
    /// The keys under `prefix`, in order.
    fn keys_under(&mut self, prefix: &Key) -> Result<Vec<Key>, Self::Error>;
    /// The keys attached to `lease`, in order.
    fn keys_of_lease(&mut self, lease: LeaseId) -> Result<Vec<Key>, Self::Error>;
    /// Stores `entry` under its key.
    fn write(&mut self, entry: &Entry) -> Result<(), Self::Error>;
    /// Removes `key`.
    fn remove(&mut self, key: &Key) -> Result<(), Self::Error>;
}

/// Why a transaction was not applied.
#[derive(Debug)]
pub(super) enum ApplyError<E> {
    /// The caller's fault; the tables are as before.
    Refused(StoreError),
    /// The tables failed; they may be half-changed and must be rolled back.
    Failed(E),
}

impl<E> From<E> for ApplyError<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// What a transaction did to the tables; without events the revision did not move.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) succeeded: bool,
    pub(super) results: Vec<OpResult>,
    pub(super) events: Vec<Event>,
}

/// Applies a validated transaction, its writes having the revision `next`.
pub(super) fn apply<T: Tables>(
    tables: &mut T,
    leases: &Leases,
    txn: &Txn,
    next: Revision,
) -> Result<Applied, ApplyError<T::Error>> {
    let mut succeeded = true;
    for compare in &txn.compares {
        succeeded &= compare.holds(tables.entry(compare.key())?.as_ref());
    }
    let ops = if succeeded { &txn.then_ops } else { &txn.else_ops };
    refuse_dead_leases(ops, leases).map_err(ApplyError::Refused)?;

    let mut applied = Applied { succeeded, results: Vec::new(), events: Vec::new() };
    for op in ops {
        let result = apply_op(tables, op, next, &mut applied.events)?;
        applied.results.push(result);
    }
    Ok(applied)
}

/// Deletes the keys of a lease that ended; may be none.
pub(super) fn drop_lease<T: Tables>(
    tables: &mut T,
    lease: LeaseId,
    next: Revision,
) -> Result<Vec<Event>, T::Error> {
    let keys = tables.keys_of_lease(lease)?;
    let mut events = Vec::with_capacity(keys.len());
    for key in keys {
        tables.remove(&key)?;
        events.push(Event::Delete { key, revision: next });
    }
    Ok(events)
}

fn refuse_dead_leases(ops: &[Op], leases: &Leases) -> Result<(), StoreError> {
    for op in ops {
        if let Op::Put { lease: Some(id), .. } = op
            && !leases.is_alive(*id)
        {
            return Err(StoreError::LeaseNotFound { id: *id });
        }
    }
    Ok(())
}

fn apply_op<T: Tables>(
    tables: &mut T,
    op: &Op,
    next: Revision,
    events: &mut Vec<Event>,
) -> Result<OpResult, T::Error> {
    match op {
        Op::Get { key } => Ok(OpResult::Got(tables.entry(key)?)),
        Op::Put { key, value, lease } => {
            let before = tables.entry(key)?;
            let entry = Entry {
                key: key.clone(),
                value: value.clone(),
                create_revision: before.as_ref().map_or(next, |entry| entry.create_revision),
                mod_revision: next,
                version: before.as_ref().map_or(0, |entry| entry.version) + 1,
                lease: *lease,
            };
            tables.write(&entry)?;
            events.push(Event::Put(entry));
            Ok(OpResult::Put)
        }
        Op::Delete { key } => {
            let existing = tables.entry(key)?.map(|entry| entry.key);
            delete(tables, existing.into_iter().collect(), next, events)
        }
        Op::DeletePrefix { prefix } => {
            let keys = tables.keys_under(prefix)?;
            delete(tables, keys, next, events)
        }
    }
}

fn delete<T: Tables>(
    tables: &mut T,
    keys: Vec<Key>,
    next: Revision,
    events: &mut Vec<Event>,
) -> Result<OpResult, T::Error> {
    let count = keys.len() as u64;
    for key in keys {
        tables.remove(&key)?;
        events.push(Event::Delete { key, revision: next });
    }
    Ok(OpResult::Deleted(count))
}
