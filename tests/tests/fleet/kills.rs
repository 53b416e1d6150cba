//! Killed at every step, on real hosts: of each kind of step that a first deploy, later ones, the same version again and a
//! rollback have, one is met by a killed agent and one by a killed Engine, of each kind of stage one by a killed controller
//! and one by a killed client. The end is that of a run in which nobody died. The kinds that these operations never come to
//! (maintenance, removal, …) are named in `kills/plan.rs` and killed on the model Engine:
//! `agent/src/converge/tests/kills.rs`.

#[path = "kills/plan.rs"]
mod plan;
#[path = "kills/rig.rs"]
mod rig;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dhow_tests::fleet::Breakpoints;
use dhow_tests::fleet::run::wait_until;
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions};
use rustix::process::Signal;

use crate::deploy::Stage;
use crate::scene::{containers, no_lock, until_serves, version_at};
use plan::Pending;
use rig::{CYCLE, FIRST, LIMIT, Reference, Rig};

pub(crate) fn whoever_is_killed_at_a_step_or_stage_the_end_is_that_of_a_run_without(
    _: &mut Shared,
) -> Result<()> {
    let fleet = Fleet::start_with(FleetOptions { live_restore: true, ..FleetOptions::hosts(2) })?;
    let mut rig = Rig::set(&fleet)?;
    let first = rig.reference(&FIRST)?;
    // The first of these finds nothing to prune, later it does. What it leaves is the same, as its replay shows.
    let cycle: Vec<Reference> =
        CYCLE.iter().map(|operation| rig.reference(operation)).collect::<Result<_>>()?;
    let addresses = fleet.addresses();
    let all: Vec<&Reference> = cycle.iter().chain([&first]).collect();
    let mut pending = Pending::of(&all)?;
    println!("    {pending}");
    let mut round = 0;
    while cycle.iter().any(|reference| pending.is_left_in(reference)) {
        ensure!(round < 60, "never met: {pending}");
        let at = round % CYCLE.len();
        let kills = pending.next(&cycle[at], &addresses);
        round += 1;
        rig.replay(&CYCLE[at], &cycle[at], &kills)?;
    }
    // What only a first deploy comes to.
    while !pending.is_empty() {
        ensure!(pending.is_left_in(&first), "never met: {pending}");
        rig = rig.anew()?;
        let kills = pending.next(&first, &addresses);
        rig.replay(&FIRST, &first, &kills)?;
    }
    drop(rig);
    fleet.down()
}

/// Everything stops with it, so only that everything comes back is asked for.
pub(crate) fn an_engine_killed_without_live_restore_leaves_nothing_that_the_next_deploy_minds(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let points = Breakpoints::listen(fleet)?;
    let stage = Stage::set(fleet, "kills-bare", 7471)?;
    let project = crate::scene::app(fleet, "kills-bare", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    stage.deploy(&project, "v1")?.ok()?;
    for (step, version) in [("create", "v2"), ("route", "v1"), ("stop", "v2")] {
        let host = fleet.host(1);
        let (begins, ends) = (format!("agent before {step} "), format!(" on {}", host.address()));
        let trap = points.trap(move |point| point.starts_with(&begins) && point.ends_with(&ends));
        let args = ["deploy", "-P", "--version", version];
        let mut cli = stage.controller.cli_start("admin", project.dir(), &args)?;
        let held = trap.wait(LIMIT).with_context(|| format!("before {step}"))?;
        host.engine_kill()?;
        drop(held);
        host.engine_start()?;
        // It succeeds, or ends and says why.
        cli.wait(LIMIT).with_context(|| format!("Engine killed before {step}"))?;
        let list = stage.dhow(project.dir(), &["rollout", "list", "-n", "1"])?.ok()?.stdout;
        ensure!(list.contains("succeeded") || list.contains("failed"), "{list}");
        no_lock(fleet, "kills-bare")?;
        stage.deploy_when_back(&project, version)?.ok().with_context(|| format!("after {step}"))?;
        for number in [1, 2] {
            until_serves(fleet, number, None, version, LIMIT)?;
            let name = format!("kills-bare-web-{version}");
            let running = containers(fleet.host(number), "kills-bare-web", false)?;
            ensure!(running == [name], "host {number} runs {running:?} after {step}");
        }
        no_lock(fleet, "kills-bare")?;
    }
    Ok(())
}

pub(crate) fn a_hook_whose_client_was_killed_is_not_run_again_and_a_person_says_how_it_went(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let stage = Stage::set(fleet, "kills-hook", 7472)?;
    let project = crate::scene::app(fleet, "kills-hook", &[1, 2]).write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    project.hook("post-app-boot", "$KAMAL_VERSION")?;
    project.hook("pre-deploy", "$KAMAL_VERSION")?;
    let dir = project.dir();
    // Waits where somebody wants it to, and ends whoever dies.
    let path = ".kamal/hooks/pre-deploy";
    let waits = "while [ -e stay ]; do sleep 0.05; done\n";
    let hook = fs::read_to_string(dir.join(path))? + waits;
    project.write(path, &hook)?;
    stage.deploy(&project, "v1")?.ok()?;
    let load = crate::scene::loads(fleet, &[1, 2], None)?;
    let log = fleet.dir().join("logs/cli-admin.log");
    for outcome in ["succeeded", "failed"] {
        fs::remove_file(dir.join("hooks.log"))?;
        project.write("stay", "")?;
        let args = ["deploy", "-P", "--version", "v2"];
        let mut cli = stage.controller.cli_start("admin", dir, &args)?;
        wait_until("the hook runs", LIMIT, || {
            Ok((project.hook_lines() == ["pre-deploy v2"]).then_some(()))
        })?;
        // The client alone: a hook that was started goes on without it.
        cli.signal(Signal::KILL)?;
        cli.wait(LIMIT)?;
        let id = rig::newest(&stage.controller, &project)?;
        let from = fs::metadata(&log)?.len();
        let mut asks = stage.controller.cli_start("admin", dir, &["rollout", "attach", &id])?;
        wait_until("a person is told what to do", LIMIT, || {
            let text = fs::read(&log)?;
            let text = String::from_utf8_lossy(&text[usize::try_from(from)?.min(text.len())..])
                .into_owned();
            Ok(text.contains(&format!("rollout attach {id} --hook succeeded")).then_some(()))
        })?;
        fs::remove_file(dir.join("stay"))?;
        ensure!(asks.ended()?.is_none(), "it did not wait for an answer");
        asks.kill();
        let answer = stage.dhow(dir, &["rollout", "attach", &id[..8], "--hook", outcome])?;
        let (version, hooks): (_, &[&str]) = match outcome {
            "succeeded" => ("v2", &["pre-deploy v2", "post-app-boot v2"]),
            _ => ("v1", &["pre-deploy v2"]),
        };
        ensure!(answer.success() == (outcome == "succeeded"), "{}", answer.text());
        if outcome == "failed" {
            ensure!(answer.text().contains("a person said that it failed"), "{}", answer.text());
        }
        ensure!(project.hook_lines() == hooks, "hooks ran as {:?}", project.hook_lines());
        for host in [1, 2] {
            let serves = version_at(fleet, host, None)?;
            ensure!(serves == version, "host {host} serves {serves} after {outcome}");
        }
        no_lock(fleet, "kills-hook")?;
        stage.deploy(&project, "v1")?.ok()?;
    }
    crate::scene::none_lost(load)?;
    Ok(())
}
