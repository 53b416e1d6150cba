//! Real handshakes over loopback, with good, foreign, expired and revoked certificates.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ca::{Ca, Identity, Revocations, Validity, WrapSecret};
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::store::Store;
use crate::store::memory::Memory;

struct Port {
    ca: Arc<Ca>,
    tls: Arc<Tls>,
    revocations: Arc<Revocations>,
    address: SocketAddr,
    incoming: Incoming,
    shutdown: CancellationToken,
    accepting: tokio::task::JoinHandle<()>,
}

async fn authority(clock: Arc<dyn Clock>) -> (Arc<dyn Store>, Arc<Ca>) {
    let folder = tempfile::tempdir().unwrap();
    let secret = WrapSecret::create_file(&folder.path().join("wrap")).unwrap();
    let store: Arc<dyn Store> = Arc::new(Memory::new(clock.clone()));
    let ca = Ca::create(store.clone(), clock, &secret, Validity::default()).await.unwrap();
    (store, Arc::new(ca))
}

async fn port() -> Port {
    port_at(Arc::new(SystemClock::new())).await
}

async fn port_at(clock: Arc<dyn Clock>) -> Port {
    let (store, ca) = authority(clock).await;
    let revocations = Arc::new(Revocations::load(store).await.unwrap());
    let names = ["dhow.test".to_owned(), "127.0.0.1".to_owned()];
    let time = Arc::new(SystemClock::new());
    let tls = Arc::new(Tls::new(&ca, &names, revocations.clone(), time).unwrap());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), tls.clone()).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let (accepting, incoming) = listener.start(shutdown.clone());
    let accepting = tokio::spawn(accepting);
    Port { ca, tls, revocations, address, incoming, shutdown, accepting }
}

type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn host(name: &str) -> Identity {
    Identity::Host(name.try_into().unwrap())
}

async fn certificate(ca: &Ca, identity: &Identity) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let issued = ca.issue(identity, request.der()).await.unwrap();
    (vec![issued.certificate_der.into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn client(trusted: &Ca, certificate: Option<Certificate>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.ca_set().certificates()[0].clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

async fn connect_as(
    port: &Port,
    name: &'static str,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(port.address).await?;
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

/// Connects and tells what the server saw.
async fn seen(port: &mut Port, certificate: Option<Certificate>) -> Connection {
    let client = client(&port.ca, certificate);
    let _stream = soon(connect_as(port, "dhow.test", client)).await.unwrap();
    soon(port.incoming.next()).await.unwrap().unwrap().connection
}

/// Connects, must be refused, and tells with what words. Under TLS 1.3 a client learns what the
/// server thinks of its certificate only when it reads.
async fn refused(port: &Port, config: ClientConfig) -> String {
    let refused = async {
        let mut stream = connect_as(port, "dhow.test", config).await?;
        stream.write_all(b"hello").await?;
        stream.read_u8().await
    };
    soon(refused).await.expect_err("refused").to_string()
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says() {
    let mut port = port().await;
    let ada = Identity::User("ada".try_into().unwrap());
    for identity in [host("web-1"), ada] {
        let certificate = certificate(&port.ca, &identity).await;
        let connection = seen(&mut port, Some(certificate)).await;
        assert_eq!(connection.peer.unwrap().identity, identity);
        assert!(connection.remote.ip().is_loopback());
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody() {
    let mut port = port().await;
    assert_eq!(seen(&mut port, None).await.peer, None);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let port = port().await;
    let (_, other) = authority(Arc::new(SystemClock::new())).await;
    let foreign = certificate(&other, &host("web-1")).await;
    let said = refused(&port, client(&port.ca, Some(foreign))).await;
    assert!(said.contains("UnknownCA") || said.contains("DecryptError"), "{said}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    // What this authority issues for seven days was issued eight days ago.
    let past = SystemClock::new().now().checked_sub(Duration::from_secs(8 * 24 * 3600)).unwrap();
    let port = port_at(Arc::new(ManualClock::at(past))).await;
    let expired = certificate(&port.ca, &host("web-1")).await;
    let said = refused(&port, client(&port.ca, Some(expired))).await;
    assert!(said.contains("CertificateExpired"), "{said}");
}

#[tokio::test]
async fn a_revoked_host_is_refused_at_its_next_handshake_and_told_so() {
    let mut port = port().await;
    let old = certificate(&port.ca, &host("web-1")).await;
    let config = client(&port.ca, Some(old));
    soon(connect_as(&port, "dhow.test", config.clone())).await.unwrap();
    soon(port.incoming.next()).await.unwrap().unwrap();
    port.revocations.revoke_identity(&host("web-1")).await.unwrap();
    let said = refused(&port, config).await;
    assert!(said.contains("CertificateRevoked"), "{said}");
    let new = certificate(&port.ca, &host("web-1")).await;
    assert!(seen(&mut port, Some(new)).await.peer.is_some(), "enrolled anew");
}

#[tokio::test]
async fn a_server_certificate_or_one_without_identity_is_no_client() {
    let port = port().await;
    let server = port.ca.issue_server(&["dhow.test".into()]).unwrap();
    let config = client(&port.ca, Some((server.chain[..1].to_vec(), server.key)));
    let said = refused(&port, config).await;
    assert!(said.contains("alert"), "{said}");
}

#[tokio::test]
async fn the_server_is_known_by_its_names_only() {
    let port = port().await;
    for name in ["dhow.test", "127.0.0.1"] {
        soon(connect_as(&port, name, client(&port.ca, None))).await.unwrap();
    }
    let said = soon(connect_as(&port, "other.test", client(&port.ca, None))).await.unwrap_err();
    assert!(
        said.to_string().contains("NotValidForName") || said.to_string().contains("not valid for"),
        "{said}"
    );
    let (_, other) = authority(Arc::new(SystemClock::new())).await;
    assert!(soon(connect_as(&port, "dhow.test", client(&other, None))).await.is_err());
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let mut port = port().await;
    let certificate = certificate(&port.ca, &host("web-1")).await;
    let config = client(&port.ca, Some(certificate));
    for _ in 0..2 {
        let stream = soon(connect_as(&port, "dhow.test", config.clone())).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let mut accepted = soon(port.incoming.next()).await.unwrap().unwrap();
        accepted.write_all(b"x").await.unwrap();
        accepted.flush().await.unwrap();
    }
}

#[tokio::test]
async fn older_tls_is_refused() {
    let port = port().await;
    let mut roots = RootCertStore::empty();
    roots.add(port.ca.ca_set().certificates()[0].clone()).unwrap();
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let said = soon(connect_as(&port, "dhow.test", config)).await.unwrap_err().to_string();
    assert!(said.contains("ProtocolVersion"), "{said}");
}

#[tokio::test]
async fn a_renewed_server_certificate_is_used_at_once_and_open_connections_stay() {
    let mut port = port().await;
    let mut old = soon(connect_as(&port, "dhow.test", client(&port.ca, None))).await.unwrap();
    let mut accepted = soon(port.incoming.next()).await.unwrap().unwrap();
    port.tls.renew(&port.ca, &["new.test".into()]).unwrap();
    soon(connect_as(&port, "new.test", client(&port.ca, None))).await.unwrap();
    assert!(soon(connect_as(&port, "dhow.test", client(&port.ca, None))).await.is_err());
    accepted.write_all(b"x").await.unwrap();
    accepted.flush().await.unwrap();
    assert_eq!(soon(old.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_hold_up_others() {
    let mut port = port().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    assert_eq!(seen(&mut port, None).await.peer, None);
}

#[tokio::test]
async fn bytes_that_are_not_tls_are_refused() {
    let mut port = port().await;
    let mut tcp = TcpStream::connect(port.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: dhow.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed, with an alert or without.
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(seen(&mut port, None).await.peer, None, "others are served");
}

#[tokio::test]
async fn shutting_down_stops_accepting_and_ends_the_incoming_stream() {
    let mut port = port().await;
    port.shutdown.cancel();
    soon(port.accepting).await.unwrap();
    assert!(soon(port.incoming.next()).await.is_none());
    assert!(TcpStream::connect(port.address).await.is_err());
}

/// Speaks just enough HTTP/2 to be a client, then never answers again (RFC 9113, §3.4 and §6.5).
#[tokio::test(start_paused = true)]
async fn a_peer_that_went_silent_is_dropped_within_15_seconds() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let (mut silent, accepted) = tokio::io::duplex(64 * 1024);
    silent.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    let incoming = futures_util::stream::once(async { Ok::<_, io::Error>(accepted) });
    let incoming = incoming.chain(futures_util::stream::pending());
    let routes = tonic::service::Routes::default();
    let serving = tokio::spawn(server().add_routes(routes).serve_with_incoming(incoming));

    let start = tokio::time::Instant::now();
    let mut answer = Vec::new();
    silent.read_to_end(&mut answer).await.unwrap();
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_secs(10) && elapsed < Duration::from_secs(15), "{elapsed:?}");
    serving.abort();
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let limit = raise_open_files();
    assert!(limit.is_none_or(|limit| limit >= 256));
}
