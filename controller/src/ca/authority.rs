//! The authority itself: its key, and the set of CA certificates that clients are to trust.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::issue;
use super::wrap::{WrapError, WrapSecret, WrappedKey};
use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// Where the authority is stored, as one document.
const KEY: &str = "ca";

/// Ten years: agents that are away for long still know it; rotation is by adding to the set.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long certificates are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// A host's; default 7 days, renewed on the running session.
    pub host: Duration,
    /// A person's; default 30 days.
    pub user: Duration,
    /// The controller's own; default 30 days, made anew at every start and long before it ends.
    pub server: Duration,
}

impl Default for Validity {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self { host: days(7), user: days(30), server: days(30) }
    }
}

/// Why there is no usable authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is one already.
    #[error("this store has a certificate authority already")]
    Exists,
    /// There is none yet.
    #[error("this store has no certificate authority yet")]
    Missing,
    /// Its key could not be wrapped or unwrapped.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// What is stored cannot be read.
    #[error("stored certificate authority is damaged: {0}")]
    Damaged(String),
    /// Making the key or the certificate failed.
    #[error("could not make the certificate authority")]
    Make(#[from] rcgen::Error),
    /// The store failed.
    #[error("could not reach the store")]
    Store(#[from] StoreError),
}

/// All CA certificates that are trusted: one, or more while one replaces another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSet(Vec<CertificateDer<'static>>);

impl CaSet {
    /// The certificates, DER, the signing one first.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// The same as plain bytes, as the wire carries them.
    #[must_use]
    pub fn der(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// As trust anchors for TLS.
    ///
    /// # Errors
    ///
    /// [`CaError::Damaged`] for one that TLS cannot use.
    pub fn roots(&self) -> Result<RootCertStore, CaError> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone()).map_err(|error| CaError::Damaged(error.to_string()))?;
        }
        Ok(roots)
    }
}

/// The certificate authority of this controller.
pub struct Ca {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) validity: Validity,
    set: CaSet,
    pin: [u8; 32],
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("pin", &hex::encode(self.pin)).finish_non_exhaustive()
    }
}

/// The stored form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    v: u32,
    /// The signing authority first; others only verify, while certificates of theirs are around.
    authorities: Vec<StoredAuthority>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAuthority {
    /// DER, base64.
    certificate: String,
    /// Absent once it only verifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<WrappedKey>,
}

impl Ca {
    /// Makes the authority of a new store, its key wrapped under `secret`.
    ///
    /// # Errors
    ///
    /// [`CaError::Exists`] when there is one; it is left alone.
    pub async fn create(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        secret: &WrapSecret,
        validity: Validity,
    ) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = authority_params(&*clock)?.self_signed(&key)?;
        let wrapped = secret.wrap(key.serialized_der(), &context(certificate.der()))?;
        let authority =
            StoredAuthority { certificate: BASE64.encode(certificate.der()), key: Some(wrapped) };
        let stored = Stored { v: 1, authorities: vec![authority] };
        let json =
            serde_json::to_vec(&stored).map_err(|error| CaError::Damaged(error.to_string()))?;
        if !store.create(KEY, json).await? {
            return Err(CaError::Exists);
        }
        Self::open(store, clock, secret, validity).await
    }

    /// Opens the authority of a store.
    ///
    /// # Errors
    ///
    /// [`CaError::Missing`] before [`create`](Self::create); [`CaError::Wrap`] with
    /// [`WrapError::WrongSecret`] for another secret than the one it was wrapped under.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        secret: &WrapSecret,
        validity: Validity,
    ) -> Result<Self, CaError> {
        let entry = store.get(KEY.into()).await?.ok_or(CaError::Missing)?;
        let stored: Stored = serde_json::from_slice(&entry.value)
            .map_err(|error| CaError::Damaged(error.to_string()))?;
        if stored.v != 1 {
            return Err(CaError::Damaged(format!("unknown format {}", stored.v)));
        }
        let certificates = stored.authorities.iter().map(|authority| {
            let der = BASE64.decode(&authority.certificate);
            der.map(CertificateDer::from).map_err(|error| CaError::Damaged(error.to_string()))
        });
        let set = CaSet(certificates.collect::<Result<_, _>>()?);
        let (Some(signing), Some(first)) = (set.0.first(), stored.authorities.first()) else {
            return Err(CaError::Damaged("no authority in it".into()));
        };
        let wrapped = first.key.as_ref().ok_or_else(|| CaError::Damaged("no key in it".into()))?;
        let key = secret.unwrap(wrapped, &context(signing))?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(&key[..]),
            &PKCS_ECDSA_P256_SHA256,
        )?;
        let pin = spki_hash(signing)?;
        let issuer = Issuer::from_ca_cert_der(signing, key)?;
        Ok(Self { store, clock, issuer, validity, set, pin })
    }

    /// What clients are to trust.
    #[must_use]
    pub fn ca_set(&self) -> &CaSet {
        &self.set
    }

    /// SHA-256 of the signing authority's public key (SubjectPublicKeyInfo, DER): what a token
    /// carries, so that the first connection trusts this controller only.
    #[must_use]
    pub fn pin(&self) -> &[u8; 32] {
        &self.pin
    }
}

fn authority_params(clock: &dyn Clock) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "dhow certificate authority");
    issue::set_validity(&mut params, clock.now(), CA_VALIDITY);
    params.serial_number = Some(issue::new_serial()?);
    // No intermediate authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Binds a wrapped key to its purpose and its certificate.
fn context(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let mut context = b"dhow ca key 1 ".to_vec();
    context.extend_from_slice(&Sha256::digest(certificate));
    context
}

fn spki_hash(certificate: &CertificateDer<'_>) -> Result<[u8; 32], CaError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| CaError::Damaged(error.to_string()))?;
    Ok(Sha256::digest(parsed.public_key().raw).into())
}
