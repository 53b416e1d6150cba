//! The main job: deploy, deploy again, roll back, with nobody noticing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhow_test_images::Behaviour;
use dhow_tests::fleet::run::{Output, run, wait_until};
use dhow_tests::fleet::{Agent, Controller};
use dhow_tests::load::{self, Kind, Load, LoadReport, LoadSpec};
use dhow_tests::project::Project;
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, Host};

/// A fleet with a controller of its own and an agent on every host.
pub(crate) struct Stage<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) controller: Controller<'a>,
}

impl<'a> Stage<'a> {
    /// Starts controller and agents; they end with the stage.
    pub(crate) fn set(fleet: &'a Fleet, name: &str, port: u16) -> Result<Self> {
        let controller = Controller::start(fleet, name, port)?;
        controller.login("admin")?;
        let stage = Self { fleet, controller };
        for host in fleet.hosts() {
            host.exec(&["rm", "-rf", "/root/.kamal"])?;
            // Real Kamal's `remove` takes the image away, and it cannot be pulled here.
            host.load(&dhow_test_images::proxy_image()?)?;
            std::fs::remove_dir_all(Agent::of(host).state_dir()).ok();
            Agent::start(&stage.controller, host)?;
        }
        wait_until("every host is online", Duration::from_secs(60), || {
            let list = stage.dhow(stage.fleet.dir(), &["host", "list", "--json"])?.ok()?;
            let online = list.stdout.matches("\"online\":true").count();
            Ok((online == fleet.hosts().len()).then_some(()))
        })?;
        Ok(stage)
    }

    pub(crate) fn dhow(&self, dir: &std::path::Path, args: &[&str]) -> Result<Output> {
        self.controller.cli(dir, args)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        for host in self.fleet.hosts() {
            // Fails where a case left it stopped.
            let _ = Agent::of(host).stop();
            let _ = clear(host);
        }
        let _ = self.controller.stop();
    }
}

/// Removes every container, so that the next case finds an empty host.
pub(crate) fn clear(host: &Host) -> Result<()> {
    let ids = host.docker(&["ps", "-aq"])?.ok()?.stdout;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    if !ids.is_empty() {
        host.docker(&[&["rm", "-f"], ids.as_slice()].concat())?.ok()?;
    }
    host.docker(&["volume", "rm", "-f", "kamal-proxy-config"])?;
    Ok(())
}

pub(crate) fn two_web_and_a_job(fleet: &Fleet, extra: &str) -> String {
    let [a, b, c] = [1, 2, 3].map(|n| fleet.host(n).address());
    format!(
        "servers:\n  web: [{a}, {b}]\n  job:\n    hosts: [{c}]\n    cmd: /sample-app\n    env: {{clear: {{APP_MODE: job}}}}\n\
         env:\n  clear: {{COLOR: blue}}\n  secret: [DB_PASSWORD]\nproxy:\n  healthcheck: {{path: /up, interval: 1, timeout: 5}}\n\
         readiness_delay: 1\ndrain_timeout: 10\n{extra}"
    )
}

fn load(fleet: &Fleet, host: usize) -> Result<[Load; 2]> {
    let url = format!("http://{}/echo", fleet.host(host).address());
    let mix = vec![Kind::Get, Kind::Get, Kind::Post { bytes: 2048 }];
    let spec = LoadSpec { mix, rate: 50.0, duration_ms: 300_000, ..LoadSpec::new(&url) };
    let slow = LoadSpec {
        mix: vec![Kind::Slow { ms: 2000 }],
        rate: 2.0,
        duration_ms: 300_000,
        ..LoadSpec::new(&url)
    };
    Ok([Load::start(fleet, &spec)?, Load::start(fleet, &slow)?])
}

fn none_failed(report: &LoadReport) -> Result<()> {
    ensure!(report.sent > 0, "nothing was sent");
    ensure!(
        report.ok == report.sent,
        "{} of {} failed: {:?}",
        report.sent - report.ok,
        report.sent,
        report.failures
    );
    Ok(())
}

/// The version a host answers with now.
pub(crate) fn serves(fleet: &Fleet, host: usize) -> Result<String> {
    let url = format!("http://{}/", fleet.host(host).address());
    let report = load::run(fleet, &LoadSpec { count: 1, ..LoadSpec::new(&url) })?;
    report.versions.keys().next().cloned().context("no version was answered")
}

pub(crate) fn deploy_deploy_and_rollback_lose_no_request(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "main-job", 7443)?;
    let project = Project::new(fleet, "shop")?;
    project.deploy_yml(fleet, &two_web_and_a_job(fleet, ""))?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    for hook in ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"] {
        project.hook(hook, "$KAMAL_VERSION $KAMAL_HOSTS")?;
    }
    stage.dhow(project.dir(), &["deploy", "-P", "--version", "v1"])?.ok()?;
    let [a, b, c] = [1, 2, 3].map(|n| fleet.host(n).address());
    let expected: Vec<String> = ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"]
        .iter()
        .map(|hook| format!("{hook} v1 {a},{b},{c}"))
        .collect();
    ensure!(project.hook_lines() == expected, "hooks ran as {:?}", project.hook_lines());
    let job = fleet.host(3).docker(&["ps", "--format", "{{.Names}}"])?.ok()?.stdout;
    ensure!(job.trim() == "shop-job-v1", "host 3 runs {job}");
    for round in 1..=5 {
        let loads = [load(fleet, 1)?, load(fleet, 2)?];
        for (args, version) in
            [(vec!["deploy", "-P", "--version", "v2"], "v2"), (vec!["rollback", "v1"], "v1")]
        {
            stage
                .dhow(project.dir(), &args)?
                .ok()
                .with_context(|| format!("round {round}: {args:?}"))?;
            for host in [1, 2] {
                ensure!(serves(fleet, host)? == version, "host {host} does not serve {version}");
            }
        }
        for load in loads.into_iter().flatten() {
            none_failed(&load.finish()?).with_context(|| format!("round {round}"))?;
        }
    }
    Ok(())
}

/// Runs dhow as a person does: on a terminal.
fn on_a_terminal(stage: &Stage<'_>, project: &Project, args: &[&str]) -> Result<String> {
    let command = stage.controller.cli_command("admin", project.dir())?;
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words =
        words.map(|w| w.to_string_lossy().into_owned()).chain(args.iter().map(|a| (*a).to_owned()));
    let line: Vec<String> = words.map(|w| format!("'{w}'")).collect();
    let mut terminal = std::process::Command::new("script");
    terminal
        .args(["-qec", &line.join(" "), "/dev/null"])
        .current_dir(project.dir())
        .env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    Ok(run(&mut terminal, Duration::from_secs(120))?.ok()?.stdout)
}

pub(crate) fn every_reading_command_answers(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "reading", 7445)?;
    let project = Project::new(fleet, "reader")?;
    project.deploy_yml(fleet, &two_web_and_a_job(fleet, ""))?;
    project.push(fleet, &["v1"], |image| image)?;
    let told = on_a_terminal(&stage, &project, &["deploy", "-P", "--version", "v1"])?;
    ensure!(told.contains("\u{1b}["), "nothing is redrawn on a terminal: {told:?}");
    ensure!(told.contains("role reader/web: ") && told.contains("is live on 3 hosts"), "{told:?}");
    let ask =
        |args: &[&str]| -> Result<String> { Ok(stage.dhow(project.dir(), args)?.ok()?.stdout) };
    let host = fleet.host(1).address();
    for (args, expected) in [
        (vec!["app", "version"], vec!["v1", &host]),
        (vec!["app", "details"], vec!["reader-web-v1", "running"]),
        (vec!["app", "containers"], vec!["reader-job-v1"]),
        (vec!["app", "images"], vec!["reader", "v1", "latest"]),
        (vec!["app", "logs", "-n", "5"], vec![&host]),
        (vec!["status"], vec!["3 of 3 on v1", "role reader/web"]),
        (vec!["rollout", "list"], vec!["deploy", "v1", "succeeded"]),
        (vec!["version"], vec!["controller"]),
    ] {
        let said = ask(&args)?;
        for word in expected {
            ensure!(said.contains(word), "`dhow {}` does not say {word:?}: {said}", args.join(" "));
        }
        let mut json = args.clone();
        json.push("--json");
        for line in ask(&json)?.lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .with_context(|| format!("`dhow {}` prints {line}", json.join(" ")))?;
        }
    }
    for line in ask(&["app", "images", "--json"])?.lines() {
        let sizes: Vec<&str> = line.split("\"size\":").skip(1).collect();
        ensure!(
            !sizes.is_empty() && sizes.iter().all(|rest| !rest.starts_with('0')),
            "images without size: {line}"
        );
    }
    let rollouts: serde_json::Value = serde_json::from_str(&ask(&["rollout", "list", "--json"])?)?;
    let id = rollouts[0]["id"].as_str().context("a rollout has an id")?.to_owned();
    let shown = ask(&["rollout", "show", &id[..6]])?;
    ensure!(shown.contains("succeeded") && shown.contains("done"), "{shown}");
    Ok(())
}

pub(crate) fn a_version_that_never_gets_healthy_is_told_why_and_the_old_one_serves_on(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "sick", 7444)?;
    let project = Project::new(fleet, "sick")?;
    project.deploy_yml(fleet, &two_web_and_a_job(fleet, "deploy_timeout: 6\n"))?;
    project.push(fleet, &["v1"], |image| image)?;
    project.push(fleet, &["crash"], |image| image.behaving(Behaviour::CrashAtStart))?;
    project.push(fleet, &["ill"], |image| image.behaving(Behaviour::Unhealthy))?;
    stage.dhow(project.dir(), &["deploy", "-P", "--version", "v1"])?.ok()?;
    for version in ["crash", "ill"] {
        let failed = stage.dhow(project.dir(), &["deploy", "-P", "--version", version])?;
        ensure!(
            failed.status.code() == Some(1),
            "deploying {version} ended with {}",
            failed.status
        );
        let said = format!("{}{}", failed.stdout, failed.stderr);
        ensure!(said.contains(&fleet.host(1).address()), "{version}: no host is named in {said}");
        ensure!(said.contains("last log lines"), "{version}: no log lines in {said}");
        if version == "crash" {
            ensure!(said.contains("exit code"), "{version}: no exit code in {said}");
        }
        for host in [1, 2] {
            ensure!(serves(fleet, host)? == "v1", "host {host} does not serve v1 after {version}");
        }
    }
    stage.dhow(project.dir(), &["deploy", "-P", "--version", "v1"])?.ok()?;
    Ok(())
}
