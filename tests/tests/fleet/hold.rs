//! Another deployer is respected: real Kamal on the hosts that dhow manages, in both directions.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dhow_tests::fleet::Agent;
use dhow_tests::fleet::run::wait_until;
use dhow_tests::kamal::kamal;
use dhow_tests::load::{self, LoadSpec};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, Project};
use serde_json::Value;

use crate::deploy::Stage;
use crate::scene::{
    app, containers, loads, no_lock, none_lost, role_phases, until_serves, version_at,
};

const SOON: Duration = Duration::from_secs(30);

/// Runs real Kamal; it must succeed.
fn kamal_does(fleet: &Fleet, project: &Project, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    let output = kamal(fleet, project, &words)?;
    output.ok().map(drop).with_context(|| format!("kamal {line}"))
}

/// Waits until the app is on hold on these hosts, and gives what `dhow status` says.
fn on_hold(stage: &Stage<'_>, project: &Project, hosts: &[usize]) -> Result<String> {
    let addresses: Vec<String> =
        hosts.iter().map(|number| stage.fleet.host(*number).address()).collect();
    let held = |status: &Value| addresses.iter().all(|host| role_phases(status, host) == ["held"]);
    stage.until_status(project, "the app is on hold", SOON * 2, held)?;
    // The agents are up and have looked around.
    stage.dhow(project.dir(), &["app", "containers"])?.ok()?;
    Ok(stage.dhow(project.dir(), &["status"])?.ok()?.stdout)
}

/// The answer of a host to a plain request, whatever it is.
fn status_code(fleet: &Fleet, host: usize) -> Result<String> {
    let url = format!("http://{}/", fleet.host(host).address());
    let report = load::run(fleet, &LoadSpec { count: 1, ..LoadSpec::new(&url) })?;
    let status = report.statuses.keys().next().map(ToString::to_string);
    Ok(status.unwrap_or_else(|| format!("{:?}", report.errors)))
}

pub(crate) fn kamal_and_dhow_hand_hosts_to_each_other_and_lose_no_request(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "handover", 7464)?;
    let project = app(fleet, "handover", &[1, 2]).secret("TOKEN", "s3cret").write(fleet)?;
    project.push(fleet, &["v1", "v2", "v3", "v4"], |image| image)?;
    kamal_does(fleet, &project, "setup --skip-push --version v1")?;
    for host in [1, 2] {
        until_serves(fleet, host, None, "v1", SOON)?;
    }
    let load = loads(fleet, &[1, 2], None)?;
    let both_serve = |version: &str| -> Result<()> {
        for host in [1, 2] {
            let found = version_at(fleet, host, None)?;
            ensure!(found == version, "host {host} serves {found}, not {version}");
            let running = containers(fleet.host(host), "handover-web", false)?;
            ensure!(running == [format!("handover-web-{version}")], "host {host}: {running:?}");
        }
        Ok(())
    };
    stage.deploy(&project, "v2")?.ok()?;
    both_serve("v2")?;
    kamal_does(fleet, &project, "deploy --skip-push --version v3")?;
    let said = on_hold(&stage, &project, &[1, 2])?;
    ensure!(said.contains("2 on hold") && said.contains("another deployer"), "{said}");
    both_serve("v3")?;
    // Not even a new agent takes it back.
    for host in [1, 2] {
        Agent::of(fleet.host(host)).kill()?;
        Agent::of(fleet.host(host)).run()?;
    }
    on_hold(&stage, &project, &[1, 2])?;
    both_serve("v3")?;
    stage.deploy_when_back(&project, "v4")?.ok()?;
    both_serve("v4")?;
    ensure!(stage.headline(&project)? == "2 of 2 on v4", "{}", stage.headline(&project)?);
    kamal_does(fleet, &project, "rollback v3")?;
    on_hold(&stage, &project, &[1, 2])?;
    both_serve("v3")?;
    stage.dhow(project.dir(), &["rollback", "v4"])?.ok()?;
    both_serve("v4")?;
    kamal_does(fleet, &project, "redeploy --skip-push --version v4")?;
    both_serve("v4")?;
    on_hold(&stage, &project, &[1, 2])?;
    stage.dhow(project.dir(), &["redeploy", "-P", "--version", "v4"])?.ok()?;
    both_serve("v4")?;
    none_lost(load)?;
    no_lock(fleet, "handover")
}

pub(crate) fn what_kamal_did_to_a_managed_host_stays_until_the_next_deploy(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "stranger", 7465)?;
    let project = app(fleet, "stranger", &[1]).write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    let host = fleet.host(1);
    let running = || containers(host, "", false);
    let still_held = || -> Result<String> {
        let agent = Agent::of(host);
        agent.stop()?;
        agent.run()?;
        on_hold(&stage, &project, &[1])
    };

    kamal_does(fleet, &project, "app stop --version v1")?;
    let said = still_held()?;
    ensure!(said.contains("Stopped app"), "{said}");
    ensure!(running()? == ["kamal-proxy"], "the app came back: {:?}", running()?);
    kamal_does(fleet, &project, "app boot --version v2")?;
    still_held()?;
    ensure!(version_at(fleet, 1, None)? == "v2");
    stage.deploy_when_back(&project, "v1")?.ok()?;
    ensure!(version_at(fleet, 1, None)? == "v1");

    kamal_does(fleet, &project, "app maintenance")?;
    let said = still_held()?;
    ensure!(said.contains("stopped the traffic of stranger-web"), "{said}");
    ensure!(status_code(fleet, 1)? == "503", "maintenance was undone");
    kamal_does(fleet, &project, "app live")?;
    ensure!(version_at(fleet, 1, None)? == "v1");
    stage.deploy_when_back(&project, "v2")?.ok()?;

    // Neither may be in the other's way.
    kamal_does(fleet, &project, "proxy reboot -y")?;
    let said = still_held()?;
    ensure!(said.contains("Rebooted proxy"), "{said}");
    until_serves(fleet, 1, None, "v2", SOON)?;
    stage.deploy(&project, "v1")?.ok()?;

    kamal_does(fleet, &project, "remove -y")?;
    still_held()?;
    ensure!(running()?.is_empty(), "something came back: {:?}", running()?);
    // It takes the image away as well, and this one cannot be pulled here.
    host.load(&dhow_test_images::proxy_image()?)?;
    stage.deploy_when_back(&project, "v2")?.ok()?;
    until_serves(fleet, 1, None, "v2", SOON)?;
    ensure!(stage.headline(&project)? == "1 of 1 on v2", "{}", stage.headline(&project)?);
    Ok(())
}

pub(crate) fn a_strange_container_or_lock_holds_the_app_and_says_so(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "strange", 7466)?;
    let project = app(fleet, "strange", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1", "v2", "v3"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    let host = fleet.host(1);
    let image = format!("{}/strange:v1", fleet.hub().registry());
    let labels = ["service=strange", "role=web", "destination="].map(|l| format!("--label={l}"));
    let mut run = vec!["run", "-d", "--name", "strange-by-hand", "--network", "kamal"];
    run.extend(labels.iter().map(String::as_str));
    run.push(&image);
    host.docker(&run)?.ok()?;
    let said = on_hold(&stage, &project, &[1])?;
    ensure!(said.contains("container strange-by-hand was made by another deployer"), "{said}");
    ensure!(said.contains("1 on hold"), "the other host is not: {said}");
    let load = loads(fleet, &[1, 2], None)?;
    stage.deploy(&project, "v2")?.ok()?;
    none_lost(load)?;
    let left = containers(host, "strange-", false)?;
    ensure!(left == ["strange-web-v2"], "host 1 runs {left:?}");

    kamal_does(fleet, &project, "lock acquire -m by-hand")?;
    wait_until("the deploy is refused for the lock", SOON, || {
        let refused = stage.deploy(&project, "v3")?;
        if refused.success() {
            bail!("it was deployed in spite of the lock: {}", refused.text());
        }
        Ok(refused.text().contains("by-hand").then_some(()))
    })?;
    let served = [version_at(fleet, 1, None)?, version_at(fleet, 2, None)?];
    ensure!(served == ["v2", "v2"], "{served:?}");
    let lock = host.home().join(".kamal/lock-strange/details");
    ensure!(lock.exists(), "a refused deploy took the stranger's lock away");
    // Drift is left alone on the host where it is held.
    host.docker(&["rm", "-f", "strange-web-v2"])?.ok()?;
    let said = on_hold(&stage, &project, &[1])?;
    ensure!(said.contains("holds Kamal's lock") && said.contains("by-hand"), "{said}");
    Agent::of(host).stop()?;
    Agent::of(host).run()?;
    on_hold(&stage, &project, &[1])?;
    ensure!(containers(host, "strange-", false)?.is_empty(), "it was repaired while on hold");
    kamal_does(fleet, &project, "lock release")?;
    stage.deploy_when_back(&project, "v3")?.ok()?;
    for number in [1, 2] {
        ensure!(version_at(fleet, number, None)? == "v3");
    }
    no_lock(fleet, "strange")
}
