//! Nothing stays behind: after a run in order, after a panic, after a kill.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use dhow_tests::fleet::{binary, root, take_logs_of_dropped_fleets};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions};

use crate::faults::Masked;

/// How often the harness is run by the leak test, unless `DHOW_LEAK_RUNS` says otherwise.
const RUNS: usize = 5;

/// What a fleet could leave on this machine. Other fleets may come and go meanwhile, so only what
/// bears the name of the slots in `slots` is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) found: BTreeSet<String>,
}

fn traces(slots: &BTreeSet<String>) -> Result<Traces> {
    traces_below(&root(), slots)
}

pub(crate) fn traces_below(root: &Path, slots: &BTreeSet<String>) -> Result<Traces> {
    let mut found = BTreeSet::new();
    let ours = |text: &str| {
        slots.iter().any(|slot| {
            let dir = format!("{}/{slot}/", root.display());
            text.contains(&dir) || text.contains(&format!("dhow{slot}-"))
        })
    };
    for name in list("/run/netns") {
        if ours(&name) {
            found.insert(format!("namespace {name}"));
        }
    }
    for id in list("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()) {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let group = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
        if ours(&line) || ours(&group) {
            found.insert(format!("process {id} {line}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    found.extend(mounts.lines().filter(|line| ours(line)).map(|line| format!("mount {line}")));
    for hierarchy in list("/sys/fs/cgroup") {
        for name in list(&format!("/sys/fs/cgroup/{hierarchy}")) {
            if ours(&name) {
                found.insert(format!("cgroup {hierarchy}/{name}"));
            }
        }
    }
    for device in list("/sys/block").into_iter().filter(|name| name.starts_with("loop")) {
        let file = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file"));
        if file.is_ok_and(|file| ours(&file)) {
            found.insert(format!("device {device}"));
        }
    }
    for slot in slots {
        if root.join(slot).exists() {
            found.insert(format!("directory {slot}"));
        }
    }
    Ok(Traces { found })
}

pub(crate) fn list(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn slot_of(dir: &Path) -> Result<String> {
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

pub(crate) fn nothing_is_left_after_runs_in_order_panics_and_kills(_: &mut Shared) -> Result<()> {
    let mut slots = BTreeSet::new();
    let runs = std::env::var("DHOW_LEAK_RUNS").ok().and_then(|runs| runs.parse().ok());
    for run in 0..runs.unwrap_or(RUNS) {
        match run % 3 {
            0 => {
                let options = FleetOptions {
                    small_disk_mb: Some(64),
                    sshd: true,
                    proxy_image: false,
                    ..FleetOptions::hosts(1)
                };
                let fleet = Fleet::start_with(options)?;
                slots.insert(slot_of(fleet.dir())?);
                ensure!(!traces(&slots)?.found.is_empty(), "this test would not see a leak");
                fleet.down()?;
            }
            1 => {
                let panicked = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
                    let fleet = Fleet::start(1)?;
                    slots.insert(slot_of(fleet.dir())?);
                    fleet.host(1).docker(&["network", "create", "kamal"])?.ok()?;
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
                slots.insert(slot);
                child.kill().context("kill -9 dhow-fleet")?;
                child.wait().context("reap dhow-fleet")?;
                ensure!(!traces(&slots)?.found.is_empty(), "a killed run leaves its host running");
                // The next fleet, whoever starts it, sweeps.
                let next = Fleet::start(1)?;
                slots.insert(slot_of(next.dir())?);
                next.down()?;
            }
        }
        let left = traces(&slots)?.found;
        ensure!(left.is_empty(), "run {run} left: {left:#?}");
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
    let left = traces(&BTreeSet::from([slot]))?.found;
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
