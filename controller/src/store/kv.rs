//! The words of the store: keys, revisions, leases, errors, and the [`Store`] trait itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::txn::{Compare, MAX_TXN_BYTES, MAX_TXN_OPS, Op, OpResult, Txn, TxnOutcome};
use super::watch::Watch;

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

    /// Whether the transaction itself is at fault: no store takes it, now or later.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::DuplicateKey { .. } | Self::EmptyKey => true,
            Self::Unavailable { .. }
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
