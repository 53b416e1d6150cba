//! Where the programs under test are, brought up to date by cargo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::run::run;

/// The directory of the workspace's root manifest.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The path of program `name` of this workspace (`dhow`, `dhow-agent`, `dhow-controller`, `dhow-load`, `dhow-demo`).
///
/// With `DHOW_BIN_DIR` set it is taken from there as it is. Otherwise cargo brings all of them up to date
/// first, once per process: a test that runs yesterday's program is worse than a slow one.
///
/// # Errors
///
/// When it is not there or cannot be built; with the compiler's messages.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("DHOW_BIN_DIR").filter(|value| !value.is_empty()) {
        let path = PathBuf::from(dir).join(name);
        if !path.is_file() {
            bail!("DHOW_BIN_DIR is set, but there is no {}", path.display());
        }
        return std::path::absolute(&path).context("make a path absolute");
    }
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = match &*built {
        Some(dir) => dir.clone(),
        None => built.insert(build()?).clone(),
    };
    let path = dir.join(name);
    if !path.is_file() {
        bail!("cargo built this workspace's programs, but there is no {}", path.display());
    }
    Ok(path)
}

/// Brings all programs up to date and gives their directory.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace_root());
    // The whole workspace, and a test with it: one package alone, or programs without what tests depend on, would be a selection
    // with features of its own, for which cargo builds nearly all dependencies once more.
    command.args(["build", "--quiet", "--workspace", "--bins", "--test", "fleet"]);
    // What an outer cargo sets for the test must not reach the inner one: build scripts that watch
    // such variables would run again and again.
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS"];
        if text.starts_with("CARGO_") && !kept.contains(&text.as_ref()) {
            command.env_remove(&variable);
        }
    }
    run(&mut command, Duration::from_secs(3600))?.ok()?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(workspace_root().join(target).join("debug"))
}
