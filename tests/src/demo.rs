//! `make demo`: dhow on this machine, as a newcomer would like to watch it.
//!
//! In: a Docker Engine, dhow's programs, the images of the sample app. Out: v1 and then v2 of the app, deployed through a
//! controller and an agent that go on running, and what was seen of it.
//! Always true: everything it makes lies in one directory, which has a marker, or is named in there, so that [`down`] finds
//! it whatever happened; what was there before, in the directory too, is neither used up nor removed, and where the demo
//! would be in its way it refuses.

mod claims;
mod down;
mod images;
mod programs;
mod stage;
mod tell;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dhow_test_images::{AppImage, PROXY_REFERENCE, app_archive};

use crate::fleet::{run::run, workspace_root};
use crate::load::{LoadReport, LoadSpec, generate};

pub use down::down;

use programs::Background;
use stage::Stage;
use tell::Teller;

/// Name of the demo's app.
pub(crate) const SERVICE: &str = "dhow-demo";

/// The host as `deploy.yml` spells it.
pub(crate) const HOST: &str = "localhost";

/// How long the newcomer watches requests before and after the deploy that they are sent through.
const AROUND: Duration = Duration::from_secs(1);

/// Where the demo finds and puts things.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything it makes. `DHOW_DEMO_DIR`; default `/var/lib/dhow-demo`.
    pub dir: PathBuf,
    /// The Engine's socket. `DOCKER_HOST`; default Docker's own.
    pub docker_host: String,
    /// Where `dhow`, `dhow-agent` and `dhow-controller` are. `DHOW_BIN_DIR`; default the workspace's release programs.
    pub programs: PathBuf,
    /// A docker-archive with `dhow-demo:v1` and `dhow-demo:v2`. `DHOW_DEMO_APP`; default: it is made.
    pub app: Option<PathBuf>,
    /// A docker-archive with the stand-in for kamal-proxy. `DHOW_DEMO_STAND_IN`; default: it is made.
    pub stand_in: Option<PathBuf>,
    /// A docker-archive with the proxy's image to use. `DHOW_PROXY_IMAGE`; default: the real one is pulled.
    pub proxy: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// When the Engine's address is no Unix socket.
    pub fn from_env() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let docker_host = match set("DOCKER_HOST") {
            Some(host) => host.to_string_lossy().into_owned(),
            None => "unix:///var/run/docker.sock".to_owned(),
        };
        if !docker_host.starts_with("unix:///") {
            bail!("DOCKER_HOST is {docker_host}; the demo needs this machine's own Engine");
        }
        let target = path("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let release = workspace_root().join(target).join("release");
        let dir = path("DHOW_DEMO_DIR").unwrap_or_else(|| "/var/lib/dhow-demo".into());
        Ok(Self {
            dir: std::path::absolute(dir).context("make DHOW_DEMO_DIR absolute")?,
            docker_host,
            programs: path("DHOW_BIN_DIR").unwrap_or(release),
            app: path("DHOW_DEMO_APP"),
            stand_in: path("DHOW_DEMO_STAND_IN"),
            proxy: path("DHOW_PROXY_IMAGE"),
        })
    }

    /// Runs `docker ARGS` on the demo's Engine, whatever the exit status.
    pub(crate) fn docker(
        &self,
        args: &[&str],
        limit: Duration,
    ) -> Result<crate::fleet::run::Output> {
        let mut command = std::process::Command::new("docker");
        run(command.arg("-H").arg(&self.docker_host).args(args), limit)
    }
}

/// Makes the images and prints the paths of the two archives, the app's and the stand-in's, one a line: for whoever
/// runs [`up`] where cargo is not.
///
/// # Errors
///
/// When cargo cannot build them.
pub fn images() -> Result<()> {
    println!("{}", app_images()?.display());
    println!("{}", dhow_test_images::stand_in_archive()?.display());
    Ok(())
}

fn app_images() -> Result<PathBuf> {
    let image =
        |version: &str| AppImage::new(format!("{SERVICE}:{version}"), version).service(SERVICE);
    app_archive(&[image("v1"), image("v2")])
}

/// Brings everything up, deploys v1, and v2 under load; leaves it running.
///
/// # Errors
///
/// A sentence for the newcomer: what is in the way, or which step failed, and what to do about it.
pub fn up(settings: &Settings) -> Result<()> {
    let tell = Teller::new();
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo needs root, as an agent does: run it with sudo"
    );
    let earlier = claims::is_claimed(&settings.dir)?;
    let engine = claims::engine(settings)?;
    if earlier {
        tell.line("An earlier demo is there; it is taken down first.");
        down::quietly(settings)?;
    }
    claims::refuse_what_is_not_ours(settings)?;
    claims::claim(settings)?;
    tell.opening(settings);
    rollouts(settings, &tell, &engine).with_context(|| {
        format!(
            "the demo failed; its logs are in {}/logs. `make demo-down` removes what it made",
            settings.dir.display()
        )
    })
}

fn rollouts(settings: &Settings, tell: &Teller, engine: &str) -> Result<()> {
    tell.chapter("What is there");
    tell.line(&format!("Docker Engine {engine} answers on {}.", settings.docker_host));
    std::fs::create_dir(settings.dir.join("logs"))
        .with_context(|| format!("create {}/logs", settings.dir.display()))?;
    let proxy = images::bring_proxy(settings)?;
    tell.line(&format!("The proxy is {proxy} ({PROXY_REFERENCE})."));
    let app = match &settings.app {
        Some(archive) => archive.clone(),
        None => app_images()?,
    };

    let stage = Stage::set(settings, tell, &app)?;
    tell.chapter("Version 1");
    stage.dhow(tell, &["deploy", "-P", "--version", "v1"])?;
    let answer = stage.ask()?;
    ensure!(answer.versions.contains_key("v1"), "the app does not answer as v1: {answer:?}");
    tell.line(&format!("{} answers: v1.", stage.url()));

    tell.chapter("Version 2, while 50 requests a second come in");
    let load = Background::load(LoadSpec {
        duration_ms: 600_000,
        ..LoadSpec::mixed(&format!("{}/", stage.url()))
    })?;
    std::thread::sleep(AROUND);
    let deployed = stage.dhow(tell, &["deploy", "-P", "--version", "v2"]);
    std::thread::sleep(AROUND);
    let report = load.finish()?;
    deployed?;
    let answer = stage.ask()?;
    ensure!(answer.versions.contains_key("v2"), "the app does not answer as v2: {answer:?}");
    tell.line(&seen(&report));

    tell.chapter("What dhow says of it");
    stage.dhow(tell, &["app", "version"])?;
    stage.dhow(tell, &["status"])?;
    stage.dhow(tell, &["rollout", "list"])?;
    tell.closing(settings, &stage.url());
    let (sent, failed) = (report.sent, report.failed());
    println!("demo: v2 live at {}, {sent} requests, {failed} failed", stage.url());
    ensure!(failed == 0, "requests failed during the deploy: {:?}", report.failures);
    Ok(())
}

fn seen(report: &LoadReport) -> String {
    let answers = report.versions.iter().map(|(version, count)| format!("{count} by {version}"));
    format!(
        "{} requests were answered {}; the slowest that asked for no delay took part in {:.0} ms, half of all in {:.0} ms.",
        report.ok,
        answers.collect::<Vec<_>>().join(" and "),
        report.max_ms,
        report.p50_ms
    )
}

/// Sends a load from this process and gives what it saw.
pub(crate) async fn send(spec: LoadSpec, stop: impl Future<Output = ()>) -> Result<LoadReport> {
    generate::generate(&spec, stop).await
}
