//! What every Engine promises: one suite for the model and for the real one.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::model::ImageRef;
use dhow_test_images::{AppImage, Behaviour as AppBehaviour, app_archive};
use futures_util::StreamExt as _;
use serde_json::json;

use super::docker::Docker;
use super::fake::{Behaviour, FakeEngine, FakeImage};
use super::{
    ContainerBody, ContainerState, Engine, EngineError, ImageFilter, LogQuery, NewContainer,
};

/// Names of one run, so that runs do not meet on a shared Engine.
struct Names {
    repository: String,
    network: String,
    prefix: String,
}

impl Names {
    fn new() -> Self {
        let run = format!("dhow-contract-{}", std::process::id());
        Self { repository: run.clone(), network: format!("{run}-net"), prefix: run }
    }

    fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository)
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    fn container(&self, suffix: &str, tag: &str) -> NewContainer {
        let body = json!({
            "Image": self.image(tag),
            "Env": ["SECRET=value"],
            "Hostname": "contract",
            "Labels": {"role": self.prefix, "destination": ""},
            "HostConfig": {
                "NetworkMode": self.network,
                "RestartPolicy": {"Name": "unless-stopped"},
                "LogConfig": {"Type": "", "Config": {"max-size": "10m"}},
            },
        });
        let body = ContainerBody::new(body);
        NewContainer { name: self.name(suffix), platform: None, body }
    }
}

/// Runs the suite.
async fn contract(engine: Arc<dyn Engine>, names: &Names) {
    engine.ping().await.unwrap();
    assert!(!engine.facts().await.unwrap().api_version.is_empty());
    images(&*engine, names).await;
    for _ in 0..2 {
        engine.create_network(&names.network).await.unwrap();
        assert_eq!(engine.networks(&names.network).await.unwrap().len(), 1);
    }
    creation(&*engine, names).await;
    running(&*engine, names).await;
    files(&*engine, names).await;
    endings(&*engine, names).await;
    crash_loop(&*engine, names).await;
    health(&*engine, names).await;
    events(engine, names).await;
}

async fn images(engine: &dyn Engine, names: &Names) {
    assert_eq!(engine.image(&names.image("nothing")).await.unwrap(), None);
    let well = engine.image(&names.image("well")).await.unwrap().unwrap();
    assert!(well.id.starts_with("sha256:"));
    assert_eq!(well.labels["service"], names.prefix);
    let other = ImageRef { repository: names.repository.clone(), tag: "other".to_owned() };
    engine.tag(&names.image("well"), &other).await.unwrap();
    assert_eq!(engine.image(&other.to_string()).await.unwrap().unwrap().id, well.id);
    let label = format!("service={}", names.prefix);
    for filter in [ImageFilter::Label(&label), ImageFilter::Repository(&names.repository)] {
        let images = engine.images(filter).await.unwrap();
        let listed = images.iter().find(|i| i.id == well.id).unwrap();
        assert!(listed.size > 0 && listed.size == well.size, "{} and {}", listed.size, well.size);
        let tags = &listed.tags;
        assert!(tags.contains(&other.to_string()) && tags.contains(&names.image("well")));
    }
    for _ in 0..2 {
        engine.remove_image(&other.to_string(), false).await.unwrap();
    }
    assert_eq!(engine.image(&other.to_string()).await.unwrap(), None);
    engine.prune_dangling(&label).await.unwrap();
    assert!(engine.image(&names.image("well")).await.unwrap().is_some());
    let missing = ImageRef { repository: "127.0.0.1:9/nothing".to_owned(), tag: "v1".to_owned() };
    let pulled = engine.pull(&missing, None, Duration::from_secs(20), &|_| {}).await;
    assert!(
        matches!(pulled, Err(EngineError::ImageMissing(_) | EngineError::RegistryUnreachable(_))),
        "{pulled:?}"
    );
}

async fn creation(engine: &dyn Engine, names: &Names) {
    let missing = engine.create(names.container("a", "nothing")).await;
    assert!(matches!(missing, Err(EngineError::NotFound(_))), "{missing:?}");
    let id = engine.create(names.container("a", "well")).await.unwrap();
    let again = engine.create(names.container("a", "well")).await;
    assert!(matches!(again, Err(EngineError::Conflict(_))), "{again:?}");
    let view = engine.container(&names.name("a")).await.unwrap().unwrap();
    assert_eq!((view.id.as_str(), view.state), (id.as_str(), ContainerState::Created));
    assert_eq!(view.name, names.name("a"));
    assert_eq!(view.image, names.image("well"));
    assert_eq!((view.exit_code, view.restarts, view.started_at), (None, 0, None));
    // The image's label comes along.
    assert_eq!(view.label("service"), names.prefix);
    assert_eq!(view.labels["destination"], "");
    assert_eq!(view.hostname, "contract");
    assert_eq!(engine.container(view.short_id()).await.unwrap().unwrap().id, id);
    assert_eq!(engine.container(&names.name("nothing")).await.unwrap(), None);
    engine.create(names.container("b", "well")).await.unwrap();
    let labels = [format!("role={}", names.prefix), "destination=".to_owned()];
    let found = engine.containers(&labels).await.unwrap();
    let found: Vec<&str> = found.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(found, [names.name("b"), names.name("a")], "newest first");
    assert!(
        engine
            .containers(&["destination=other".to_owned(), labels[0].clone()])
            .await
            .unwrap()
            .is_empty()
    );
    engine.remove(&names.name("b")).await.unwrap();
}

async fn running(engine: &dyn Engine, names: &Names) {
    let a = names.name("a");
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let within = Duration::from_secs(20);
    let early = engine.exec(&a, &words(&["echo", "x"]), within).await;
    assert!(matches!(early, Err(EngineError::Conflict(_))), "{early:?}");
    let nobody = engine.exec(&names.name("nothing"), &words(&["echo", "x"]), within).await;
    assert!(matches!(nobody, Err(EngineError::NotFound(_))), "{nobody:?}");
    for _ in 0..2 {
        engine.start(&a).await.unwrap();
    }
    let view = engine.container(&a).await.unwrap().unwrap();
    assert_eq!(view.state, ContainerState::Running);
    assert!(view.started_at.is_some());
    assert_eq!(view.networks, std::slice::from_ref(&names.network));
    engine.unpause(&a).await.unwrap();
    engine.connect(&names.network, &a).await.unwrap();
    let echo = engine.exec(&a, &words(&["echo", "hello"]), within).await.unwrap();
    assert_eq!((echo.exit_code, echo.stdout.trim()), (0, "hello"));
    assert_eq!(engine.exec(&a, &words(&["false"]), within).await.unwrap().exit_code, 1);
    let missing = engine.exec(&a, &words(&["no-such-tool"]), within).await.unwrap();
    assert!([126, 127].contains(&missing.exit_code), "{missing:?}");
    engine.processes(&a).await.unwrap();
    let removed = engine.remove(&a).await;
    assert!(matches!(removed, Err(EngineError::Conflict(_))), "{removed:?}");
}

async fn files(engine: &dyn Engine, names: &Names) {
    let a = names.name("a");
    let tar = engine.archive(&a, "/assets/.", 1 << 20).await.unwrap().unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let paths: Vec<_> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
    assert!(paths.iter().any(|p| p.ends_with("common.css")), "{paths:?}");
    assert_eq!(engine.archive(&a, "/nothing/.", 1 << 20).await.unwrap(), None);
    assert!(engine.archive(&a, "/assets/.", 10).await.is_err());
}

async fn endings(engine: &dyn Engine, names: &Names) {
    let (a, moved) = (names.name("a"), names.name("moved"));
    engine.create(names.container("b", "well")).await.unwrap();
    let taken = engine.rename(&a, &names.name("b")).await;
    assert!(matches!(taken, Err(EngineError::Conflict(_))), "{taken:?}");
    engine.rename(&a, &moved).await.unwrap();
    assert_eq!(engine.container(&a).await.unwrap(), None);
    for _ in 0..2 {
        engine.stop(&moved, Some(Duration::from_secs(5))).await.unwrap();
    }
    let view = engine.container(&moved).await.unwrap().unwrap();
    assert_eq!((view.state, view.exit_code), (ContainerState::Exited, Some(0)));
    engine.logs(&moved, &LogQuery::newest(50, 16 * 1024)).await.unwrap();
    for name in [&moved, &names.name("b")] {
        for _ in 0..2 {
            engine.remove(name).await.unwrap();
        }
        engine.stop(name, None).await.unwrap();
    }
}

/// Looks until it is so, for at most 20 s.
async fn until(
    what: &str,
    engine: &dyn Engine,
    name: &str,
    is: impl Fn(&super::ObservedContainer) -> bool,
) {
    for _ in 0..100 {
        let view = engine.container(name).await.unwrap().unwrap();
        if is(&view) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{what} did not come about");
}

async fn crash_loop(engine: &dyn Engine, names: &Names) {
    let name = names.name("crash");
    engine.create(names.container("crash", "crash")).await.unwrap();
    engine.start(&name).await.unwrap();
    until("a restart", engine, &name, |c| c.restarts >= 2).await;
    let lines = engine.logs(&name, &LogQuery::newest(2, 16 * 1024)).await.unwrap();
    assert!(lines.len() <= 2, "{lines:?}");
    engine.stop(&name, Some(Duration::from_secs(5))).await.unwrap();
    until("the stop", engine, &name, |c| c.state == ContainerState::Exited).await;
    engine.remove(&name).await.unwrap();
}

async fn health(engine: &dyn Engine, names: &Names) {
    use super::HealthStatus;
    let name = names.name("health");
    engine.create(names.container("health", "health")).await.unwrap();
    engine.start(&name).await.unwrap();
    until("health", engine, &name, |c| {
        c.health.as_ref().is_some_and(|h| h.status == HealthStatus::Healthy)
    })
    .await;
    engine.stop(&name, Some(Duration::from_secs(5))).await.unwrap();
    engine.remove(&name).await.unwrap();
}

async fn events(engine: Arc<dyn Engine>, names: &Names) {
    let name = names.name("events");
    let id = engine.create(names.container("events", "well")).await.unwrap();
    let listener = Arc::clone(&engine);
    let heard = tokio::spawn(async move {
        let mut events = listener.events();
        loop {
            let event = events.next().await.unwrap().unwrap();
            if event.id == id && event.action == "die" {
                return event;
            }
        }
    });
    // Events begin when somebody listens, and nobody is told when that is.
    let mut tries = 0;
    while !heard.is_finished() {
        assert!(tries < 20, "no event came");
        tries += 1;
        engine.start(&name).await.unwrap();
        engine.stop(&name, Some(Duration::from_secs(5))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let event = heard.await.unwrap();
    assert_eq!(event.name, name);
    assert_eq!(event.attributes["role"], names.prefix);
    engine.remove(&name).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_model_keeps_the_contract() {
    let names = Names::new();
    let engine = FakeEngine::new();
    let image = |tag: &str| FakeImage::new(&names.image(tag), Some(&names.prefix), tag);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    builder.append_data(&mut header, "./common.css", &b"{}"[..]).unwrap();
    let mut well = image("well");
    well.files.insert("/assets".to_owned(), builder.into_inner().unwrap().into());
    engine.add_image(well);
    engine.add_image(image("crash").behaving(Behaviour::Exits(Duration::ZERO, 1)));
    engine.add_image(image("health").with_healthcheck());
    contract(Arc::new(engine), &names).await;
}

/// Removes what a run left on the machine's Engine, also after a panic.
struct Cleanup(Names);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let docker = |args: &[&str]| {
            let output = Command::new("docker").args(args).output();
            output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
        };
        let label = format!("label=role={}", self.0.prefix);
        for id in docker(&["ps", "-aq", "--filter", &label]).split_whitespace() {
            docker(&["rm", "-fv", id]);
        }
        for tag in ["well", "crash", "health", "other"] {
            docker(&["rmi", "-f", &self.0.image(tag)]);
        }
        docker(&["network", "rm", &self.0.network]);
    }
}

/// Needs the machine's Docker Engine and its `docker` command; fails without.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_engine_keeps_the_contract() {
    let cleanup = Cleanup(Names::new());
    let names = &cleanup.0;
    let image = |tag: &str| AppImage::new(names.image(tag), "v1").service(&names.prefix);
    let healthcheck = json!({
        "Test": ["CMD", "sample-app", "up"], "Interval": 500_000_000, "Retries": 3,
    });
    let archive = app_archive(&[
        image("well"),
        image("crash").behaving(AppBehaviour::CrashAtStart),
        image("health").config("Healthcheck", healthcheck),
    ])
    .unwrap();
    let loaded = Command::new("docker").arg("load").arg("-i").arg(&archive).output();
    let loaded = loaded.expect("this test needs the docker command");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    std::fs::remove_file(&archive).unwrap();
    contract(Arc::new(Docker::connect(None).unwrap()), names).await;
}
