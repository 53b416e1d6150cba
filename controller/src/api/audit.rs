//! The audit log: every change with who, from where, what and its result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dhow_proto::model::App;
use dhow_proto::wire;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// One change, as stored under `audit/<milliseconds>-<n>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// Format of this record.
    pub v: u32,
    /// When.
    pub at: jiff::Timestamp,
    /// User or host.
    pub who: String,
    /// Peer address.
    pub from: String,
    /// A sentence without secrets.
    pub what: String,
    /// `ok`, or why not.
    pub result: String,
    /// The app it was about.
    pub app: Option<App>,
}

/// Writes and reads the log.
#[derive(Clone)]
pub struct Audit {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    // Tells records of one millisecond apart.
    next: Arc<AtomicU32>,
}

impl Audit {
    /// A log in this store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, next: Arc::default() }
    }

    /// Records a change. A log that cannot be written is an error in the program's own log, not a reason to undo
    /// what was done.
    pub async fn record(
        &self,
        who: &str,
        from: &str,
        app: Option<&App>,
        what: String,
        result: Result<(), String>,
    ) {
        let record = AuditRecord {
            v: 1,
            at: self.clock.now(),
            who: who.to_owned(),
            from: from.to_owned(),
            what,
            result: result.err().unwrap_or_else(|| "ok".to_owned()),
            app: app.cloned(),
        };
        tracing::info!(who, from, what = %record.what, result = %record.result, "audit");
        let n = self.next.fetch_add(1, Ordering::Relaxed) % 100_000;
        let key = format!("audit/{:013}-{n:05}", record.at.as_millisecond());
        let value = serde_json::to_vec(&record).expect("a record of strings is JSON");
        if let Err(error) = self.store.put(key, value).await {
            tracing::error!(%error, "the audit log could not be written");
        }
    }

    /// Newest first.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn newest(
        &self,
        app: Option<&App>,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let snapshot = self.store.read_all("audit/").await?;
        let records = snapshot
            .entries
            .iter()
            .rev()
            .filter_map(|e| serde_json::from_slice::<AuditRecord>(&e.value).ok());
        Ok(records.filter(|r| app.is_none() || r.app.as_ref() == app).take(limit).collect())
    }
}

impl From<&AuditRecord> for wire::AuditRecord {
    fn from(record: &AuditRecord) -> Self {
        Self {
            at: Some(super::code::stamp(record.at)),
            who: record.who.clone(),
            from: record.from.clone(),
            what: record.what.clone(),
            result: record.result.clone(),
            app: record.app.as_ref().map(Into::into),
        }
    }
}
