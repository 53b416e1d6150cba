//! Killed at every step: for every play, agent, Engine, controller or client die at every point there is, each in a
//! simulation, and a process, of its own; the end must be that of the play without a death.
//!
//! All of that takes half an hour. What runs is each kind of point with each program once, always the same ones;
//! `DHOW_SIM_KILLS=all` runs all, `DHOW_SIM_KILL='PLAY VICTIM TIMES POINT'` that one here, and tells all.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_sim::{Kill, Outcome, PLAYS, Program, Victim, in_a_process, kinds, play, what};
use tracing_subscriber::EnvFilter;

/// Set for the processes that play: the number of a play, or a kill.
const CHILD: &str = "DHOW_SIM_CHILD";

/// No worker panics while it holds a lock.
const WHOLE: &str = "a worker panicked";

fn main() -> ExitCode {
    if let Ok(text) = std::env::var(CHILD) {
        return one(&text);
    }
    if let Ok(text) = std::env::var("DHOW_SIM_KILL") {
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,turmoil=warn".to_owned());
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .without_time()
            .with_writer(std::io::stderr)
            .init();
        return one(&text);
    }
    let all = match std::env::var("DHOW_SIM_KILLS").as_deref() {
        Ok("all") => true,
        Ok(other) => panic!("DHOW_SIM_KILLS is {other:?}, must be all"),
        Err(_) => false,
    };
    match many(all) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("kills: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn one(text: &str) -> ExitCode {
    let outcome = match text.parse() {
        Ok(number) => play(number, None),
        Err(_) => text.parse().and_then(|kill: Kill| play(kill.play, Some(&kill))),
    };
    match outcome {
        Ok(outcome) => {
            println!("{}", outcome.to_line());
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{broken}");
            ExitCode::FAILURE
        }
    }
}

fn child(text: &str) -> Result<Outcome, String> {
    let said = in_a_process(CHILD, text)?;
    let line = said.lines().last().unwrap_or_default();
    Outcome::from_line(line).ok_or_else(|| format!("it says {said}"))
}

/// On all cores, the results in no order.
fn each<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(item) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(item);
                    results.lock().expect(WHOLE).push(result);
                }
            });
        }
    });
    results.into_inner().expect(WHOLE)
}

fn many(all: bool) -> Result<(), String> {
    let numbers: Vec<usize> = (0..PLAYS.len()).collect();
    let plain = each(&numbers, |number| (*number, child(&number.to_string())));
    let plain = plain.into_iter().map(|(number, outcome)| {
        let outcome = outcome.map_err(|e| format!("{}, nobody dies: {e}", PLAYS[number].name))?;
        match outcome.struck {
            true => Ok((number, outcome)),
            false => Err(format!("{}: its own death never comes", PLAYS[number].name)),
        }
    });
    let plain: BTreeMap<usize, Outcome> = plain.collect::<Result<_, String>>()?;
    let kills = every(&plain);
    let count = kills.len();
    let kills = if all { kills } else { one_of_each(kills) };
    println!("kills: {} of {count} deaths at points of {} plays", kills.len(), PLAYS.len());
    let problems = each(&kills, |kill| {
        let problems = match child(&kill.to_string()) {
            Err(broken) => vec![broken],
            Ok(outcome) => differences(&plain[&kill.play], &outcome, kill),
        };
        if !problems.is_empty() {
            let name = PLAYS[kill.play].name;
            println!("{name}: {}\nagain: DHOW_SIM_KILL='{kill}' make kills\n", problems.join("\n"));
        }
        problems
    });
    let struck: BTreeSet<(String, Program)> = kills.iter().map(kind).collect();
    let forgotten = kinds().into_iter().flat_map(|what| {
        let struck = &struck;
        Program::ALL.into_iter().filter_map(move |program| {
            let is_forgotten = !struck.contains(&(what.clone(), program));
            is_forgotten.then(|| format!("nobody kills {program:?} at: {what}"))
        })
    });
    let forgotten: Vec<String> = forgotten.collect();
    let wrong: usize = problems.iter().filter(|p| !p.is_empty()).count();
    if wrong + forgotten.len() == 0 {
        println!("kills: {} deaths, and all ended as if nobody had died", kills.len());
        return Ok(());
    }
    forgotten.iter().for_each(|line| println!("{line}"));
    Err(format!("{wrong} of {} deaths made a difference", kills.len()))
}

/// Everybody at every point.
fn every(plain: &BTreeMap<usize, Outcome>) -> Vec<Kill> {
    let points = plain.iter().flat_map(|(play, o)| o.met.iter().map(move |point| (*play, point)));
    let kills = points.flat_map(|(play, (label, times))| {
        let victims = Victim::at(label).into_iter();
        victims.map(move |victim| Kill { play, victim, label: label.clone(), times: *times })
    });
    kills.collect()
}

fn kind(kill: &Kill) -> (String, Program) {
    (what(&kill.label).to_owned(), kill.victim.program())
}

/// One of each kind, not the first of all: that follows from the kind's name.
fn one_of_each(kills: Vec<Kill>) -> Vec<Kill> {
    let mut kinds: BTreeMap<_, Vec<Kill>> = BTreeMap::new();
    for kill in kills {
        kinds.entry(kind(&kill)).or_default().push(kill);
    }
    let chosen = kinds.into_iter().map(|((what, program), mut kills)| {
        let sum: usize = what.bytes().map(usize::from).sum();
        kills.swap_remove((sum * 31 + program as usize * 7) % kills.len())
    });
    chosen.collect()
}

/// What a death changed.
fn differences(plain: &Outcome, found: &Outcome, kill: &Kill) -> Vec<String> {
    if !found.struck {
        return vec!["the point was never met".to_owned()];
    }
    // Where everything stopped with the Engine, the old version did not run when files were prepared: its files were not
    // carried over or kept, and nobody says that it stops.
    let bare = kill.victim.program() == Program::BareEngine;
    let with_the_old = ["/assets/", "/error_pages/", " audit "];
    // How often hosts are put back is nobody's affair, nor in which of two stages a version that fails is found out when
    // it waits for its Engine on the other host.
    let fails = PLAYS[kill.play].fails;
    let waits = matches!(kill.victim.program(), Program::BareEngine | Program::Engine);
    let kept = |outcome: &Outcome| -> BTreeSet<String> {
        let lines = outcome.left.iter().filter(|line| {
            let differs = (bare && with_the_old.iter().any(|word| line.contains(word)))
                || (fails && line.contains(" unit "));
            !differs
        });
        lines
            .map(|l| if fails && waits { l.replace("boot web: ", "boot: ") } else { l.clone() })
            .collect()
    };
    let (before, after) = (kept(plain), kept(found));
    let lost = before.difference(&after).map(|line| format!("- {line}"));
    lost.chain(after.difference(&before).map(|line| format!("+ {line}"))).collect()
}
