//! Dials a controller: TCP, mutually authenticated TLS 1.3, HTTP/2. For agents and for the CLI.
//!
//! In: an address, and either an identity with the CA set it trusts, or the hash that a token pins. Out: a tonic
//! [`Channel`] over **one** connection: when that connection is over, calls fail with `UNAVAILABLE` and whoever holds
//! the channel dials again, so that back-off, failover between addresses and a renewed certificate are decided in one
//! place.
//! Always true: a peer is either proven to be a controller (chain, purpose, validity, name) or not spoken to; a dead
//! peer is noticed within 15 s; no session ticket is used, as a resumed session skips the check of certificates.

mod pinned;
mod refused;

use std::fmt;
use std::future::Ready;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use pinned::PinnedCa;
use refused::Listening;

/// Longest time for resolving, connecting and the TLS handshake together.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Time between HTTP/2 pings. With [`PING_TIMEOUT`] a silent peer is noticed after at most 13 s (the promise is 15 s).
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// Flow control windows: small, so that streams of one connection share it fairly.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is no `HOST:PORT`.
    #[error("{0:?} is no address of a controller: write HOST:PORT")]
    Address(String),
    /// Name resolution or TCP failed.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// What was dialled.
        address: Address,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing within [`CONNECT_DEADLINE`].
    #[error("{0} did not answer within {CONNECT_DEADLINE:?}")]
    TimedOut(Address),
    /// The peer is not the controller we trust.
    #[error("{address} is not a controller this certificate belongs to")]
    Untrusted {
        /// What was dialled.
        address: Address,
        /// What TLS says.
        #[source]
        source: io::Error,
    },
    /// The controller is the right one, but does not take our certificate.
    #[error("{address} refuses this certificate: {reason}")]
    Refused {
        /// What was dialled.
        address: Address,
        /// Expired, revoked, or another controller's.
        reason: String,
    },
    /// TLS is up but HTTP/2 is not.
    #[error("{address} does not speak dhow's protocol")]
    Protocol {
        /// What was dialled.
        address: Address,
        /// What the transport says.
        #[source]
        source: tonic::transport::Error,
    },
    /// Our own key, certificate or CA set is unusable.
    #[error("the certificate, its key or the CA set cannot be used")]
    Identity(#[source] rustls::Error),
}

impl DialError {
    /// True where trying again later may help without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            // An untrusted peer is tried again too: a controller may have been replaced for a while by something else
            // on its address, and must find its agents when it is back.
            Self::Unreachable { .. }
            | Self::TimedOut(_)
            | Self::Untrusted { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. } => true,
            Self::Address(_) | Self::Identity(_) => false,
        }
    }
}

/// Where a controller listens: `deploy.example.com:7443`, `10.0.0.1:7443`, `[fd00::1]:7443`; `https://` in front is
/// allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The name or IP address that the controller's certificate must carry; no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = DialError;

    fn from_str(text: &str) -> Result<Self, DialError> {
        let refused = || DialError::Address(text.chars().take(300).collect());
        let rest = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = rest.rsplit_once(':').ok_or_else(refused)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        // An IPv6 address without brackets leaves it open where the port begins.
        if host.is_empty() || (bare.is_none() && host.contains(':')) {
            return Err(refused());
        }
        ServerName::try_from(host).map_err(|_| refused())?;
        let port = port.parse().map_err(|_| refused())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A client certificate and its key. `Debug` shows neither.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From DER: a certificate and a PKCS#8 (or SEC1, PKCS#1) key.
    ///
    /// # Errors
    ///
    /// [`DialError::Identity`] where the key is in none of these forms.
    pub fn from_der(certificate_der: &[u8], key_der: &[u8]) -> Result<Self, DialError> {
        let key = PrivateKeyDer::try_from(key_der)
            .map_err(|e| DialError::Identity(rustls::Error::General(e.to_owned())))?
            .clone_key();
        Ok(Self { certificate: CertificateDer::from(certificate_der.to_vec()), key })
    }

    /// From PEM texts.
    ///
    /// # Errors
    ///
    /// [`DialError::Identity`] where there is no certificate or key in them.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, DialError> {
        use rustls_pki_types::pem::PemObject as _;
        let refused = |what: &str| DialError::Identity(rustls::Error::General(what.to_owned()));
        Ok(Self {
            certificate: CertificateDer::from_pem_slice(certificate_pem)
                .map_err(|_| refused("no certificate in the PEM text"))?,
            key: PrivateKeyDer::from_pem_slice(key_pem)
                .map_err(|_| refused("no private key in the PEM text"))?,
        })
    }

    /// The certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A connection before TLS.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for T {}

/// What opening a connection gives.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send + 'a>>;

/// What is outside of a program: the network, and the time that certificates are held to.
pub trait Outside: fmt::Debug + Send + Sync + 'static {
    /// Opens a connection to a host (name or IP address) and port.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;

    /// The time of day.
    fn time(&self) -> Arc<dyn TimeProvider>;
}

/// The machine's network and clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Outside for Machine {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let tcp = TcpStream::connect((host, port)).await?;
            // Small messages are to leave at once.
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp) as Box<dyn Socket>)
        })
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(DefaultTimeProvider)
    }
}

/// Connects with an identity that may be replaced at any time; the next connection uses the new one.
///
/// Cheap to share behind an `Arc`.
pub struct Dialer {
    // Never held across an await; swapped whole.
    config: RwLock<Arc<ClientConfig>>,
    outside: Arc<dyn Outside>,
}

impl Dialer {
    /// For whoever has enrolled: shows `identity`, accepts a controller whose certificate one of `ca_set` (DER) signed.
    ///
    /// # Errors
    ///
    /// [`DialError::Identity`] where the key does not fit the certificate or the CA set is empty or malformed.
    pub fn enrolled(identity: &Identity, ca_set: &[Vec<u8>]) -> Result<Self, DialError> {
        Self::enrolled_in(Arc::new(Machine), identity, ca_set)
    }

    /// The same with another network and clock than the machine's.
    ///
    /// # Errors
    ///
    /// As [`Self::enrolled`].
    pub fn enrolled_in(
        outside: Arc<dyn Outside>,
        identity: &Identity,
        ca_set: &[Vec<u8>],
    ) -> Result<Self, DialError> {
        let config = enrolled(&*outside, identity, ca_set)?;
        Ok(Self { config: RwLock::new(config), outside })
    }

    /// For joining and logging in: shows no certificate, accepts a controller whose chain ends in a CA with this SHA-256
    /// of its SubjectPublicKeyInfo (see [`token_pin`]).
    ///
    /// # Errors
    ///
    /// [`DialError::Identity`], in theory.
    pub fn pinned(spki_sha256: [u8; 32]) -> Result<Self, DialError> {
        let outside = Arc::new(Machine);
        let provider = Arc::new(ring::default_provider());
        let verifier = PinnedCa { spki_sha256, provider: provider.clone() };
        let config = ClientConfig::builder_with_details(provider, outside.time())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(DialError::Identity)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { config: RwLock::new(finish(config)), outside })
    }

    /// Uses another identity and CA set from the next connection on: after a renewal.
    ///
    /// # Errors
    ///
    /// As [`Self::enrolled`]; then the old ones stay in use.
    pub fn replace(&self, identity: &Identity, ca_set: &[Vec<u8>]) -> Result<(), DialError> {
        let config = enrolled(&*self.outside, identity, ca_set)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Opens one connection. Dropping the future gives up.
    ///
    /// # Errors
    ///
    /// [`DialError`]; never waits longer than [`CONNECT_DEADLINE`].
    pub async fn connect(&self, address: &Address) -> Result<Channel, DialError> {
        tokio::time::timeout(CONNECT_DEADLINE, self.dial(address))
            .await
            .unwrap_or_else(|_| Err(DialError::TimedOut(address.clone())))
    }

    async fn dial(&self, address: &Address) -> Result<Channel, DialError> {
        let unreachable = |source| DialError::Unreachable { address: address.clone(), source };
        let opened = self.outside.connect(address.host(), address.port());
        let tcp = opened.await.map_err(unreachable)?;
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|_| DialError::Address(address.to_string()))?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|source| {
            match source.get_ref().is_some_and(|e| e.is::<rustls::Error>()) {
                true => DialError::Untrusted { address: address.clone(), source },
                // Hung up on, by a balancer or a controller that is just going.
                false => unreachable(source),
            }
        })?;
        let protocol = |source| DialError::Protocol { address: address.clone(), source };
        let (stream, first) = Listening::new(tls);
        let once = Once { stream: Arc::new(Mutex::new(Some(stream))), address: address.clone() };
        // `http`, as tonic would insist on doing TLS itself for `https`; the stream below is encrypted already.
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(protocol)?
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector(once)
            .await;
        match (first.await, channel) {
            (Ok(Ok(())), channel) => channel.map_err(protocol),
            (Ok(Err(reason)), _) => Err(DialError::Refused { address: address.clone(), reason }),
            (Err(_), _) => Err(unreachable(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

fn enrolled(
    outside: &dyn Outside,
    identity: &Identity,
    ca_set: &[Vec<u8>],
) -> Result<Arc<ClientConfig>, DialError> {
    let mut roots = RootCertStore::empty();
    for ca in ca_set {
        roots.add(CertificateDer::from(ca.as_slice())).map_err(DialError::Identity)?;
    }
    if roots.is_empty() {
        return Err(DialError::Identity(rustls::Error::General("the CA set is empty".to_owned())));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, outside.time())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(DialError::Identity)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(DialError::Identity)?;
    Ok(finish(config))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// An encrypted connection.
type Encrypted = TlsStream<Box<dyn Socket>>;

/// Gives tonic the connection that is there, once: tonic would reconnect by itself, at its own pace.
#[derive(Clone)]
struct Once {
    stream: Arc<Mutex<Option<Listening>>>,
    address: Address,
}

impl tower::Service<http::Uri> for Once {
    type Response = TokioIo<Listening>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let over = || {
            let text = format!("the connection to {} is over", self.address);
            io::Error::new(io::ErrorKind::NotConnected, text)
        };
        std::future::ready(stream.map(TokioIo::new).ok_or_else(over))
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (DER); none where it is no certificate.
pub fn spki_sha256(certificate_der: &[u8]) -> Option<[u8; 32]> {
    let der = CertificateDer::from(certificate_der);
    let spki = ParsedCertificate::try_from(&der).ok()?.subject_public_key_info();
    Some(Sha256::digest(spki.as_ref()).into())
}

/// The CA hash that a token pins: the last part of `dhow1.<kind>.<id>.<secret>.<sha256 of the CA's SPKI>`, base64url
/// without padding. None where the text is no such token.
pub fn token_pin(token: &str) -> Option<[u8; 32]> {
    let parts: Vec<&str> = token.trim().split('.').collect();
    let ["dhow1", _kind, _id, _secret, pin] = parts.as_slice() else { return None };
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(pin).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, shown) in [
            ("deploy.example.com:7443", "deploy.example.com:7443"),
            ("https://10.0.0.1:7443/", "10.0.0.1:7443"),
            ("[fd00::1]:7443", "[fd00::1]:7443"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in ["", "host", "host:", ":7443", "fd00::1:7443", "a b:1", "http://x:1", "h:70000"]
        {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_token_pins_a_key_hash() {
        let pin = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([7; 32]);
        assert_eq!(token_pin(&format!("dhow1.join.abc.def.{pin}\n")), Some([7; 32]));
        assert_eq!(token_pin(&format!("dhow2.join.abc.def.{pin}")), None);
        assert_eq!(token_pin("dhow1.join.abc.def.AAAA"), None);
        assert_eq!(token_pin(""), None);
    }
}
