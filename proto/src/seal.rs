//! Seals secrets: a bundle is encrypted once, its data key is sealed to every recipient host.
//!
//! Data: ChaCha20-Poly1305 (RFC 8439) under a fresh random key, so the all-zero nonce is used once per key.
//! Key: HPKE base mode (RFC 9180), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. `info` binds it to
//! host, app, unit and purpose: a wrapped key moved to another host, unit or purpose does not open.
//! This protects data at rest and in transit. A controller taken over while running can still order any image to
//! run with the secrets.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::model::secrets::{Purpose, Secrets, WrappedKey};
use crate::model::{HostName, Unit};

type Kem = X25519HkdfSha256;

/// Why sealing or opening failed. Tells nothing of the content.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key was sealed to a key this host no longer has (it enrolled anew).
    #[error(
        "sealed to another host key: the host enrolled anew since; run `dhow secrets push` or deploy again"
    )]
    OtherHostKey,
    /// Wrong host, unit or purpose, or the bytes were changed.
    #[error("could not be opened: sealed for another host, unit or purpose, or damaged")]
    Damaged,
    /// Not a key.
    #[error("the host key is malformed")]
    MalformedKey,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

/// What a wrapped key is bound to, beside the host key itself.
#[derive(Clone, Debug)]
pub struct Binding<'a> {
    /// Enrolled name of the host.
    pub host: &'a HostName,
    /// The unit.
    pub unit: &'a Unit,
    /// What for.
    pub purpose: Purpose,
}

impl Binding<'_> {
    fn info(&self) -> Vec<u8> {
        // Length-prefixed, so that no two bindings have the same bytes.
        let mut info = b"dhow/v1 data key".to_vec();
        for part in [self.host.as_str(), &self.unit.key(), self.purpose.as_str()] {
            info.extend((part.len() as u32).to_be_bytes());
            info.extend(part.as_bytes());
        }
        info
    }
}

fn data_aad(unit: &Unit, purpose: Purpose) -> Vec<u8> {
    format!("dhow/v1 bundle\n{}\n{}", unit.key(), purpose.as_str()).into_bytes()
}

/// A host's key pair for sealed secrets. The private half never leaves the host.
pub struct HostKey {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl HostKey {
    /// Makes a new pair.
    ///
    /// # Errors
    ///
    /// [`SealError::NoRandomness`].
    pub fn generate() -> Result<Self, SealError> {
        let mut private = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(private.as_mut()).map_err(|_| SealError::NoRandomness)?;
        Self::from_private(private)
    }

    /// The pair of a private key: 32 bytes, as [`Self::private_bytes`] gave them.
    ///
    /// # Errors
    ///
    /// [`SealError::MalformedKey`].
    pub fn from_private(private: Zeroizing<[u8; 32]>) -> Result<Self, SealError> {
        let key = <Kem as hpke::Kem>::PrivateKey::from_bytes(private.as_ref())
            .map_err(|_| SealError::MalformedKey)?;
        let public = Kem::sk_to_pk(&key).to_bytes().into();
        Ok(Self { private, public })
    }

    /// For the host's own key file only.
    pub fn private_bytes(&self) -> &[u8; 32] {
        &self.private
    }

    /// X25519 public key.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.public
    }

    /// SHA-256 of the public key.
    pub fn id(&self) -> [u8; 32] {
        host_key_id(&self.public)
    }

    /// Opens a bundle.
    ///
    /// # Errors
    ///
    /// [`SealError::OtherHostKey`] or [`SealError::Damaged`].
    pub fn open(
        &self,
        ciphertext: &[u8],
        key: &WrappedKey,
        binding: &Binding<'_>,
    ) -> Result<Secrets, SealError> {
        if key.host_key_id != self.id() {
            return Err(SealError::OtherHostKey);
        }
        let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(self.private.as_ref())
            .map_err(|_| SealError::MalformedKey)?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&key.encapsulated)
            .map_err(|_| SealError::Damaged)?;
        let data_key = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &private,
            &encapsulated,
            &binding.info(),
            &key.ciphertext,
            &[],
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::Damaged)?;
        let key = aead_key(&data_key)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let aad = Aad::from(data_aad(binding.unit, binding.purpose));
        let plain =
            key.open_in_place(zero_nonce(), aad, &mut buffer).map_err(|_| SealError::Damaged)?;
        Secrets::from_plaintext(plain).map_err(|_| SealError::Damaged)
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKey").field("id", &hex::encode(self.id())).finish_non_exhaustive()
    }
}

/// SHA-256 of a host's public key.
pub fn host_key_id(public: &[u8]) -> [u8; 32] {
    Sha256::digest(public).into()
}

/// A bundle encrypted once, with the data key still at hand to be wrapped for hosts.
pub struct Bundle {
    /// Ciphertext with its tag.
    pub ciphertext: Vec<u8>,
    data_key: Zeroizing<[u8; 32]>,
    unit: Unit,
    purpose: Purpose,
}

impl Bundle {
    /// Encrypts secrets for one unit and purpose under a fresh key.
    ///
    /// # Errors
    ///
    /// [`SealError::NoRandomness`].
    pub fn seal(secrets: &Secrets, unit: &Unit, purpose: Purpose) -> Result<Self, SealError> {
        let mut data_key = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(data_key.as_mut()).map_err(|_| SealError::NoRandomness)?;
        Self::seal_with(secrets, unit, purpose, data_key)
    }

    fn seal_with(
        secrets: &Secrets,
        unit: &Unit,
        purpose: Purpose,
        data_key: Zeroizing<[u8; 32]>,
    ) -> Result<Self, SealError> {
        let key = aead_key(data_key.as_ref())?;
        let plain = secrets.to_plaintext();
        // Room for the tag, so that the plaintext is never left behind by a growing buffer.
        let mut buffer = Vec::with_capacity(plain.len() + CHACHA20_POLY1305.tag_len());
        buffer.extend_from_slice(&plain);
        key.seal_in_place_append_tag(zero_nonce(), Aad::from(data_aad(unit, purpose)), &mut buffer)
            .map_err(|_| SealError::Damaged)?;
        Ok(Self { ciphertext: buffer, data_key, unit: unit.clone(), purpose })
    }

    /// Seals the data key to a host.
    ///
    /// # Errors
    ///
    /// [`SealError::MalformedKey`] where `public` is no X25519 key.
    pub fn wrap(&self, host: &HostName, public: &[u8]) -> Result<WrappedKey, SealError> {
        let recipient = <Kem as hpke::Kem>::PublicKey::from_bytes(public)
            .map_err(|_| SealError::MalformedKey)?;
        let binding = Binding { host, unit: &self.unit, purpose: self.purpose };
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Kem>(
                &OpModeS::Base,
                &recipient,
                &binding.info(),
                self.data_key.as_ref(),
                &[],
            )
            .map_err(|_| SealError::MalformedKey)?;
        Ok(WrappedKey {
            host_key_id: host_key_id(public),
            encapsulated: encapsulated.to_bytes().to_vec(),
            ciphertext,
        })
    }
}

fn aead_key(bytes: &[u8]) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&CHACHA20_POLY1305, bytes).map(LessSafeKey::new).map_err(|_| SealError::Damaged)
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests;
