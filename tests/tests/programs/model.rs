//! An agent in this process: session, ledger and loops of the real one, on a model Engine, over this machine's network to the
//! real controller. So rollouts get to their end without Docker.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use dhow_agent::answers::Answers;
use dhow_agent::clock::{Clock as _, SystemClock};
use dhow_agent::converge;
use dhow_agent::engine::Engine;
use dhow_agent::engine::fake::{FakeEngine, FakeImage};
use dhow_agent::execute::{Place, Worker, WorkerSettings};
use dhow_agent::host::Homes;
use dhow_agent::ledger::{Blobs, Disk, Events, Ledger};
use dhow_agent::notify::Watchdog;
use dhow_agent::session::{Board, Connector, Fetcher, Rooms, SessionSettings, Stored};
use dhow_agent::supervise::Supervisor;
use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::dial::Machine;
use dhow_proto::model::kamal;
use dhow_tests::fleet::run::{Process, wait_until};
use tokio_util::sync::CancellationToken;

use crate::stage::{LIMIT, Stage, done, program};

/// A config for this agent alone; nothing in it takes long.
pub(crate) const CONFIG: &str = "service: shop\nimage: shop\nservers: [h1]\nproxy: {host: shop.test}\n\
    registry: {server: \"localhost:1\", username: u, password: [PASSWORD]}\nbuilder: {arch: amd64}\n\
    readiness_delay: 1\ndrain_timeout: 1\ndeploy_timeout: 5\n";

/// Runs until it is dropped.
pub(crate) struct ModelAgent {
    /// What it works with.
    pub(crate) engine: FakeEngine,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<Result<()>>>,
}

impl ModelAgent {
    /// Joins as `h1` and starts, with a registry that has these versions of the app; waits until the controller knows it.
    pub(crate) fn start(stage: &Stage, versions: &[&str]) -> Result<Self> {
        stage.join(&stage.host_token("h1")?, "h1")?.ok()?;
        let engine = FakeEngine::new();
        let proxy = format!("{}:{}", kamal::PROXY_REPOSITORY, kamal::PROXY_VERSION);
        engine.publish(FakeImage::new(&proxy, None, "proxy"), None);
        for version in versions {
            let image =
                FakeImage::new(&format!("localhost:1/shop:{version}"), Some("shop"), version);
            engine.publish(image, None);
        }
        let shutdown = CancellationToken::new();
        let (state, stop, its) = (stage.path("h1"), shutdown.clone(), engine.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("a runtime")?.block_on(run(&state, its, stop))
        });
        let agent = Self { engine, shutdown, thread: Some(thread) };
        wait_until("the agent is online", LIMIT, || {
            let hosts = stage.json(&["host", "list"])?;
            Ok((hosts[0]["online"] == true).then_some(()))
        })?;
        Ok(agent)
    }
}

impl Drop for ModelAgent {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Ok(Err(error))) = ended {
            eprintln!("the model agent ended: {error:#}");
        }
    }
}

/// Deploys v1 and gives the client once its hook runs, which goes on until [`lose`]. The file `ran` has a line for each
/// time it was run.
pub(crate) fn in_hook(stage: &Stage) -> Result<Process> {
    stage.hook("pre-deploy", "echo ran >> ran; while [ -e held ]; do sleep 0.1; done")?;
    let ran = stage.project().join("ran");
    std::fs::write(stage.project().join("held"), "").context("hold the hook")?;
    let mut deploy = stage.dhow_command("home")?;
    deploy.args(["deploy", "-P", "--version", "v1"]);
    let client = Process::start("dhow", &mut deploy, &stage.path("deploy.log"))?;
    wait_until("the hook runs", LIMIT, || Ok(ran.exists().then_some(())))?;
    Ok(client)
}

/// Kills the client whose hook runs, and waits until the controller waits for another one. Gives the rollout's id.
pub(crate) fn lose(stage: &Stage, mut client: Process) -> Result<String> {
    client.kill();
    std::fs::remove_file(stage.project().join("held")).context("let the hook end")?;
    wait_until("the controller waits for a client", LIMIT, || {
        let list = stage.json(&["rollout", "list"])?;
        let waits = list[0]["state"] == "awaiting_client";
        Ok(waits.then(|| list[0]["id"].as_str().map(str::to_owned)).flatten())
    })
}

async fn run(state: &Path, engine: FakeEngine, shutdown: CancellationToken) -> Result<()> {
    let stored = Stored::load(state).context("an identity")?;
    let (io, clock) = (Arc::new(Disk), Arc::new(SystemClock));
    let ledger = Arc::new(Ledger::open(&state.join("ledger"), io.clone()).context("a ledger")?);
    let blobs = Arc::new(Blobs::open(&state.join("blobs"), io.clone())?);
    let events = Arc::new(Events::open(&state.join("events"), io, clock.now())?);
    let home = state.join("home");
    std::fs::create_dir_all(&home)?;
    let passwd = state.join("passwd");
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    std::fs::write(&passwd, format!("root:x:{uid}:{gid}::{}:/bin/sh\n", home.display()))?;
    let settings = WorkerSettings {
        homes: Homes { base: home, passwd },
        memory: state.join("memory"),
        breakpoints: Breakpoints::default(),
        place: Place::BlockingThread,
    };
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let now = Arc::clone(&clock);
    let worker = Worker::new(Arc::clone(&engine), settings, Arc::new(move || now.now()));
    let (board, fetcher) = (Board::new(), Fetcher::new(blobs));
    let loops = converge::Rooms {
        ledger: Arc::clone(&ledger),
        events: Arc::clone(&events),
        board: board.clone(),
        worker: Arc::new(worker),
        source: Arc::new(fetcher.clone()),
        host: stored.host.clone(),
        host_key: Arc::clone(&stored.host_key),
        clock: clock.clone(),
    };
    let session = SessionSettings {
        state_dir: state.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        binary_digest: Vec::new(),
        boot_id: String::new(),
        outside: Arc::new(Machine),
    };
    let rooms = Rooms { ledger, events, board, clock };
    let answers = Arc::new(Answers::new(engine));
    let connector = Connector::new(rooms, session, stored, answers, fetcher)?;
    let mut supervisor = Supervisor::new(shutdown);
    supervisor.start("converge", |shutdown| converge::run(loops, Watchdog::none(), shutdown));
    supervisor.start("session", |shutdown| connector.run(shutdown));
    supervisor.run().await.context("the agent ended")
}

/// Kamal exits with 0 and says that there is no such version.
#[test]
fn a_rollback_to_a_version_that_no_host_has_is_a_failure_by_either_name() -> Result<()> {
    let stage = Stage::with_admin()?;
    stage.config(CONFIG)?;
    let _agent = ModelAgent::start(&stage, &["v1", "v2"])?;
    stage.dhow(&["deploy", "-P", "--version", "v1"])?.ok()?;
    let kamal = stage.path("kamal");
    std::os::unix::fs::symlink(program("dhow")?, &kamal).context("a link")?;
    // The registry has `v2`, but a rollback pulls nothing.
    for version in ["v2", "v3"] {
        let words = format!("'{version}' is not available as a container of role web on h1");
        let own = stage.dhow(&["rollback", version])?;
        assert_eq!(own.code(), Some(1), "{}", own.text());
        assert!(own.stderr.contains(&words) && !own.stdout.contains(&words), "{}", own.text());
        let mut named = Command::new("env");
        named.args(["-u", "VERSION", "-u", "KAMAL_DESTINATION"]).arg(&kamal);
        named
            .current_dir(stage.project())
            .env("DHOW_HOME", stage.path("home"))
            .env("NO_COLOR", "1");
        let named = done(named.args(["rollback", version]))?;
        assert_eq!(named.code(), Some(1), "{}", named.text());
        let error = named.stdout.lines().last().unwrap_or_default();
        assert!(error.starts_with("  ERROR (") && error.contains(&words), "{}", named.text());
    }
    let status = stage.json(&["app", "version"])?;
    assert!(status.to_string().contains("v1"), "{status}");
    Ok(())
}
