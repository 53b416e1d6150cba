//! A host with a model Engine, and intents to converge it on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

use crate::engine::fake::{FakeEngine, FakeImage};
use crate::execute::{OpenedSecrets, StepContext, Worker, WorkerSettings};
use crate::host::Homes;
use crate::plan::{Bundles, Observed, Plan, Step, Wanted, plan};

pub(super) const REPOSITORY: &str = "10.0.0.1:5000/shop";

pub(super) struct World {
    pub(super) engine: FakeEngine,
    pub(super) worker: Worker,
    pub(super) home: PathBuf,
    _directory: tempfile::TempDir,
}

pub(super) fn app() -> App {
    App { service: "shop".parse().unwrap(), destination: None }
}

pub(super) fn role_unit(role: &str) -> Unit {
    Unit::Role(app(), role.parse().unwrap())
}

pub(super) fn image(version: &str) -> FakeImage {
    FakeImage::new(&format!("{REPOSITORY}:{version}"), Some("shop"), version)
}

/// An intent with its documents.
pub(super) fn wanted(unit: Unit, number: u64, desired: Desired, documents: &[Vec<u8>]) -> Wanted {
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
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) number: u64,
    pub(super) boot: u64,
    pub(super) run: Run,
    pub(super) traffic: Traffic,
    pub(super) digest: Option<ImageDigest>,
    pub(super) template: RoleTemplate,
}

impl Role {
    pub(super) fn web(version: &str) -> Self {
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

    pub(super) fn job(version: &str) -> Self {
        let mut role = Self::web(version);
        role.name = "job";
        role.template.proxy = None;
        role
    }

    pub(super) fn boot(mut self, boot: u64) -> Self {
        self.boot = boot;
        self.number += boot;
        self
    }

    pub(super) fn service(&self) -> String {
        format!("shop-{}", self.name)
    }

    pub(super) fn wanted(&self) -> Wanted {
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

pub(super) fn absent(unit: Unit, absent: Absent) -> Wanted {
    wanted(unit, 99, Desired::Absent(absent), &[])
}

pub(super) fn proxy_wanted(boot: u64) -> Wanted {
    proxy_published(boot, true)
}

pub(super) fn proxy_published(boot: u64, publish: bool) -> Wanted {
    let template = ProxyTemplate {
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
    };
    let intent =
        ProxyIntent { template: Some(template.blob()), boot, run: Run::Running, registry: None };
    wanted(Unit::Proxy, boot + 1, Desired::Proxy(intent), &[template.to_bytes()])
}

pub(super) fn app_intent(version: &str) -> AppIntent {
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

pub(super) fn latest(version: &str, when_serving: bool) -> Option<LatestTag> {
    Some(LatestTag { version: version.parse().unwrap(), digest: None, when_serving })
}

pub(super) fn prune(number: u64, retain: u32) -> Option<Prune> {
    Some(Prune { number, retain })
}

pub(super) fn app_wanted(intent: AppIntent) -> Wanted {
    wanted(Unit::App(app()), 1, Desired::App(intent), &[])
}

impl World {
    /// A host without anything; the proxy's image and versions v1 to v3 are in the registry.
    pub(super) fn new() -> Self {
        let engine = FakeEngine::new();
        let proxy = format!("{}:{}", kamal::PROXY_REPOSITORY, kamal::PROXY_VERSION);
        engine.publish(FakeImage::new(&proxy, None, "proxy"), None);
        for version in ["v1", "v2", "v3"] {
            engine.publish(image(version), None);
        }
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        let settings = WorkerSettings {
            homes: Homes { base: home.clone(), passwd: PathBuf::from("/etc/passwd") },
            memory: directory.path().join("memory"),
        };
        let clock = engine.clone();
        let worker = Worker::new(Arc::new(engine.clone()), settings, Arc::new(move || clock.now()));
        Self { engine, worker, home, _directory: directory }
    }

    /// The same with a proxy that runs and with the versions' images.
    pub(super) async fn ready() -> Self {
        let world = Self::new();
        world.settle(&proxy_wanted(0)).await;
        for version in ["v1", "v2", "v3"] {
            world.engine.add_image(image(version));
        }
        world
    }

    pub(super) async fn observe(&self, wanted: &Wanted) -> Observed {
        self.worker.observe(wanted).await.unwrap()
    }

    pub(super) async fn plan(&self, wanted: &Wanted) -> Plan {
        plan(wanted, &self.observe(wanted).await)
    }

    pub(super) async fn run(&self, wanted: &Wanted, step: &Step) -> Result<(), Box<Failure>> {
        let secrets = OpenedSecrets::default();
        let context = StepContext { wanted, secrets: &secrets, progress: &|_| {} };
        self.worker.run(step, &context).await
    }

    /// Plans and runs until nothing is left, at most five times; after every step `check` holds.
    pub(super) async fn converge(
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
    pub(super) async fn settle(&self, wanted: &Wanted) -> String {
        self.converge(wanted, |_| {}).await.unwrap()
    }

    /// Deploys a role and tags its image as latest, as a rollout does.
    pub(super) async fn deploy(&self, role: &Role) {
        self.settle(&role.wanted()).await;
        let mut intent = app_intent(&role.version);
        intent.staged = None;
        intent.latest = latest(&role.version, false);
        self.settle(&app_wanted(intent)).await;
    }

    /// Name and state of the app's containers, oldest first.
    pub(super) fn containers(&self) -> String {
        let mut all = self.engine.all();
        all.reverse();
        let ours = all.iter().filter(|c| c.label(kamal::LABEL_SERVICE) == "shop");
        ours.map(|c| format!("{} {}", c.name, c.state.as_str())).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug)]
pub(super) enum Outcome {
    Failed(Box<Failure>),
    Not(String),
}

impl Outcome {
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Failed(failure) => *failure,
            Self::Not(text) => panic!("no step failed: {text}"),
        }
    }
}

/// Runs a property's case with paused time.
pub(super) fn paused<F: Future>(case: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { case().await })
}

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Versions that are there.
pub(super) fn versions() -> impl proptest::strategy::Strategy<Value = &'static str> {
    prop::sample::select(vec!["v1", "v2", "v3"])
}
