//! The sealed bundles of a rollout, looked up by what they are for. Ciphertext only: nothing here can open one.

use std::collections::BTreeMap;

use dhow_proto::model::error::{At, required};
use dhow_proto::model::secrets::{Purpose, SealedSecrets, WrappedKey};
use dhow_proto::model::{BlobRef, FieldError, HostName, Unit};
use dhow_proto::wire;
use prost::Message as _;

/// What a bundle is for: purpose, unit, index of the role's template.
type Meant = (Purpose, Unit, u32);

/// Every bundle of a rollout.
#[derive(Clone, Debug, Default)]
pub struct Bundles {
    ciphertexts: BTreeMap<Meant, BlobRef>,
    keys: BTreeMap<(Meant, HostName), WrappedKey>,
}

impl Bundles {
    /// Reads the blob a client uploaded.
    ///
    /// # Errors
    ///
    /// [`FieldError`] with the path of the field.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        let wire = wire::SealedBundles::decode(bytes).map_err(|e| FieldError::new("bundles", e))?;
        let mut read = Self::default();
        for (i, bundle) in wire.bundles.into_iter().enumerate() {
            read.add(bundle).at(format!("bundles[{i}]"))?;
        }
        Ok(read)
    }

    fn add(&mut self, bundle: wire::SealedBundle) -> Result<(), FieldError> {
        let purpose = Purpose::try_from(bundle.purpose).at("purpose")?;
        let unit = Unit::try_from(required(bundle.unit, "unit")?).at("unit")?;
        let meant = (purpose, unit, bundle.template);
        let ciphertext = BlobRef::try_from(required(bundle.ciphertext, "ciphertext")?);
        self.ciphertexts.insert(meant.clone(), ciphertext.at("ciphertext")?);
        for (i, key) in bundle.keys.into_iter().enumerate() {
            let path = format!("keys[{i}]");
            let host = HostName::try_from(key.host).at("host").at(&path)?;
            let key = WrappedKey::try_from(required(key.key, "key").at(&path)?).at(&path)?;
            self.keys.insert((meant.clone(), host), key);
        }
        Ok(())
    }

    /// The bundle as one host can open it; none where it was not sealed for the host.
    pub fn sealed(
        &self,
        purpose: Purpose,
        unit: &Unit,
        template: usize,
        host: &HostName,
    ) -> Option<SealedSecrets> {
        let meant = (purpose, unit.clone(), u32::try_from(template).ok()?);
        let ciphertext = *self.ciphertexts.get(&meant)?;
        let key = self.keys.get(&(meant, host.clone()))?.clone();
        Some(SealedSecrets { ciphertext, key, purpose, unit: unit.clone() })
    }

    /// Every ciphertext, each of which must have been uploaded.
    pub fn ciphertexts(&self) -> impl Iterator<Item = BlobRef> {
        self.ciphertexts.values().copied()
    }
}
