//! A host that was away applies the newest version when it is back, and only that.

use std::time::Duration;

use anyhow::{Result, ensure};
use dhow_tests::fleet::Agent;
use dhow_tests::fleet::run::wait_until;
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, Project};

use crate::deploy::Stage;
use crate::scene::{HASTY, containers, loads, none_lost, until_serves, version_at};

const SOON: Duration = Duration::from_secs(30);

pub(crate) fn a_host_that_was_away_goes_straight_to_the_newest_version(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "offline", 7463)?;
    let project = Project::new(fleet, "offline")?;
    let [a, b, c] = [1, 2, 3].map(|number| fleet.host(number).address());
    project.deploy_yml(
        fleet,
        &format!(
            "servers:\n  web: [{a}, {b}, {c}]\n  job:\n    hosts: [{c}]\n    cmd: /sample-app\n    env: {{clear: {{APP_MODE: job}}}}\n\
             proxy:\n  healthcheck: {{path: /up, interval: 1, timeout: 5}}\n{HASTY}"
        ),
    )?;
    project.push(fleet, &["v1", "v2", "v3"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    let load = loads(fleet, &[1, 2, 3], None)?;
    let away = fleet.host(3);
    // Its apps run on while its agent is not there.
    let agent = Agent::of(away);
    agent.kill()?;
    let skip = |version: &str| {
        stage.dhow(project.dir(), &["deploy", "-P", "--skip-offline", "--version", version])
    };
    wait_until("the host is offline", SOON, || {
        let plain = stage.deploy(&project, "v2")?;
        Ok((!plain.success() && plain.text().contains("--skip-offline")).then_some(()))
    })?;
    skip("v2")?.ok()?;
    let headline = stage.headline(&project)?;
    ensure!(headline == "2 of 3 on v2, 1 pending reconnect", "{headline}");
    // It is back in the middle of v3: a rollout that has not succeeded yet is none of its business.
    let gate = project.dir().join("go");
    project.write(
        ".kamal/hooks/post-app-boot",
        "#!/bin/sh\ntouch booted\nuntil [ -e go ]; do sleep 0.1; done\n",
    )?;
    dhow_tests::fleet::run::run(
        std::process::Command::new("chmod")
            .arg("755")
            .arg(project.dir().join(".kamal/hooks/post-app-boot")),
        SOON,
    )?
    .ok()?;
    let args = ["deploy", "-P", "--skip-offline", "--version", "v3"];
    let mut cli = stage.controller.cli_start("admin", project.dir(), &args)?;
    wait_until("v3 runs on the others", SOON, || {
        Ok(project.dir().join("booted").exists().then_some(()))
    })?;
    agent.run()?;
    wait_until("the host is online again", SOON, || {
        let list = stage.dhow(project.dir(), &["host", "list", "--json"])?.ok()?;
        Ok((list.stdout.matches("\"online\":true").count() == 3).then_some(()))
    })?;
    // It catches up with what has succeeded: at most v2, never v3 before its time.
    let early = version_at(fleet, 3, None)?;
    ensure!(["v1", "v2"].contains(&early.as_str()), "host 3 serves {early} before v3 succeeded");
    std::fs::write(&gate, "")?;
    ensure!(cli.wait(SOON)?.success(), "v3 failed");
    until_serves(fleet, 3, None, "v3", SOON)?;
    wait_until("the job is on v3", SOON, || {
        Ok((containers(away, "offline-job", false)? == ["offline-job-v3"]).then_some(()))
    })?;
    stage.until_status(&project, "all are on v3", SOON, |status| {
        status["headline"] == "3 of 3 on v3"
    })?;
    none_lost(load)?;

    // Twice missed, nothing in between: straight to the newest.
    std::fs::remove_file(project.dir().join(".kamal/hooks/post-app-boot"))?;
    project.push(fleet, &["v4", "v5"], |image| image)?;
    let load = loads(fleet, &[1, 2, 3], None)?;
    agent.kill()?;
    wait_until("the host is offline", SOON, || {
        let plain = stage.deploy(&project, "v4")?;
        Ok((!plain.success()).then_some(()))
    })?;
    skip("v4")?.ok()?;
    skip("v5")?.ok()?;
    let headline = stage.headline(&project)?;
    ensure!(headline == "2 of 3 on v5, 1 pending reconnect", "{headline}");
    agent.run()?;
    until_serves(fleet, 3, None, "v5", SOON)?;
    stage.until_status(&project, "all are on v5", SOON, |status| {
        status["headline"] == "3 of 3 on v5"
    })?;
    let all = containers(away, "offline-", true)?;
    ensure!(all.iter().all(|name| !name.ends_with("-v4")), "v4 was booted on the way: {all:?}");
    let image = |tag: &str| -> Result<String> {
        let list = away.docker(&["images", "-q", "--no-trunc", &image_of(fleet, tag)])?.ok()?;
        Ok(list.stdout.trim().to_owned())
    };
    ensure!(image("v4")?.is_empty(), "v4 was pulled on the way");
    wait_until("the latest tag is v5", SOON, || {
        let latest = image("latest")?;
        Ok((!latest.is_empty() && latest == image("v5")?).then_some(()))
    })?;
    let seen = none_lost(load)?;
    ensure!(!seen[2].versions.contains_key("v4"), "{:?}", seen[2].versions);
    Ok(())
}

fn image_of(fleet: &Fleet, tag: &str) -> String {
    format!("{}/offline:{tag}", fleet.hub().registry())
}
