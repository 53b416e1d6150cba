//! A controller as small as can be: it hands each session to the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dhow_proto::dial::{Address, spki_sha256};
use dhow_proto::model::BlobDigest;
use dhow_proto::seal::HostKey;
use dhow_proto::wire;
use futures_util::stream::BoxStream;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use wire::fleet_service_server::{FleetService, FleetServiceServer};
use wire::session_request::Message as Up;
use wire::session_response::Message as Down;
use zeroize::Zeroizing;

use crate::session::Stored;
use crate::testing::PATIENCE;

/// A CA with everything signed by it.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn pin(&self) -> [u8; 32] {
        spki_sha256(&self.der).unwrap()
    }

    /// A server certificate for 127.0.0.1 with its chain, as a controller shows it.
    fn server(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone(), CertificateDer::from(self.der.clone())];
        (chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn sign(&self, csr_der: &[u8]) -> Vec<u8> {
        let csr = CertificateSigningRequestDer::from(csr_der);
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params = params;
        request.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    /// A host that has joined.
    pub(crate) fn host(&self, name: &str, address: &Address) -> Stored {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        Stored {
            host: name.parse().unwrap(),
            controllers: vec![address.clone()],
            certificate_der: self.sign(csr.der()),
            key_der: Zeroizing::new(key.serialize_der()),
            ca_set: vec![self.der.clone()],
            host_key: Arc::new(HostKey::generate().unwrap()),
        }
    }
}

/// One session as the test sees it.
pub(crate) struct Peer {
    pub(crate) hello: wire::Hello,
    inbound: Streaming<wire::SessionRequest>,
    outbound: mpsc::Sender<Result<wire::SessionResponse, Status>>,
}

impl Peer {
    pub(crate) async fn send(&self, message: Down) {
        self.outbound.send(Ok(wire::SessionResponse { message: Some(message) })).await.unwrap();
    }

    pub(crate) async fn welcome(&self, units: Vec<wire::UnitGeneration>) {
        self.send(Down::Welcome(wire::Welcome {
            last: true,
            units,
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            protocol: 1,
            ..Default::default()
        }))
        .await;
    }

    /// The next message that is picked; others are passed over.
    pub(crate) async fn next<T>(&mut self, pick: impl Fn(Up) -> Option<T>) -> T {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let message = self.inbound.message().await.unwrap().expect("the session ended");
                if let Some(picked) = message.message.and_then(&pick) {
                    return picked;
                }
            }
        })
        .await
        .expect("the awaited message did not come")
    }

    /// Everything until the next heartbeat.
    pub(crate) async fn until_heartbeat(&mut self) -> Vec<Up> {
        let mut heard = Vec::new();
        loop {
            let message = self.inbound.message().await.unwrap().unwrap().message.unwrap();
            if matches!(message, Up::Heartbeat(_)) {
                return heard;
            }
            heard.push(message);
        }
    }
}

#[derive(Clone)]
struct Services {
    ca: Arc<TestCa>,
    peers: mpsc::Sender<Peer>,
    blobs: Arc<Mutex<BTreeMap<BlobDigest, Bytes>>>,
    renewals: mpsc::Sender<()>,
}

/// The controller. It ends when dropped.
pub(crate) struct Controller {
    pub(crate) address: Address,
    pub(crate) ca: Arc<TestCa>,
    peers: mpsc::Receiver<Peer>,
    pub(crate) blobs: Arc<Mutex<BTreeMap<BlobDigest, Bytes>>>,
    pub(crate) renewals: mpsc::Receiver<()>,
    shutdown: CancellationToken,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Controller {
    pub(crate) async fn start() -> Self {
        Self::start_with(Arc::new(TestCa::new())).await
    }

    pub(crate) async fn start_with(ca: Arc<TestCa>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (peers_in, peers) = mpsc::channel(8);
        let (renewals_in, renewals) = mpsc::channel(8);
        let blobs = Arc::<Mutex<_>>::default();
        let services = Services {
            ca: ca.clone(),
            peers: peers_in,
            blobs: blobs.clone(),
            renewals: renewals_in,
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, services, shutdown.clone()));
        Self { address: shown(address), ca, peers, blobs, renewals, shutdown }
    }

    /// The next session, after its Hello.
    pub(crate) async fn session(&mut self) -> Peer {
        tokio::time::timeout(PATIENCE, self.peers.recv()).await.expect("no session").unwrap()
    }

    pub(crate) async fn nobody_connects(&mut self, state_dir: &Path) {
        let _ = state_dir;
        assert!(self.peers.try_recv().is_err());
    }
}

fn shown(address: SocketAddr) -> Address {
    address.to_string().parse().unwrap()
}

async fn serve(listener: TcpListener, services: Services, shutdown: CancellationToken) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(services.ca.der.clone())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let (chain, key) = services.ca.server();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (accepted_in, accepted) = mpsc::channel(8);
    let accepting = async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await
                && accepted_in.send(Ok::<_, std::io::Error>(tls)).await.is_err()
            {
                return;
            }
        }
    };
    let server = tonic::transport::Server::builder()
        .add_service(FleetServiceServer::new(services.clone()))
        .add_service(EnrolmentServiceServer::new(services))
        .serve_with_incoming(ReceiverStream::new(accepted));
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accepting => {}
        _ = server => {}
    }
}

#[tonic::async_trait]
impl FleetService for Services {
    type SessionStream = BoxStream<'static, Result<wire::SessionResponse, Status>>;
    type FetchStream = BoxStream<'static, Result<wire::FetchResponse, Status>>;
    type TunnelStream = BoxStream<'static, Result<wire::TunnelResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if request.peer_certs().is_none_or(|certs| certs.is_empty()) {
            return Err(Status::unauthenticated("no certificate"));
        }
        let mut inbound = request.into_inner();
        let Some(Up::Hello(hello)) = inbound.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (outbound, stream) = mpsc::channel(16);
        self.peers.send(Peer { hello, inbound, outbound }).await.ok();
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let digest = BlobDigest::try_from(request.digest.as_ref()).unwrap();
        let bytes = self.blobs.lock().unwrap().get(&digest).cloned();
        let bytes = bytes.ok_or_else(|| Status::not_found("no such blob"))?;
        let total = bytes.len() as u64;
        let rest = bytes.slice(request.offset as usize..);
        let pieces: Vec<_> = rest
            .chunks(1000)
            .map(|c| Ok(wire::FetchResponse { data: Bytes::copy_from_slice(c), total }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces).map(|p| p))))
    }

    async fn tunnel(
        &self,
        _: Request<Streaming<wire::TunnelRequest>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        Err(Status::unimplemented("no tunnels"))
    }
}

#[tonic::async_trait]
impl EnrolmentService for Services {
    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        let request = request.into_inner();
        if !request.token.starts_with("dhow1.join.good.") {
            return Err(Status::unauthenticated("the token was used or has expired"));
        }
        Ok(Response::new(wire::JoinResponse {
            certificate_der: self.ca.sign(&request.csr_der).into(),
            ca_set: vec![self.ca.der.clone().into()],
            controller_addresses: vec!["controller.example:7443".into()],
        }))
    }

    async fn login(
        &self,
        _: Request<wire::LoginRequest>,
    ) -> Result<Response<wire::LoginResponse>, Status> {
        Err(Status::unimplemented("no people"))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        self.renewals.send(()).await.ok();
        Ok(Response::new(wire::RenewResponse {
            certificate_der: self.ca.sign(&request.into_inner().csr_der).into(),
            ca_set: vec![self.ca.der.clone().into()],
        }))
    }
}
