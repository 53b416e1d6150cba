//! Documents: JSON that is named by the digest of its bytes.
//!
//! The spec and the templates travel as blobs holding one canonical JSON text each. Unlike a protobuf
//! message, a document with a field its reader does not know is refused, so that an old agent never
//! carries out half of a template.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::FieldError;
use crate::wire;

/// SHA-256 of a blob's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobDigest([u8; 32]);

impl BlobDigest {
    /// Digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first `digits` hexadecimal digits, for names that need no more.
    pub fn short(&self, digits: usize) -> String {
        let mut text = self.to_string();
        text.truncate(digits);
        text
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobDigest({self})")
    }
}

impl TryFrom<&[u8]> for BlobDigest {
    type Error = FieldError;

    fn try_from(bytes: &[u8]) -> Result<Self, FieldError> {
        let bytes = bytes.try_into().map_err(|_| {
            FieldError::new("", format!("a digest has 32 bytes, found {}", bytes.len()))
        })?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for BlobDigest {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        let bytes = hex::decode(&text).map_err(|e| FieldError::new("", e))?;
        Self::try_from(bytes.as_slice())
    }
}

impl From<BlobDigest> for String {
    fn from(digest: BlobDigest) -> Self {
        digest.to_string()
    }
}

/// A blob by digest and size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// Names the bytes.
    pub digest: BlobDigest,
    /// Length in bytes.
    pub size: u64,
}

impl BlobRef {
    /// Names these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: BlobDigest::of(bytes), size: bytes.len() as u64 }
    }
}

impl TryFrom<wire::BlobRef> for BlobRef {
    type Error = FieldError;

    fn try_from(wire: wire::BlobRef) -> Result<Self, FieldError> {
        let digest = BlobDigest::try_from(wire.digest.as_ref()).map_err(|e| e.under("digest"))?;
        Ok(Self { digest, size: wire.size })
    }
}

impl From<BlobRef> for wire::BlobRef {
    fn from(blob: BlobRef) -> Self {
        Self { digest: blob.digest.as_bytes().to_vec().into(), size: blob.size }
    }
}

/// A value that travels as a JSON blob.
pub trait Document: Serialize + DeserializeOwned {
    /// What it is called in errors: `spec`, `role template`.
    const KIND: &'static str;

    /// Canonical bytes: compact JSON, fields in declaration order, maps sorted.
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("documents hold only strings, numbers, lists and maps with string keys")
    }

    /// The blob these bytes are.
    fn blob(&self) -> BlobRef {
        BlobRef::of(&self.to_bytes())
    }

    /// Reads a document back.
    ///
    /// # Errors
    ///
    /// [`FieldError`] with the path of the field, also for fields this build does not know.
    fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        let reader = &mut serde_json::Deserializer::from_slice(bytes);
        serde_path_to_error::deserialize(reader).map_err(|e| {
            let path = format!("{}.{}", Self::KIND, e.path());
            FieldError::new(path, e.into_inner())
        })
    }
}
