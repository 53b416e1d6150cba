//! Removes every trace of a fleet from the machine, starting from nothing but its names.
//!
//! The same code takes a fleet down in order and cleans up after a run that was killed, so it does
//! not trust any memory of what was started: processes are found by the network namespace they live
//! in, containers by the pid namespace that dies with the host's process 1.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, kill_process};

use super::run::{must, pid, run, wait_until};
use super::slot::Names;

/// Ends the slot's processes and removes its namespaces, cgroups and directory.
///
/// # Errors
///
/// When something stays; the message names it.
pub(crate) fn sweep(names: &Names) -> Result<()> {
    let namespaces = namespaces(&names.prefix())?;
    for namespace in &namespaces {
        end_processes(namespace)?;
    }
    for namespace in &namespaces {
        remove_namespace(namespace)?;
    }
    remove_cgroups(|name| name.starts_with(&names.prefix()))?;
    release_loop_devices(names.dir())?;
    remove_dir(names.dir())
}

/// Waits until no loop device is backed by a file below `dir`. The kernel lets go of them by itself
/// when the last mount is gone, but at leisure; one that was never mounted it would keep for ever.
fn release_loop_devices(dir: &Path) -> Result<()> {
    let what = format!("the loop devices of {} are released", dir.display());
    wait_until(&what, Duration::from_secs(20), || {
        let held = loop_devices(Path::new("/sys/block"), dir);
        for device in &held {
            // It may have been released since it was listed, or be busy for another moment.
            let detach = &mut Command::new("losetup");
            let _ = run(detach.arg("--detach").arg(device), Duration::from_secs(10));
        }
        Ok(held.is_empty().then_some(()))
    })
}

/// The loop devices whose file is below `dir`, also when that is deleted already.
fn loop_devices(block: &Path, dir: &Path) -> Vec<PathBuf> {
    let below = format!("{}/", dir.display());
    let ours = |device: &Path| {
        let file = fs::read_to_string(device.join("loop/backing_file"));
        file.is_ok_and(|file| file.starts_with(&below))
    };
    let devices = fs::read_dir(block).into_iter().flatten().filter_map(Result::ok);
    let devices = devices.map(|entry| entry.path()).filter(|device| ours(device));
    devices.filter_map(|device| Some(Path::new("/dev").join(device.file_name()?))).collect()
}

/// Ends all processes of one host and removes its namespace and cgroups, but not its disk. `port` is
/// its end of the cable in the namespace `hub`.
pub(crate) fn cut(namespace: &str, hub: &str, port: &str) -> Result<()> {
    end_processes(namespace)?;
    // The kernel removes it with the host's namespace, but at leisure, and the name is needed again.
    must("ip", &["-n", hub, "link", "delete", port])?;
    remove_namespace(namespace)?;
    remove_cgroups(|name| name == namespace)
}

fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The names of the network namespaces that start with `prefix`.
fn namespaces(prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir("/run/netns") {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("read /run/netns"),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.context("read /run/netns")?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Kills what lives in the namespace until nothing does. Process 1 of a host is among it, and takes
/// the whole pid namespace along: containers too.
fn end_processes(namespace: &str) -> Result<()> {
    let Ok(wanted) = fs::metadata(netns_path(namespace)) else { return Ok(()) };
    let identity = (wanted.dev(), wanted.ino());
    let mut last = BTreeSet::new();
    let gone = wait_until("its processes are gone", Duration::from_secs(20), || {
        last = processes_in(identity)?;
        for id in &last {
            if let Some(pid) = pid(*id) {
                // It may have ended since it was listed.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        Ok(last.is_empty().then_some(()))
    });
    if gone.is_err() {
        let names: Vec<String> = last.iter().map(|id| command_line(*id)).collect();
        bail!("processes of {namespace} do not end: {}", names.join(", "));
    }
    Ok(())
}

/// The living processes whose network namespace has this device and inode.
fn processes_in(identity: (u64, u64)) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let Ok(entry) = entry else { continue };
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A zombie has no namespace any more, so this error also sorts those out.
        let Ok(there) = fs::metadata(entry.path().join("ns/net")) else { continue };
        if (there.dev(), there.ino()) == identity {
            found.insert(id);
        }
    }
    Ok(found)
}

fn command_line(id: u32) -> String {
    let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    format!("{id} ({})", String::from_utf8_lossy(&words).replace('\0', " ").trim_end())
}

fn remove_namespace(namespace: &str) -> Result<()> {
    if !netns_path(namespace).exists() {
        return Ok(());
    }
    must("ip", &["netns", "delete", namespace]).map(drop)
}

/// Removes the cgroups at the top of every hierarchy whose name is `ours`.
fn remove_cgroups(ours: impl Fn(&str) -> bool) -> Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![top.to_path_buf()];
    hierarchies.extend(directories(top));
    for hierarchy in hierarchies {
        for dir in directories(&hierarchy) {
            if dir.file_name().is_some_and(|name| ours(&name.to_string_lossy())) {
                remove_cgroup(&dir)?;
            }
        }
    }
    Ok(())
}

fn remove_cgroup(dir: &Path) -> Result<()> {
    let what = format!("cgroup {} can be removed", dir.display());
    // A killed container's processes leave their cgroup a moment after they are gone from /proc.
    wait_until(&what, Duration::from_secs(10), || {
        for child in deepest_first(dir) {
            let _ = fs::remove_dir(&child);
        }
        Ok((!dir.exists()).then_some(()))
    })
}

fn deepest_first(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for child in directories(dir) {
        all.extend(deepest_first(&child));
    }
    all.push(dir.to_path_buf());
    all
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn remove_dir(dir: &Path) -> Result<()> {
    let what = format!("{} can be removed", dir.display());
    let mut why = None;
    // A mount in a dying mount namespace keeps a directory busy for a moment.
    wait_until(&what, Duration::from_secs(10), || match fs::remove_dir_all(dir) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(())),
        Err(error) => {
            why = Some(error);
            Ok(None)
        }
    })
    .with_context(|| why.map(|why| why.to_string()).unwrap_or_default())
}

/// A command that enters the host whose process 1 lives in `namespace`.
pub(crate) fn enter(namespace: &str) -> Result<Command> {
    let path = netns_path(namespace);
    let there = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
    for id in processes_in((there.dev(), there.ino()))? {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        // `NSpid:  <outside> … <inside>`: process 1 of a host has a second number, which is 1.
        let inside: Option<Vec<&str>> = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .map(|ids| ids.split_whitespace().collect());
        if inside.is_some_and(|ids| ids.len() > 1 && ids.last() == Some(&"1")) {
            let mut command = Command::new("nsenter");
            command.arg("--target").arg(id.to_string());
            command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/root", "--"]);
            return Ok(command);
        }
    }
    bail!("no process 1 in {namespace}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loop_devices_of_the_slot_are_released() {
        let block = tempfile::tempdir().unwrap();
        for (device, file) in [
            ("loop0", "/fleets/f1/h1/disk (deleted)\n"),
            ("loop1", "/fleets/f11/h1/disk\n"),
            ("loop2", "/fleets/f1/h2/disk\n"),
        ] {
            let dir = block.path().join(device).join("loop");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("backing_file"), file).unwrap();
        }
        fs::create_dir(block.path().join("sda")).unwrap();
        let mut found = loop_devices(block.path(), Path::new("/fleets/f1"));
        found.sort();
        assert_eq!(found, [Path::new("/dev/loop0"), Path::new("/dev/loop2")]);
    }
}
