//! Killed at every stage: for every scenario, controller, client or both die at every point there is (before, inside and
//! after each stage, and around each hook), and a controller is started again; a person attaches to what their client left
//! behind, or does not. The end must be that of a rollout in which nobody died, or, where a hook was lost with its client,
//! that of one in which this hook failed.

mod client;
mod fate;
mod scenario;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dhow_proto::wire::rollout_event::Kind;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::State;
use super::world::World;
use crate::rollout::Rollouts;
use crate::rollout::stages::StageKind;
use client::Client;
use fate::{Fate, Person, Strike, Victim};
use scenario::{SCENARIOS, Scenario};

/// Longer than all waits of a rollout together: an hour for nothing.
const OVER: Duration = Duration::from_secs(3600);
/// Until a person notices that their client is dead: longer than the driver takes to notice.
const NOTICED: Duration = Duration::from_secs(5);

/// Until agents have found the next controller.
const REDIALS: Duration = Duration::from_secs(1);

/// How a rollout ended whose client died before it could ask for it.
const NEVER: &str = "never started";

/// What is left, and how it came about.
struct Run {
    met: Vec<String>,
    state: State,
    reason: String,
    snapshot: String,
    /// Stages that began, in order.
    stages: Vec<String>,
    /// Ids of the hooks that ran, in order.
    ran: Vec<String>,
    problems: Vec<String>,
}

/// Everything dies with its run.
fn paused<T>(run: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(run)
}

fn run(scenario: &Scenario, strikes: &[Strike], fails: Option<(String, i32)>) -> Run {
    let fails = fails.or_else(|| scenario.fails.map(|(hook, code)| (hook.to_owned(), code)));
    paused(async {
        let world = scenario.world().await;
        let fate = Fate::new(&world, strikes);
        let start = scenario.start(&world).await;
        let (sender, controllers) = watch::channel(world.rollouts_at("a", fate.breakpoints()));
        let client = || Client::starting(&fate, &controllers, &start, fails.clone());
        let mut serving = Some(tokio::spawn(client().run()));
        let mut problems = Vec::new();
        let ended = tokio::time::timeout(OVER, async {
            loop {
                let victim = tokio::select! {
                    biased;
                    victim = fate.dying() => victim,
                    ended = over(&world, &mut serving, &controllers, &start.rollout_id) => break ended,
                };
                if victim.person().is_some()
                    && let Some(dies) = serving.take()
                {
                    dies.abort();
                    let _ = dies.await;
                }
                if victim.is_controller() {
                    let dies = sender.borrow().clone();
                    world.kill(dies).await;
                    world.store.revive();
                    let (fleet, hosts) = (world.fleet.clone(), world.fleet.disconnect());
                    // Ends with the run: agents dial again.
                    drop(tokio::spawn(async move {
                        tokio::time::sleep(REDIALS).await;
                        hosts.iter().for_each(|host| fleet.arrive(host));
                    }));
                    let next = world.rollouts_at("a", fate.breakpoints());
                    next.resume_all().await.unwrap();
                    sender.send_replace(next);
                }
                fate.is_done();
                let Some(person) = victim.person() else { continue };
                let started = world.knows(&start.rollout_id).await;
                match person {
                    Person::StaysAway if started => {}
                    Person::StaysAway => break (State::Unspecified, NEVER.to_owned()),
                    Person::Attaches => {
                        // Where nothing was started there is nothing to attach to: they ask again.
                        let next = if started { client().attaching() } else { client() };
                        serving = Some(tokio::spawn(async move {
                            tokio::time::sleep(NOTICED).await;
                            next.run().await
                        }));
                    }
                }
            }
        })
        .await;
        let (state, reason) = ended.unwrap_or_else(|_| {
            problems.push("it does not end".to_owned());
            (State::Unspecified, String::new())
        });
        // Hosts come back, hear what they missed, and act on it.
        for host in ["h1", "h2", "h3"] {
            world.fleet.arrive(host);
        }
        world.fleet.settle().await;
        let last = controllers.borrow().clone();
        let stages = stages(&last, &start.rollout_id, &mut problems).await;
        problems.extend(fate.violations());
        problems.extend(world.leftovers().await.into_iter().map(|left| format!("left: {left}")));
        if world.kamal_locked() {
            problems.push("Kamal's lock is left".to_owned());
        }
        for (host, unit) in [("h1", "web"), ("h2", "web"), ("h2", "job"), ("h3", "job")] {
            problems
                .extend(world.unsettled(host, unit).await.map(|u| format!("{host} {unit}: {u}")));
        }
        let snapshot = world.state().await;
        Run { met: fate.met(), state, reason, snapshot, stages, ran: fate.ran(), problems }
    })
}

/// How the rollout ended: as its client is told, or as anybody can see where there is none.
async fn over(
    world: &World,
    serving: &mut Option<JoinHandle<dhow_proto::wire::RolloutFinished>>,
    controllers: &watch::Receiver<Rollouts>,
    id: &str,
) -> (State, String) {
    match serving {
        Some(client) => {
            let finished = client.await.unwrap();
            (finished.state(), finished.reason)
        }
        None => {
            let rollouts = controllers.borrow().clone();
            world.wait(&rollouts, id).await
        }
    }
}

/// The stages that were told; each begins and ends once, and nothing is told twice or out of order.
async fn stages(rollouts: &Rollouts, id: &str, problems: &mut Vec<String>) -> Vec<String> {
    let Ok(mut events) = rollouts.watch(id, 0).await else {
        // Nobody was there to start it again.
        return Vec::new();
    };
    let (mut begun, mut ended, mut last) = (Vec::new(), Vec::new(), 0);
    // One that is not over ends no stream.
    while let Ok(Some(event)) = tokio::time::timeout(NOTICED, events.recv()).await {
        if event.sequence != last + 1 {
            problems.push(format!("event {} after {last}", event.sequence));
        }
        last = event.sequence;
        match event.kind {
            Some(Kind::StageStarted(stage)) => begun.push(stage.stage),
            Some(Kind::StageFinished(stage)) => ended.push(stage.stage),
            _ => {}
        }
    }
    if !begun.starts_with(&ended) || begun.len() > ended.len() + 1 {
        problems.push(format!("stages began as {begun:?} and ended as {ended:?}"));
    }
    begun
}

/// A scenario without a death.
struct Plain {
    /// What there is before.
    before: String,
    run: Run,
    /// By the stage of each hook that comes: its id, and the scenario with this hook failing.
    without: BTreeMap<String, (String, Run)>,
}

impl Plain {
    fn of(scenario: &Scenario) -> Self {
        let before = paused(async {
            let world = scenario.world().await;
            if let Some(host) = scenario.away {
                world.fleet.arrive(host);
            }
            world.state().await
        });
        let plain = run(scenario, &[], None);
        let without = plain.ran.iter().map(|hook| {
            let run = run(scenario, &[], Some((hook.clone(), 1)));
            (stage_of(&run.reason).to_owned(), (hook.clone(), run))
        });
        let without = without.collect();
        Self { before, run: plain, without }
    }

    /// What a run must have come to, or what is wrong about how it ended.
    fn expected(&self, found: &Run, strikes: &[Strike]) -> Result<&Run, String> {
        let persons: Vec<Person> = strikes.iter().filter_map(|(_, v)| v.person()).collect();
        if (found.state, &found.reason) == (self.run.state, &self.run.reason) || persons.is_empty()
        {
            return Ok(&self.run);
        }
        let Some((hook, without)) = self.without.get(stage_of(&found.reason)) else {
            return Err(format!("ends with {}", found.reason));
        };
        let ran = found.ran.contains(hook);
        let fine = match persons.contains(&Person::StaysAway) {
            true => {
                let nobody = found.reason.contains("no client came back within 900 s");
                let unknown = found.reason.contains("its outcome is unknown; it is not run again");
                unknown || (nobody && !ran)
            }
            // Who came back has it run, but where it may have begun and had not.
            false => found.reason.ends_with("failed with exit status 1") && !ran,
        };
        match fine {
            true => Ok(without),
            false => Err(format!("ends with {}, and {:?} ran", found.reason, found.ran)),
        }
    }
}

/// The stage that a rollout failed in.
fn stage_of(reason: &str) -> &str {
    reason.split_once(": ").map_or(reason, |(stage, _)| stage)
}

fn differences(expected: &str, found: &str) -> Vec<String> {
    let only = |a: &str, b: &str, sign: char| -> Vec<String> {
        let there: BTreeSet<&str> = b.lines().collect();
        a.lines().filter(|l| !there.contains(l)).map(|l| format!("{sign} {l}")).collect()
    };
    [only(expected, found, '-'), only(found, expected, '+')].concat()
}

/// What is wrong with a run.
fn judge(scenario: &Scenario, plain: &Plain, strikes: &[Strike]) -> Vec<String> {
    let run = run(scenario, strikes, None);
    let mut problems = run.problems.clone();
    match plain.expected(&run, strikes) {
        // Nothing happened.
        _ if run.reason == NEVER => problems.extend(differences(&plain.before, &run.snapshot)),
        Err(problem) => problems.push(problem),
        Ok(expected) => {
            problems.extend(differences(&expected.snapshot, &run.snapshot));
            if run.stages != expected.stages {
                problems.push(format!("stages {:?}, not {:?}", run.stages, expected.stages));
            }
            let mut should: Vec<&String> = expected.ran.iter().collect();
            let is_plain = std::ptr::eq(expected, &plain.run);
            if !is_plain {
                // The hook that was lost may have run or not.
                should.retain(|hook| run.ran.contains(hook));
            }
            if run.ran.iter().collect::<Vec<_>>() != should {
                problems.push(format!("hooks ran as {:?}, not {should:?}", run.ran));
            }
            if is_plain && (run.state, &run.reason) != (expected.state, &expected.reason) {
                problems.push(format!("{:?}: {}", run.state, run.reason));
            }
        }
    }
    let first = strikes[0].0;
    if plain.run.met.get(first) != run.met.get(first) {
        problems.push("the run differs before anybody died".to_owned());
    }
    let at: Vec<String> = strikes
        .iter()
        .map(|(n, victim)| {
            let point = run.met.get(*n).map_or("never reached", String::as_str);
            format!("{victim:?} at {n} ({point})")
        })
        .collect();
    problems.iter().map(|p| format!("{}: {}: {p}", scenario.name, at.join(", "))).collect()
}

/// Who dies at a point: each alone, and both, at every one; one after the other at every fourth, or this would take many
/// minutes.
fn deaths(point: usize, all: bool) -> Vec<Vec<Strike>> {
    let (controller, attaches) = (Victim::Controller, Victim::Client(Person::Attaches));
    let alone = [controller, attaches, Victim::Client(Person::StaysAway), Victim::Both];
    // The second death comes sooner or later in what the first made necessary.
    let twice =
        |first: Victim, later: usize| vec![(point, first), (point + later, Victim::Controller)];
    let twice: Vec<_> = match (all, point % 4, point % 8) {
        (true, ..) => (1..=5).flat_map(|n| [twice(controller, n), twice(attaches, n)]).collect(),
        (false, 0, 0) => vec![twice(controller, 1 + point % 5)],
        (false, 0, _) => vec![twice(attaches, 1 + point % 5)],
        (false, ..) => Vec::new(),
    };
    alone.into_iter().map(|victim| vec![(point, victim)]).chain(twice).collect()
}

/// What may stop at a stage: its kind, and when.
fn reached(met: &[String]) -> BTreeSet<(String, String)> {
    let words = met.iter().filter_map(|point| point.strip_prefix("controller "));
    words
        .filter_map(|p| p.split_once(' '))
        .map(|(when, rest)| {
            let kind = rest.split_once(' ').map_or(rest, |(kind, _)| kind);
            (kind.to_owned(), when.to_owned())
        })
        .collect()
}

#[test]
fn whoever_is_killed_at_any_stage_the_end_is_that_of_a_rollout_without() {
    let all = match std::env::var("DHOW_KILLS").as_deref() {
        Ok("all") => true,
        Ok(other) => panic!("DHOW_KILLS is {other:?}; all there is is \"all\""),
        Err(_) => false,
    };
    let plain: Vec<Plain> = SCENARIOS.iter().map(Plain::of).collect();
    let (mut problems, mut met) = (Vec::new(), BTreeSet::new());
    let mut runs: Vec<(usize, Vec<Strike>)> = Vec::new();
    for (number, plain) in plain.iter().enumerate() {
        let name = SCENARIOS[number].name;
        for run in std::iter::once(&plain.run).chain(plain.without.values().map(|(_, run)| run)) {
            problems.extend(run.problems.iter().map(|p| format!("{name}: nobody dies: {p}")));
            met.extend(reached(&run.met));
        }
        let points = 0..plain.run.met.len();
        runs.extend(points.flat_map(|n| deaths(n, all)).map(|strikes| (number, strikes)));
    }
    let next = Arc::new(AtomicUsize::new(0));
    let work = || {
        let mut problems = Vec::new();
        while let Some((number, strikes)) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
            problems.extend(judge(&SCENARIOS[*number], &plain[*number], strikes));
        }
        problems
    };
    std::thread::scope(|scope| {
        for thread in [scope.spawn(work), scope.spawn(work)] {
            problems.extend(thread.join().unwrap());
        }
    });
    let count = problems.len();
    let (runs, first) = (runs.len(), problems[..count.min(60)].join("\n"));
    assert_eq!(count, 0, "of {runs} runs:\n{first}");
    println!("{runs} runs");
    for kind in StageKind::ALL {
        for when in ["before", "begun", "after"] {
            let point = (kind.to_string(), when.to_owned());
            assert!(met.contains(&point), "no scenario stops {when} {kind}");
        }
    }
    for when in ["before", "written", "after"] {
        assert!(met.contains(&("put-back".to_owned(), when.to_owned())), "nothing is put back");
    }
}
