//! A host with a model Engine, and intents to converge it on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::model::intent::{
    Absent, AppIntent, Desired, HostPart, Intent, LatestTag, ProxyIntent, Prune, RoleIntent, Run,
    StagedImage, Traffic, Variant,
};
use dhow_proto::model::status::Failure;
use dhow_proto::model::template::{
    ContainerTemplate, EngineOptions, LogConfig, ProxyTarget, ProxyTemplate, Restart, RoleTemplate,
    Timeouts,
};
use dhow_proto::model::{
    App, BlobDigest, Document as _, Generation, ImageDigest, ImageRef, Unit, kamal,
};
use proptest::prelude::prop;

use crate::engine::Engine;
use crate::engine::fake::{FakeEngine, FakeImage};
use crate::execute::{OpenedSecrets, Place, StepContext, Worker, WorkerSettings};
use crate::host::Homes;
use crate::plan::{Bundles, Observed, Plan, Step, Wanted, plan};

pub(crate) const REPOSITORY: &str = "10.0.0.1:5000/shop";

pub(crate) struct World {
    pub(crate) engine: FakeEngine,
    pub(crate) worker: Arc<Worker>,
    pub(crate) home: PathBuf,
    directory: Arc<tempfile::TempDir>,
}

pub(crate) fn app() -> App {
    App { service: "shop".parse().unwrap(), destination: None }
}

pub(crate) fn role_unit(role: &str) -> Unit {
    Unit::Role(app(), role.parse().unwrap())
}

pub(crate) fn image(version: &str) -> FakeImage {
    FakeImage::new(&format!("{REPOSITORY}:{version}"), Some("shop"), version)
}

/// An intent with its documents.
pub(crate) fn wanted(unit: Unit, number: u64, desired: Desired, documents: &[Vec<u8>]) -> Wanted {
    let intent = Intent {
        unit,
        generation: Generation { epoch: 0, number },
        features: Vec::new(),
        rollout_id: None,
        after: Vec::new(),
        host: HostPart {
            config_host: "1.2.3.4".parse().unwrap(),
            ssh_user: None,
            run_directory: None,
        },
        desired,
    };
    let blobs: BTreeMap<BlobDigest, Bytes> =
        documents.iter().map(|d| (BlobDigest::of(d), Bytes::from(d.clone()))).collect();
    Wanted::new(intent, Bundles::default(), &blobs).unwrap()
}

/// A role's intent, to be varied.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) number: u64,
    pub(crate) boot: u64,
    pub(crate) run: Run,
    pub(crate) traffic: Traffic,
    pub(crate) digest: Option<ImageDigest>,
    pub(crate) template: RoleTemplate,
}

impl Role {
    pub(crate) fn web(version: &str) -> Self {
        let template = RoleTemplate {
            container: ContainerTemplate {
                image: ImageRef { repository: REPOSITORY.to_owned(), tag: version.to_owned() },
                cmd: None,
                env: Vec::new(),
                labels: BTreeMap::new(),
                network: kamal::NETWORK.to_owned(),
                restart: Restart::UnlessStopped,
                log: LogConfig {
                    driver: String::new(),
                    options: BTreeMap::from([("max-size".to_owned(), "10m".to_owned())]),
                },
                mounts: Vec::new(),
                options: EngineOptions::default(),
            },
            proxy: Some(ProxyTarget {
                app_port: 80,
                buffer_requests: true,
                buffer_responses: true,
                ..ProxyTarget::default()
            }),
            timeouts: Timeouts { deploy_s: 30, drain_s: 20, readiness_delay_s: 7, stop_s: None },
            asset_path: None,
            kamal_env_escaping: false,
        };
        Self {
            name: "web",
            version: version.to_owned(),
            number: 1,
            boot: 0,
            run: Run::Running,
            traffic: Traffic::Live,
            digest: None,
            template,
        }
    }

    pub(crate) fn job(version: &str) -> Self {
        let mut role = Self::web(version);
        role.name = "job";
        role.template.proxy = None;
        role
    }

    pub(crate) fn boot(mut self, boot: u64) -> Self {
        self.boot = boot;
        self.number += boot;
        self
    }

    pub(crate) fn service(&self) -> String {
        format!("shop-{}", self.name)
    }

    pub(crate) fn wanted(&self) -> Wanted {
        let intent = RoleIntent {
            run: self.run,
            traffic: self.traffic.clone(),
            boot: self.boot,
            variants: vec![Variant {
                template: self.template.blob(),
                count: 1,
                share: 100,
                version: self.version.parse().unwrap(),
                digest: self.digest.clone(),
            }],
            env: None,
            primary: self.name == "web",
        };
        let documents = [self.template.to_bytes()];
        wanted(role_unit(self.name), self.number, Desired::Role(intent), &documents)
    }
}

pub(crate) fn absent(unit: Unit, absent: Absent) -> Wanted {
    wanted(unit, 99, Desired::Absent(absent), &[])
}

pub(crate) fn proxy_wanted(boot: u64) -> Wanted {
    proxy_published(boot, true)
}

pub(crate) fn proxy_published(boot: u64, publish: bool) -> Wanted {
    let template = proxy_template(publish);
    let intent =
        ProxyIntent { template: Some(template.blob()), boot, run: Run::Running, registry: None };
    wanted(Unit::Proxy, boot + 1, Desired::Proxy(intent), &[template.to_bytes()])
}

pub(crate) fn proxy_template(publish: bool) -> ProxyTemplate {
    ProxyTemplate {
        image: ImageRef {
            repository: kamal::PROXY_REPOSITORY.to_owned(),
            tag: kamal::PROXY_VERSION.to_owned(),
        },
        publish,
        http_port: 80,
        https_port: 443,
        bind_ips: Vec::new(),
        log_max_size: "10m".to_owned(),
        metrics_port: None,
        debug: false,
        explicit: false,
        options: EngineOptions::default(),
        container: Default::default(),
    }
}

pub(crate) fn app_intent(version: &str) -> AppIntent {
    AppIntent {
        repository: REPOSITORY.to_owned(),
        roles: vec!["web".parse().unwrap()],
        run: Run::Running,
        staged: Some(StagedImage {
            version: version.parse().unwrap(),
            digest: None,
            pull: 1,
            registry: None,
            local_only: false,
        }),
        lock: None,
        stop_stale: None,
        prepare: None,
        latest: None,
        prune: None,
    }
}

pub(crate) fn latest(version: &str, when_serving: bool) -> Option<LatestTag> {
    Some(LatestTag { version: version.parse().unwrap(), digest: None, when_serving })
}

pub(crate) fn prune(number: u64, retain: u32) -> Option<Prune> {
    Some(Prune { number, retain })
}

pub(crate) fn app_wanted(intent: AppIntent) -> Wanted {
    wanted(Unit::App(app()), 1, Desired::App(intent), &[])
}

/// In memory where the machine has such a place: these tests write and sync thousands of small files.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

impl World {
    /// A host without anything; the proxy's image and versions v1 to v3 are in the registry.
    pub(crate) fn new() -> Self {
        let engine = FakeEngine::new();
        let proxy = format!("{}:{}", kamal::PROXY_REPOSITORY, kamal::PROXY_VERSION);
        engine.publish(FakeImage::new(&proxy, None, "proxy"), None);
        for version in ["v1", "v2", "v3"] {
            engine.publish(image(version), None);
        }
        let directory = Arc::new(folder());
        let home = directory.path().join("home");
        let settings = WorkerSettings {
            homes: Homes { base: home.clone(), passwd: PathBuf::from("/etc/passwd") },
            memory: directory.path().join("memory"),
            breakpoints: Breakpoints::default(),
            place: Place::BlockingThread,
        };
        let clock = engine.clone();
        let worker = Worker::new(Arc::new(engine.clone()), settings, Arc::new(move || clock.now()));
        let worker = Arc::new(worker);
        Self { engine, worker, home, directory }
    }

    /// The same host under a worker that is new, as after a restart of the agent, with another way to its Engine.
    pub(crate) fn again(&self, engine: Arc<dyn Engine>, breakpoints: Breakpoints) -> Self {
        let settings = WorkerSettings {
            homes: Homes { base: self.home.clone(), passwd: PathBuf::from("/etc/passwd") },
            memory: self.directory.path().join("memory"),
            breakpoints,
            place: Place::BlockingThread,
        };
        let clock = self.engine.clone();
        let worker = Worker::new(engine, settings, Arc::new(move || clock.now()));
        Self {
            engine: self.engine.clone(),
            worker: Arc::new(worker),
            home: self.home.clone(),
            directory: self.directory.clone(),
        }
    }

    /// Where the worker keeps what it remembers.
    pub(crate) fn memory(&self) -> PathBuf {
        self.directory.path().join("memory")
    }

    /// The same with a proxy that runs and with the versions' images.
    pub(crate) async fn ready() -> Self {
        let world = Self::new();
        world.settle(&proxy_wanted(0)).await;
        for version in ["v1", "v2", "v3"] {
            world.engine.add_image(image(version));
        }
        world
    }

    pub(crate) async fn observe(&self, wanted: &Wanted) -> Observed {
        self.worker.observe(wanted, None).await.unwrap()
    }

    pub(crate) async fn plan(&self, wanted: &Wanted) -> Plan {
        plan(wanted, &self.observe(wanted).await)
    }

    pub(crate) async fn run(&self, wanted: &Wanted, step: &Step) -> Result<(), Box<Failure>> {
        let secrets = OpenedSecrets::default();
        let context = StepContext { wanted, secrets: &secrets, progress: &|_| {} };
        self.worker.run(step, &context).await
    }

    /// Plans and runs until nothing is left, at most five times; after every step `check` holds.
    pub(crate) async fn converge(
        &self,
        wanted: &Wanted,
        mut check: impl FnMut(&Step),
    ) -> Result<String, Outcome> {
        let mut text = Vec::new();
        for _ in 0..5 {
            let steps = match self.plan(wanted).await {
                Plan::Steps(steps) => steps,
                other => return Err(Outcome::Not(other.to_string())),
            };
            if steps.is_empty() {
                return Ok(text.join("\n"));
            }
            for step in &steps {
                text.push(step.to_string());
                let result = self.run(wanted, step).await;
                check(step);
                result.map_err(Outcome::Failed)?;
            }
        }
        Err(Outcome::Not(format!("does not settle:\n{}", text.join("\n"))))
    }

    /// Converges and must settle.
    pub(crate) async fn settle(&self, wanted: &Wanted) -> String {
        self.converge(wanted, |_| {}).await.unwrap()
    }

    /// Deploys a role and tags its image as latest, as a rollout does.
    pub(crate) async fn deploy(&self, role: &Role) {
        self.settle(&role.wanted()).await;
        let mut intent = app_intent(&role.version);
        intent.staged = None;
        intent.latest = latest(&role.version, false);
        self.settle(&app_wanted(intent)).await;
    }

    /// Name and state of the app's containers, oldest first.
    pub(crate) fn containers(&self) -> String {
        let mut all = self.engine.all();
        all.reverse();
        let ours = all.iter().filter(|c| c.label(kamal::LABEL_SERVICE) == "shop");
        ours.map(|c| format!("{} {}", c.name, c.state.as_str())).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Failed(Box<Failure>),
    Not(String),
}

impl Outcome {
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Failed(failure) => *failure,
            Self::Not(text) => panic!("no step failed: {text}"),
        }
    }
}

/// Runs a property's case with paused time.
pub(crate) fn paused<F: Future>(case: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { case().await })
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Versions that are there.
pub(crate) fn versions() -> impl proptest::strategy::Strategy<Value = &'static str> {
    prop::sample::select(vec!["v1", "v2", "v3"])
}
