//! Transactions: conditions, operations, and the limits that every implementation keeps.

use bytes::Bytes;

use super::kv::{Entry, Key, LeaseId, Revision, StoreError};

/// Most operations in one transaction, compares and both branches together.
///
/// etcd's default `--max-txn-ops` is 128 for each list; counting all of them keeps well inside it.
pub const MAX_TXN_OPS: usize = 128;

/// Most bytes of keys and values in one transaction; etcd's default request limit is 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 1024 * 1024;

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent {
        /// The key looked at.
        key: Key,
    },
    /// The key exists.
    Exists {
        /// The key looked at.
        key: Key,
    },
    /// The key was last put at `revision`.
    ModRevision {
        /// The key looked at.
        key: Key,
        /// The revision it must have.
        revision: Revision,
    },
    /// The key came into being at `revision`: the way to fence by an ownership key.
    CreateRevision {
        /// The key looked at.
        key: Key,
        /// The revision it must have.
        revision: Revision,
    },
    /// The key was put `version` times.
    Version {
        /// The key looked at.
        key: Key,
        /// The version it must have.
        version: u64,
    },
    /// The key holds exactly `value`.
    Value {
        /// The key looked at.
        key: Key,
        /// The value it must have.
        value: Bytes,
    },
}

impl Compare {
    /// True while the key does not exist.
    pub fn absent(key: impl Into<Key>) -> Self {
        Self::Absent { key: key.into() }
    }

    /// True while the key exists.
    pub fn exists(key: impl Into<Key>) -> Self {
        Self::Exists { key: key.into() }
    }

    /// True while the key's last put was at `revision`.
    pub fn mod_revision(key: impl Into<Key>, revision: Revision) -> Self {
        Self::ModRevision { key: key.into(), revision }
    }

    /// True while the key is the one that came into being at `revision`.
    pub fn create_revision(key: impl Into<Key>, revision: Revision) -> Self {
        Self::CreateRevision { key: key.into(), revision }
    }

    /// True while `entry` is unchanged.
    #[must_use]
    pub fn unchanged(entry: &Entry) -> Self {
        Self::ModRevision { key: entry.key.clone(), revision: entry.mod_revision }
    }

    /// True while the key holds exactly `value`.
    pub fn value(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        Self::Value { key: key.into(), value: value.into() }
    }

    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Absent { key }
            | Self::Exists { key }
            | Self::ModRevision { key, .. }
            | Self::CreateRevision { key, .. }
            | Self::Version { key, .. }
            | Self::Value { key, .. } => key,
        }
    }

    /// Whether the condition holds for what is stored under its key.
    pub(crate) fn holds(&self, entry: Option<&Entry>) -> bool {
        match (self, entry) {
            (Self::Absent { .. }, entry) => entry.is_none(),
            (Self::Exists { .. }, entry) => entry.is_some(),
            (_, None) => false,
            (Self::ModRevision { revision, .. }, Some(entry)) => entry.mod_revision == *revision,
            (Self::CreateRevision { revision, .. }, Some(entry)) => {
                entry.create_revision == *revision
            }
            (Self::Version { version, .. }, Some(entry)) => entry.version == *version,
            (Self::Value { value, .. }, Some(entry)) => entry.value == value,
        }
    }

    fn size(&self) -> usize {
        let value = if let Self::Value { value, .. } = self { value.len() } else { 0 };
        self.key().len() + value
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes `value`; without a lease the key leaves the one it had.
    Put {
        /// The key written.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// The lease that deletes the key when it lapses.
        lease: Option<LeaseId>,
    },
    /// Deletes the key if it exists.
    Delete {
        /// The key deleted.
        key: Key,
    },
    /// Deletes every key under `prefix`.
    DeletePrefix {
        /// The prefix of the keys deleted; may not be empty.
        prefix: Key,
    },
    /// Reads the key, seeing the operations before it.
    Get {
        /// The key read.
        key: Key,
    },
}

impl Op {
    /// Writes `value` without a lease.
    pub fn put(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Writes `value`, to be deleted when `lease` lapses.
    pub fn put_leased(key: impl Into<Key>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: Some(lease) }
    }

    /// Deletes the key if it exists.
    pub fn delete(key: impl Into<Key>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// Deletes every key under `prefix`.
    pub fn delete_prefix(prefix: impl Into<Key>) -> Self {
        Self::DeletePrefix { prefix: prefix.into() }
    }

    /// Reads the key.
    pub fn get(key: impl Into<Key>) -> Self {
        Self::Get { key: key.into() }
    }

    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Get { key } => key,
            Self::DeletePrefix { prefix } => prefix,
        }
    }

    fn size(&self) -> usize {
        let value = if let Self::Put { value, .. } = self { value.len() } else { 0 };
        self.key().len() + value
    }

    fn deletes(&self, key: &Key) -> bool {
        match self {
            Self::Delete { key: deleted } => deleted == key,
            Self::DeletePrefix { prefix } => key.starts_with(prefix),
            Self::Put { .. } | Self::Get { .. } => false,
        }
    }
}

/// A compare-and-swap transaction: when all compares hold, the `then` operations, else the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold; empty holds.
    pub compares: Vec<Compare>,
    /// Done in order when they hold.
    pub then_ops: Vec<Op>,
    /// Done in order when one does not.
    pub else_ops: Vec<Op>,
}

impl Txn {
    /// A transaction without conditions or operations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation done when all conditions hold.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.then_ops.push(op);
        self
    }

    /// Adds an operation done when a condition fails.
    #[must_use]
    pub fn otherwise(mut self, op: Op) -> Self {
        self.else_ops.push(op);
        self
    }

    /// Number of operations counted against [`MAX_TXN_OPS`].
    #[must_use]
    pub fn ops(&self) -> usize {
        self.compares.len() + self.then_ops.len() + self.else_ops.len()
    }

    /// Number of bytes counted against [`MAX_TXN_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.compares.iter().map(Compare::size).sum::<usize>()
            + self.then_ops.iter().chain(&self.else_ops).map(Op::size).sum::<usize>()
    }

    /// The refusals that need no look at the store; every implementation calls this first.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`], [`StoreError::EmptyKey`]; [`StoreError::DuplicateKey`] when one
    /// branch puts a key twice or also deletes it, which etcd refuses, too.
    pub fn validate(&self) -> Result<(), StoreError> {
        let (ops, bytes) = (self.ops(), self.bytes());
        if ops > MAX_TXN_OPS || bytes > MAX_TXN_BYTES {
            return Err(StoreError::TooLarge { ops, bytes });
        }
        let keys = self.compares.iter().map(Compare::key);
        let keys = keys.chain(self.then_ops.iter().chain(&self.else_ops).map(Op::key));
        if keys.into_iter().any(|key| key.len() == 0) {
            return Err(StoreError::EmptyKey);
        }
        refuse_duplicates(&self.then_ops)?;
        refuse_duplicates(&self.else_ops)
    }
}

fn refuse_duplicates(ops: &[Op]) -> Result<(), StoreError> {
    let mut seen = std::collections::BTreeSet::new();
    for op in ops {
        let Op::Put { key, .. } = op else { continue };
        if !seen.insert(key) || ops.iter().any(|other| other.deletes(key)) {
            return Err(StoreError::DuplicateKey { key: key.clone() });
        }
    }
    Ok(())
}

/// What an operation of a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// The value is written.
    Put,
    /// How many keys were deleted; may be 0.
    Deleted(u64),
    /// What a `Get` found.
    Got(Option<Entry>),
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether the compares held.
    pub succeeded: bool,
    /// The store's revision afterwards: that of the writes, if there were any.
    pub revision: Revision,
    /// One per operation of the branch taken, in order.
    pub results: Vec<OpResult>,
}
