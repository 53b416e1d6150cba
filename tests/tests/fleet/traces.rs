//! What fleets leave on a machine.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context as _, Result};
use dhow_tests::fleet::CLAIMS;

/// Everything of the fleets in `slots`, whose directories are below `root`: processes, namespaces, mounts, cgroups, loop
/// devices, files.
pub(crate) fn traces(root: &Path, slots: &BTreeSet<String>) -> Result<BTreeSet<String>> {
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
        // On v2 there is but one, and it is here.
        if ours(&hierarchy) {
            found.insert(format!("cgroup {hierarchy}"));
        }
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
    Ok(found)
}

/// What fleets left in `slots`. Others come and go meanwhile, and take places that are free again: what somebody uses is
/// no left-over.
pub(crate) fn left(root: &Path, slots: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut left = BTreeSet::new();
    for slot in slots {
        let found = traces(root, &BTreeSet::from([slot.clone()]))?;
        // Asked afterwards: whoever took it before that has left nothing if it is free now.
        if !found.is_empty() && !in_use(slot)? {
            left.extend(found);
        }
    }
    Ok(left)
}

fn in_use(slot: &str) -> Result<bool> {
    let path = Path::new(CLAIMS).join(format!("{slot}.lock"));
    let Ok(claim) = File::open(&path) else { return Ok(false) };
    match claim.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

pub(crate) fn list(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
