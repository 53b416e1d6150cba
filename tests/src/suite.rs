//! Runs the cases of a test program that share a fleet, one after the other.
//!
//! libtest has no end of a test program where a shared fleet could be taken down, and runs cases at
//! the same time. Arguments and closing line are libtest's: words are filters, `--exact`, `--list`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::fleet::{Fleet, FleetOptions, take_logs_of_dropped_fleets};

/// A case that takes longer hangs: the longest takes about a third of this on a busy machine.
const CASE_DEADLINE: Duration = Duration::from_mins(15);

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// A sentence about behaviour, in snake case, as a test function's name would be.
    pub name: &'static str,
    /// The test: an error or a panic is a failure.
    pub run: fn(&mut Shared) -> Result<()>,
}

/// Makes a [`Case`] of each function, with the function's name and its module's.
#[macro_export]
macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        &[$($crate::suite::Case {
            name: concat!(stringify!($module), "::", stringify!($case)),
            run: $module::$case,
        }),*]
    };
}

/// The fleet that the cases of a suite share.
#[derive(Debug)]
pub struct Shared {
    options: FleetOptions,
    fleet: Option<Fleet>,
}

impl Shared {
    /// The shared fleet, started by the first case that asks for it. Use an app name of your own, and
    /// leave every host on, connected and with a running Engine.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn fleet(&mut self) -> Result<&Fleet> {
        if self.fleet.is_none() {
            self.fleet = Some(Fleet::start_with(self.options.clone())?);
        }
        self.fleet.as_ref().context("the fleet was started")
    }
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    list: bool,
    exact: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Wanted {
    fn parse(args: impl Iterator<Item = String>) -> Self {
        let mut wanted = Self::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => wanted.list = true,
                "--exact" => wanted.exact = true,
                "--skip" => wanted.skip.extend(args.next()),
                "--test-threads" | "--format" | "--color" => drop(args.next()),
                // Others of libtest (`--nocapture`, `--quiet`, …) change nothing here.
                other if other.starts_with('-') => {}
                filter => wanted.filters.push(filter.to_owned()),
            }
        }
        wanted
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |filter: &String| {
            if self.exact { name == filter } else { name.contains(filter.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skip.iter().any(hit)
    }
}

/// Runs the cases the command line asks for; `options` describe the shared fleet.
///
/// A failed case prints its error and what all programs logged: those of the shared fleet while it
/// ran, and those of fleets of its own that it did not take down.
pub fn main(cases: &[Case], options: FleetOptions) -> ExitCode {
    let wanted = Wanted::parse(std::env::args().skip(1));
    if wanted.list {
        cases
            .iter()
            .filter(|case| wanted.wants(case.name))
            .for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&Case> = cases.iter().filter(|case| wanted.wants(case.name)).collect();
    let mut shared = Shared { options, fleet: None };
    let mut failed = Vec::new();
    let begun = Instant::now();
    println!("\nrunning {} tests", chosen.len());
    for case in &chosen {
        println!("test {} ...", case.name);
        let case_begun = Instant::now();
        let over = end_after(CASE_DEADLINE, case.name);
        let outcome = run_case(case, &mut shared);
        drop(over);
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {} ... {verdict} ({:.1} s)", case.name, case_begun.elapsed().as_secs_f32());
        if let Err(error) = outcome {
            println!("    {}", format!("{error:#}").replace('\n', "\n    "));
            failed.push(case.name);
        }
    }
    // A fleet that cannot be taken down is a failure of the harness, which is tested here as well.
    if let Some(fleet) = shared.fleet.take() {
        if std::env::var_os("DHOW_KEEP").is_some_and(|value| value == "1") {
            drop(fleet);
        } else if let Err(error) = fleet.down() {
            println!("the shared fleet could not be removed: {error:#}");
            failed.push("removal of the shared fleet");
        }
    }
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len().saturating_sub(failed.len()),
        failed.len(),
        cases.len() - chosen.len(),
        begun.elapsed().as_secs_f32()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends the program with a failure unless what is returned is dropped in time: a case that hangs must not take the whole run's time
/// with it. The next run sweeps what it leaves.
fn end_after(deadline: Duration, case: &'static str) -> mpsc::Sender<()> {
    let (over, is_over) = mpsc::channel();
    std::thread::spawn(move || {
        if is_over.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout) {
            println!("test {case} ... FAILED\n    it did not end within {} s", deadline.as_secs());
            println!(
                "\nfailures:\n    {case}\n\ntest result: FAILED. The run ends here; the next one removes its fleet.\n"
            );
            std::process::exit(101);
        }
    });
    over
}

fn run_case(case: &Case, shared: &mut Shared) -> Result<()> {
    let mark = match &shared.fleet {
        Some(fleet) => fleet.log_mark()?,
        None => crate::fleet::LogMark::default(),
    };
    drop(take_logs_of_dropped_fleets());
    let outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(shared)))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(panic.as_ref()))));
    if outcome.is_err() {
        for (dir, logs) in take_logs_of_dropped_fleets() {
            println!("---- logs of the fleet in {}, which is gone ----\n{logs}", dir.display());
        }
    }
    if outcome.is_err()
        && let Some(fleet) = &shared.fleet
    {
        println!("---- logs of the shared fleet during {} ----", case.name);
        match fleet.logs_since(&mark) {
            Ok(logs) => print!("{logs}"),
            Err(error) => println!("cannot read the logs: {error:#}"),
        }
        println!("---- end of logs; those of the last run stay with DHOW_KEEP=1 ----");
    }
    outcome
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_work_as_libtests_do() {
        let parse = |words: &[&str]| Wanted::parse(words.iter().map(|word| (*word).to_owned()));
        let wanted = parse(&["power", "--test-threads", "1", "--nocapture"]);
        assert!(wanted.wants("host::power_cut") && !wanted.wants("host::link"));
        let exact = parse(&["host::link", "--exact"]);
        assert!(exact.wants("host::link") && !exact.wants("host::link_down"));
        assert!(!parse(&["--skip", "link"]).wants("host::link"));
    }
}
