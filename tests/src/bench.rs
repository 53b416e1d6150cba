//! Figures: what dhow costs beside real Kamal, and beside the bare calls of Docker and kamal-proxy.
//!
//! In: names of groups, all of them where none is named. Out: lines `figure NAME VALUE UNIT` and tables for people.
//! Always true: a figure is the median of at least [`RUNS`] runs, and what is divided was measured in turns in the same
//! run of the machine, so that a busy machine slows both sides.
//!
//! A group is one module below `bench/` with a function `run`, and a line in [`GROUPS`].

mod config;
mod deploy;
mod engine;
mod floor;
mod idle;
mod report;
mod stage;
mod start;

use anyhow::{Result, bail};

pub use report::{Report, median};

/// Each figure is the median of at least so many runs.
pub const RUNS: usize = 5;

/// Figures that are measured together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// As it is asked for on the command line.
    pub name: &'static str,
    /// What it measures, in a few words.
    pub about: &'static str,
    /// Measures, and writes its figures into the report.
    pub run: fn(&mut Report) -> Result<()>,
}

/// All groups, in the order in which they run.
pub const GROUPS: &[Group] = &[
    Group { name: "start", about: "the harness: a fleet up and down", run: start::run },
    Group { name: "config", about: "dhow config beside kamal config", run: config::run },
    Group { name: "deploy", about: "a deploy, beside its floor and real Kamal", run: deploy::run },
    Group { name: "idle", about: "what runs on while nothing happens", run: idle::run },
];

/// Runs the groups the command line asks for.
///
/// # Errors
///
/// When a group is unknown or fails; the figures before it are printed already.
pub fn main(args: impl Iterator<Item = String>) -> Result<()> {
    let wanted: Vec<String> = args.collect();
    if wanted.iter().any(|word| word == "--list") {
        GROUPS.iter().for_each(|group| println!("{:8} {}", group.name, group.about));
        return Ok(());
    }
    for name in &wanted {
        if !GROUPS.iter().any(|group| group.name == name) {
            let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
            bail!("no group {name}; there are: {}", names.join(", "));
        }
    }
    let mut report = Report::new();
    report.note(&format!("the proxy on all hosts: {}", report::proxy()));
    for group in GROUPS.iter().filter(|g| wanted.is_empty() || wanted.iter().any(|w| w == g.name)) {
        report.note(&format!("{}: {}", group.name, group.about));
        (group.run)(&mut report)?;
    }
    report.summary();
    Ok(())
}
