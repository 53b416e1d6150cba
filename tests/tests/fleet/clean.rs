//! Nothing stays behind: after a run in order, after a panic, after a kill.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dhow_test_images::PROXY_REFERENCE;
use dhow_tests::fleet::run::run;
use dhow_tests::fleet::{binary, root, take_logs_of_dropped_fleets};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions};

use crate::faults::Masked;
use crate::traces::{left, traces};

/// How often the harness is run by the leak test, unless `DHOW_LEAK_RUNS` says otherwise.
const RUNS: usize = 5;

pub(crate) fn slot_of(dir: &Path) -> Result<String> {
    Ok(dir.file_name().context("a fleet's directory has a name")?.to_string_lossy().into_owned())
}

/// A fleet of one host in a process of its own, up; and its slot.
fn held_elsewhere() -> Result<(Child, String)> {
    let mut child = Command::new(binary("dhow-fleet")?)
        .args(["hold", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start dhow-fleet")?;
    let line = first_line(&mut child)?;
    // `up 10.77.N.11`
    let number = line.trim().split('.').nth(2);
    match number {
        Some(number) if line.starts_with("up ") => Ok((child, format!("f{number}"))),
        _ => bail!("dhow-fleet said {line:?}"),
    }
}

pub(crate) fn first_line(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    let stdout = child.stdout.take().context("dhow-fleet has a stdout")?;
    BufReader::new(stdout).read_line(&mut line).context("read from dhow-fleet")?;
    Ok(line)
}

/// Starts a container on the first host of the fleet in `dir`: with it come cgroups, shims and mounts.
fn run_container(dir: &Path) -> Result<()> {
    let socket = format!("unix://{}/h1/run/docker.sock", dir.display());
    let mut command = Command::new("docker");
    command.args(["-H", &socket, "run", "-d", PROXY_REFERENCE]);
    run(&mut command, Duration::from_secs(60))?.ok().map(drop)
}

pub(crate) fn nothing_is_left_after_runs_in_order_panics_and_kills(_: &mut Shared) -> Result<()> {
    let mut slots = BTreeSet::new();
    let runs = std::env::var("DHOW_LEAK_RUNS").ok().and_then(|runs| runs.parse().ok());
    for number in 0..runs.unwrap_or(RUNS) {
        match number % 3 {
            0 => {
                let options = FleetOptions {
                    small_disk_mb: Some(64),
                    sshd: true,
                    proxy_image: false,
                    ..FleetOptions::hosts(1)
                };
                let fleet = Fleet::start_with(options)?;
                slots.insert(slot_of(fleet.dir())?);
                ensure!(!traces(&root(), &slots)?.is_empty(), "this test would not see a leak");
                fleet.down()?;
            }
            1 => {
                let panicked = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
                    let fleet = Fleet::start(1)?;
                    slots.insert(slot_of(fleet.dir())?);
                    run_container(fleet.dir())?;
                    let traces = traces(&root(), &slots)?;
                    let cgroup = traces.iter().any(|trace| trace.starts_with("cgroup "));
                    ensure!(cgroup, "a container has no cgroup that could be left: {traces:#?}");
                    // As a panic unwinds, but without its message among the results.
                    std::panic::resume_unwind(Box::new("on purpose"))
                }));
                ensure!(panicked.is_err(), "the fleet did not start");
                let logs = take_logs_of_dropped_fleets();
                ensure!(
                    logs.iter().any(|(_, logs)| logs.contains("h1-dockerd     | ")),
                    "nobody could read why it failed: {logs:?}"
                );
            }
            _ => {
                let (mut child, slot) = held_elsewhere()?;
                run_container(&root().join(&slot))?;
                slots.insert(slot);
                child.kill().context("kill -9 dhow-fleet")?;
                child.wait().context("reap dhow-fleet")?;
                ensure!(
                    !traces(&root(), &slots)?.is_empty(),
                    "a killed run leaves its host running"
                );
                // The next fleet, whoever starts it, sweeps.
                let next = Fleet::start(1)?;
                slots.insert(slot_of(next.dir())?);
                next.down()?;
            }
        }
        let left = left(&root(), &slots)?;
        ensure!(left.is_empty(), "run {number} left: {left:#?}");
    }
    Ok(())
}

pub(crate) fn two_fleets_exist_at_once_without_meeting(shared: &mut Shared) -> Result<()> {
    let (mut child, slot) = held_elsewhere()?;
    let fleet = shared.fleet()?;
    ensure!(slot != slot_of(fleet.dir())?);
    let number = slot.trim_start_matches('f');
    let theirs = format!("10.77.{number}.11");
    let reached = fleet.host(1).exec(&["bash", "-c", &format!("echo > /dev/tcp/{theirs}/22")])?;
    ensure!(!reached.success(), "a host of one fleet reaches the other");
    drop(child.stdin.take());
    let status = child.wait().context("wait for dhow-fleet")?;
    ensure!(status.success(), "dhow-fleet did not take its fleet down ({status})");
    ensure!(fleet.host(1).engine_answers(), "the end of one fleet ended the other");
    let left = left(&root(), &BTreeSet::from([slot]))?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}

pub(crate) fn fleets_below_two_directories_do_not_meet(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let masked = Masked::new("second")?;
    let mut child = masked.hold("true")?;
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start")?;
    let up = first_line(&mut child)?;
    ensure!(up.starts_with("up ") && !up.contains(&fleet.host(1).address()), "it said {up:?}");
    ensure!(fleet.host(1).engine_answers(), "the other fleet ended this one");
    drop(child.stdin.take());
    let status = child.wait().context("wait for dhow-fleet")?;
    ensure!(status.success(), "dhow-fleet did not take its fleet down ({status})");
    ensure!(fleet.host(1).engine_answers(), "the end of the other fleet ended this one");
    masked.is_gone()
}
