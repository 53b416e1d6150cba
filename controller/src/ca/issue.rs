//! Signing certificates: for hosts and people from their requests, for the controller itself.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

use super::authority::Ca;
use super::identity::{GENERATION_UNIT, Identity, Serial};
use super::revoke;
use super::wrap::{self, WrapError};
use crate::store::StoreError;

/// A certificate is valid from this long before it is issued, for clocks that run behind.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Largest request: one with a P-256 key has about 300 bytes.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// The longest common name X.509 allows (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// An issued client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its number.
    pub serial: Serial,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// The controller's own certificate and key.
#[derive(Debug)]
pub struct ServerCertificate {
    /// The certificate, then the CA's: a client that knows only the CA's pin needs both.
    pub chain: Vec<CertificateDer<'static>>,
    /// Made for this certificate; never stored.
    pub key: PrivateKeyDer<'static>,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Not a PKCS#10 request, too large, or its signature does not fit its key.
    #[error("malformed certificate request")]
    MalformedRequest,
    /// A key that is not ECDSA P-256, P-384 or Ed25519.
    #[error("certificate request has an unsupported key (use ECDSA P-256 or Ed25519)")]
    UnsupportedKey,
    /// A server name that is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an address")]
    BadServerName(String),
    /// Signing failed.
    #[error("could not sign the certificate")]
    Sign(#[from] rcgen::Error),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] WrapError),
    /// The store failed.
    #[error("could not reach the store")]
    Store(#[from] StoreError),
}

impl Ca {
    /// Issues a client certificate for `identity`, with the key of the request.
    ///
    /// Whoever calls has established that the requester is `identity`, by a token or by the
    /// certificate that is renewed. The request's own names are ignored.
    ///
    /// # Errors
    ///
    /// [`IssueError::MalformedRequest`], [`IssueError::UnsupportedKey`]; others are ours.
    pub async fn issue(&self, identity: &Identity, csr_der: &[u8]) -> Result<Issued, IssueError> {
        let mut request = parse_request(csr_der)?;
        // Read before signing: a certificate that raced a revocation has the old generation.
        let generation = revoke::generation(&*self.store, identity).await?;
        let serial = new_serial()?;
        let validity = match identity {
            Identity::Host(_) => self.validity.host,
            Identity::User(_) => self.validity.user,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(identity, generation);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.uri())?)];
        let not_after = set_validity(&mut params, self.clock.now(), validity);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.clone());
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?;
        Ok(Issued {
            certificate_der: certificate.der().to_vec(),
            serial: Serial::from_bytes(serial.as_ref()),
            not_after,
        })
    }

    /// Makes a key and a certificate for the controller under `names`, DNS names or addresses.
    ///
    /// # Errors
    ///
    /// [`IssueError::BadServerName`]; others are ours.
    pub fn issue_server(&self, names: &[String]) -> Result<ServerCertificate, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "dhow controller");
        params.subject_alt_names = server_names(names)?;
        let not_after = set_validity(&mut params, self.clock.now(), self.validity.server);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(new_serial()?);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.ca_set().certificates().first().cloned());
        Ok(ServerCertificate {
            chain,
            key: PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| {
                // Cannot happen with what rcgen serialises, yet it is no reason to stop.
                IssueError::Sign(rcgen::Error::CouldNotParseKeyPair)
            })?,
            not_after,
        })
    }
}

/// 16 random bytes, positive: unique without a counter that replicas would share.
pub(super) fn new_serial() -> Result<SerialNumber, WrapError> {
    let mut bytes = wrap::random::<16>()?;
    // RFC 5280 asks for a positive number; the second bit keeps its length the same always.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&*bytes))
}

fn parse_request(csr_der: &[u8]) -> Result<CertificateSigningRequestParams, IssueError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(IssueError::MalformedRequest);
    }
    // Also verifies that the requester holds the key.
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|_| IssueError::MalformedRequest)?;
    let algorithm = request.public_key.algorithm();
    let supported = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    if supported.into_iter().any(|supported| supported == algorithm) {
        return Ok(request);
    }
    Err(IssueError::UnsupportedKey)
}

fn subject(identity: &Identity, generation: u64) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    // For people who look at it; the identity is the URI.
    if identity.name().len() <= MAX_COMMON_NAME {
        subject.push(DnType::CommonName, identity.name());
    }
    subject.push(DnType::OrganizationalUnitName, format!("{GENERATION_UNIT}{generation}"));
    subject
}

/// Whether a server certificate can carry these names.
///
/// # Errors
///
/// [`IssueError::BadServerName`] with the first that it cannot.
pub fn check_server_names(names: &[String]) -> Result<(), IssueError> {
    server_names(names).map(drop)
}

fn server_names(names: &[String]) -> Result<Vec<SanType>, IssueError> {
    let name = |name: &String| {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(SanType::IpAddress(address));
        }
        // The check TLS clients do, so that a name that they would refuse is refused here.
        rustls_pki_types::DnsName::try_from(name.as_str())
            .ok()
            .and_then(|_| Ia5String::try_from(name.as_str()).ok())
            .map(SanType::DnsName)
            .ok_or_else(|| IssueError::BadServerName(name.clone()))
    };
    names.iter().map(name).collect()
}

/// Sets the validity of a certificate issued at `now`; returns until when it is valid.
pub(super) fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    validity: Duration,
) -> Timestamp {
    let since_1970 = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + validity;
    Timestamp::from_second(params.not_after.unix_timestamp()).unwrap_or(Timestamp::MAX)
}
