//! Promise 7 at the controller's port: every RPC of the real program is called by everybody who must not.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dhow_controller::blob::Blobs;
use dhow_controller::clock::SystemClock;
use dhow_controller::store::sqlite::Sqlite;
use dhow_controller::store::{Op, Store as _, Txn};
use dhow_proto::dial::{Address, Dialer, Identity, token_pin};
use dhow_proto::model::intent::{Desired, HostPart, Intent, ProxyIntent, Run};
use dhow_proto::model::{BlobRef, Generation, HostName, Unit};
use dhow_proto::wire;
use dhow_proto::wire::control_service_client::ControlServiceClient;
use dhow_proto::wire::enrolment_service_client::EnrolmentServiceClient;
use dhow_proto::wire::fleet_service_client::FleetServiceClient;
use rcgen::{CertificateParams, KeyPair};
use tonic::transport::Channel;
use tonic::{Code, Status};

const PROTOS: [&str; 3] = [
    include_str!("../../proto/dhow/v1/control.proto"),
    include_str!("../../proto/dhow/v1/fleet.proto"),
    include_str!("../../proto/dhow/v1/enrol.proto"),
];

/// `(service, RPC)` of all services, read from the `.proto` files themselves.
fn rpcs() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for text in PROTOS {
        let mut service = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.trim_end_matches(" {").to_owned();
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                let name = rest.split('(').next().unwrap_or_default();
                found.push((service.clone(), name.to_owned()));
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// A controller that runs, with what it logged.
struct Controller {
    _folder: tempfile::TempDir,
    process: Child,
    address: Address,
    pin: [u8; 32],
    token: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Controller {
    /// Starts one; `before` may put something into its store and blobs.
    async fn start(before: impl AsyncFnOnce(&Sqlite, &Blobs)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let run = |words: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dhow-controller"));
            command.args(words).arg("--state-dir").arg(&state);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        let init = run(&["init", "--name", "127.0.0.1"]).output().expect("it runs");
        let token = String::from_utf8(init.stdout).expect("text").trim().to_owned();
        {
            let clock = Arc::new(SystemClock::new());
            let store = Sqlite::open(&state.join("store.db"), clock).expect("a store");
            before(&store, &Blobs::open(&state.join("blobs")).expect("blobs")).await;
        }
        let mut process =
            run(&["run", "--listen", "127.0.0.1:0", "--log", "info"]).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("serving address=")?;
            address.trim().parse().ok()
        });
        let log = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&log);
        // Ends with the process, whose pipe it reads.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().expect("not poisoned").push(line);
            }
        });
        let pin = token_pin(&token).expect("a token");
        let address = address.expect("the controller ended before it served");
        Self { _folder: folder, process, address, pin, token, log }
    }

    /// A connection without certificate.
    async fn nobody(&self) -> Channel {
        Dialer::pinned(self.pin).expect("a dialer").connect(&self.address).await.expect("connected")
    }

    /// A connection with a certificate, and the set of authorities it came with.
    async fn known(&self, key: &KeyPair, der: &[u8], ca_set: &[bytes::Bytes]) -> Channel {
        let identity = Identity::from_der(der, &key.serialize_der()).expect("an identity");
        let ca_set: Vec<Vec<u8>> = ca_set.iter().map(|ca| ca.to_vec()).collect();
        let dialer = Dialer::enrolled(&identity, &ca_set).expect("a dialer");
        dialer.connect(&self.address).await.expect("connected")
    }

    async fn login(&self, token: &str) -> Channel {
        let (key, csr_der) = request();
        let login = wire::LoginRequest { token: token.to_owned(), csr_der: csr_der.into() };
        let answer = EnrolmentServiceClient::new(self.nobody().await).login(login).await;
        let answer = answer.expect("logged in").into_inner();
        self.known(&key, &answer.certificate_der, &answer.ca_set).await
    }

    async fn join(&self, admin: &Channel, host: &str) -> Channel {
        let ask = wire::CreateHostTokenRequest {
            host: host.to_owned(),
            valid_for: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            reenrol: false,
        };
        let made = ControlServiceClient::new(admin.clone()).create_host_token(ask).await;
        let (key, csr_der) = request();
        let join = wire::JoinRequest {
            token: made.expect("a token").into_inner().token,
            host: host.to_owned(),
            csr_der: csr_der.into(),
            host_key: vec![7; 32].into(),
            aliases: Vec::new(),
        };
        let answer = EnrolmentServiceClient::new(self.nobody().await).join(join).await;
        let answer = answer.expect("joined").into_inner();
        self.known(&key, &answer.certificate_der, &answer.ca_set).await
    }

    /// A person with a role on some apps; none means all.
    async fn person(
        &self,
        admin: &Channel,
        name: &str,
        role: wire::UserRole,
        apps: &[&str],
    ) -> Channel {
        let app = |service: &&str| wire::AppRef {
            service: (*service).to_owned(),
            destination: String::new(),
        };
        let ask = wire::CreateUserTokenRequest {
            user: name.to_owned(),
            role: role.into(),
            apps: apps.iter().map(app).collect(),
            valid_for: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        };
        let made = ControlServiceClient::new(admin.clone()).create_user_token(ask).await;
        self.login(&made.expect("a token").into_inner().token).await
    }

    /// Waits until so many lines with these words were logged.
    fn logged(&self, count: usize, words: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = self.log.lock().expect("not poisoned").clone();
            let found =
                log.iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
            if found >= count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{found} of {count} lines with {words:?} in {log:#?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A key and a request for a certificate.
fn request() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().expect("a key");
    let csr = CertificateParams::default().serialize_request(&key).expect("a request");
    (key, csr.der().to_vec())
}

/// Calls an RPC with an empty message, whatever its form: whoever is let in gets some answer or another error.
async fn call(channel: &Channel, service: &str, rpc: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("connected");
    let path = format!("/dhow.v1.{service}/{rpc}").parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let mut answer = grpc
        .streaming(tonic::Request::new(tokio_stream::iter([()])), path, codec)
        .await?
        .into_inner();
    tokio::time::timeout(Duration::from_secs(20), answer.message())
        .await
        .expect("an answer")
        .map(drop)
}

/// Codes of an RPC's refusals by who calls: let in is anything but a refusal.
async fn refusal(channel: &Channel, service: &str, rpc: &str) -> Option<Code> {
    let code = call(channel, service, rpc).await.err().map(|status| status.code());
    code.filter(|code| matches!(code, Code::Unauthenticated | Code::PermissionDenied))
}

#[tokio::test]
async fn without_a_certificate_nothing_but_join_and_login_is_let_in() {
    let controller = Controller::start(async |_, _| {}).await;
    let nobody = controller.nobody().await;
    let mut refused = 0;
    for (service, rpc) in rpcs() {
        if matches!(rpc.as_str(), "Join" | "Login") {
            // They look at the token.
            let status = call(&nobody, &service, &rpc).await.expect_err("no token");
            assert!(status.message().contains("token"), "{rpc}: {status}");
            continue;
        }
        let status = call(&nobody, &service, &rpc).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{service}.{rpc}: {status}");
        assert_eq!(status.message(), "a client certificate is needed", "{service}.{rpc}");
        refused += 1;
    }
    controller
        .logged(refused, &["WARN", "a call without client certificate was refused", "127.0.0.1"]);
}

#[tokio::test]
async fn everybody_is_held_to_their_certificate_and_role() {
    let controller = Controller::start(async |_, _| {}).await;
    let admin = controller.login(&controller.token).await;
    let host = controller.join(&admin, "h1").await;
    let viewer = controller.person(&admin, "vera", wire::UserRole::Viewer, &[]).await;
    let deployer = controller.person(&admin, "dan", wire::UserRole::Deployer, &[]).await;
    // An admin of one app is none of the hosts and people of all.
    let partly = controller.person(&admin, "pat", wire::UserRole::Admin, &["shop"]).await;
    let look =
        ["Version", "ListHosts", "ListRollouts", "GetRollout", "WatchRollout", "Status", "Query"];
    let deploy = ["HostKeys", "MissingBlobs", "Upload", "Deploy"];
    let denied = Some(Code::PermissionDenied);
    for (service, rpc) in rpcs() {
        let name = rpc.as_str();
        match service.as_str() {
            "ControlService" => {
                assert_eq!(refusal(&host, &service, name).await, denied, "a host: {rpc}");
                let may = |yes: bool| if yes { None } else { denied };
                let (looks, deploys) = (look.contains(&name), deploy.contains(&name));
                assert_eq!(refusal(&viewer, &service, name).await, may(looks), "a viewer: {rpc}");
                let let_in = looks || deploys;
                assert_eq!(
                    refusal(&deployer, &service, name).await,
                    may(let_in),
                    "a deployer: {rpc}"
                );
                assert_eq!(
                    refusal(&partly, &service, name).await,
                    may(let_in),
                    "of one app: {rpc}"
                );
                assert_eq!(refusal(&admin, &service, name).await, None, "an admin: {rpc}");
            }
            "FleetService" => {
                assert_eq!(refusal(&admin, &service, name).await, denied, "a person: {rpc}");
                assert_eq!(refusal(&host, &service, name).await, None, "a host: {rpc}");
            }
            _ => {}
        }
    }
    controller.logged(1, &["WARN", "permission denied", "vera", "Deploy"]);
    controller.logged(1, &["WARN", "a host called a service for people", "h1"]);
    controller.logged(1, &["WARN", "a user called a service for hosts", "admin"]);
}

#[tokio::test]
async fn a_right_on_one_app_reaches_no_other() {
    let controller = Controller::start(async |_, _| {}).await;
    let admin = controller.login(&controller.token).await;
    let shop = controller.person(&admin, "sue", wire::UserRole::Deployer, &["shop"]).await;
    let mut control = ControlServiceClient::new(shop);
    for (service, allowed) in [("shop", true), ("blog", false)] {
        let app = Some(wire::AppRef { service: service.into(), destination: String::new() });
        let check = |rpc: &str, answer: Result<(), Status>| {
            let denied =
                answer.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied);
            assert_eq!(denied, !allowed, "{rpc} on {service}: {answer:?}");
        };
        let ask = wire::ListRolloutsRequest { app: app.clone(), limit: 5 };
        check("ListRollouts", control.list_rollouts(ask).await.map(drop));
        check("Status", control.status(wire::StatusRequest { app: app.clone() }).await.map(drop));
        let kind = wire::query_request::Kind::Version(wire::AskVersion {
            app: app.clone(),
            roles: Vec::new(),
        });
        let ask = wire::QueryRequest {
            app: app.clone(),
            hosts: vec!["h9".into()],
            deadline: None,
            kind: Some(kind),
        };
        check("Query", control.query(ask).await.map(drop));
        let start = wire::StartRollout { app, ..Default::default() };
        let start =
            wire::DeployRequest { message: Some(wire::deploy_request::Message::Start(start)) };
        let answer = match control.deploy(tokio_stream::iter([start])).await {
            Ok(answer) => answer.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        check("Deploy", answer);
    }
}

/// A host's intent for its proxy, which names a blob.
fn intent(host: &HostName, blob: BlobRef) -> Intent {
    let host = HostPart { config_host: host.clone(), ssh_user: None, run_directory: None };
    let proxy = ProxyIntent { template: Some(blob), boot: 1, run: Run::Running, registry: None };
    Intent {
        unit: Unit::Proxy,
        generation: Generation { epoch: 0, number: 1 },
        features: Vec::new(),
        rollout_id: None,
        after: Vec::new(),
        host,
        desired: Desired::Proxy(proxy),
    }
}

#[tokio::test]
async fn a_host_reads_its_own_blobs_and_speaks_for_itself_alone() {
    let h1 = HostName::try_from("h1").expect("a name");
    // What it should run, and what it may go back to.
    let contents = ["intent", "settled", "attempted", "promised"]
        .map(|kept| (kept, format!("what h1 runs: {kept}").into_bytes()));
    let controller = Controller::start(async |store, blobs| {
        for (kept, content) in &contents {
            let put = Op::put(
                format!("{kept}/h1/{}", Unit::Proxy),
                intent(&h1, BlobRef::of(content)).to_bytes(),
            );
            blobs.put(content.clone()).await.expect("stored");
            store.txn(Txn::new().then(put)).await.expect("stored");
        }
    })
    .await;
    let admin = controller.login(&controller.token).await;
    let (own, other) = (controller.join(&admin, "h1").await, controller.join(&admin, "h2").await);
    for (_, content) in &contents {
        let digest = BlobRef::of(content).digest.as_bytes().to_vec().into();
        let ask = wire::FetchRequest { digest, offset: 0 };
        let fetched = FleetServiceClient::new(own.clone()).fetch(ask.clone()).await;
        let mut answer = fetched.expect("its own").into_inner();
        assert_eq!(answer.message().await.expect("data").expect("data").data, *content);
        let refused = FleetServiceClient::new(other.clone()).fetch(ask).await;
        let refused = refused.expect_err("another's");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        assert!(!refused.message().contains("what h1 runs"));
    }
    controller
        .logged(contents.len(), &["WARN", "a host asked for a blob that is not its own", "h2"]);

    let hello =
        wire::Hello { host: "h1".into(), protocol_min: 1, protocol_max: 1, ..Default::default() };
    let hello =
        wire::SessionRequest { message: Some(wire::session_request::Message::Hello(hello)) };
    let refused = FleetServiceClient::new(other).session(tokio_stream::iter([hello])).await;
    let refused = refused.expect_err("another's name");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(refused.message(), "the certificate is for host h2, not for h1");
    controller
        .logged(1, &["WARN", "an agent claims another name than its certificate's", "h2", "h1"]);
}
