//! The same plans on a real Engine, with the stand-in for kamal-proxy.

use std::path::PathBuf;
use std::sync::Arc;

use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::model::intent::Absent;
use dhow_proto::wire::FailureKind;
use dhow_test_images::{AppImage, Behaviour, app_archive, proxy_image};
use dhow_tests::{Fleet, FleetOptions};

use super::world::{
    REPOSITORY, Role, absent, app, app_intent, app_wanted, latest, proxy_published, prune,
    role_unit,
};
use crate::engine::docker::Docker;
use crate::execute::{OpenedSecrets, Place, StepContext, Worker, WorkerSettings};
use crate::host::Homes;
use crate::plan::{Plan, Step, Wanted, plan};

struct Host {
    worker: Worker,
    fleet: Fleet,
    _directory: tempfile::TempDir,
}

impl Host {
    /// A host of its own: the machine's may have a kamal-proxy that somebody needs.
    fn new() -> Self {
        let fleet = Fleet::start_with(FleetOptions::hosts(1)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let settings = WorkerSettings {
            homes: Homes {
                base: directory.path().join("home"),
                passwd: PathBuf::from("/etc/passwd"),
            },
            memory: directory.path().join("memory"),
            breakpoints: Breakpoints::default(),
            place: Place::BlockingThread,
        };
        let socket = format!("unix://{}", fleet.host(1).docker_socket().display());
        let engine = Arc::new(Docker::connect(Some(&socket)).unwrap());
        let clock = || {
            let now = jiff::Timestamp::now().as_nanosecond();
            let now = std::time::Duration::from_nanos(u64::try_from(now).unwrap());
            std::time::SystemTime::UNIX_EPOCH + now
        };
        let worker = Worker::new(engine, settings, Arc::new(clock));
        Self { worker, fleet, _directory: directory }
    }

    fn docker(&self, args: &[&str]) -> String {
        self.fleet.host(1).docker(args).unwrap().ok().unwrap().stdout
    }

    async fn converge(&self, wanted: &Wanted) -> Result<String, String> {
        let mut text = Vec::new();
        for _ in 0..4 {
            let observed = self.worker.observe(wanted, None).await.unwrap();
            let steps = match plan(wanted, &observed) {
                Plan::Steps(steps) => steps,
                other => return Err(other.to_string()),
            };
            if steps.is_empty() {
                return Ok(text.join("\n"));
            }
            for step in &steps {
                text.push(step.to_string());
                self.run(wanted, step).await?;
            }
        }
        Err(format!("does not settle: {}", text.join("\n")))
    }

    async fn run(&self, wanted: &Wanted, step: &Step) -> Result<(), String> {
        let secrets = OpenedSecrets::default();
        let context = StepContext { wanted, secrets: &secrets, progress: &|_| {} };
        self.worker.run(step, &context).await.map_err(|f| {
            format!("{:?} at {step}: {} {:?} {:?}", f.kind, f.reason, f.exit_code, f.log_lines)
        })
    }

    fn running(&self) -> Vec<String> {
        let names =
            self.docker(&["ps", "--format", "{{.Names}}", "--filter", "label=service=shop"]);
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

/// Deploys, deploys anew, fails, rolls back, prunes, reboots the proxy and removes, on real containers.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_of_an_app_on_a_real_engine() {
    let host = Host::new();
    host.fleet.host(1).load(&proxy_image().unwrap()).unwrap();
    let image = |tag: &str| AppImage::new(format!("{REPOSITORY}:{tag}"), tag).service("shop");
    let images = app_archive(&[
        image("v1"),
        image("v2"),
        image("bad").behaving(Behaviour::Unhealthy),
        image("crash").behaving(Behaviour::CrashAtStart),
    ]);
    host.fleet.host(1).load(&images.unwrap()).unwrap();

    host.converge(&proxy_published(0, false)).await.unwrap();
    let web = |version: &str| {
        let mut role = Role::web(version);
        role.template.asset_path = Some("/assets".to_owned());
        role.template.timeouts.deploy_s = 5;
        role.template.timeouts.drain_s = 5;
        role
    };
    host.converge(&web("v1").wanted()).await.unwrap();
    host.converge(&Role::job("v1").wanted()).await.unwrap();
    let mut intent = app_intent("v1");
    intent.staged = None;
    intent.latest = latest("v1", true);
    intent.roles.push("job".parse().unwrap());
    assert!(host.converge(&app_wanted(intent)).await.unwrap().contains("tag"));
    assert_eq!(host.running(), ["shop-job-v1", "shop-web-v1"]);

    // The same version anew, then the next one.
    let steps = host.converge(&web("v1").boot(1).wanted()).await.unwrap();
    assert!(steps.contains("_replaced_"), "{steps}");
    let steps = host.converge(&web("v2").wanted()).await.unwrap();
    assert!(steps.contains("stop shop-web-v1"), "{steps}");
    let settled = web("v2").wanted().settled();

    for (version, kind) in [("bad", FailureKind::Unhealthy), ("crash", FailureKind::Exited)] {
        let failed = web(version).wanted();
        let error = host.converge(&failed).await.unwrap_err();
        assert!(error.starts_with(&format!("{kind:?}")), "{error}");
        host.converge(&failed.abandoned(Some(&settled))).await.unwrap();
        host.converge(&settled).await.unwrap();
        assert_eq!(host.running(), ["shop-job-v1", "shop-web-v2"]);
    }
    // Without proxy as well.
    let failed = Role::job("crash").wanted();
    let error = host.converge(&failed).await.unwrap_err();
    assert!(error.starts_with("Exited"), "{error}");
    host.converge(&failed.abandoned(Some(&Role::job("v1").wanted()))).await.unwrap();

    // Back to v1, and prune.
    host.converge(&web("v1").boot(2).wanted()).await.unwrap();
    let mut intent = app_intent("v1");
    intent.staged = None;
    intent.prune = prune(1, 1);
    host.converge(&app_wanted(intent)).await.unwrap();
    assert_eq!(host.running(), ["shop-job-v1", "shop-web-v1"]);

    // A reboot keeps the routes; the role finds nothing to do.
    let steps = host.converge(&proxy_published(1, false)).await.unwrap();
    assert!(steps.contains("remove kamal-proxy"), "{steps}");
    let settled = web("v1").boot(2).wanted().settled();
    assert_eq!(host.converge(&settled).await.unwrap(), "");
    // Removed by hand, it comes back.
    host.docker(&["rm", "-f", "shop-web-v1"]);
    assert!(host.converge(&settled).await.unwrap().contains("route shop-web to shop-web-v1:80"));

    for role in ["web", "job"] {
        host.converge(&absent(role_unit(role), Absent::Remove)).await.unwrap();
    }
    let unit = dhow_proto::model::Unit::App(app());
    host.converge(&absent(unit, Absent::Remove)).await.unwrap();
    host.converge(&absent(dhow_proto::model::Unit::Proxy, Absent::Remove)).await.unwrap();
    assert!(host.running().is_empty());
    assert!(host.worker.engine().container("kamal-proxy").await.unwrap().is_none());
    host.fleet.down().unwrap();
}
