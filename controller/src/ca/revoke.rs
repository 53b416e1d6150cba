//! Taking certificates back, at once.
//!
//! Two ways, both in the store and both known to every handshake: a single certificate by its
//! serial number, and everything an identity was ever given by raising its generation, which
//! every certificate carries. Enrolling anew gives a certificate of the new generation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::identity::{Identity, Peer, Serial};
use crate::store::{Compare, Entry, Event, Key, Op, Revision, Store, StoreError, Txn};

const SERIALS: &str = "revoked/";
const GENERATIONS: &str = "identity/";

/// The generation of an identity that was never revoked.
const FIRST_GENERATION: u64 = 1;

/// A certificate that is not to be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Revoked {
    /// This one certificate was revoked.
    #[error("certificate {serial} was revoked")]
    Certificate {
        /// Its number.
        serial: Serial,
    },
    /// Everything issued to the identity until then was revoked.
    #[error("the certificates of {identity} were revoked")]
    Identity {
        /// Whose.
        identity: Identity,
    },
}

/// The stored form of a revoked serial. Times are seconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SerialRecord {
    v: u32,
    /// For people who look.
    identity: String,
    /// From then on the certificate is refused anyway, and this record may go.
    expires_at_s: i64,
}

/// What is revoked, kept current.
pub struct Revocations {
    store: Arc<dyn Store>,
    view: RwLock<View>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct View {
    revision: Option<Revision>,
    serials: BTreeSet<String>,
    generations: BTreeMap<String, u64>,
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revocations")
    }
}

impl Revocations {
    /// Reads what is revoked now; [`follow`](Self::follow) keeps it current.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let revocations =
            Self { store, view: RwLock::new(View::default()), changes: watch::Sender::new(0) };
        revocations.reload().await?;
        Ok(revocations)
    }

    /// Whether a certificate may be served. Looks at nothing but memory.
    ///
    /// # Errors
    ///
    /// [`Revoked`] when it may not.
    pub fn check(&self, peer: &Peer) -> Result<(), Revoked> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        if view.serials.contains(&peer.serial.to_string()) {
            return Err(Revoked::Certificate { serial: peer.serial.clone() });
        }
        let generation = view.generations.get(&suffix(&peer.identity)).copied();
        if peer.generation < generation.unwrap_or(FIRST_GENERATION) {
            return Err(Revoked::Identity { identity: peer.identity.clone() });
        }
        Ok(())
    }

    /// Changes whenever something more is revoked: then look at every open session again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Revokes everything issued to `identity` so far, durably, and here at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn revoke_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        let key = generation_key(identity);
        loop {
            let entry = self.store.get(key.clone()).await?;
            let (compare, generation) = match &entry {
                Some(entry) => (Compare::unchanged(entry), parse_generation(entry)?),
                None => (Compare::absent(&key), FIRST_GENERATION),
            };
            let put = Op::put(&key, (generation + 1).to_string());
            if self.store.txn(Txn::new().when(compare).then(put)).await?.succeeded {
                return self.reload().await;
            }
        }
    }

    /// Revokes one certificate, durably, and here at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn revoke_certificate(&self, peer: &Peer) -> Result<(), StoreError> {
        let record = SerialRecord {
            v: 1,
            identity: peer.identity.uri(),
            expires_at_s: peer.not_after.as_second(),
        };
        let json = serde_json::to_vec(&record)
            .map_err(|error| StoreError::Unavailable { reason: error.to_string() })?;
        self.store.put(format!("{SERIALS}{}", peer.serial), json).await?;
        self.reload().await
    }

    /// Forgets revoked certificates that expired by themselves; returns how many.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut swept = 0;
        for entry in self.store.read_all(SERIALS).await?.entries {
            let record: Result<SerialRecord, _> = serde_json::from_slice(&entry.value);
            // One that cannot be read stays: its key still refuses the certificate.
            if record.is_ok_and(|record| record.expires_at_s < now.as_second()) {
                swept += usize::from(self.store.delete(entry.key).await?);
            }
        }
        Ok(swept)
    }

    /// Follows the store until `shutdown`, so that what another replica revokes counts here, too.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store ends; being too slow is cured by reading again.
    pub async fn follow(&self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                // Nothing is half-done: the view is replaced whole.
                () = shutdown.cancelled() => return Ok(()),
                ended = self.follow_once() => match ended {
                    StoreError::Lagged | StoreError::Compacted { .. } => self.reload().await?,
                    error => return Err(error),
                }
            }
        }
    }

    async fn follow_once(&self) -> StoreError {
        let from = self.view.read().unwrap_or_else(PoisonError::into_inner).revision;
        let from = from.unwrap_or(Revision(0)).next();
        // Two prefixes, so two watches; an event in one says no more than "look again".
        let watches = tokio::try_join!(
            self.store.watch(SERIALS.into(), from),
            self.store.watch(GENERATIONS.into(), from)
        );
        let (mut serials, mut generations) = match watches {
            Ok(watches) => watches,
            Err(error) => return error,
        };
        loop {
            let batch = tokio::select! {
                // Cancel-safe: a batch not taken comes next time.
                batch = serials.next() => batch,
                batch = generations.next() => batch,
            };
            match batch {
                Ok(batch) => self.apply(batch.revision, &batch.events),
                Err(error) => return error,
            }
        }
    }

    fn apply(&self, revision: Revision, events: &[Event]) {
        {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                view.apply(event);
            }
            view.revision = view.revision.max(Some(revision));
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let serials = self.store.read_all(SERIALS).await?;
        let generations = self.store.read_all(GENERATIONS).await?;
        let mut fresh = View { revision: Some(serials.revision), ..View::default() };
        for entry in serials.entries.into_iter().chain(generations.entries) {
            fresh.apply(&Event::Put(entry));
        }
        {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            // An older reading never replaces a newer one.
            if fresh.revision >= view.revision {
                *view = fresh;
            }
        }
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }
}

impl View {
    fn apply(&mut self, event: &Event) {
        let Some(name) = event.key().as_str() else { return };
        if let Some(serial) = name.strip_prefix(SERIALS) {
            match event {
                Event::Put(_) => drop(self.serials.insert(serial.to_owned())),
                Event::Delete { .. } => drop(self.serials.remove(serial)),
            }
        } else if let Some(identity) = name.strip_prefix(GENERATIONS) {
            // Nothing deletes a generation, and one that cannot be read refuses everything.
            let generation = match event {
                Event::Put(entry) => parse_generation(entry).unwrap_or(u64::MAX),
                Event::Delete { .. } => return,
            };
            let known = self.generations.entry(identity.to_owned()).or_insert(generation);
            *known = generation.max(*known);
        }
    }
}

/// The generation new certificates of `identity` get.
pub(super) async fn generation(store: &dyn Store, identity: &Identity) -> Result<u64, StoreError> {
    match store.get(generation_key(identity)).await? {
        Some(entry) => parse_generation(&entry),
        None => Ok(FIRST_GENERATION),
    }
}

fn suffix(identity: &Identity) -> String {
    match identity {
        Identity::Host(name) => format!("host/{name}"),
        Identity::User(name) => format!("user/{name}"),
    }
}

fn generation_key(identity: &Identity) -> Key {
    Key::from(format!("{GENERATIONS}{}", suffix(identity)))
}

fn parse_generation(entry: &Entry) -> Result<u64, StoreError> {
    let text = std::str::from_utf8(&entry.value).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| StoreError::Unavailable {
        reason: format!("stored generation of {} is not a number", entry.key),
    })
}
