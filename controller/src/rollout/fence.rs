//! Ownership of a rollout: one driver at a time, and none that slept through its lease writes.

use std::sync::Arc;
use std::time::Duration;

use dhow_proto::model::FieldError;
use serde::{Deserialize, Serialize};

use super::record::{FORMAT, RolloutId, from_json, key, to_json};
use crate::blob::BlobError;
use crate::store::{
    Compare, Entry, Key, LeaseId, MAX_TXN_BYTES, MAX_TXN_OPS, Op, OpResult, Revision, Store,
    StoreError, Txn,
};

/// How long a driver's ownership outlives it. Longer than a slow disk's fsync, short enough to wait for.
const TTL: Duration = Duration::from_secs(10);

/// Three chances to keep a lease before it lapses.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Operations of one transaction besides those asked for: the ownership compare.
const SPARE_OPS: usize = 1;

/// Why a driver stops.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Another driver owns the rollout now, or nobody: this one may not write.
    #[error("the rollout is driven elsewhere")]
    Lost,
    /// A key changed between a read and the write that built on it.
    #[error("a key was changed at the same time")]
    Conflict,
    /// The store.
    #[error("the store could not be read or written")]
    Store(#[from] StoreError),
    /// A blob.
    #[error("a blob could not be read or written")]
    Blob(#[from] BlobError),
    /// A record or intent is malformed.
    #[error("a stored value is malformed")]
    Field(#[from] FieldError),
}

impl DriveError {
    /// True where beginning again from what is stored may help.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict => true,
            Self::Store(error) => error.is_retryable(),
            Self::Lost | Self::Blob(_) | Self::Field(_) => false,
        }
    }
}

/// Who drives. `owner/<rollout id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerRecord {
    /// [`FORMAT`].
    pub v: u32,
    /// Name of the replica.
    pub replica: String,
    /// Differs from one run of the replica to the next.
    pub instance: String,
}

impl OwnerRecord {
    /// This process.
    pub(crate) fn new(replica: String, instance: String) -> Self {
        Self { v: FORMAT, replica, instance }
    }
}

/// A write and the condition it is made under.
pub(crate) type Write = (Option<Compare>, Op);

/// Held ownership of a rollout: the only way its driver writes.
pub(crate) struct Fence {
    store: Arc<dyn Store>,
    key: Key,
    revision: Revision,
    lease: LeaseId,
}

impl Fence {
    /// Takes a rollout nobody owns, or that an earlier run of this replica owned: of one replica only one process
    /// runs (it holds the state directory), and a late write of the earlier one fails at the new revision. None where
    /// somebody else owns it.
    ///
    /// # Errors
    ///
    /// [`DriveError::Store`].
    pub(crate) async fn take(
        store: Arc<dyn Store>,
        id: &RolloutId,
        me: &OwnerRecord,
    ) -> Result<Option<Self>, DriveError> {
        let key = key::owner(id);
        let free = match store.get(key.clone()).await? {
            None => Compare::absent(&key),
            Some(entry) => {
                let owner: OwnerRecord = from_json(&entry)?;
                if owner.replica != me.replica || owner.instance == me.instance {
                    return Ok(None);
                }
                Compare::unchanged(&entry)
            }
        };
        let lease = store.grant(TTL).await?.id;
        let put = Op::put_leased(&key, to_json(me), lease);
        let outcome = store.txn(Txn::new().when(free).then(put)).await?;
        if !outcome.succeeded {
            store.revoke(lease).await?;
            return Ok(None);
        }
        Ok(Some(Self { store, key, revision: outcome.revision, lease }))
    }

    /// Keeps the ownership until it is lost; never ends otherwise. Dropping it is safe: the lease lapses.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(KEEP_ALIVE).await;
            match self.store.keep_alive(self.lease).await {
                Ok(()) => {}
                // Whoever takes over is fenced from us by the revision, not by our knowing.
                Err(StoreError::LeaseNotFound { .. } | StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(error = %error, "lease not kept alive, trying again");
                }
            }
        }
    }

    /// Gives the ownership up.
    pub(crate) async fn release(&self) {
        // Where this fails the lease lapses by itself.
        let _ = self.store.revoke(self.lease).await;
    }

    /// Writes all at once, if still the owner.
    ///
    /// # Errors
    ///
    /// [`DriveError::Lost`], [`DriveError::Conflict`] where a condition does not hold; nothing is written then.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), DriveError> {
        let mut txn = Txn::new().when(Compare::mod_revision(&self.key, self.revision));
        txn = txn.otherwise(Op::get(&self.key));
        for (compare, op) in writes {
            txn.compares.extend(compare);
            txn.then_ops.push(op);
        }
        let outcome = self.store.txn(txn).await?;
        if outcome.succeeded {
            return Ok(());
        }
        match outcome.results.as_slice() {
            [OpResult::Got(Some(entry))] if entry.mod_revision == self.revision => {
                Err(DriveError::Conflict)
            }
            _ => Err(DriveError::Lost),
        }
    }

    /// Writes any number of things in chunks, in order. A crash in between leaves a prefix written.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`]; earlier chunks stay written.
    pub(crate) async fn commit_chunked(&self, writes: Vec<Write>) -> Result<(), DriveError> {
        let mut chunk: Vec<Write> = Vec::new();
        let mut room = Room::default();
        for write in writes {
            if !room.takes(&write) {
                self.commit(std::mem::take(&mut chunk)).await?;
                room = Room::default();
                room.takes(&write);
            }
            chunk.push(write);
        }
        if chunk.is_empty() { Ok(()) } else { self.commit(chunk).await }
    }

    /// Whether [`Self::commit_chunked`] writes all of it at once.
    pub(crate) fn is_one_transaction(writes: &[Write]) -> bool {
        let mut room = Room::default();
        writes.iter().all(|write| room.takes(write))
    }

    /// Reads many keys, in order.
    ///
    /// # Errors
    ///
    /// [`DriveError::Store`].
    pub(crate) async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, DriveError> {
        read(&*self.store, keys).await
    }

    /// The store, for reading.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }
}

/// What a transaction holds by now.
#[derive(Default)]
struct Room {
    ops: usize,
    bytes: usize,
}

impl Room {
    /// Takes a write in, unless that is too much; the first one is taken always.
    fn takes(&mut self, write: &Write) -> bool {
        let ops = self.ops + 1 + usize::from(write.0.is_some());
        let bytes = self.bytes + size(write);
        // One more for the read of the failure branch.
        let full = ops + SPARE_OPS + 1 > MAX_TXN_OPS || bytes > MAX_TXN_BYTES / 2;
        if full && self.ops > 0 {
            return false;
        }
        (self.ops, self.bytes) = (ops, bytes);
        true
    }
}

fn size((compare, op): &Write) -> usize {
    let put = match op {
        Op::Put { key, value, .. } => key.as_bytes().len() + value.len(),
        Op::Delete { key } | Op::Get { key } | Op::DeletePrefix { prefix: key } => {
            key.as_bytes().len()
        }
    };
    // A compare by revision costs its key.
    put + usize::from(compare.is_some()) * 512
}

/// Reads many keys in few round trips, in order.
///
/// # Errors
///
/// [`DriveError::Store`].
pub(crate) async fn read(
    store: &dyn Store,
    keys: &[Key],
) -> Result<Vec<Option<Entry>>, DriveError> {
    let mut found = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(MAX_TXN_OPS) {
        let txn = chunk.iter().fold(Txn::new(), |txn, key| txn.then(Op::get(key)));
        for result in store.txn(txn).await?.results {
            let OpResult::Got(entry) = result else { continue };
            found.push(entry);
        }
    }
    Ok(found)
}
