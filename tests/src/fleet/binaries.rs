//! Where the programs under test are, brought up to date by cargo.

use std::collections::BTreeMap;
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
/// With `DHOW_BIN_DIR` set it is taken from there as it is. Otherwise cargo brings it up to date
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
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.get(name) {
        return Ok(path.clone());
    }
    let path = build(name)?;
    built.insert(name.to_owned(), path.clone());
    Ok(path)
}

fn build(name: &str) -> Result<PathBuf> {
    let package = match name {
        "dhow-load" | "dhow-fleet" | "dhow-bench" | "dhow-demo" | "dhow-tap" => "dhow-tests",
        other => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace_root());
    command.args(["build", "--quiet", "--package", package, "--bin", name]);
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
    let path = workspace_root().join(target).join("debug").join(name);
    if !path.is_file() {
        bail!("cargo built {name}, but it is not at {}", path.display());
    }
    Ok(path)
}
