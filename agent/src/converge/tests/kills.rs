//! Killed at every step: for every scenario, agent or Engine die at every point there is (before and after each step, and
//! before, inside and after each call that changes something), once or twice, and are started again. The end must be
//! that of a run in which nobody died, and something serves at every point.

mod fate;
mod host;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dhow_proto::model::Unit;
use dhow_proto::model::intent::{Absent, Desired, Traffic};
use dhow_proto::model::status::Phase;

use crate::engine::ContainerState;
use crate::engine::fake::Restore;
use crate::execute::tests::world::{Role, app, paused, role_unit};
use crate::plan::StepKind;
use fate::{Strike, Victim};
use host::Host;

type Play<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// What happens on a host.
struct Scenario {
    name: &'static str,
    /// How it came to be as it is; nobody dies.
    before: fn(&mut Host) -> Play<'_>,
    play: fn(&mut Host) -> Play<'_>,
}

const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "a first deploy",
        before: |_| Box::pin(async {}),
        play: |host| Box::pin(host.deploy("v1", 1)),
    },
    Scenario {
        name: "a deploy",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| Box::pin(host.deploy("v2", 2)),
    },
    Scenario {
        name: "a switch that was cut off, and is still at work",
        before: |host| Box::pin(cut_off(host, Duration::ZERO)),
        play: |host| Box::pin(goes_on(host)),
    },
    Scenario {
        name: "a switch that was cut off, and ended unseen",
        before: |host| Box::pin(cut_off(host, Duration::from_secs(5))),
        play: |host| Box::pin(goes_on(host)),
    },
    Scenario {
        name: "the same version again",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| Box::pin(host.boot("v1", 2)),
    },
    Scenario {
        name: "pruning",
        before: |host| {
            Box::pin(async {
                host.deploy("v1", 1).await;
                host.deploy("v2", 2).await;
                host.prepare("v3", 3).await;
                host.boot("v3", 3).await;
            })
        },
        play: |host| Box::pin(host.finish("v3", 3)),
    },
    Scenario {
        name: "a version that never gets healthy",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| Box::pin(fails(host)),
    },
    Scenario {
        name: "a rollout that ends while a host switches",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| Box::pin(settles(host)),
    },
    Scenario {
        name: "maintenance",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| {
            // Maintenance is what is asked for.
            host.fate.must_serve(&["shop-job"]);
            Box::pin(async {
                let drain = Duration::from_secs(2);
                let traffic = Traffic::Maintenance { message: "back soon".to_owned(), drain };
                host.settle_role(&Role { traffic, ..Host::web("v1", 1) }).await;
                host.settle_role(&Host::web("v1", 1)).await;
            })
        },
    },
    Scenario {
        name: "a reboot of the proxy",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| {
            // Kamal's reboot interrupts as well.
            host.fate.must_serve(&["shop-job"]);
            Box::pin(host.proxy(1))
        },
    },
    Scenario {
        name: "a container that was paused",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| {
            host.fate.must_serve(&["shop-job"]);
            host.world.engine.force_state("shop-web-v1", ContainerState::Paused);
            Box::pin(async {
                let engine = host.world.engine.clone();
                host.until(&role_unit("web"), |_| engine.answers("shop-web")).await;
            })
        },
    },
    Scenario {
        name: "removal",
        before: |host| Box::pin(host.deploy("v1", 1)),
        play: |host| {
            host.fate.must_serve(&[]);
            Box::pin(async {
                let app = Unit::App(app());
                for unit in [role_unit("web"), role_unit("job"), app, Unit::Proxy] {
                    host.settle(unit, 2, Desired::Absent(Absent::Remove)).await;
                }
            })
        },
    },
];

/// The agent dies in the middle of the switch from v1 to v2, and is dead for so long.
async fn cut_off(host: &mut Host, away: Duration) {
    host.deploy("v1", 1).await;
    host.prepare("v2", 2).await;
    let web = host.role(&Host::web("v2", 2), None);
    host.offer(&web).await;
    let routes = |s: &dhow_proto::model::status::Status| matches!(&s.phase, Phase::Converging(Some(step)) if step.text.starts_with("route "));
    host.until(&web.unit, routes).await;
    // The version answers after three.
    tokio::time::sleep(Duration::from_secs(1)).await;
    host.fate.die();
    tokio::time::sleep(away).await;
    host.restart().await;
}

/// What the next agent makes of it.
async fn goes_on(host: &mut Host) {
    host.boot_again("v2", 2).await;
    host.finish("v2", 2).await;
}

/// v9 fails, and the rollout's end puts the host back.
async fn fails(host: &mut Host) {
    host.prepare("v9", 2).await;
    let web = host.role(&Host::web("v9", 2), None);
    host.offer(&web).await;
    let failed = |s: &dhow_proto::model::status::Status| {
        s.generation == web.generation && matches!(s.phase, Phase::Failed(_))
    };
    host.until(&web.unit, failed).await;
    host.unlock(2).await;
    host.settle_role(&Host::web("v1", 1)).await;
}

/// The controller gives up in the middle of a switch, and asks the host what became of it.
async fn settles(host: &mut Host) {
    host.prepare("v2", 2).await;
    let web = host.role(&Host::web("v2", 2), None);
    host.offer(&web).await;
    let begun = |s: &dhow_proto::model::status::Status| {
        s.generation == web.generation
            && matches!(s.phase, Phase::Converging(Some(_)) | Phase::Settled)
    };
    host.until(&web.unit, begun).await;
    let mut otherwise = web.generation;
    otherwise.number -= 1;
    let settle = Desired::Settle { attempted: web.generation, otherwise: Some(otherwise) };
    host.settle(web.unit.clone(), 2, settle).await;
    host.unlock(2).await;
}

struct Run {
    /// Number of the first point of the play.
    begin: usize,
    met: Vec<String>,
    snapshot: String,
    running: Vec<String>,
    problems: Vec<String>,
}

fn run(scenario: &Scenario, strikes: &[Strike]) -> Run {
    paused(|| async {
        let mut host = Host::new(strikes).await;
        (scenario.before)(&mut host).await;
        let begin = host.fate.met().len();
        (scenario.play)(&mut host).await;
        let rest = host.rest().await;
        let mut problems = host.fate.violations();
        problems.extend(rest.err());
        Run {
            begin,
            met: host.fate.met(),
            snapshot: host.snapshot().await,
            running: host.running(),
            problems,
        }
    })
}

/// A step, when, and who died: a word each.
type Struck = (String, String, String);

/// What somebody died at, as far as it is a step.
fn struck(run: &Run, strikes: &[Strike]) -> BTreeSet<Struck> {
    let of = |(number, victim): &Strike| {
        let (when, rest) = run.met.get(*number)?.strip_prefix("agent ")?.split_once(' ')?;
        let (kind, _) = rest.split_once(' ')?;
        Some((kind.to_owned(), when.to_owned(), format!("{victim:?}")))
    };
    strikes.iter().filter_map(of).collect()
}

/// What is wrong with a run, and the steps somebody died at in it.
fn judge(scenario: &Scenario, plain: &Run, strikes: &[Strike]) -> (Vec<String>, BTreeSet<Struck>) {
    let run = run(scenario, strikes);
    let mut problems = run.problems.clone();
    let stopped = |(_, v): &Strike| *v == Victim::Engine(Restore::Stopped);
    let mut expected = plain.snapshot.clone();
    let mut found = run.snapshot.clone();
    if strikes.iter().any(stopped) {
        // Without live-restore everything stops with the Engine: that it comes back is what counts. Where the old version
        // did not run when files were prepared, its assets were not carried over; nobody says that a stopped app stops.
        problems.retain(|p| !p.starts_with("nothing serves"));
        for text in [&mut expected, &mut found] {
            let kept =
                text.lines().filter(|l| !l.contains("/assets/volumes/") && !l.starts_with("audit"));
            *text = kept.collect::<Vec<_>>().join("\n");
        }
    }
    if scenario.name.contains("while a host switches") {
        // Which of the two serves is the host's own affair; that it is one of them is not.
        let webs: Vec<&String> = run.running.iter().filter(|n| n.starts_with("shop-web")).collect();
        if webs.len() != 1 {
            problems.push(format!("{webs:?} run"));
        }
    } else if found != expected {
        let only = |a: &str, b: &str, sign: char| -> Vec<String> {
            let there: BTreeSet<&str> = b.lines().collect();
            a.lines().filter(|l| !there.contains(l)).map(|l| format!("{sign} {l}")).collect()
        };
        problems.extend(only(&expected, &found, '-'));
        problems.extend(only(&found, &expected, '+'));
    }
    let at: Vec<String> = strikes
        .iter()
        .map(|(n, victim)| {
            let point = run.met.get(*n).map_or("never reached", String::as_str);
            format!("{victim:?} at {n} ({point})")
        })
        .collect();
    let first = strikes.first().map_or(usize::MAX, |(n, _)| *n);
    if plain.met.get(first) != run.met.get(first) && first < plain.met.len() {
        problems.push("the run differs before anybody died".to_owned());
    }
    let named =
        problems.iter().map(|p| format!("{}: {}: {p}", scenario.name, at.join(", "))).collect();
    (named, struck(&run, strikes))
}

const AGENT: Victim = Victim::Agent;
const ENGINE: Victim = Victim::Engine(Restore::Live);
const BARE_ENGINE: Victim = Victim::Engine(Restore::Stopped);

/// Who dies at a point: each alone at every one; twice somebody at every third, or this would take many minutes.
fn deaths(point: usize, all: bool) -> Vec<Vec<Strike>> {
    let alone = [AGENT, ENGINE, BARE_ENGINE].map(|victim| vec![(point, victim)]);
    // The second death comes sooner or later in what the first made necessary.
    let twice = |first: Victim, later: usize| vec![(point, first), (point + later, AGENT)];
    let twice: Vec<_> = match (all, point % 3, point % 2) {
        (true, ..) => (1..=4).flat_map(|n| [twice(AGENT, n), twice(ENGINE, n)]).collect(),
        (false, 0, 0) => vec![twice(AGENT, 1 + point / 6 % 4)],
        (false, 0, _) => vec![twice(ENGINE, 1 + point / 6 % 4)],
        (false, ..) => Vec::new(),
    };
    alone.into_iter().chain(twice).collect()
}

#[test]
fn whoever_is_killed_at_any_step_or_call_the_end_is_that_of_a_run_without() {
    let all = match std::env::var("DHOW_KILLS").as_deref() {
        Ok("all") => true,
        Ok(other) => panic!("DHOW_KILLS is {other:?}; all there is is \"all\""),
        Err(_) => false,
    };
    let plain: Vec<Run> = SCENARIOS.iter().map(|scenario| run(scenario, &[])).collect();
    let (mut problems, mut struck) = (Vec::new(), BTreeSet::new());
    let mut runs: Vec<(usize, Vec<Strike>)> = Vec::new();
    for (number, run) in plain.iter().enumerate() {
        let name = SCENARIOS[number].name;
        problems.extend(run.problems.iter().map(|p| format!("{name}: nobody dies: {p}")));
        let points = run.begin..run.met.len();
        runs.extend(points.flat_map(|n| deaths(n, all)).map(|strikes| (number, strikes)));
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut problems, mut struck) = (Vec::new(), BTreeSet::new());
        while let Some((number, strikes)) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
            let (more, at) = judge(&SCENARIOS[*number], &plain[*number], strikes);
            problems.extend(more);
            struck.extend(at);
        }
        (problems, struck)
    };
    std::thread::scope(|scope| {
        for thread in [scope.spawn(work), scope.spawn(work)] {
            let (more, at) = thread.join().unwrap();
            problems.extend(more);
            struck.extend(at);
        }
    });
    let count = problems.len();
    let (runs, first) = (runs.len(), problems[..count.min(60)].join("\n"));
    assert_eq!(count, 0, "of {runs} runs:\n{first}");
    println!("{runs} runs");
    let mut missed = Vec::new();
    for kind in StepKind::ALL {
        for when in ["before", "after"] {
            for victim in [AGENT, ENGINE, BARE_ENGINE] {
                let death = (kind.to_string(), when.to_owned(), format!("{victim:?}"));
                if !struck.contains(&death) {
                    missed.push(death);
                }
            }
        }
    }
    assert!(missed.is_empty(), "nobody dies there: {missed:?}");
}
