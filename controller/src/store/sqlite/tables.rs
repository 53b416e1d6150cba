//! The SQL: entries, events, leases and counters as rows.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::store::apply::Tables;
use crate::store::kv::{
    Entry, Event, Key, LeaseId, MAX_PAGE_BYTES, Page, Range, Revision, StoreError,
};
use crate::store::watch::WatchBatch;

const ENTRY: &str = "key, value, create_revision, mod_revision, version, lease";

/// The counters of the store, as in table `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) revision: Revision,
    pub(super) oldest: Revision,
    pub(super) last_lease: u64,
}

/// The rows behind one connection.
pub(super) struct Rows<'a>(pub(super) &'a Connection);

impl Rows<'_> {
    pub(super) fn counters(&self) -> rusqlite::Result<Counters> {
        self.0.prepare_cached("SELECT revision, oldest, last_lease FROM state")?.query_row(
            [],
            |row| {
                Ok(Counters {
                    revision: Revision(unsigned(row, 0)?),
                    oldest: Revision(unsigned(row, 1)?),
                    last_lease: unsigned(row, 2)?,
                })
            },
        )
    }

    pub(super) fn write_counters(&self, counters: Counters) -> rusqlite::Result<()> {
        self.0
            .prepare_cached("UPDATE state SET revision = ?1, oldest = ?2, last_lease = ?3")?
            .execute(params![
                signed(counters.revision.0),
                signed(counters.oldest.0),
                signed(counters.last_lease)
            ])?;
        Ok(())
    }

    pub(super) fn get(&self, key: &Key) -> rusqlite::Result<Option<Entry>> {
        self.0
            .prepare_cached(&format!("SELECT {ENTRY} FROM entry WHERE key = ?1"))?
            .query_row([key.as_bytes()], entry_of)
            .optional()
    }

    /// One page; the caller holds a transaction, so that its revision is that of its entries.
    pub(super) fn page(&self, range: &Range) -> rusqlite::Result<Page> {
        let mut page =
            Page { entries: Vec::new(), more: false, revision: self.counters()?.revision };
        let after = range.after.as_ref().map(Key::as_bytes);
        let end = range.prefix.prefix_end();
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {ENTRY} FROM entry WHERE key >= ?1 AND (?2 IS NULL OR key < ?2)
             AND (?3 IS NULL OR key > ?3) ORDER BY key LIMIT ?4"
        ))?;
        // The greater of both bounds, so that SQLite seeks to it instead of skipping rows.
        let start =
            after.map_or(range.prefix.as_bytes(), |after| after.max(range.prefix.as_bytes()));
        // One more than wanted tells whether there is more.
        let limit = range.capped_limit() + 1;
        let end = end.as_ref().map(Key::as_bytes);
        let mut rows = statement.query(params![start, end, after, signed(limit as u64)])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            if page.entries.len() == range.capped_limit() || bytes >= MAX_PAGE_BYTES {
                page.more = true;
                break;
            }
            let entry = entry_of(row)?;
            bytes += entry.key.len() + entry.value.len();
            page.entries.push(entry);
        }
        Ok(page)
    }

    /// The events from `from` on under `prefix`, a batch per revision.
    pub(super) fn history(
        &self,
        prefix: &Key,
        from: Revision,
    ) -> rusqlite::Result<Vec<WatchBatch>> {
        let mut statement = self.0.prepare_cached(
            "SELECT key, value, create_revision, revision, version, lease FROM event
             WHERE revision >= ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3)
             ORDER BY revision, seq",
        )?;
        let end = prefix.prefix_end();
        let end = end.as_ref().map(Key::as_bytes);
        let mut rows = statement.query(params![signed(from.0), prefix.as_bytes(), end])?;
        let mut batches: Vec<WatchBatch> = Vec::new();
        while let Some(row) = rows.next()? {
            let revision = Revision(unsigned(row, 3)?);
            let event = event_of(row, revision)?;
            match batches.last_mut() {
                Some(batch) if batch.revision == revision => batch.events.push(event),
                Some(_) | None => batches.push(WatchBatch { revision, events: vec![event] }),
            }
        }
        Ok(batches)
    }

    pub(super) fn write_events(
        &self,
        revision: Revision,
        events: &[Event],
    ) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO event (revision, seq, key, value, create_revision, version, lease)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for (seq, event) in (0_i64..).zip(events) {
            let key = event.key().as_bytes();
            let entry = if let Event::Put(entry) = event { Some(entry) } else { None };
            statement.execute(params![
                signed(revision.0),
                seq,
                key,
                entry.map(|entry| &entry.value[..]),
                entry.map(|entry| signed(entry.create_revision.0)),
                entry.map(|entry| signed(entry.version)),
                entry.and_then(|entry| entry.lease).map(|lease| signed(lease.0)),
            ])?;
        }
        Ok(())
    }

    pub(super) fn forget_events(&self, before: Revision) -> rusqlite::Result<()> {
        self.0
            .prepare_cached("DELETE FROM event WHERE revision < ?1")?
            .execute([signed(before.0)])?;
        Ok(())
    }

    pub(super) fn leases(&self) -> rusqlite::Result<Vec<(LeaseId, Duration)>> {
        let mut statement = self.0.prepare_cached("SELECT id, ttl_ms FROM lease ORDER BY id")?;
        let rows = statement.query_map([], |row| {
            Ok((LeaseId(unsigned(row, 0)?), Duration::from_millis(unsigned(row, 1)?)))
        })?;
        rows.collect()
    }

    pub(super) fn write_lease(&self, id: LeaseId, ttl: Duration) -> rusqlite::Result<()> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.0
            .prepare_cached("INSERT INTO lease (id, ttl_ms) VALUES (?1, ?2)")?
            .execute([signed(id.0), signed(ttl_ms)])?;
        Ok(())
    }

    pub(super) fn remove_lease(&self, id: LeaseId) -> rusqlite::Result<()> {
        self.0.prepare_cached("DELETE FROM lease WHERE id = ?1")?.execute([signed(id.0)])?;
        Ok(())
    }
}

impl Tables for Rows<'_> {
    type Error = rusqlite::Error;

    fn entry(&mut self, key: &Key) -> rusqlite::Result<Option<Entry>> {
        self.get(key)
    }

    fn keys_under(&mut self, prefix: &Key) -> rusqlite::Result<Vec<Key>> {
        let mut statement = self.0.prepare_cached(
            "SELECT key FROM entry WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key",
        )?;
        let end = prefix.prefix_end();
        let end = end.as_ref().map(Key::as_bytes);
        let rows = statement.query_map(params![prefix.as_bytes(), end], |row| key_at(row, 0))?;
        rows.collect()
    }

    fn keys_of_lease(&mut self, lease: LeaseId) -> rusqlite::Result<Vec<Key>> {
        let mut statement =
            self.0.prepare_cached("SELECT key FROM entry WHERE lease = ?1 ORDER BY key")?;
        let rows = statement.query_map([signed(lease.0)], |row| key_at(row, 0))?;
        rows.collect()
    }

    fn write(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        self.0
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO entry ({ENTRY}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
            ))?
            .execute(params![
                entry.key.as_bytes(),
                &entry.value[..],
                signed(entry.create_revision.0),
                signed(entry.mod_revision.0),
                signed(entry.version),
                entry.lease.map(|lease| signed(lease.0)),
            ])?;
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> rusqlite::Result<()> {
        self.0.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([key.as_bytes()])?;
        Ok(())
    }
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: key_at(row, 0)?,
        value: Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
        create_revision: Revision(unsigned(row, 2)?),
        mod_revision: Revision(unsigned(row, 3)?),
        version: unsigned(row, 4)?,
        lease: row.get::<_, Option<i64>>(5)?.map(|id| LeaseId(id.unsigned_abs())),
    })
}

fn event_of(row: &Row<'_>, revision: Revision) -> rusqlite::Result<Event> {
    match row.get_ref(1)? {
        ValueRef::Null => Ok(Event::Delete { key: key_at(row, 0)?, revision }),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
            Ok(Event::Put(entry_of(row)?))
        }
    }
}

fn key_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    Ok(Key::from(row.get::<_, Vec<u8>>(column)?))
}

/// SQLite's integers are signed; ours start at 0 and never reach the top.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

/// What a caller is told of a failure of SQLite.
pub(super) fn unavailable(error: &rusqlite::Error) -> StoreError {
    StoreError::Unavailable { reason: error.to_string() }
}
