//! Sealed secrets as values: who they are for, and what they hold once opened.

use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{MapAccess, Visitor};
use serde::{Deserializer as _, Serializer as _};
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

/// An opened bundle: names and values, in the order they were added (the order of Kamal's env file). `Debug` shows names
/// only.
#[derive(Clone, Default)]
pub struct Secrets(Vec<(String, SecretString)>);

impl Secrets {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value, or replaces the one of this name.
    pub fn insert(&mut self, name: impl Into<String>, value: SecretString) {
        let name = name.into();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// True where there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plaintext of a bundle: a JSON object; wiped when dropped.
    pub fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::new());
        let mut writer = serde_json::Serializer::new(&mut *plain);
        writer
            .collect_map(self.iter().map(|(name, value)| (name, value.expose_secret())))
            .expect("a map of strings is JSON, and a vector can be written to");
        plain
    }

    /// Reads the plaintext of a bundle.
    ///
    /// # Errors
    ///
    /// [`FieldError`] that tells nothing of the content.
    pub fn from_plaintext(plain: &[u8]) -> Result<Self, FieldError> {
        let mut reader = serde_json::Deserializer::from_slice(plain);
        reader
            .deserialize_map(InOrder)
            .map_err(|_| FieldError::new("bundle", "is no JSON object of strings"))
    }
}

/// Reads a map without losing its order.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Secrets;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secrets, A::Error> {
        let mut secrets = Secrets::new();
        while let Some((name, mut value)) = map.next_entry::<String, String>()? {
            secrets.insert(name, SecretString::from(value.as_str()));
            value.zeroize();
        }
        Ok(secrets)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
