//! What people do every day besides a plain deploy: odd versions, the same version again, filters, several apps and
//! destinations on one host, boot groups, roles without a proxy, hosts with other names.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhow_tests::fleet::run::wait_until;
use dhow_tests::fleet::{Agent, Controller};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions, Project};

use crate::deploy::Stage;
use crate::scene::{HASTY, app, containers, loads, none_lost, version_at};

const SOON: Duration = Duration::from_secs(30);

fn versions(fleet: &Fleet, hosts: &[usize], name: Option<&str>) -> Result<Vec<String>> {
    hosts.iter().map(|host| version_at(fleet, *host, name)).collect()
}

pub(crate) fn versions_and_redeploys_and_filters_do_what_they_say(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "everyday", 7467)?;
    let [a, b, c] = [1, 2, 3].map(|number| fleet.host(number).address());
    let project = Project::new(fleet, "everyday")?;
    project.deploy_yml(
        fleet,
        &format!(
            "servers:\n  web: [{a}, {b}]\n  job:\n    hosts: [{b}, {c}]\n    cmd: /sample-app\n    env: {{clear: {{APP_MODE: job}}}}\n\
             proxy:\n  healthcheck: {{path: /up, interval: 1, timeout: 5}}\n{HASTY}"
        ),
    )?;
    let odd = "2.10_rc.1-x";
    project.push(fleet, &["2.9", odd, "2x10_rc.1-x"], |image| image)?;
    stage.deploy(&project, "2.9")?.ok()?;
    let load = loads(fleet, &[1, 2], None)?;
    let web = |host: usize| containers(fleet.host(host), "everyday-web", false);
    let job = |host: usize| containers(fleet.host(host), "everyday-job", false);
    // A dot is a dot, not any character: two names that a pattern could not tell apart.
    stage.deploy(&project, "2x10_rc.1-x")?.ok()?;
    stage.deploy(&project, odd)?.ok()?;
    ensure!(versions(fleet, &[1, 2], None)? == [odd, odd]);
    ensure!(job(3)? == [format!("everyday-job-{odd}")], "{:?}", job(3)?);
    let said = stage.dhow(project.dir(), &["app", "version"])?.ok()?.stdout;
    ensure!(said.matches(odd).count() == 4, "two roles live on host 2: {said}");
    stage.dhow(project.dir(), &["rollback", "2.9"])?.ok()?;
    ensure!(versions(fleet, &[1, 2], None)? == ["2.9", "2.9"]);

    // The same version again is a new boot, by either command.
    let id = |host: usize| -> Result<String> {
        let args = ["inspect", "-f", "{{.Id}}", "everyday-web-2.9"];
        Ok(fleet.host(host).docker(&args)?.ok()?.stdout)
    };
    for args in [["deploy", "-P", "--version", "2.9"], ["redeploy", "-P", "--version", "2.9"]] {
        let before = [id(1)?, id(2)?];
        stage.dhow(project.dir(), &args)?.ok()?;
        ensure!(id(1)? != before[0] && id(2)? != before[1], "{args:?} booted nothing anew");
        ensure!(web(1)? == ["everyday-web-2.9"], "{args:?}: host 1 runs {:?}", web(1)?);
    }

    // Filters: by host, by role, the primary host.
    let filtered = |args: &[&str]| -> Result<()> {
        let plain = ["deploy", "-P", "--version", odd];
        stage.dhow(project.dir(), &[&plain, args].concat())?.ok().map(drop)
    };
    filtered(&["-h", &b])?;
    ensure!(versions(fleet, &[1, 2], None)? == ["2.9", odd], "-h");
    ensure!(job(2)? == [format!("everyday-job-{odd}")] && job(3)? == ["everyday-job-2.9"], "-h");
    let headline = stage.headline(&project)?;
    ensure!(headline == format!("1 of 3 on {odd}"), "{headline}");
    filtered(&["-r", "job"])?;
    ensure!(versions(fleet, &[1, 2], None)? == ["2.9", odd], "-r");
    ensure!(job(3)? == [format!("everyday-job-{odd}")], "-r: {:?}", job(3)?);
    filtered(&["-p"])?;
    ensure!(versions(fleet, &[1, 2], None)? == [odd, odd], "-p");
    ensure!(stage.headline(&project)? == format!("3 of 3 on {odd}"));
    let nobody =
        stage.dhow(project.dir(), &["deploy", "-P", "--version", odd, "-h", "10.9.9.9"])?;
    ensure!(!nobody.success() && nobody.text().contains("10.9.9.9"), "{}", nobody.text());
    none_lost(load)?;
    Ok(())
}

pub(crate) fn apps_and_destinations_share_hosts_without_meeting(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "neighbours", 7468)?;
    let project = app(fleet, "flat", &[1]).write(fleet)?;
    project.push(fleet, &["v1", "v2", "v3"], |image| image)?;
    for destination in ["staging", "production"] {
        let yml = format!("proxy:\n  host: {destination}.test\n");
        project.write(&format!("config/deploy.{destination}.yml"), &yml)?;
    }
    // With a destination, Kamal reads these instead.
    let secrets = std::fs::read_to_string(project.dir().join(".kamal/secrets"))?;
    project.write(".kamal/secrets-common", &secrets)?;
    let other = app(fleet, "flat-mate", &[1]).host_name("mate.test").write(fleet)?;
    other.push(fleet, &["v1", "v2"], |image| image)?;
    let names = ["staging.test", "production.test", "mate.test"];
    let deploy = |destination: &str, version: &str| {
        let args = ["deploy", "-P", "-d", destination, "--version", version];
        stage.dhow(project.dir(), &args)
    };
    deploy("staging", "v1")?.ok()?;
    deploy("production", "v1")?.ok()?;
    stage.deploy(&other, "v1")?.ok()?;
    let served = || -> Result<Vec<String>> {
        names.iter().map(|name| version_at(fleet, 1, Some(name))).collect()
    };
    let is = |expected: [&str; 3]| -> Result<()> {
        let found = served()?;
        ensure!(found == expected, "{found:?}");
        Ok(())
    };
    is(["v1", "v1", "v1"])?;
    let mut load = Vec::new();
    for name in names {
        load.extend(loads(fleet, &[1], Some(name))?);
    }
    deploy("staging", "v2")?.ok()?;
    is(["v2", "v1", "v1"])?;
    stage.deploy(&other, "v2")?.ok()?;
    is(["v2", "v1", "v2"])?;
    deploy("staging", "v3")?.ok()?;
    is(["v3", "v1", "v2"])?;
    // Drift of one is none of the others' business.
    let host = fleet.host(1);
    host.docker(&["stop", "-t", "2", "flat-mate-web-v2"])?.ok()?;
    let mate = load.pop().context("three loads")?;
    drop(mate);
    wait_until("the neighbour is back", SOON, || {
        Ok(version_at(fleet, 1, Some("mate.test")).is_ok().then_some(()))
    })?;
    let rolled = ["rollback", "v2", "-d", "staging"];
    stage.dhow(project.dir(), &rolled)?.ok()?;
    is(["v2", "v1", "v2"])?;
    none_lost(load)?;
    let running = containers(host, "flat", false)?;
    let expected = ["flat-mate-web-v2", "flat-web-production-v1", "flat-web-staging-v2"];
    ensure!(running == expected, "{running:?}");
    for (tag, version) in [("latest-staging", "v2"), ("latest-production", "v1")] {
        let id = |tag: &str| -> Result<String> {
            let image = format!("{}/flat:{tag}", fleet.hub().registry());
            Ok(host.docker(&["images", "-q", "--no-trunc", &image])?.ok()?.stdout)
        };
        ensure!(!id(tag)?.is_empty() && id(tag)? == id(version)?, "{tag} is not {version}");
    }
    let status = stage.dhow(project.dir(), &["status", "-d", "staging"])?.ok()?.stdout;
    ensure!(status.starts_with("flat@staging: 1 of 1 on v2"), "{status}");
    // A third that wants a neighbour's name is refused before anything changes.
    let greedy = app(fleet, "greedy", &[1]).host_name("mate.test").write(fleet)?;
    greedy.push(fleet, &["v1"], |image| image)?;
    let refused = stage.deploy(&greedy, "v1")?;
    ensure!(!refused.success(), "{}", refused.text());
    ensure!(refused.text().contains("mate.test") && refused.text().contains("flat-mate"));
    ensure!(containers(host, "greedy", true)?.is_empty());
    Ok(())
}

pub(crate) fn boot_groups_run_their_hooks_and_roles_without_proxy_are_waited_for(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let controller = Controller::start(fleet, "groups", 7469)?;
    controller.login("admin")?;
    // The config calls hosts by names that are theirs, but not the ones their certificates bear.
    let names = ["one.test", "two.test", "three.test"];
    for (host, name) in fleet.hosts().iter().zip(names) {
        host.exec(&["rm", "-rf", "/root/.kamal"])?;
        std::fs::remove_dir_all(Agent::of(host).state_dir()).ok();
        Agent::start_as(&controller, host, &[name])?;
    }
    // Ends agents and controller also where a check fails.
    let stage = Stage { fleet, controller };
    let project = Project::new(fleet, "groups")?;
    let [one, two, three] = names;
    project.deploy_yml(
        fleet,
        &format!(
            "servers:\n  worker:\n    hosts: [{one}, {two}, {three}]\n    proxy: false\n    cmd: /sample-app\n    env: {{clear: {{APP_MODE: job}}}}\n\
             primary_role: worker\nboot: {{limit: 1, wait: 1}}\n{HASTY}"
        ),
    )?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    project
        .push(fleet, &["bad"], |image| image.behaving(dhow_test_images::Behaviour::CrashAtStart))?;
    for hook in ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"] {
        project.hook(hook, "$KAMAL_VERSION $KAMAL_HOSTS")?;
    }
    wait_until("every host is online", SOON, || {
        let list = stage.dhow(fleet.dir(), &["host", "list", "--json"])?.ok()?;
        Ok((list.stdout.matches("\"online\":true").count() == 3).then_some(()))
    })?;
    stage.deploy(&project, "v1")?.ok()?;
    stage.deploy(&project, "v2")?.ok()?;
    let of = |version: &str| {
        let all = format!("{one},{two},{three}");
        let mut lines = vec![format!("pre-deploy {version} {all}")];
        for host in names {
            lines.push(format!("pre-app-boot {version} {host}"));
            lines.push(format!("post-app-boot {version} {host}"));
        }
        lines.push(format!("post-deploy {version} {all}"));
        lines
    };
    let expected = [of("v1"), of("v2")].concat();
    ensure!(project.hook_lines() == expected, "hooks ran as {:#?}", project.hook_lines());
    for host in fleet.hosts() {
        ensure!(containers(host, "", false)? == ["groups-worker-v2"], "no proxy is wanted here");
        let env = ["exec", "groups-worker-v2", "sample-app", "version"];
        host.docker(&env)?.ok()?;
    }
    // A bad version stops in the first group: the others are not even begun.
    let failed = stage.deploy(&project, "bad")?;
    let at = format!("boot 1 of 3: {}: role groups/worker", fleet.host(1).address());
    ensure!(!failed.success() && failed.text().contains(&at), "{}", failed.text());
    ensure!(failed.text().contains("exited with status 1"), "{}", failed.text());
    for host in fleet.hosts() {
        ensure!(containers(host, "groups", false)? == ["groups-worker-v2"], "v2 does not run on");
    }
    for host in [2, 3] {
        let all = containers(fleet.host(host), "groups", true)?;
        ensure!(!all.iter().any(|name| name.ends_with("-bad")), "host {host}: {all:?}");
    }
    Ok(())
}

/// Hosts behind the same mirror would all make it fetch the image at once: one of them goes ahead.
pub(crate) fn one_host_of_each_registry_mirror_pulls_before_the_others(
    _: &mut Shared,
) -> Result<()> {
    let mirrors = ["http://a.test", "http://b.test", "http://b.test"].map(str::to_owned);
    let options = FleetOptions { registry_mirrors: mirrors.to_vec(), ..FleetOptions::hosts(3) };
    let fleet = Fleet::start_with(options)?;
    {
        let stage = Stage::set(&fleet, "mirror", 7471)?;
        let project = app(&fleet, "mirror", &[1, 2, 3]).write(&fleet)?;
        project.push(&fleet, &["v1"], |image| image)?;
        stage.deploy(&project, "v1")?.ok()?;
        let json = |args: &[&str]| -> Result<serde_json::Value> {
            let output = stage.dhow(project.dir(), &[args, &["--json"]].concat())?.ok()?;
            serde_json::from_str(&output.stdout).context("read JSON")
        };
        let list = json(&["rollout", "list"])?;
        let shown = json(&["rollout", "show", list[0]["id"].as_str().context("an id")?])?;
        let stages = shown["stages"].as_array().context("stages")?;
        let hosts = |name: &str| {
            let stage = stages.iter().find(|stage| stage["name"] == name);
            stage
                .map(|stage| stage["hosts"].clone())
                .with_context(|| format!("no {name} in {shown:#}"))
        };
        let [_, second, third] = [1, 2, 3].map(|number| fleet.host(number).address());
        ensure!(hosts("pull once for each mirror")? == serde_json::json!([second]), "{shown:#}");
        ensure!(hosts("pull")? == serde_json::json!([third]), "{shown:#}");
    }
    fleet.down()
}
