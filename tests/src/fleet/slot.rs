//! The names and addresses of one fleet, so that fleets of several processes never meet.
//!
//! Always true: while a process holds a slot's claim, nobody else uses the slot's directory,
//! namespaces, subnet or cgroups. The kernel frees the claim when the process ends, however it ends;
//! what a killed process left in its slot is swept by the next one that takes a slot.
//!
//! Namespaces and cgroups have one name on the whole machine, directories lie below a root that the
//! caller chooses. So a claim is two locks: one in the root, and one for the machine, which also tells
//! below which root the slot was used last.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::sweep;

/// Fleets at a time on one machine: the third byte of their subnets, and then some memory.
const SLOTS: u8 = 32;

/// Where the machine's locks are; one file a slot, which holds the root that used it last.
pub const CLAIMS: &str = "/run/dhow-fleets";

/// Prefix of everything that has a name outside a fleet's directory.
pub(crate) const PREFIX: &str = "dhowf";

/// Where all fleets of this machine keep their state: `DHOW_FLEET_ROOT`, or `/var/lib/dhow-fleets`.
///
/// Short, because sockets lie below it and their paths may have 107 bytes; not below `/root`, `/run`
/// or `/var/lib/docker`, which every host covers with its own.
#[must_use]
pub fn root() -> PathBuf {
    std::env::var_os("DHOW_FLEET_ROOT")
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from("/var/lib/dhow-fleets"), PathBuf::from)
}

/// One of the machine's places for a fleet; pure names, no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    number: u8,
    dir: PathBuf,
}

impl Names {
    pub(crate) fn new(root: &Path, number: u8) -> Self {
        Self { number, dir: root.join(format!("f{number}")) }
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Common start of the names of the slot's network namespaces and cgroups.
    pub(crate) fn prefix(&self) -> String {
        format!("{PREFIX}{}-", self.number)
    }

    pub(crate) fn hub_namespace(&self) -> String {
        format!("{}hub", self.prefix())
    }

    pub(crate) fn host_namespace(&self, host: usize) -> String {
        format!("{}h{host}", self.prefix())
    }

    pub(crate) fn cgroup(&self, host: usize) -> String {
        format!("/{}h{host}", self.prefix())
    }

    /// The hub's address; the fleet's subnet is its /24. It exists only inside the namespaces.
    pub(crate) fn hub_address(&self) -> String {
        format!("10.77.{}.1", self.number)
    }

    pub(crate) fn host_address(&self, host: usize) -> String {
        format!("10.77.{}.{}", self.number, 10 + host)
    }

    /// Its presence says: the run that made this fleet wants it to stay (`DHOW_KEEP=1`).
    pub(crate) fn keep_marker(&self) -> PathBuf {
        self.dir.join("keep")
    }
}

/// A place for a fleet that this process owns until the value is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    names: Names,
    _claim: Claim,
}

impl Slot {
    /// Takes a free slot, with an empty directory; sweeps what dead runs left in any slot.
    ///
    /// # Errors
    ///
    /// When all are in use, or a left-over cannot be removed.
    pub(crate) fn take(root: &Path) -> Result<Self> {
        Self::take_among(root, Path::new(CLAIMS))
    }

    fn take_among(root: &Path, claims: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("create {}", root.display()))?;
        let mut taken = None;
        for number in 0..SLOTS {
            let names = Names::new(root, number);
            // A slot that was never used has nothing to sweep.
            if taken.is_some() && !names.dir().exists() {
                continue;
            }
            let Some(mut claim) = Claim::of(&names, root, claims)? else { continue };
            if names.keep_marker().exists() {
                continue;
            }
            if let Some(elsewhere) = claim.last_used_below(root)? {
                let theirs = Names::new(&elsewhere, number);
                if theirs.keep_marker().exists() {
                    continue;
                }
                sweep::sweep(&theirs)?;
            }
            sweep::sweep(&names)?;
            if taken.is_none() {
                claim.record(root)?;
                taken = Some(Self { names, _claim: claim });
            }
        }
        let Some(slot) = taken else {
            bail!(
                "all {SLOTS} places for fleets of this machine are in use: end other test runs, or \
                 remove kept fleets with `make fleet-clean`"
            );
        };
        fs::create_dir_all(slot.names.dir())
            .with_context(|| format!("create {}", slot.names.dir().display()))?;
        Ok(slot)
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }
}

/// Both locks of a slot, held.
#[derive(Debug)]
struct Claim {
    _below_root: File,
    machine: File,
}

impl Claim {
    /// `None` when another process has the slot.
    fn of(names: &Names, root: &Path, claims: &Path) -> Result<Option<Self>> {
        let file = format!("f{}.lock", names.number());
        let Some(below_root) = try_lock(&root.join(&file))? else { return Ok(None) };
        fs::create_dir_all(claims).with_context(|| format!("create {}", claims.display()))?;
        let machine = try_lock(&claims.join(&file))?;
        Ok(machine.map(|machine| Self { _below_root: below_root, machine }))
    }

    /// The root below which the slot was used last, if that is another one.
    fn last_used_below(&mut self, root: &Path) -> Result<Option<PathBuf>> {
        let mut last = String::new();
        self.machine.read_to_string(&mut last).context("read who used a slot last")?;
        let last = PathBuf::from(last);
        Ok((!last.as_os_str().is_empty() && last != root).then_some(last))
    }

    fn record(&mut self, root: &Path) -> Result<()> {
        let text = root.to_string_lossy();
        self.machine
            .set_len(0)
            .and_then(|()| self.machine.rewind())
            .and_then(|()| self.machine.write_all(text.as_bytes()))
            .context("write who uses a slot")
    }
}

fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// Removes everything of all fleets that no living process owns, kept ones included; gives their numbers.
///
/// # Errors
///
/// When something cannot be removed.
pub fn clean() -> Result<Vec<u8>> {
    let root = root();
    let mut cleaned = Vec::new();
    for number in 0..SLOTS {
        let names = Names::new(&root, number);
        if !names.dir().exists() {
            continue;
        }
        if Claim::of(&names, &root, Path::new(CLAIMS))?.is_some() {
            sweep::sweep(&names)?;
            cleaned.push(number);
        }
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slots_share_no_name() {
        let (a, b) = (Names::new(Path::new("/x"), 1), Names::new(Path::new("/x"), 11));
        assert_ne!(a.host_address(1), b.host_address(1));
        assert!(!b.host_namespace(1).starts_with(&a.prefix()));
        assert_eq!(a.host_namespace(2), "dhowf1-h2");
        assert_eq!(a.host_address(2), "10.77.1.12");
    }

    #[test]
    fn without_a_free_place_one_message_says_what_to_do_and_nothing_is_made() {
        let (root, claims) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let held: Vec<File> = (0..SLOTS)
            .map(|number| try_lock(&claims.path().join(format!("f{number}.lock"))))
            .map(|lock| lock.unwrap().unwrap())
            .collect();
        let error = Slot::take_among(root.path(), claims.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("all 32 places for fleets of this machine are in use"),
            "{error}"
        );
        let directories = fs::read_dir(root.path()).unwrap();
        assert_eq!(directories.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0);
        drop(held);
    }

    #[test]
    fn a_place_remembers_below_which_directory_it_was_used() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let claims = tempfile::tempdir().unwrap();
        let names = Names::new(here.path(), 3);
        let mut claim = Claim::of(&names, here.path(), claims.path()).unwrap().unwrap();
        assert_eq!(claim.last_used_below(here.path()).unwrap(), None);
        claim.record(here.path()).unwrap();
        // Somebody with another root finds the place taken as long as the claim is held.
        let theirs = Names::new(there.path(), 3);
        assert!(Claim::of(&theirs, there.path(), claims.path()).unwrap().is_none());
        drop(claim);
        let mut claim = Claim::of(&theirs, there.path(), claims.path()).unwrap().unwrap();
        assert_eq!(claim.last_used_below(there.path()).unwrap().as_deref(), Some(here.path()));
    }

    #[test]
    fn sockets_below_the_default_root_fit_the_kernels_limit() {
        let names = Names::new(Path::new("/var/lib/dhow-fleets"), 31);
        let socket = names.dir().join("h99/run/docker/containerd/containerd-debug.sock");
        assert!(socket.as_os_str().len() < 108);
    }
}
