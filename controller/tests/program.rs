//! The program as people start it: `init`, `run`, `token`, and the gRPC server behind the port.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dhow_controller::ca::{Grant, Kind, Role};
use dhow_controller::clock::SystemClock;
use dhow_controller::server::{self, Rooms};
use dhow_controller::settings::{Layer, Settings};
use dhow_controller::supervise::{BoxError, Supervisor};
use dhow_controller::transport::{Connection, crypto_provider};
use dhow_proto::wire;
use dhow_proto::wire::enrolment_service_client::EnrolmentServiceClient;
use dhow_proto::wire::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::SecretString;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dhow-controller"));
        command.args(words).arg("--state-dir").arg(self.state_dir());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program runs")
    }

    fn init(&self) -> String {
        let output = self.run(&["init", "--name", "localhost,127.0.0.1"]);
        assert!(output.status.success(), "{}", stderr(&output));
        last_line(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().last().unwrap_or_default().to_owned()
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("exists").permissions().mode() & 0o777
}

#[test]
fn init_makes_a_private_folder_and_prints_a_token_and_nothing_else_to_stdout() {
    let place = Place::new();
    let output = place.run(&["init", "--name", "localhost"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let stdout = String::from_utf8(output.stdout.clone()).expect("text");
    assert_eq!(stdout.lines().count(), 1);
    assert!(stdout.starts_with("dhow1.login."), "{stdout}");
    assert!(!stderr(&output).contains("dhow1."), "the token is shown once");
    assert_eq!(mode(&place.state_dir()), 0o700);
    for file in std::fs::read_dir(place.state_dir()).expect("readable") {
        let path = file.expect("readable").path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn systemd_hears_once_it_serves() {
    let place = Place::new();
    place.init();
    let socket = place.folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let mut command = place.command(&["run", "--listen", "127.0.0.1:0"]);
    let mut running = command.env("NOTIFY_SOCKET", &socket).spawn().expect("it starts");
    let mut message = [0; 64];
    let heard = manager.recv(&mut message);
    running.kill().expect("killed");
    running.wait().expect("ended");
    let length = heard.expect("nothing was told");
    assert_eq!(String::from_utf8_lossy(&message[..length]).trim(), "READY=1");
}

#[test]
fn a_second_init_is_refused_and_changes_nothing() {
    let place = Place::new();
    place.init();
    let before = std::fs::read(place.state_dir().join("ca.wrap")).expect("readable");
    let output = place.run(&["init", "--name", "other"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("holds a controller already"), "{}", stderr(&output));
    assert_eq!(std::fs::read(place.state_dir().join("ca.wrap")).expect("readable"), before);
}

#[test]
fn bad_names_are_refused_and_init_can_be_repeated_with_good_ones() {
    let place = Place::new();
    let output = place.run(&["init", "--name", "no name"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("\"no name\" is neither a DNS name"), "{}", stderr(&output));
    place.init();
    assert_eq!(Place::new().run(&["init"]).status.code(), Some(2), "a name is required");
}

#[test]
fn a_passphrase_file_replaces_the_wrapping_key_and_is_needed_again() {
    let place = Place::new();
    let passphrase = place.folder.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse\n").expect("written");
    std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).expect("set");
    let flag = ["--ca-passphrase-file", passphrase.to_str().expect("text")];
    let init = place.run(&[&["init", "--name", "localhost"], &flag[..]].concat());
    assert!(init.status.success(), "{}", stderr(&init));
    assert!(!place.state_dir().join("ca.wrap").exists());
    assert!(place.run(&[&["token"], &flag[..]].concat()).status.success());

    let without = place.run(&["token"]);
    assert!(stderr(&without).contains("ca.wrap"), "{}", stderr(&without));
    std::fs::write(&passphrase, "wrong horse\n").expect("written");
    let wrong = place.run(&[&["token"], &flag[..]].concat());
    assert!(stderr(&wrong).contains("does not open the CA's key"), "{}", stderr(&wrong));
}

#[test]
fn run_and_token_without_init_are_refused() {
    let place = Place::new();
    for words in [&["run", "--listen", "127.0.0.1:0"][..], &["token"]] {
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("holds no controller"), "{}", stderr(&output));
    }
}

#[test]
fn the_version_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_dhow-controller")).arg("--version").output();
    let output = output.expect("the program runs");
    assert_eq!(last_line(&output), format!("dhow-controller {}", env!("CARGO_PKG_VERSION")));
}

/// A controller process, killed when the test ends early.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const RUN: [&str; 5] = ["run", "--listen", "127.0.0.1:0", "--log", "info"];

impl Process {
    /// Starts `run` and waits until it says where it serves. Then its stderr is closed, as when
    /// whatever collects logs goes away: no reason to stop serving.
    fn start(place: &Place) -> (Self, SocketAddr) {
        Self::serving(place.command(&RUN))
    }

    /// The same with a hard limit of open files, which the program cannot raise.
    fn start_limited(place: &Place, open_files: u64) -> (Self, SocketAddr) {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {open_files} && exec \"$0\" \"$@\"")]);
        let inner = place.command(&RUN);
        command.arg(inner.get_program()).args(inner.get_args());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::serving(command)
    }

    fn serving(mut command: Command) -> (Self, SocketAddr) {
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let process = Self(child);
        for line in lines {
            let line = line.expect("text");
            if let Some((_, address)) = line.split_once("serving address=") {
                return (process, address.trim().parse().expect("an address"));
            }
        }
        panic!("the controller ended before it served");
    }
}

#[tokio::test]
async fn run_serves_under_the_authority_that_the_token_pins_and_ends_on_sigterm() {
    let place = Place::new();
    let token = place.init();
    let pin = token.split('.').nth(4).expect("a pin").to_owned();
    let (mut process, address) = Process::start(&place);
    let chain = server_chain(address).await;
    let (_, ca) = x509_parser::parse_x509_certificate(&chain[1]).expect("a certificate");
    use sha2::Digest as _;
    assert_eq!(URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(ca.public_key().raw)), pin);

    let busy = place.run(&["token"]);
    assert!(stderr(&busy).contains("in use by another process"), "{}", stderr(&busy));

    let pid = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    let ended = tokio::task::spawn_blocking(move || process.0.wait()).await;
    assert!(ended.expect("joined").expect("waited").success());
}

/// `accept` fails while there are no file descriptors left, and must go on when there are again.
#[tokio::test]
async fn running_out_of_file_descriptors_is_survived() {
    let place = Place::new();
    place.init();
    let (_process, address) = Process::start_limited(&place, 40);
    let mut crowd = Vec::new();
    for _ in 0..80 {
        crowd.push(tokio::net::TcpStream::connect(address).await.expect("in the backlog"));
    }
    drop(crowd);
    let served = tokio::time::timeout(Duration::from_secs(10), server_chain(address)).await;
    assert_eq!(served.expect("in time").len(), 2);
}

/// What a client sees before it trusts anybody.
async fn server_chain(address: SocketAddr) -> Vec<CertificateDer<'static>> {
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(address).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = tls.connect(name, tcp).await.expect("a handshake");
    tls.get_ref().1.peer_certificates().expect("a chain").to_vec()
}

/// Trusts anybody, to look at what they show.
#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        crypto_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Enrols whoever has a token, and renews whoever has a certificate; tells who asked.
struct Enrolment(Rooms);

impl Enrolment {
    fn status(error: impl std::fmt::Display) -> Status {
        Status::unauthenticated(error.to_string())
    }
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn join(
        &self,
        _: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn login(
        &self,
        request: Request<wire::LoginRequest>,
    ) -> Result<Response<wire::LoginResponse>, Status> {
        let connection = request.extensions().get::<Connection>().expect("always there").clone();
        assert_eq!(connection.peer, None);
        let login = request.into_inner();
        let token = SecretString::from(login.token);
        let grant = self.0.tokens.consume(&token, Kind::Login).await.map_err(Self::status)?;
        let issued = self.0.ca.issue(&grant.identity(), &login.csr_der).await;
        let issued = issued.map_err(Self::status)?;
        let Grant::Login { user, role: Role::Admin, .. } = grant else {
            return Err(Status::internal("the first token is an admin's"));
        };
        Ok(Response::new(wire::LoginResponse {
            certificate_der: issued.certificate_der.into(),
            user: user.to_string(),
            controller_addresses: self.0.addresses.clone(),
            ..Default::default()
        }))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        let peer = request.extensions().get::<Connection>().and_then(|c| c.peer.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let issued = self.0.ca.issue(&peer.identity, &request.get_ref().csr_der).await;
        let certificate_der = issued.map_err(Self::status)?.certificate_der.into();
        Ok(Response::new(wire::RenewResponse { certificate_der, ..Default::default() }))
    }
}

async fn enrolment(rooms: &Rooms, _: &mut Supervisor) -> Result<Routes, BoxError> {
    Ok(Routes::new(EnrolmentServiceServer::new(Enrolment(rooms.clone()))))
}

struct Client {
    key: KeyPair,
    csr_der: Vec<u8>,
}

impl Client {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request");
        Self { csr_der: csr.der().to_vec(), key }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        roots: RootCertStore,
        certificate_der: Option<Vec<u8>>,
    ) -> EnrolmentServiceClient<Channel> {
        let builder = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match certificate_der {
            None => builder.with_no_client_auth(),
            Some(der) => {
                let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![der.into()], key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let tcp = tokio::net::TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").expect("a name");
                tls.connect(name, tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await.expect("connected");
        EnrolmentServiceClient::new(channel)
    }
}

#[tokio::test]
async fn a_person_logs_in_once_with_the_token_and_is_known_by_the_certificate_from_then_on() {
    let place = Place::new();
    let token = place.init();
    let flags = Layer {
        state_dir: Some(place.state_dir()),
        listen: Some("127.0.0.1:0".parse().expect("an address")),
        ..Layer::default()
    };
    let settings = Settings::load_with(flags, None, |_| None).expect("settings");
    let running =
        server::start(settings, Arc::new(SystemClock::new()), enrolment).await.expect("started");
    let (address, shutdown) = (running.address, running.shutdown().clone());
    let serving = tokio::spawn(running.until(std::future::pending()));

    let mut roots = RootCertStore::empty();
    roots.add(server_chain(address).await[1].clone()).expect("a root");
    let client = Client::new();
    let mut nobody = client.connect(address, roots.clone(), None).await;
    let login = wire::LoginRequest { token, csr_der: client.csr_der.clone().into() };
    let answer = nobody.login(login.clone()).await.expect("logged in").into_inner();
    assert_eq!(answer.user, "admin");
    let expected = [format!("localhost:{}", address.port()), address.to_string()];
    assert_eq!(answer.controller_addresses, expected);
    let again = nobody.login(login).await.expect_err("used up");
    assert!(again.message().starts_with("token was used already"), "{again}");

    let renew = wire::RenewRequest { csr_der: client.csr_der.clone().into() };
    let refused = nobody.renew(renew.clone()).await.expect_err("nobody");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let certificate = answer.certificate_der.to_vec();
    let mut admin = client.connect(address, roots, Some(certificate)).await;
    let renewed = admin.renew(renew).await.expect("renewed").into_inner();
    let peer = dhow_controller::ca::peer(&renewed.certificate_der).expect("a certificate");
    assert_eq!(peer.identity.uri(), "spiffe://dhow/user/admin");

    drop((nobody, admin));
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(8), serving).await;
    ended.expect("in time").expect("joined").expect("stopped cleanly");
}
