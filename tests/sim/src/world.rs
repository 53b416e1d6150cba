//! What outlives the programs: the store, the hosts' Engines and disks, certificates.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dhow_agent::engine::fake::{FakeEngine, FakeImage};
use dhow_agent::ledger::fake::FakeDisk;
use dhow_agent::session::Stored;
use dhow_controller::api::authorise::UserRecord;
use dhow_controller::ca::{Ca, Identity, Role, UserName, Validity, WrapSecret};
use dhow_controller::host::HostRecord;
use dhow_controller::store::Store;
use dhow_controller::store::memory::Memory;
use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::dial::Address;
use dhow_proto::model::spec::{BootSpec, RegistrySpec, RoleHost, RoleSpec, Spec, TemplateSpec};
use dhow_proto::model::template::{
    ContainerTemplate, LogConfig, ProxyTarget, ProxyTemplate, Restart, RoleTemplate, Timeouts,
};
use dhow_proto::model::{App, ImageRef, kamal};
use dhow_proto::seal::HostKey;
use dhow_proto::wire;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::clock::{HostClock, Now};
use crate::furnish;
use crate::kills::Fate;
use crate::net::PORT;
use crate::scenario::{Scenario, VERSIONS};

/// Controller processes that may exist at a time: one, and the one that was paused.
pub(crate) const CONTROLLERS: [&str; 2] = ["c0", "c1"];

pub(crate) const REPOSITORY: &str = "registry/shop";

/// A host.
pub(crate) struct HostWorld {
    pub(crate) name: String,
    pub(crate) engine: FakeEngine,
    pub(crate) disk: FakeDisk,
    pub(crate) stored: Stored,
    pub(crate) clock: HostClock,
    pub(crate) dir: PathBuf,
}

/// A person's certificate.
pub(crate) struct Person {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    /// False while it is dead.
    pub(crate) has_client: watch::Sender<bool>,
}

/// What became of what people asked for: by rollout id, the answer to the start.
pub(crate) type Answers = BTreeMap<String, Result<(), String>>;

/// Everything.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Now,
    pub(crate) store: Arc<Memory>,
    pub(crate) clock: HostClock,
    pub(crate) hosts: Vec<HostWorld>,
    pub(crate) people: Vec<Person>,
    pub(crate) ca_set: Vec<Vec<u8>>,
    pub(crate) answers: Mutex<Answers>,
    /// How often each hook ran: by its id.
    pub(crate) hooks: Mutex<BTreeMap<String, usize>>,
    pub(crate) gates: [watch::Sender<bool>; 2],
    /// The controller that is to run.
    pub(crate) active: AtomicUsize,
    /// Who dies at which point, where anybody is to.
    pub(crate) fate: Option<Fate>,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new(scenario: Scenario) -> anyhow::Result<Self> {
        let now = Now::default();
        let clock = HostClock { now: now.clone(), ahead: scenario.ahead[0] };
        let store = Arc::new(Memory::new(Arc::new(clock.clone())));
        // In memory where the machine has that, as syncing is the ledger's model disk's to check.
        let shared = std::path::Path::new("/dev/shm");
        let dir = match shared.is_dir() {
            true => tempfile::tempdir_in(shared)?,
            false => tempfile::tempdir()?,
        };
        let secret = WrapSecret::create_file(&dir.path().join("wrap"))?;
        let dyn_store: Arc<dyn Store> = store.clone();
        let ca =
            Ca::create(dyn_store.clone(), Arc::new(clock.clone()), &secret, Validity::default())
                .await?;
        let ca_set = ca.ca_set().der();
        let mut hosts = Vec::new();
        for index in 0..scenario.hosts {
            hosts.push(host(&scenario, &now, index, &ca, &*dyn_store, &dir).await?);
        }
        let mut people = Vec::new();
        for index in 0..scenario.people.len() {
            people.push(person(index, &ca, &*dyn_store).await?);
        }
        Ok(Self {
            scenario,
            now,
            store,
            clock,
            hosts,
            people,
            ca_set,
            answers: Mutex::default(),
            hooks: Mutex::default(),
            gates: [watch::Sender::new(true), watch::Sender::new(true)],
            active: AtomicUsize::new(0),
            fate: None,
            dir,
        })
    }

    pub(crate) fn is_active(&self, controller: usize) -> bool {
        self.active.load(Ordering::Relaxed) == controller
    }

    pub(crate) fn answered(&self, id: &str, answer: Result<(), String>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(id.to_owned(), answer);
    }

    pub(crate) fn hook_ran(&self, id: &str) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        *hooks.entry(id.to_owned()).or_default() += 1;
    }

    pub(crate) fn has_run(&self, id: &str) -> bool {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// What programs ask at each point of theirs.
    pub(crate) fn breakpoints(&self) -> Breakpoints {
        self.fate.as_ref().map_or_else(Breakpoints::default, Fate::breakpoints)
    }

    /// The spec of a version.
    pub(crate) fn spec(&self, version: usize, rolls_back: bool) -> Spec {
        let mut spec = self.plain_spec(version, rolls_back);
        if self.scenario.furnished {
            furnish::spec(&mut spec, version);
        }
        spec
    }

    fn plain_spec(&self, version: usize, rolls_back: bool) -> Spec {
        let role = |name: &str, on: Vec<usize>, proxied: bool| RoleSpec {
            name: name.parse().expect("a role's name"),
            hosts: on
                .into_iter()
                .map(|h| RoleHost {
                    host: self.hosts[h].name.parse().expect("a host's name"),
                    template: 0,
                })
                .collect(),
            templates: vec![TemplateSpec {
                template: template(version, proxied),
                secret_env: Vec::new(),
            }],
            tls_secrets: None,
        };
        let mut roles = vec![role("web", (0..self.hosts.len()).collect(), true)];
        if !self.scenario.jobs.is_empty() {
            roles.push(role("job", self.scenario.jobs.clone(), false));
        }
        Spec {
            app: app(),
            version: format!("v{version}").parse().expect("a version"),
            image: image(version),
            registry: RegistrySpec { server: String::new(), login: false },
            primary_role: "web".parse().expect("a role's name"),
            roles,
            accessories: Vec::new(),
            boot: BootSpec::default(),
            retain_containers: 5,
            proxy: ProxyTemplate {
                image: ImageRef {
                    repository: kamal::PROXY_REPOSITORY.to_owned(),
                    tag: kamal::PROXY_VERSION.to_owned(),
                },
                publish: true,
                http_port: 80,
                https_port: 443,
                bind_ips: Vec::new(),
                log_max_size: "10m".to_owned(),
                metrics_port: None,
                debug: false,
                explicit: false,
                options: Default::default(),
                container: Default::default(),
            },
            ssh_user: "root".to_owned(),
            run_directory: None,
            error_pages: None,
            rollback_on_failure: rolls_back,
        }
    }
}

pub(crate) fn app() -> App {
    App { service: "shop".parse().expect("a service's name"), destination: None }
}

fn image(version: usize) -> ImageRef {
    ImageRef { repository: REPOSITORY.to_owned(), tag: format!("v{version}") }
}

fn template(version: usize, proxied: bool) -> RoleTemplate {
    RoleTemplate {
        container: ContainerTemplate {
            image: image(version),
            cmd: None,
            env: Vec::new(),
            labels: BTreeMap::new(),
            network: kamal::NETWORK.to_owned(),
            restart: Restart::UnlessStopped,
            log: LogConfig::default(),
            mounts: Vec::new(),
            options: Default::default(),
        },
        proxy: proxied.then(|| ProxyTarget { app_port: 80, ..ProxyTarget::default() }),
        timeouts: Timeouts { deploy_s: 5, drain_s: 2, readiness_delay_s: 1, stop_s: None },
        asset_path: None,
        kamal_env_escaping: false,
    }
}

fn engine(scenario: &Scenario, host: usize, clock: HostClock) -> FakeEngine {
    let engine = FakeEngine::with_clock(Arc::new(move || clock.time()));
    if scenario.furnished {
        furnish::engine(&engine);
    }
    let proxy = format!("{}:{}", kamal::PROXY_REPOSITORY, kamal::PROXY_VERSION);
    engine.publish(FakeImage::new(&proxy, None, "proxy"), None);
    for version in 1..=VERSIONS {
        let name = format!("v{version}");
        let mut image = FakeImage::new(&format!("{REPOSITORY}:{name}"), Some("shop"), &name);
        if let Some(behaviour) = scenario.behaviours.get(&(host, version)) {
            image = image.behaving(behaviour.clone());
        }
        if scenario.furnished {
            furnish::image(&mut image, version);
        }
        engine.publish(image, None);
    }
    engine
}

async fn host(
    scenario: &Scenario,
    now: &Now,
    index: usize,
    ca: &Ca,
    store: &dyn Store,
    dir: &tempfile::TempDir,
) -> anyhow::Result<HostWorld> {
    let name = format!("h{index}");
    let clock = HostClock { now: now.clone(), ahead: scenario.ahead[index + 1] };
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let issued = ca.issue(&Identity::Host(name.parse()?), csr.der()).await?;
    let host_key = HostKey::generate()?;
    let record = HostRecord {
        v: 1,
        name: name.parse()?,
        aliases: Vec::new(),
        host_key: hex::encode(host_key.public_bytes()),
        enrolled_at: dhow_controller::clock::Clock::now(&clock),
        serial: issued.serial.to_string(),
        expires_at: issued.not_after,
        revoked: false,
    };
    store.put(format!("host/{name}"), serde_json::to_vec(&record)?).await?;
    let controllers: Result<Vec<Address>, _> =
        CONTROLLERS.iter().map(|c| format!("{c}:{PORT}").parse()).collect();
    let dir = dir.path().join(&name);
    std::fs::create_dir_all(dir.join("home"))?;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let home = dir.join("home");
    std::fs::write(
        dir.join("passwd"),
        format!("root:x:{uid}:{gid}::{}:/bin/sh\n", home.display()),
    )?;
    Ok(HostWorld {
        engine: engine(scenario, index, clock.clone()),
        disk: FakeDisk::new(),
        stored: Stored {
            host: name.parse()?,
            controllers: controllers?,
            certificate_der: issued.certificate_der,
            key_der: Zeroizing::new(key.serialize_der()),
            ca_set: ca.ca_set().der(),
            host_key: Arc::new(host_key),
        },
        clock,
        name,
        dir,
    })
}

async fn person(index: usize, ca: &Ca, store: &dyn Store) -> anyhow::Result<Person> {
    let name = format!("p{index}");
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let user = UserName::try_from(name.clone()).map_err(|e| anyhow::anyhow!("{name}: {e}"))?;
    let issued = ca.issue(&Identity::User(user.clone()), csr.der()).await?;
    let record = UserRecord {
        v: 1,
        name: user,
        role: Role::Admin,
        apps: Default::default(),
        revoked: false,
        expires_at: Some(issued.not_after),
    };
    store.put(format!("user/{name}"), serde_json::to_vec(&record)?).await?;
    Ok(Person {
        certificate: issued.certificate_der,
        key: key.serialize_der(),
        has_client: watch::Sender::new(true),
    })
}

/// Hooks as a client offers them.
pub(crate) fn hook_files(names: &[&str]) -> Vec<wire::HookFile> {
    names
        .iter()
        .map(|name| wire::HookFile { name: (*name).to_owned(), digest: vec![7; 32].into() })
        .collect()
}
