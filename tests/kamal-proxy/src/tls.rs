//! Custom certificates, chosen by the name the client asks for. There is no ACME.

use std::path::Path;
use std::sync::{Arc, Weak};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::router::Router;

/// Loads a certificate chain and its key (PEM).
pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    const FAILED: &str = "unable to load certificate";
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|_| FAILED)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|_| FAILED)?;
    if chain.is_empty() {
        return Err(FAILED.to_owned());
    }
    let provider = rustls::crypto::ring::default_provider();
    // Fails as well when the key is not the certificate's.
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|_| FAILED)?;
    Ok(Arc::new(certified))
}

/// The TLS side of the listener; certificates are looked up in `router` at each handshake.
pub(crate) fn server_config(router: &Arc<Router>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni(Arc::downgrade(router))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

struct BySni(Weak<Router>);

impl std::fmt::Debug for BySni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BySni")
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.upgrade()?.certificate(hello.server_name())
    }
}
