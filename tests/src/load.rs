//! Paced load on an app, and what it saw of it.
//!
//! Open loop: each request has its time, whether or not earlier ones were answered, so a stalled app
//! cannot slow its own load down and hide the stall. Nothing is ever retried: a request that failed
//! is counted as failed. Bounded in count and in time.
//!
//! The requests come from the program `dhow-load`, run in the hub's network namespace.

pub mod generate;
mod report;
mod spec;

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, kill_process};

pub use report::{Failure, Gap, LoadReport, Slice};
pub use spec::{Kind, LoadSpec};

use crate::fleet::{Fleet, binary, run::run_with_input};

/// Runs a load to its end.
///
/// # Errors
///
/// When the generator cannot be run; failed requests are in the report, not errors.
pub fn run(fleet: &Fleet, spec: &LoadSpec) -> Result<LoadReport> {
    let mut command = fleet.hub().enter();
    command.arg(binary("dhow-load")?);
    let limit = spec.longest() + Duration::from_secs(20);
    let output = run_with_input(&mut command, spec.to_json()?.as_bytes(), limit)?.ok()?;
    serde_json::from_str(&output.stdout).context("read the load's report")
}

/// A load that runs while a test does something. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    child: Child,
}

impl Load {
    /// Starts `spec` and gives at once.
    ///
    /// # Errors
    ///
    /// When the generator cannot be started.
    pub fn start(fleet: &Fleet, spec: &LoadSpec) -> Result<Self> {
        use std::io::Write as _;
        let mut command: Command = fleet.hub().enter();
        command.arg(binary("dhow-load")?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("start the load")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(spec.to_json()?.as_bytes()).context("tell the load what to do")?;
        }
        Ok(Self { child })
    }

    /// Sends no further requests, waits for those on the way, and gives what all of them saw.
    ///
    /// # Errors
    ///
    /// When the generator failed.
    pub fn finish(mut self) -> Result<LoadReport> {
        // `nsenter --net` becomes the generator, so this is its process id. It may have ended already.
        if let Some(pid) = crate::fleet::run::pid(self.child.id()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let mut text = String::new();
        if let Some(stdout) = self.child.stdout.as_mut() {
            stdout.read_to_string(&mut text).context("read the load's report")?;
        }
        let status = self.child.wait().context("wait for the load")?;
        if !status.success() {
            bail!("the load generator failed ({status})");
        }
        serde_json::from_str(&text).context("read the load's report")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
