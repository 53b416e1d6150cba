//! Builds the static programs that the images carry.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// The only platform whose images are made: that of the machine the tests run on.
const TARGET: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

/// The architecture of the images as Docker and `deploy.yml` call it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// A program of this workspace that is built for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// The web app that tests deploy.
    SampleApp,
    /// The stand-in for kamal-proxy.
    KamalProxy,
}

impl Binary {
    fn package(self) -> &'static str {
        match self {
            Self::SampleApp => "sample-app",
            Self::KamalProxy => "kamal-proxy-stand-in",
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            Self::SampleApp => "sample-app",
            Self::KamalProxy => "kamal-proxy",
        }
    }
}

/// Builds `binary` as a static program, or brings it up to date, and gives its path.
///
/// Cargo runs once per process and program; it has its own target directory, because the flags for
/// static linking would otherwise throw away the caller's build. The first build takes about a minute.
///
/// # Errors
///
/// When cargo cannot be started or the build fails; its output goes to stderr.
pub fn static_binary(binary: Binary) -> Result<PathBuf> {
    // Held while building: threads of one test binary wait for the first of them.
    static BUILT: Mutex<[Option<PathBuf>; 2]> = Mutex::new([None, None]);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = match binary {
        Binary::SampleApp => &mut built[0],
        Binary::KamalProxy => &mut built[1],
    };
    if let Some(path) = slot {
        return Ok(path.clone());
    }
    let path = build(binary)?;
    *slot = Some(path.clone());
    Ok(path)
}

fn build(binary: Binary) -> Result<PathBuf> {
    let root = workspace_root();
    let target_dir = artifacts_dir()?.join("static");
    let _guard = lock("static.lock")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(&root)
        .args(["build", "--quiet", "--package", binary.package(), "--bin", binary.file_name()])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir);
    // What an outer cargo (or a coverage run) sets for the test must not leak into this build: it
    // would change flags, and build scripts that watch such variables would run each time.
    for (name, _) in std::env::vars_os() {
        let leaks = name.to_str().is_some_and(|name| {
            (name.starts_with("CARGO_")
                && !name.starts_with("CARGO_HOME")
                && !name.starts_with("CARGO_NET"))
                || name.starts_with("RUSTFLAGS")
                || name.starts_with("LLVM_PROFILE")
                || name == "RUSTC_WORKSPACE_WRAPPER"
        });
        if leaks {
            command.env_remove(name);
        }
    }
    command
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols")
        // A proxy without any optimisation would be what load tests measure.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    let status = command.status().context("start cargo to build a test image")?;
    if !status.success() {
        bail!("cargo could not build {} ({status})", binary.package());
    }
    Ok(target_dir.join(TARGET).join("debug").join(binary.file_name()))
}

/// The directory for built programs and archives: `images` in the workspace's target directory,
/// honouring `CARGO_TARGET_DIR`. Created if missing.
///
/// # Errors
///
/// When it cannot be created.
pub fn artifacts_dir() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let dir = workspace_root().join(target).join("images");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// Holds the named lock file until the returned file is dropped; other processes wait.
pub(crate) fn lock(name: &str) -> Result<File> {
    let path = artifacts_dir()?.join(name);
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
