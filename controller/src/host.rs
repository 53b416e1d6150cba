//! Who is enrolled: one record per host, and the aliases it answers to.
//!
//! In: enrolments and revocations. Out: the host a config's spelling means. Always true: a name or alias means
//! one host.

use std::sync::Arc;

use dhow_proto::model::{FieldError, HostName};
use serde::{Deserialize, Serialize};

use crate::store::{Compare, Key, Op, Store, StoreError, Txn};

/// An enrolled host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRecord {
    /// Format of this record.
    pub v: u32,
    /// Name in its certificate.
    pub name: HostName,
    /// Other spellings configs may use.
    pub aliases: Vec<HostName>,
    /// X25519 public key secrets are sealed to: 64 hexadecimal digits.
    pub host_key: String,
    /// When it enrolled last.
    pub enrolled_at: jiff::Timestamp,
    /// Serial of its newest certificate.
    pub serial: String,
    /// When that certificate ends.
    pub expires_at: jiff::Timestamp,
    /// Revoked hosts may not open a session.
    pub revoked: bool,
}

impl HostRecord {
    /// The public key's 32 bytes.
    pub fn host_key_bytes(&self) -> Vec<u8> {
        hex::decode(&self.host_key).unwrap_or_default()
    }
}

/// Why a host could not be enrolled or found.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The name is taken and the token is not for enrolling anew.
    #[error(
        "host {0} is enrolled already; make a token with `dhow host token {0} --reenrol` to enrol it anew"
    )]
    Enrolled(HostName),
    /// An alias or name means another host already.
    #[error("{alias} is a name of host {owner} already")]
    AliasTaken {
        /// The spelling.
        alias: HostName,
        /// Whose it is.
        owner: String,
    },
    /// No such host.
    #[error("host {0} is not enrolled")]
    Unknown(HostName),
    /// A record could not be read.
    #[error("the record of a host is malformed")]
    Malformed(#[source] FieldError),
    /// Somebody else changed it at the same time.
    #[error("host {0} was changed at the same time; try again")]
    Raced(HostName),
    /// The store.
    #[error("the store could not be read or written")]
    Store(#[from] StoreError),
}

/// The enrolled hosts, in the store.
#[derive(Clone)]
pub struct Hosts {
    store: Arc<dyn Store>,
}

fn host_key(name: &HostName) -> Key {
    Key::from(format!("host/{name}"))
}

fn alias_key(alias: &HostName) -> Key {
    Key::from(format!("alias/{alias}"))
}

fn parse(bytes: &[u8]) -> Result<HostRecord, HostError> {
    serde_json::from_slice(bytes).map_err(|e| HostError::Malformed(FieldError::new("host", e)))
}

impl Hosts {
    /// Records in this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The record of a name.
    ///
    /// # Errors
    ///
    /// [`HostError::Store`], [`HostError::Malformed`].
    pub async fn get(&self, name: &HostName) -> Result<Option<HostRecord>, HostError> {
        self.store.get(host_key(name)).await?.map(|e| parse(&e.value)).transpose()
    }

    /// The host a config's spelling means: its name, else an alias.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub async fn resolve(&self, spelling: &HostName) -> Result<Option<HostRecord>, HostError> {
        if let Some(record) = self.get(spelling).await? {
            return Ok(Some(record));
        }
        let Some(entry) = self.store.get(alias_key(spelling)).await? else { return Ok(None) };
        let owner = std::str::from_utf8(&entry.value).ok().and_then(|t| HostName::try_from(t).ok());
        match owner {
            Some(owner) => self.get(&owner).await,
            None => Err(HostError::Malformed(FieldError::new("alias", "names no host"))),
        }
    }

    /// Every host, by name.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub async fn list(&self) -> Result<Vec<HostRecord>, HostError> {
        let snapshot = self.store.read_all("host/").await?;
        snapshot.entries.iter().map(|e| parse(&e.value)).collect()
    }

    /// What writes a record and its aliases, to be committed together with the use of a token. `anew` allows a host
    /// of this name to be there already.
    ///
    /// # Errors
    ///
    /// [`HostError::Enrolled`], [`HostError::AliasTaken`], [`HostError::Store`].
    pub async fn enrol_txn(&self, record: &HostRecord, anew: bool) -> Result<Txn, HostError> {
        let key = host_key(&record.name);
        let old = self.store.get(key.clone()).await?;
        if let Some(entry) = &old
            && !anew
            // A revoked host is gone for good: its name is free for a new machine.
            && !parse(&entry.value)?.revoked
        {
            return Err(HostError::Enrolled(record.name.clone()));
        }
        let mut txn = Txn::new().when(match &old {
            Some(entry) => Compare::unchanged(entry),
            None => Compare::absent(key.clone()),
        });
        for alias in record.aliases.iter().filter(|a| **a != record.name) {
            if let Some(owner) = self.resolve(alias).await?
                && owner.name != record.name
            {
                return Err(HostError::AliasTaken {
                    alias: alias.clone(),
                    owner: owner.name.to_string(),
                });
            }
            txn = txn.then(Op::put(alias_key(alias), record.name.to_string()));
        }
        let value = serde_json::to_vec(record).expect("a record of strings is JSON");
        Ok(txn.then(Op::put(key, value)))
    }

    /// Changes a record in place.
    ///
    /// # Errors
    ///
    /// [`HostError::Unknown`], [`HostError::Raced`], [`HostError::Store`].
    pub async fn update(
        &self,
        name: &HostName,
        change: impl FnOnce(&mut HostRecord),
    ) -> Result<HostRecord, HostError> {
        let key = host_key(name);
        let Some(entry) = self.store.get(key.clone()).await? else {
            return Err(HostError::Unknown(name.clone()));
        };
        let mut record = parse(&entry.value)?;
        change(&mut record);
        let value = serde_json::to_vec(&record).expect("a record of strings is JSON");
        let txn = Txn::new().when(Compare::unchanged(&entry)).then(Op::put(key, value));
        match self.store.txn(txn).await?.succeeded {
            true => Ok(record),
            false => Err(HostError::Raced(name.clone())),
        }
    }
}
