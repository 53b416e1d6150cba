//! What bad input and bad luck get: a refusal before anything changes, or a failure that leaves the old version serving.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhow_tests::fleet::Agent;
use dhow_tests::fleet::run::{Output, wait_until};
use dhow_tests::project::{Project, ProjectSpec};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions, Host};

use crate::deploy::{Stage, serves};

const V1: [&str; 4] = ["deploy", "-P", "--version", "v1"];
const V2: [&str; 4] = ["deploy", "-P", "--version", "v2"];

/// What a command that must fail says, on both streams.
fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let said = output.text();
    ensure!(output.code() == Some(1), "exit status {:?} instead of 1: {said}", output.code());
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    Ok(())
}

/// Names, states and images of every container on a host: what a refusal must not change.
fn containers(host: &Host) -> Result<BTreeSet<String>> {
    let list =
        host.docker(&["ps", "-a", "--format", "{{.ID}} {{.Names}} {{.State}} {{.Image}}"])?;
    Ok(list.ok()?.stdout.lines().map(str::to_owned).collect())
}

fn image(fleet: &Fleet, service: &str, version: &str) -> String {
    format!("{}/{service}:{version}", fleet.hub().registry())
}

fn small(fleet: &Fleet, service: &str, hosts: &[usize]) -> ProjectSpec {
    ProjectSpec::new(fleet, service, hosts)
        .yaml("deploy_timeout: 10\ndrain_timeout: 3\nreadiness_delay: 1\n")
}

pub(crate) fn hosts_that_are_not_there_are_named_before_anything_changes(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "absent", 7451)?;
    let project = small(fleet, "absent", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1"], |image| image)?;
    let yml = project.dir().join("config/deploy.yml");
    let config = fs::read_to_string(&yml).context("read deploy.yml")?;
    let stranger = config.replace(&fleet.host(2).address(), "host.example");
    fs::write(&yml, stranger).context("write deploy.yml")?;
    let before = containers(fleet.host(1))?;
    let said = stage.dhow(project.dir(), &V1)?;
    refused(&said, &["host.example", "not enrolled", "dhow host token"])?;
    fs::write(&yml, config).context("write deploy.yml")?;

    let away = Agent::of(fleet.host(2));
    away.stop()?;
    // Seen at once: the agent closed its session.
    let said = stage.dhow(project.dir(), &V1)?;
    refused(&said, &["offline", &fleet.host(2).address(), "--wait", "--skip-offline"])?;
    ensure!(containers(fleet.host(1))? == before, "a refused deploy changed the other host");
    let rollouts = stage.dhow(project.dir(), &["rollout", "list", "--json"])?.ok()?.stdout;
    let rollouts: serde_json::Value = serde_json::from_str(&rollouts)?;
    ensure!(rollouts.as_array().is_some_and(Vec::is_empty), "a rollout was stored: {rollouts}");
    let said = stage.dhow(project.dir(), &[&V1[..], &["--wait", "1"]].concat())?;
    refused(&said, &["offline", &fleet.host(2).address()])?;

    let waiting = [&V1[..], &["--wait", "60"]].concat();
    let mut waiting = stage.controller.cli_start("admin", project.dir(), &waiting)?;
    away.run()?;
    let ended = waiting.wait(Duration::from_secs(60))?;
    ensure!(ended.success(), "`--wait` ended with {ended}");
    ensure!(serves(fleet, 2)? == "v1", "host 2 does not serve");
    Ok(())
}

/// Waits until the app's newest rollout is in `state`.
fn until_rollout_is(stage: &Stage<'_>, project: &Project, state: &str) -> Result<()> {
    wait_until(&format!("a rollout is {state}"), Duration::from_secs(30), || {
        let list = stage.dhow(project.dir(), &["rollout", "list", "--json"])?.ok()?.stdout;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        Ok((list[0]["state"] == state).then_some(()))
    })
}

pub(crate) fn a_locked_app_is_refused_naming_who_and_waited_for_where_asked(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "locked", 7452)?;
    let project = small(fleet, "locked", &[1]).write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    stage.dhow(project.dir(), &V1)?.ok()?;

    // The hook holds the first rollout for as long as its file is there.
    project.hook("pre-deploy", "held")?;
    let hook = ".kamal/hooks/pre-deploy";
    project.write(hook, "#!/bin/sh\nwhile [ -e hold ]; do sleep 0.1; done\n")?;
    project.write("hold", "")?;
    let mut first = stage.controller.cli_start("admin", project.dir(), &V2)?;
    until_rollout_is(&stage, &project, "running")?;
    let began = std::time::Instant::now();
    let second = stage.dhow(project.dir(), &[&V1[..], &["-H"]].concat())?;
    refused(&second, &["admin since", "deploy of version v2", "--lock-wait"])?;
    ensure!(began.elapsed() < Duration::from_secs(5), "refused after {:?}", began.elapsed());
    let short =
        ["-H", "--lock-wait", "--lock-wait-timeout", "1", "--lock-wait-interval", "1"].as_slice();
    refused(&stage.dhow(project.dir(), &[&V1[..], short].concat())?, &["admin"])?;
    let third = [&V1[..], &["-H", "--lock-wait", "--lock-wait-interval", "1"]].concat();
    let mut third = stage.controller.cli_start("admin", project.dir(), &third)?;
    fs::remove_file(project.dir().join("hold")).context("let the hook end")?;
    ensure!(first.wait(Duration::from_secs(60))?.success(), "the first deploy failed");
    ensure!(third.wait(Duration::from_secs(60))?.success(), "the waiting deploy failed");
    ensure!(serves(fleet, 1)? == "v1", "what waited did not deploy last");
    fs::remove_file(project.dir().join(hook)).context("remove the hook")?;
    foreign_lock(&stage, &project)
}

/// A lock that a person took with real Kamal.
fn foreign_lock(stage: &Stage<'_>, project: &Project) -> Result<()> {
    let fleet = stage.fleet;
    let lock = fleet.host(1).home().join(".kamal/lock-locked");
    fs::create_dir_all(&lock).context("make a lock")?;
    // Base64 of "Locked by: sue at 2026-01-01T00:00:00Z\nVersion: v9\nMessage: migrating by hand".
    let details = "TG9ja2VkIGJ5OiBzdWUgYXQgMjAyNi0wMS0wMVQwMDowMDowMFoKVmVyc2lvbjog\n\
                   djkKTWVzc2FnZTogbWlncmF0aW5nIGJ5IGhhbmQ=\n";
    fs::write(lock.join("details"), details).context("write a lock")?;
    let said = stage.dhow(project.dir(), &V2)?;
    refused(&said, &[&fleet.host(1).address(), "sue", "migrating by hand"])?;
    ensure!(serves(fleet, 1)? == "v1", "the old version does not serve");
    let short = ["--lock-wait", "--lock-wait-timeout", "2", "--lock-wait-interval", "1"].as_slice();
    refused(&stage.dhow(project.dir(), &[&V2[..], short].concat())?, &["sue"])?;
    let waits = [&V2[..], &["--lock-wait", "--lock-wait-interval", "1"]].concat();
    let mut waits = stage.controller.cli_start("admin", project.dir(), &waits)?;
    wait_until("the deploy waits for the lock", Duration::from_secs(30), || {
        let list = stage.dhow(project.dir(), &["status", "--json"])?.ok()?.stdout;
        Ok(list.contains("sue").then_some(()))
    })?;
    ensure!(waits.ended()?.is_none(), "it did not wait");
    fs::remove_dir_all(&lock).context("free the lock")?;
    ensure!(waits.wait(Duration::from_secs(60))?.success(), "the waiting deploy failed");
    ensure!(serves(fleet, 1)? == "v2", "v2 does not serve");
    ensure!(!lock.exists(), "a lock was left");
    Ok(())
}

pub(crate) fn what_another_app_owns_is_refused_naming_both(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "claims", 7453)?;
    let host = fleet.host(1);
    let owner = small(fleet, "owner", &[1]).host_name("shared.example").write(fleet)?;
    publish(&owner, host, Some("9100:80"))?;
    owner.push(fleet, &["v1"], |image| image)?;
    stage.dhow(owner.dir(), &V1)?.ok()?;
    let before = containers(host)?;

    let same_name = small(fleet, "thief", &[1]).host_name("shared.example").write(fleet)?;
    same_name.push(fleet, &["v1"], |image| image)?;
    let said = stage.dhow(same_name.dir(), &V1)?;
    refused(&said, &[&host.address(), "shared.example", "owner", "thief"])?;
    let same_port = small(fleet, "thief", &[1]).host_name("other.example").write(fleet)?;
    publish(&same_port, host, Some("9100:80"))?;
    refused(&stage.dhow(same_port.dir(), &V1)?, &["9100", "owner", "thief"])?;
    ensure!(containers(host)? == before, "a refused deploy changed the host");
    // Neither name nor port is anybody's.
    publish(&same_port, host, None)?;
    stage.dhow(same_port.dir(), &V1)?.ok()?;
    Ok(())
}

/// Writes the role `web` of a project on one host, with a published port or without.
fn publish(project: &Project, host: &Host, port: Option<&str>) -> Result<()> {
    let path = project.dir().join("config/deploy.yml");
    let config = fs::read_to_string(&path).context("read deploy.yml")?;
    let mut kept = String::new();
    let mut within = false;
    for line in config.lines() {
        if line.starts_with("servers:") {
            within = true;
        } else if within && !line.starts_with(' ') {
            within = false;
        }
        if !within {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    let options = port.map(|port| format!("    options: {{publish: ['{port}']}}\n"));
    let servers = format!("servers:\n  web:\n    hosts: [{}]\n", host.address());
    fs::write(&path, format!("{kept}{servers}{}", options.unwrap_or_default()))
        .context("write deploy.yml")
}

pub(crate) fn a_version_that_cannot_start_is_told_why_and_the_old_one_serves_on(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "cannot", 7454)?;
    let host = fleet.host(1);
    let project = small(fleet, "cannot", &[1]).write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    stage.dhow(project.dir(), &V1)?.ok()?;
    let said = stage.dhow(project.dir(), &["deploy", "-P", "--version", "never-pushed"])?;
    refused(
        &said,
        &[&host.address(), "pull", &image(fleet, "cannot", "never-pushed"), "not found"],
    )?;
    ensure!(serves(fleet, 1)? == "v1", "v1 does not serve after a missing image");

    // Somebody else's container has the port.
    let other = image(fleet, "cannot", "v1");
    host.docker(&["run", "-d", "--name", "squatter", "-p", "9200:80", &other])?.ok()?;
    publish(&project, host, Some("9200:80"))?;
    let said = stage.dhow(project.dir(), &V2)?;
    refused(&said, &[&host.address(), "start", "9200", "already allocated"])?;
    ensure!(serves(fleet, 1)? == "v1", "v1 does not serve after a taken port");
    host.docker(&["rm", "-f", "squatter"])?.ok()?;
    stage.dhow(project.dir(), &V2)?.ok()?;
    ensure!(serves(fleet, 1)? == "v2", "v2 does not serve once the port is free");
    Ok(())
}

pub(crate) fn a_wrong_registry_password_and_a_full_disk_are_told(_: &mut Shared) -> Result<()> {
    let fleet = Fleet::start_with(FleetOptions {
        registry_password: Some("right-password".to_owned()),
        small_disk_mb: Some(400),
        ..FleetOptions::hosts(1)
    })?;
    let stage = Stage::set(&fleet, "narrow", 7443)?;
    let host = fleet.host(1);
    let project = small(&fleet, "narrow", &[1]).write(&fleet)?;
    project.push(&fleet, &["v1", "v2"], |image| image)?;
    stage.dhow(project.dir(), &V1)?.ok()?;
    let secrets = fs::read_to_string(project.dir().join(".kamal/secrets"))?;
    project.write(".kamal/secrets", &secrets.replace("right-password", "wrong-password"))?;
    let said = stage.dhow(project.dir(), &V2)?;
    refused(&said, &[&host.address(), "pull", "unauthorized"])?;
    ensure!(!said.text().contains("wrong-password"), "the password is printed: {}", said.text());
    project.write(".kamal/secrets", &secrets)?;
    ensure!(serves(&fleet, 1)? == "v1", "v1 does not serve after a wrong password");

    host.disk_full(16)?;
    let said = stage.dhow(project.dir(), &V2)?;
    refused(&said, &[&host.address(), "no space left on device"])?;
    ensure!(serves(&fleet, 1)? == "v1", "v1 does not serve on a full disk");
    host.disk_free()?;
    stage.dhow(project.dir(), &V2)?.ok()?;
    ensure!(serves(&fleet, 1)? == "v2", "v2 does not serve once there is room");
    Ok(())
}
