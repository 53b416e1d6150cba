//! What real Kamal fails at: clients that die, hosts that fall silent or are not there, versions that never get healthy.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dhow_test_images::Behaviour;
use dhow_tests::fleet::Agent;
use dhow_tests::fleet::run::wait_until;
use dhow_tests::suite::Shared;

use crate::deploy::Stage;
use crate::scene::{
    app, containers, loads, no_lock, none_lost, proxy_waits, until_serves, version_at,
};

const SOON: Duration = Duration::from_secs(20);

pub(crate) fn a_client_killed_while_the_proxy_waits_costs_the_next_deploy_nothing(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "fire-client", 7451)?;
    let project = app(fleet, "fire-client", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1", "v3"], |image| image)?;
    project.push(fleet, &["v2"], |image| image.behaving(Behaviour::SlowStart))?;
    stage.deploy(&project, "v1")?.ok()?;
    let load = loads(fleet, &[1, 2], None)?;
    let args = ["deploy", "-P", "--version", "v2"];
    let mut cli = stage.controller.cli_start("admin", project.dir(), &args)?;
    wait_until("both proxies wait for v2", SOON, || {
        let waits = |number| proxy_waits(fleet.host(number), "fire-client-web");
        Ok((waits(1)? && waits(2)?).then_some(()))
    })?;
    cli.kill();
    let next = ["deploy", "-P", "--version", "v3", "--lock-wait", "--lock-wait-interval", "1"];
    stage.dhow(project.dir(), &next)?.ok()?;
    for host in [1, 2] {
        ensure!(version_at(fleet, host, None)? == "v3");
        let running = containers(fleet.host(host), "fire-client-web", false)?;
        ensure!(running == ["fire-client-web-v3"], "host {host} runs {running:?}");
    }
    none_lost(load)?;
    no_lock(fleet, "fire-client")?;
    let list = stage.dhow(project.dir(), &["rollout", "list"])?.ok()?.stdout;
    let ended = list.lines().filter(|line| line.contains("succeeded")).count();
    ensure!(ended == 3, "all three rollouts succeed, the second without its client: {list}");
    Ok(())
}

pub(crate) fn a_host_that_falls_silent_mid_deploy_is_named_and_settles_when_it_is_back(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "fire-silent", 7452)?;
    let project = app(fleet, "fire-silent", &[1, 2, 3]).write(fleet)?;
    project.push(fleet, &["v1"], |image| image)?;
    project.push(fleet, &["v2"], |image| image.behaving(Behaviour::SlowStart))?;
    stage.deploy(&project, "v1")?.ok()?;
    let load = loads(fleet, &[1, 2], None)?;
    let silent = fleet.host(3);
    let args = ["deploy", "-P", "--version", "v2"];
    let mut cli = stage.controller.cli_start("admin", project.dir(), &args)?;
    wait_until("the third proxy waits for v2", SOON, || {
        Ok(proxy_waits(silent, "fire-silent-web")?.then_some(()))
    })?;
    silent.silence()?;
    let begun = Instant::now();
    let log = fleet.dir().join("logs/cli-admin.log");
    let from = fs::metadata(&log).map_or(0, |m| m.len());
    let said = || -> Result<String> {
        let text = fs::read(&log).context("read what the client said")?;
        Ok(String::from_utf8_lossy(&text[usize::try_from(from)?.min(text.len())..]).into_owned())
    };
    let named = wait_until("the silent host is named", SOON, || {
        let text = said()?;
        let line = text.lines().find(|l| l.contains(&silent.address()) && l.contains("no word"));
        Ok(line.map(str::to_owned))
    });
    let took = begun.elapsed();
    let outcome = (|| {
        named.with_context(|| format!("the client said {:?}", said()))?;
        ensure!(took <= Duration::from_secs(15), "it was named only after {took:?}");
        ensure!(!cli.wait(SOON)?.success(), "the deploy succeeded without host 3");
        let both = [version_at(fleet, 1, None)?, version_at(fleet, 2, None)?];
        ensure!(both == ["v2", "v2"], "the others serve {both:?}");
        Ok(())
    })();
    // Also after a failure: the fleet is shared.
    silent.unsilence()?;
    outcome?;
    let one = |host: usize| containers(fleet.host(host), "fire-silent-web", false);
    let back = stage.until_status(&project, "the silent host settles", SOON * 2, |status| {
        crate::scene::role_phases(status, &silent.address()) == ["settled"]
            && one(3).is_ok_and(|running| running.len() == 1)
    })?;
    let served = version_at(fleet, 3, None)?;
    ensure!(one(3)? == [format!("fire-silent-web-{served}")], "{served}: {back:#}");
    none_lost(load)?;
    no_lock(fleet, "fire-silent")?;
    // By hand it needs nothing: the next deploy goes through everywhere.
    stage.deploy(&project, "v2")?.ok()?;
    ensure!(stage.headline(&project)? == "3 of 3 on v2", "{}", stage.headline(&project)?);
    Ok(())
}

pub(crate) fn a_host_unreachable_from_the_start_is_named_at_once_and_nothing_is_changed(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "fire-gone", 7453)?;
    let project = app(fleet, "fire-gone", &[1, 2, 3]).write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    let load = loads(fleet, &[1, 3], None)?;
    let everything = |number: usize| -> Result<String> {
        let host = fleet.host(number);
        let list = ["ps", "-a", "--format", "{{.ID}} {{.Names}} {{.State}}"];
        let images = ["images", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"];
        let files = host.exec(&["find", "/root/.kamal", "-printf", "%p %s %T@\n"])?.ok()?.stdout;
        let all = host.docker(&list)?.ok()?.stdout + &host.docker(&images)?.ok()?.stdout + &files;
        // Which comes first says nothing.
        Ok(all
            .lines()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|line| format!("{line}\n"))
            .collect())
    };
    let before = [everything(1)?, everything(3)?];
    let gone = fleet.host(2);
    // Its agent is there, but nothing could be done.
    gone.engine_stop()?;
    let outcome = (|| {
        let begun = Instant::now();
        let refused =
            stage.dhow(project.dir(), &["deploy", "-P", "--version", "v2", "--skip-offline"])?;
        let took = begun.elapsed();
        let said = format!("Docker does not answer on {}", gone.address());
        ensure!(!refused.success() && refused.text().contains(&said), "{}", refused.text());
        ensure!(took <= Duration::from_secs(5), "it was told only after {took:?}");
        ensure!([everything(1)?, everything(3)?] == before, "something was changed");
        Ok(())
    })();
    gone.engine_start()?;
    outcome?;
    // However it went: silently, its link, its power. At once, before anybody can have noticed.
    gone.silence()?;
    let outcome = (|| {
        let begun = Instant::now();
        let refused = stage.deploy(&project, "v2")?;
        let took = begun.elapsed();
        ensure!(!refused.success(), "it was deployed: {}", refused.text());
        ensure!(took <= Duration::from_secs(5), "it was told only after {took:?}");
        ensure!(refused.text().contains(&gone.address()), "{}", refused.text());
        ensure!(refused.text().contains("--skip-offline"), "{}", refused.text());
        let after = [everything(1)?, everything(3)?];
        ensure!(after == before, "something was changed:\n{before:#?}\nbecame\n{after:#?}");
        Ok(())
    })();
    gone.unsilence()?;
    outcome?;
    no_lock(fleet, "fire-gone")?;
    none_lost(load)?;
    stage.dhow(project.dir(), &["deploy", "-P", "--version", "v2", "--wait", "30"])?.ok()?;
    ensure!(version_at(fleet, 2, None)? == "v2");
    Ok(())
}

/// A version, its environment, and what must be said of it.
type Sick = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

pub(crate) fn why_a_version_does_not_get_healthy_is_told_in_a_sentence(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "fire-sick", 7454)?;
    let project = app(fleet, "fire-sick", &[1]).write(fleet)?;
    let yml = fs::read_to_string(project.dir().join("config/deploy.yml"))?;
    let yml =
        yml.replace("deploy_timeout: 10", "deploy_timeout: 4").replace("timeout: 5", "timeout: 1");
    project.write("config/deploy.yml", &yml)?;
    project.push(fleet, &["v1"], |image| image)?;
    let sick: [Sick; 7] = [
        ("port", &[("APP_PORT", "3000")], &["nothing listens on port 80", "port 3000"]),
        ("deaf", &[("APP_START_DELAY_MS", "60000")], &["nothing listens on port 80", "no port"]),
        (
            "away",
            &[("APP_UP_STATUS", "301"), ("APP_UP_LOCATION", "https://no.such.example/up")],
            &["redirect", "301", "https://no.such.example/up"],
        ),
        ("error", &[("APP_UP_STATUS", "500")], &["status 500", "/up"]),
        ("forbidden", &[("APP_UP_STATUS", "403")], &["status 403", "/up"]),
        ("slow", &[("APP_UP_DELAY_MS", "9000")], &["did not answer within 1 s"]),
        (
            "crash",
            &[
                ("APP_START_DELAY_MS", "60000"),
                ("APP_CRASH_AFTER_MS", "500"),
                ("APP_CRASH_STATUS", "7"),
            ],
            &["exited with status 7", "(exit code 7)"],
        ),
    ];
    for (version, env, _) in &sick {
        project.push(fleet, &[version], |image| {
            env.iter().fold(image, |image, (name, value)| image.env(name, value))
        })?;
    }
    stage.deploy(&project, "v1")?.ok()?;
    let load = loads(fleet, &[1], None)?;
    for (version, _, expected) in &sick {
        let exits = *version == "crash";
        if exits {
            // Long enough that nobody waits for it by mistake.
            let yml = yml.replace("deploy_timeout: 4", "deploy_timeout: 20");
            project.write("config/deploy.yml", &yml)?;
        }
        let begun = Instant::now();
        let failed = stage.deploy(&project, version)?;
        let took = begun.elapsed();
        ensure!(failed.code() == Some(1), "{version}: {}", failed.text());
        let text = failed.text();
        let missing: Vec<_> = expected.iter().filter(|word| !text.contains(**word)).collect();
        ensure!(missing.is_empty(), "{version}: {missing:?} is not in {text}");
        let certain = if exits { took < SOON } else { took >= Duration::from_secs(4) };
        ensure!(certain, "{version} took {took:?}");
        ensure!(version_at(fleet, 1, None)? == "v1", "{version}: v1 does not serve on");
    }
    none_lost(load)?;
    Ok(())
}

pub(crate) fn what_failed_on_a_host_is_not_retried_after_restarts_and_a_power_cut(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "fire-retry", 7455)?;
    let [a, b] = [1, 2].map(|number| fleet.host(number).address());
    let project = app(fleet, "fire-retry", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    // Sick on the second host alone.
    let yml = fs::read_to_string(project.dir().join("config/deploy.yml"))?;
    let yml = yml.replace(&format!("- {b}\n"), &format!("- {b}: sick\n"))
        + "env:\n  tags:\n    sick:\n      APP_UP_STATUS: 500\n";
    project.write("config/deploy.yml", &yml.replace("deploy_timeout: 10", "deploy_timeout: 3"))?;
    let load = loads(fleet, &[1], None)?;
    let failed = stage.deploy(&project, "v2")?;
    ensure!(!failed.success() && failed.text().contains(&b), "{}", failed.text());
    ensure!(version_at(fleet, 1, None)? == "v2" && version_at(fleet, 2, None)? == "v1");
    let second = fleet.host(2);
    // What a container was and when it last ran says whether anybody touched it.
    let touched = || -> Result<String> {
        let format = "{{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.State.FinishedAt}}";
        Ok(second.docker(&["inspect", "-f", format, "fire-retry-web-v2"])?.ok()?.stdout)
    };
    // The failure is told first; then the container is stopped.
    let before = wait_until(&format!("v2 is stopped on {b}"), SOON, || {
        Ok(Some(touched()?).filter(|state| state.contains(" exited ")))
    })?;
    for host in [1, 2] {
        Agent::of(fleet.host(host)).kill()?;
        Agent::of(fleet.host(host)).run()?;
    }
    let settled = |host: &str, phases: &[&str]| {
        let host = host.to_owned();
        let phases: Vec<String> = phases.iter().map(|p| (*p).to_owned()).collect();
        move |status: &serde_json::Value| crate::scene::role_phases(status, &host) == phases
    };
    stage.until_status(&project, "host 1 is settled", SOON, settled(&a, &["settled"]))?;
    stage.until_status(&project, "host 2 is settled", SOON, settled(&b, &["settled"]))?;
    ensure!(touched()? == before, "v2 was tried again after a restart of the agent");
    second.power_cut()?;
    second.power_on()?;
    second.load(&dhow_test_images::proxy_image()?)?;
    Agent::of(second).run()?;
    until_serves(fleet, 2, None, "v1", SOON)?;
    stage.until_status(&project, "host 2 is settled again", SOON, settled(&b, &["settled"]))?;
    ensure!(touched()? == before, "v2 was tried again after a power cut");
    ensure!(version_at(fleet, 1, None)? == "v2", "host 1 went back by itself");
    // Drift is repaired to what settled; what failed is not missed.
    second.docker(&["rm", "-f", "fire-retry-web-v1", "fire-retry-web-v2"])?.ok()?;
    until_serves(fleet, 2, None, "v1", SOON)?;
    let all = containers(second, "fire-retry-web", true)?;
    ensure!(all == ["fire-retry-web-v1"], "host 2 has {all:?}");
    none_lost(load)?;
    Ok(())
}
