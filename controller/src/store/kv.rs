//! The words of the store: keys, revisions, transactions, and the [`Store`] trait itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::watch::Watch;

/// Most operations in one transaction, compares and both branches together.
///
/// etcd's default `--max-txn-ops` is 128 for each list; counting all of them keeps well inside it.
pub const MAX_TXN_OPS: usize = 128;

/// Most bytes of keys and values in one transaction; etcd's default request limit is 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 1024 * 1024;

/// Most entries in one [`Page`].
pub const MAX_PAGE: usize = 500;

/// A [`Page`] ends after the entry that brings it to this many bytes, so its size is bounded too.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// What every call of a [`Store`] returns; boxed so that rooms can hold an `Arc<dyn Store>`.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A key: bytes, ordered bytewise. By convention text with `/` between its parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as text; `None` when it is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether the key lies under `prefix`; every key lies under the empty one.
    #[must_use]
    pub fn starts_with(&self, prefix: &Key) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// The first key after all keys under this prefix; `None` when nothing follows them.
    #[must_use]
    pub(crate) fn prefix_end(&self) -> Option<Key> {
        let last = self.0.iter().rposition(|byte| *byte != 0xff)?;
        let mut end = self.0[..=last].to_vec();
        end[last] += 1;
        Some(Key(end.into()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A state of the whole store. Grows by one with every transaction that writes; a new store is at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one: where a watch that follows a read begins.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease's number; never given out twice by one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease as granted. Its keys are deleted when `ttl` passes without a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Names the lease in later calls.
    pub id: LeaseId,
    /// How long it lives after each keep-alive; may be longer than what was asked for.
    pub ttl: Duration,
}

/// A key with its value, and when it got it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value, opaque to the store.
    pub value: Bytes,
    /// When the key last came into being: unchanged by later puts, new after a delete.
    pub create_revision: Revision,
    /// When the value was last put.
    pub mod_revision: Revision,
    /// Number of puts since the key came into being; 1 for a new one.
    pub version: u64,
    /// The lease that deletes the key when it lapses.
    pub lease: Option<LeaseId>,
}

/// Leaves the value out: it may be ciphertext, large, or nobody's business in a log.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("create_revision", &self.create_revision.0)
            .field("mod_revision", &self.mod_revision.0)
            .field("version", &self.version)
            .field("lease", &self.lease)
            .finish()
    }
}

/// Which keys to read: those under `prefix`, after `after`, at most `limit`.
#[derive(Clone, Debug)]
pub struct Range {
    /// Only keys that begin with this; empty for all.
    pub prefix: Key,
    /// Only keys greater than this: the last key of the page before.
    pub after: Option<Key>,
    /// At most this many entries; capped at [`MAX_PAGE`].
    pub limit: usize,
}

impl Range {
    /// The first page of the keys under `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        Self { prefix: prefix.into(), after: None, limit: MAX_PAGE }
    }

    /// Only keys greater than `key`.
    #[must_use]
    pub fn after(mut self, key: Key) -> Self {
        self.after = Some(key);
        self
    }

    /// At most `limit` entries.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn capped_limit(&self) -> usize {
        self.limit.clamp(1, MAX_PAGE)
    }
}

/// Part of a range, ordered by key.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries; may be empty.
    pub entries: Vec<Entry>,
    /// Whether the range holds more after the last of `entries`.
    pub more: bool,
    /// The store's revision at which this page was read.
    pub revision: Revision,
}

/// All entries under a prefix, ordered by key.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The entries; may be empty. Entries of later pages may be newer than `revision`.
    pub entries: Vec<Entry>,
    /// The revision of the first page: a watch from the [next](Revision::next) one misses nothing.
    pub revision: Revision,
}

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

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key has a new value.
    Put(Entry),
    /// The key is gone.
    Delete {
        /// Which key.
        key: Key,
        /// Since when.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }
}

/// Why the store refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The transaction is over the limits every implementation keeps.
    #[error(
        "transaction of {ops} operations and {bytes} bytes is too large (at most {MAX_TXN_OPS} and {MAX_TXN_BYTES})"
    )]
    TooLarge {
        /// Operations in it.
        ops: usize,
        /// Bytes in it.
        bytes: usize,
    },
    /// One branch writes a key twice.
    #[error("transaction writes key {key} more than once")]
    DuplicateKey {
        /// The key.
        key: Key,
    },
    /// A key is empty.
    #[error("empty key")]
    EmptyKey,
    /// The history asked for is gone: read again, then watch from there.
    #[error("history before revision {oldest} is compacted")]
    Compacted {
        /// The oldest revision that can be watched.
        oldest: Revision,
    },
    /// A revision that does not exist yet.
    #[error("revision is in the future, the store is at {current}")]
    FutureRevision {
        /// The store's revision.
        current: Revision,
    },
    /// The watcher was too slow and missed events: read again, then watch from there.
    #[error("watcher fell behind")]
    Lagged,
    /// The lease lapsed, was revoked or never was.
    #[error("no lease {id}")]
    LeaseNotFound {
        /// The lease.
        id: LeaseId,
    },
    /// The store cannot be reached or cannot write now. Whether a transaction was done is not
    /// known: read before trying again.
    #[error("store unavailable: {reason}")]
    Unavailable {
        /// What the store said.
        reason: String,
    },
    /// The store is shut down.
    #[error("store closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later without anything being changed by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::TooLarge { .. }
            | Self::DuplicateKey { .. }
            | Self::EmptyKey
            | Self::Compacted { .. }
            | Self::FutureRevision { .. }
            | Self::Lagged
            | Self::LeaseNotFound { .. }
            | Self::Closed => false,
        }
    }
}

/// A key-value store with etcd's meaning.
pub trait Store: Send + Sync + 'static {
    /// Reads one key; `None` when it does not exist.
    fn get(&self, key: Key) -> StoreFuture<'_, Option<Entry>>;

    /// Reads one page of keys in order, all at one revision.
    fn range(&self, range: Range) -> StoreFuture<'_, Page>;

    /// Does a transaction, durably and all at once.
    ///
    /// Errors as [`Txn::validate`], and [`StoreError::LeaseNotFound`] for a put with a lease that
    /// is not alive; then nothing is written.
    fn txn(&self, txn: Txn) -> StoreFuture<'_, TxnOutcome>;

    /// Follows the keys under `prefix` from revision `from` on, which may lie in the past.
    ///
    /// [`StoreError::Compacted`] when the history from there is gone.
    fn watch(&self, prefix: Key, from: Revision) -> StoreFuture<'_, Watch>;

    /// Starts a lease of at least `ttl`. After a restart of the store a lease begins its ttl anew.
    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease>;

    /// Lets a lease begin its ttl anew; [`StoreError::LeaseNotFound`] when it lapsed.
    fn keep_alive(&self, id: LeaseId) -> StoreFuture<'_, ()>;

    /// Ends a lease and deletes its keys at one revision; [`StoreError::LeaseNotFound`] when it lapsed.
    fn revoke(&self, id: LeaseId) -> StoreFuture<'_, ()>;

    /// Forgets the events before `oldest`. Repeating it or naming an older revision does nothing;
    /// [`StoreError::FutureRevision`] for one that does not exist yet.
    fn compact(&self, oldest: Revision) -> StoreFuture<'_, ()>;
}

impl dyn Store + '_ {
    /// Writes a key unconditionally.
    ///
    /// # Errors
    ///
    /// As [`Store::txn`].
    pub async fn put(
        &self,
        key: impl Into<Key>,
        value: impl Into<Bytes>,
    ) -> Result<Revision, StoreError> {
        Ok(self.txn(Txn::new().then(Op::put(key, value))).await?.revision)
    }

    /// Writes a key only if it does not exist; whether it did write.
    ///
    /// # Errors
    ///
    /// As [`Store::txn`].
    pub async fn create(
        &self,
        key: impl Into<Key>,
        value: impl Into<Bytes>,
    ) -> Result<bool, StoreError> {
        let key = key.into();
        let txn = Txn::new().when(Compare::absent(&key)).then(Op::put(key, value));
        Ok(self.txn(txn).await?.succeeded)
    }

    /// Deletes a key; whether it existed.
    ///
    /// # Errors
    ///
    /// As [`Store::txn`].
    pub async fn delete(&self, key: impl Into<Key>) -> Result<bool, StoreError> {
        let outcome = self.txn(Txn::new().then(Op::delete(key))).await?;
        Ok(outcome.results == [OpResult::Deleted(1)])
    }

    /// Reads everything under `prefix`, page by page.
    ///
    /// # Errors
    ///
    /// As [`Store::range`].
    pub async fn read_all(&self, prefix: impl Into<Key>) -> Result<Snapshot, StoreError> {
        let mut range = Range::prefix(prefix);
        let mut page = self.range(range.clone()).await?;
        let mut snapshot = Snapshot { entries: page.entries, revision: page.revision };
        while page.more {
            range.after = snapshot.entries.last().map(|entry| entry.key.clone());
            page = self.range(range.clone()).await?;
            snapshot.entries.append(&mut page.entries);
        }
        Ok(snapshot)
    }
}
