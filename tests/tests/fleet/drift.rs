//! What somebody takes away comes back by itself within seconds and is told; not while another deployer is at work.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dhow_tests::fleet::Agent;
use dhow_tests::fleet::run::wait_until;
use dhow_tests::suite::Shared;
use dhow_tests::{Host, Project};

use crate::deploy::Stage;
use crate::scene::{app, containers, loads, none_lost, routes, until_serves};

/// The mending of one thing, its events included.
const SECONDS: Duration = Duration::from_secs(20);

/// Takes something away on host 1; it must be back, serving, and both told in `status`: of this unit, and that one of these steps
/// mends it.
fn comes_back(
    stage: &Stage<'_>,
    project: &Project,
    what: &str,
    (unit, steps): (&str, &[&str]),
    take: impl FnOnce(&Host) -> Result<()>,
) -> Result<()> {
    let before = stage.events(project, 1)?;
    let begun = Instant::now();
    take(stage.fleet.host(1)).with_context(|| format!("take away: {what}"))?;
    // First gone, or an answer of what was there before would count.
    let told = |word: &str| {
        let words = steps.iter().map(|step| format!(" {unit}: {word}, `{step}"));
        let words: Vec<String> = words.collect();
        let mut new = Vec::new();
        wait_until(&format!("{what}: {words:?} is told"), SECONDS, || {
            new = stage.events(project, 1)?;
            new.retain(|event| !before.contains(event));
            let says = |event: &String| words.iter().any(|words| event.contains(words));
            Ok(new.iter().any(says).then_some(()))
        })
        .with_context(|| format!("told were {new:?}"))
    };
    told("drift found")?;
    told("repaired")?;
    until_serves(stage.fleet, 1, None, "v1", SECONDS).with_context(|| what.to_owned())?;
    println!("    {what}: back after {:.1} s", begun.elapsed().as_secs_f32());
    Ok(())
}

pub(crate) fn what_is_taken_away_comes_back_by_itself_and_is_told(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "drift", 7461)?;
    let project = app(fleet, "drift", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    // The other host must not notice.
    let load = loads(fleet, &[2], None)?;
    let web = "drift-web-v1";
    let docker = |host: &Host, args: &[&str]| host.docker(args)?.ok().map(drop);
    let role = "role drift/web";
    let back = |what: &str, unit: &str, step: &str, words: &[&str]| {
        comes_back(&stage, &project, what, (unit, &[step]), |host| docker(host, words))
    };
    back("a stopped container", role, "start drift-web-v1", &["stop", web])?;
    back("a removed container", role, "create drift-web-v1 from ", &["rm", "-f", web])?;
    let remove = ["exec", "kamal-proxy", "kamal-proxy", "remove", "drift-web"];
    back("a lost route", role, "route drift-web to drift-web-v1:", &remove)?;
    back("a stopped proxy", "proxy", "start kamal-proxy", &["stop", "kamal-proxy"])?;
    back("a removed proxy", "proxy", "create kamal-proxy from ", &["rm", "-f", "kamal-proxy"])?;
    let shell = |host: &Host, line: &str| {
        let line = format!("export DOCKER_HOST=unix:///run/docker.sock; {line}");
        host.exec(&["sh", "-c", &line])?.ok().map(drop)
    };
    // Of what takes several commands the agent may see a part first.
    let network = ("proxy", &["create network kamal", "connect kamal-proxy to kamal"][..]);
    comes_back(&stage, &project, "a network removed from under both", network, |host| {
        let line = "for c in kamal-proxy drift-web-v1; do docker network disconnect -f kamal $c; \
                    done; docker network rm kamal || true";
        shell(host, line)
    })?;
    let all = ("proxy", &["create network kamal", "create kamal-proxy from "][..]);
    comes_back(&stage, &project, "everything at once", all, |host| {
        shell(host, "docker rm -f kamal-proxy drift-web-v1; docker network rm kamal || true")
    })?;
    let here = fleet.host(1);
    let list = routes(here)?;
    ensure!(list.contains("drift-web") && list.lines().count() == 2, "{list}");
    ensure!(containers(here, "drift-web", false)? == ["drift-web-v1"]);
    none_lost(load)?;
    Ok(())
}

pub(crate) fn what_was_taken_away_while_the_agent_was_gone_comes_back_with_it(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "drift-gone", 7462)?;
    let project = app(fleet, "drift-gone", &[1]).write(fleet)?;
    project.push(fleet, &["v1"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    let (host, agent) = (fleet.host(1), dhow_tests::fleet::Agent::of(fleet.host(1)));
    let away = |line: &str| -> Result<()> {
        agent.stop()?;
        let line = format!("export DOCKER_HOST=unix:///run/docker.sock; {line}");
        host.exec(&["sh", "-c", &line])?.ok()?;
        agent.run()?;
        until_serves(fleet, 1, None, "v1", SECONDS).map(drop).with_context(|| line)
    };
    // Stopped ones keep the network that is no more in mind, and cannot be started for it.
    away("docker stop kamal-proxy drift-gone-web-v1 && docker network rm kamal")?;
    away("docker exec kamal-proxy kamal-proxy remove drift-gone-web")?;
    // With what it remembers.
    away("docker rm -f kamal-proxy && docker volume rm kamal-proxy-config")?;
    // And without a controller: agents keep what they have converged.
    let mut stage = stage;
    // A controller that starts knows no events of before: those it is told from now on count, each with its time.
    let repairs = |stage: &Stage<'_>| -> Result<Vec<String>> {
        let mut events = stage.events(&project, 1)?;
        events.retain(|event| event.contains("role drift-gone/web: repaired"));
        Ok(events)
    };
    let before = repairs(&stage)?;
    stage.controller.stop()?;
    host.docker(&["rm", "-f", "drift-gone-web-v1"])?.ok()?;
    until_serves(fleet, 1, None, "v1", SECONDS)?;
    stage.controller.run()?;
    wait_until("the repair is told on reconnect", SECONDS * 2, || {
        let told = repairs(&stage)?;
        Ok(told.iter().any(|event| !before.contains(event)).then_some(()))
    })?;
    Ok(())
}

/// Promise 8: nobody needs the controller but who wants a change.
pub(crate) fn with_the_controller_gone_apps_serve_and_come_back_and_the_cli_says_so(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let mut stage = Stage::set(fleet, "gone", 7470)?;
    let project = app(fleet, "gone", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    let load = loads(fleet, &[2], None)?;
    stage.controller.kill()?;

    let here = fleet.host(1);
    let remove = || here.docker(&["rm", "-f", "gone-web-v1"])?.ok();
    remove()?;
    until_serves(fleet, 1, None, "v1", SECONDS).context("a container removed by hand")?;
    // Also for an agent that has not seen the controller since it started.
    let agent = Agent::of(here);
    agent.kill()?;
    remove()?;
    agent.run()?;
    until_serves(fleet, 1, None, "v1", SECONDS).context("an agent that starts alone")?;

    let address = stage.controller.address();
    for args in [&["status"][..], &["deploy", "-P", "--version", "v2"], &["app", "version"]] {
        let output = stage.dhow(project.dir(), args)?;
        ensure!(output.code() == Some(1), "{args:?} ended with {:?}", output.status);
        for words in [&address, "cannot be reached", "the apps keep running", "try again"] {
            ensure!(output.stderr.contains(words), "{args:?}: {words} is not in {}", output.text());
        }
        ensure!(output.elapsed < Duration::from_secs(15), "{args:?} took {:?}", output.elapsed);
    }

    stage.controller.run()?;
    stage.until_status(&project, "both hosts are back", SECONDS, |status| {
        status["headline"] == "2 of 2 on v1"
    })?;
    // What happened meanwhile is told once there is somebody to tell.
    wait_until("the drift is told", SECONDS, || {
        let events = stage.events(&project, 1)?;
        let told = |word: &str| events.iter().any(|event| event.contains(word));
        Ok((told("drift found") && told("repaired")).then_some(()))
    })?;
    none_lost(load)?;
    Ok(())
}
