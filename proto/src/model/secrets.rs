//! Sealed secrets as values: who they are for, and what they hold once opened.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::{Zeroize as _, Zeroizing};

use super::document::BlobRef;
use super::error::{At, FieldError, required};
use super::unit::Unit;
use crate::wire;

/// What a bundle is for; part of what its key is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Environment of a role, accessory or task: variable → value.
    Env,
    /// Registry login: `username`, `password`.
    Registry,
    /// `certificate_pem`, `private_key_pem`.
    Tls,
    /// Path → content of files rendered with secrets.
    AccessoryFiles,
}

impl Purpose {
    /// The word in the binding of a sealed key; never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Registry => "registry",
            Self::Tls => "tls",
            Self::AccessoryFiles => "accessory-files",
        }
    }
}

impl TryFrom<i32> for Purpose {
    type Error = FieldError;

    fn try_from(number: i32) -> Result<Self, FieldError> {
        match wire::SecretPurpose::try_from(number) {
            Ok(wire::SecretPurpose::Env) => Ok(Self::Env),
            Ok(wire::SecretPurpose::Registry) => Ok(Self::Registry),
            Ok(wire::SecretPurpose::Tls) => Ok(Self::Tls),
            Ok(wire::SecretPurpose::AccessoryFiles) => Ok(Self::AccessoryFiles),
            Ok(wire::SecretPurpose::Unspecified) | Err(_) => {
                Err(FieldError::new("", format!("unknown secret purpose {number}")))
            }
        }
    }
}

impl From<Purpose> for wire::SecretPurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Env => Self::Env,
            Purpose::Registry => Self::Registry,
            Purpose::Tls => Self::Tls,
            Purpose::AccessoryFiles => Self::AccessoryFiles,
        }
    }
}

/// A data key sealed to one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// SHA-256 of the host's public key.
    pub host_key_id: [u8; 32],
    /// HPKE's encapsulated key.
    pub encapsulated: Vec<u8>,
    /// The sealed data key.
    pub ciphertext: Vec<u8>,
}

/// A bundle as one host can open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecrets {
    /// Encrypted once for all hosts.
    pub ciphertext: BlobRef,
    /// For this host.
    pub key: WrappedKey,
    /// What for.
    pub purpose: Purpose,
    /// The unit the key is bound to (a registry login is bound to the app, wherever it is used).
    pub unit: Unit,
}

impl TryFrom<wire::WrappedKey> for WrappedKey {
    type Error = FieldError;

    fn try_from(wire: wire::WrappedKey) -> Result<Self, FieldError> {
        let host_key_id = wire
            .host_key_id
            .as_ref()
            .try_into()
            .map_err(|_| FieldError::new("host_key_id", "must have 32 bytes"))?;
        Ok(Self {
            host_key_id,
            encapsulated: wire.encapsulated.into(),
            ciphertext: wire.ciphertext.into(),
        })
    }
}

impl From<&WrappedKey> for wire::WrappedKey {
    fn from(key: &WrappedKey) -> Self {
        Self {
            host_key_id: key.host_key_id.to_vec().into(),
            encapsulated: key.encapsulated.clone().into(),
            ciphertext: key.ciphertext.clone().into(),
        }
    }
}

impl TryFrom<wire::SealedSecrets> for SealedSecrets {
    type Error = FieldError;

    fn try_from(wire: wire::SealedSecrets) -> Result<Self, FieldError> {
        Ok(Self {
            ciphertext: BlobRef::try_from(required(wire.ciphertext, "ciphertext")?)
                .at("ciphertext")?,
            key: WrappedKey::try_from(required(wire.key, "key")?).at("key")?,
            purpose: Purpose::try_from(wire.purpose).at("purpose")?,
            unit: Unit::try_from(required(wire.unit, "unit")?).at("unit")?,
        })
    }
}

impl From<&SealedSecrets> for wire::SealedSecrets {
    fn from(sealed: &SealedSecrets) -> Self {
        Self {
            ciphertext: Some(sealed.ciphertext.into()),
            key: Some((&sealed.key).into()),
            purpose: wire::SecretPurpose::from(sealed.purpose).into(),
            unit: Some((&sealed.unit).into()),
        }
    }
}

/// An opened bundle: name → value. `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, SecretString>);

impl Secrets {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a value.
    pub fn insert(&mut self, name: impl Into<String>, value: SecretString) {
        self.0.insert(name.into(), value);
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.get(name)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// True where there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plaintext of a bundle: a JSON object; wiped when dropped.
    pub fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let plain: BTreeMap<&str, &str> =
            self.iter().map(|(n, v)| (n, v.expose_secret())).collect();
        Zeroizing::new(serde_json::to_vec(&plain).expect("a map of strings is JSON"))
    }

    /// Reads the plaintext of a bundle.
    ///
    /// # Errors
    ///
    /// [`FieldError`] that tells nothing of the content.
    pub fn from_plaintext(plain: &[u8]) -> Result<Self, FieldError> {
        let mut map: BTreeMap<String, String> = serde_json::from_slice(plain)
            .map_err(|_| FieldError::new("bundle", "is no JSON object of strings"))?;
        let mut secrets = Self::new();
        for (name, value) in &mut map {
            secrets.insert(name.clone(), SecretString::from(value.as_str()));
            value.zeroize();
        }
        Ok(secrets)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
