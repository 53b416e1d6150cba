//! Runs seeds, each in a process of its own, on all cores.
//!
//! `DHOW_SIM_SEEDS=N` runs so many (500), from `DHOW_SIM_FIRST` (0) on; `DHOW_SIM_SEED=N` runs that one here, and tells all.
//! Every hundredth is run twice, and must go the same way.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_sim::{Scenario, Summary, in_a_process, simulate};
use tracing_subscriber::EnvFilter;

const SEEDS: u64 = 500;

/// No worker panics while it holds a lock.
const WHOLE: &str = "a worker panicked";

/// Set for the processes that run one seed.
const CHILD: &str = "DHOW_SIM_CHILD";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| match text.parse() {
        Ok(number) => number,
        Err(_) => panic!("{variable} is {text:?}, must be a number"),
    })
}

fn main() -> ExitCode {
    if let Some(seed) = number(CHILD) {
        return one(seed);
    }
    if let Some(seed) = number("DHOW_SIM_SEED") {
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,turmoil=warn".to_owned());
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .without_time()
            .with_writer(std::io::stderr)
            .init();
        eprintln!("{}", Scenario::new(seed));
        return one(seed);
    }
    many(number("DHOW_SIM_FIRST").unwrap_or(0), number("DHOW_SIM_SEEDS").unwrap_or(SEEDS))
}

fn one(seed: u64) -> ExitCode {
    match simulate(seed) {
        Ok(Summary { trace, succeeded, ended }) => {
            println!("{trace:016x} {succeeded} {ended}");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("seed {seed} {broken}");
            ExitCode::FAILURE
        }
    }
}

/// Of one seed's process; the error is what to tell a person.
fn child(seed: u64) -> Result<String, String> {
    in_a_process(CHILD, &seed.to_string())
        .map_err(|error| format!("seed {seed}: {error}\n{}", Scenario::new(seed)))
}

fn many(first: u64, count: u64) -> ExitCode {
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let outcomes = Mutex::new([0, 0]);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    println!("sim: {count} seeds from {first} on, {workers} at a time");
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let twice = if seed.is_multiple_of(100) { 2 } else { 1 };
                    let runs: Vec<_> = (0..twice).map(|_| child(seed)).collect();
                    let told = match runs.as_slice() {
                        [Err(told), ..] => told.clone(),
                        [a, b] if a != b => format!("seed {seed} went two ways: {a:?}, {b:?}"),
                        [Ok(told), ..] => {
                            let counts = told.split(' ').skip(1).map(|n| n.parse().unwrap_or(0));
                            let mut outcomes = outcomes.lock().expect(WHOLE);
                            outcomes
                                .iter_mut()
                                .zip(counts)
                                .for_each(|(all, n): (&mut u64, u64)| *all += n);
                            continue;
                        }
                        [] => continue,
                    };
                    println!("{told}\nagain: DHOW_SIM_SEED={seed} make sim\n");
                    failed.lock().expect(WHOLE).push(seed);
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect(WHOLE);
    failed.sort_unstable();
    let [succeeded, ended] = outcomes.into_inner().expect(WHOLE);
    println!("sim: {succeeded} rollouts succeeded, {ended} ended with a reason");
    if count >= 100 && (succeeded < count || ended < count / 10) {
        println!("sim: too few rollouts of each kind for this to prove anything");
        return ExitCode::FAILURE;
    }
    if failed.is_empty() {
        println!("sim: {count} seeds kept every promise");
        return ExitCode::SUCCESS;
    }
    println!("sim: {} of {count} seeds broke a promise: {failed:?}", failed.len());
    ExitCode::FAILURE
}
