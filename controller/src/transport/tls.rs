//! The TLS side: our certificate, whose certificates we accept, and swapping both while running.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};

use crate::ca::{self, Ca, CaError, IssueError, Revocations};
use crate::clock::Clock;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority's certificates cannot be used.
    #[error("could not trust the certificate authority")]
    Authority(#[from] CaError),
    /// No certificate for our names.
    #[error("could not make the server's certificate")]
    Issue(#[from] IssueError),
    /// The library refused.
    #[error("could not set up TLS")]
    Setup(#[from] rustls::Error),
    /// The library refused the certificates to verify clients with.
    #[error("could not set up the check of client certificates: {0}")]
    Verifier(String),
}

/// The one implementation of cryptography in this program (`dependencies`: one provider).
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The current TLS configuration.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<ServerConfig>,
    revocations: Arc<Revocations>,
    time: Arc<dyn TimeProvider>,
}

/// The clock as rustls reads it.
struct WallTime(Arc<dyn Clock>);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::try_from(self.0.now().as_duration()).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl Tls {
    /// A fresh server certificate for `names`; clients are verified against the authority and the
    /// revocations.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn new(
        ca: &Ca,
        names: &[String],
        revocations: Arc<Revocations>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let time: Arc<dyn TimeProvider> = Arc::new(WallTime(clock));
        let config = configure(ca, names, &revocations, &time)?;
        Ok(Self { current: ArcSwap::from_pointee(config), revocations, time })
    }

    /// Replaces the server certificate and the trusted authorities; open connections stay.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; then the old ones stay in use.
    pub fn renew(&self, ca: &Ca, names: &[String]) -> Result<(), TlsError> {
        self.current.store(Arc::new(configure(ca, names, &self.revocations, &self.time)?));
        Ok(())
    }

    /// The configuration for the next handshake.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn configure(
    ca: &Ca,
    names: &[String],
    revocations: &Arc<Revocations>,
    time: &Arc<dyn TimeProvider>,
) -> Result<ServerConfig, TlsError> {
    let provider = crypto_provider();
    let roots = Arc::new(ca.ca_set().roots()?);
    // Without a certificate a client may still call Join and Login; the rooms behind decide.
    let inner = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Verifier(error.to_string()))?;
    let verifier = Verifier { inner, revocations: Arc::clone(revocations) };
    let server = ca.issue_server(names)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::clone(time))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(server.chain, server.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check of the certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The library's check, then ours: a dhow identity, not revoked. Inside the handshake, so that the
/// client is told why by TLS itself.
struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    revocations: Arc<Revocations>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let peer =
            ca::peer(end_entity).map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        self.revocations.check(&peer).map_err(|_| CertificateError::Revoked)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
