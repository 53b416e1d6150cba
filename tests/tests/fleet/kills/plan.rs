//! Who is killed when: one of each kind of step and stage that the operations came to when nobody was. Which kinds those are
//! is said here: a program that no longer says where it is, or an operation that no longer comes to a kind, fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Result, ensure};
use dhow_agent::plan::StepKind;
use dhow_controller::rollout::stages::StageKind;

use super::rig::Reference;

/// Steps that the operations do not come to, and why. On the model Engine somebody is killed at each of them. They come to
/// every stage.
const STEPS_ELSEWHERE: [(StepKind, &str); 11] = [
    (StepKind::Connect, "no app may join a second network; these hosts lose none"),
    (StepKind::Unpause, "nobody pauses a container"),
    (StepKind::AwaitDeploys, "only after a death, where a switch was under way"),
    (StepKind::AwaitDrain, "only after a death, where nobody saw a switch return"),
    (StepKind::WriteCertificate, "the app has no certificate of its own"),
    (StepKind::StopProxy, "neither a deploy nor a rollback stops what serves"),
    (StepKind::StopTraffic, "maintenance"),
    (StepKind::ResumeTraffic, "maintenance"),
    (StepKind::RemoveRoute, "removal"),
    (StepKind::RemoveAppFiles, "removal"),
    (StepKind::RemoveEnv, "removal"),
];

/// What is killed, with -9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// Of the host of this number; started again as a service manager does.
    Agent(usize),
    /// Of the host of this number; started again.
    Engine(usize),
    /// Started again.
    Controller,
    /// A person attaches to what it left.
    Client,
}

/// One death.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) program: Program,
    /// `before`, `after`, `begun`.
    when: &'static str,
    /// A kind of step or stage.
    kind: String,
}

impl Kill {
    fn before(program: Program, kind: &str) -> Self {
        Self { program, when: "before", kind: kind.to_owned() }
    }

    /// Whether a point is the one; `addresses` are the hosts'.
    pub(crate) fn is_at(&self, addresses: &[String]) -> impl Fn(&str) -> bool + Send + use<> {
        let (who, on) = match self.program {
            Program::Agent(host) | Program::Engine(host) => {
                ("agent", format!(" on {}", addresses[host - 1]))
            }
            Program::Controller | Program::Client => ("controller", String::new()),
        };
        let begins = format!("{who} {} {} ", self.when, self.kind);
        move |point| point.starts_with(&begins) && point.ends_with(&on)
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.program, self.when, self.kind)
    }
}

/// The deaths of one operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kills(pub(crate) Vec<Kill>);

impl Kills {
    /// Whether the Engine of the host of this number is among them.
    pub(crate) fn engine(&self, host: usize) -> bool {
        self.0.iter().any(|kill| kill.program == Program::Engine(host))
    }
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills: Vec<String> = self.0.iter().map(Kill::to_string).collect();
        f.write_str(&kills.join(", "))
    }
}

/// Kinds of steps or stages that nobody was killed at yet.
#[derive(Debug)]
struct Kinds {
    left: BTreeSet<String>,
    /// In how many operations each one comes.
    often: BTreeMap<String, usize>,
    /// Whose turn it is among the times: from the seed on, so that with six of them everybody dies at each time.
    turn: usize,
}

impl Kinds {
    /// Of the points `WHO before KIND …`; `all` are the words that there are, but for those that come `elsewhere`.
    fn of(
        references: &[&Reference],
        who: &str,
        all: &[&str],
        elsewhere: &[&str],
        turn: usize,
    ) -> Result<Self> {
        let mut often = BTreeMap::new();
        for reference in references {
            let kinds: BTreeSet<&str> =
                reference.points.iter().filter_map(|point| kind(point, who)).collect();
            for kind in kinds {
                *often.entry(kind.to_owned()).or_default() += 1;
            }
        }
        let left: BTreeSet<String> = often.keys().cloned().collect();
        let come = all.iter().filter(|kind| !elsewhere.contains(kind));
        let come: BTreeSet<String> = come.map(|kind| (*kind).to_owned()).collect();
        let (missing, more): (Vec<_>, Vec<_>) =
            (come.difference(&left).collect(), left.difference(&come).collect());
        ensure!(
            missing.is_empty() && more.is_empty(),
            "the {who} came to none of {missing:?}, and it was not to come to {more:?}"
        );
        Ok(Self { left, often, turn })
    }

    fn of_steps(references: &[&Reference], turn: usize) -> Result<Self> {
        let all: Vec<&str> = StepKind::ALL.iter().map(|kind| kind.as_str()).collect();
        Self::of(references, "agent", &all, &STEPS_ELSEWHERE.map(|(kind, _)| kind.as_str()), turn)
    }

    fn of_stages(references: &[&Reference], turn: usize) -> Result<Self> {
        let all: Vec<&str> = StageKind::ALL.iter().map(|kind| kind.as_str()).collect();
        Self::of(references, "controller", &all, &[], turn)
    }

    /// Whether an operation comes to any that is left.
    fn is_left_in(&self, reference: &Reference, who: &str) -> bool {
        reference.points.iter().filter_map(|p| kind(p, who)).any(|kind| self.left.contains(kind))
    }

    /// The one to be killed at in this operation, rare ones first, and one of these times.
    fn take(
        &mut self,
        reference: &Reference,
        program: Program,
        times: &[&'static str],
        addresses: &[String],
        but: Option<&str>,
    ) -> Option<Kill> {
        let comes = |kind: &&String| {
            let is_at = Kill::before(program, kind).is_at(addresses);
            but != Some(kind.as_str()) && reference.points.iter().any(|point| is_at(point))
        };
        let kind = self.left.iter().filter(comes).min_by_key(|kind| self.often[*kind])?.clone();
        self.left.remove(&kind);
        self.turn += 1;
        Some(Kill { program, when: times[self.turn % times.len()], kind })
    }
}

/// `DHOW_KILLS_SEED`; the same for everybody where it is not set.
fn seed() -> usize {
    std::env::var("DHOW_KILLS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_default()
}

/// The kind of step or stage of a point that begins with `WHO before`.
fn kind<'a>(point: &'a str, who: &str) -> Option<&'a str> {
    point.strip_prefix(who)?.strip_prefix(" before ")?.split(' ').next()
}

/// Everything that is still to be tried.
#[derive(Debug)]
pub(crate) struct Pending {
    seed: usize,
    agent: Kinds,
    engine: Kinds,
    controller: Kinds,
    client: Kinds,
}

impl Pending {
    /// What the operations come to.
    ///
    /// # Errors
    ///
    /// Where that is not one of each kind there is.
    pub(crate) fn of(references: &[&Reference]) -> Result<Self> {
        let seed = seed();
        Ok(Self {
            seed,
            agent: Kinds::of_steps(references, seed)?,
            engine: Kinds::of_steps(references, seed)?,
            controller: Kinds::of_stages(references, seed)?,
            client: Kinds::of_stages(references, seed)?,
        })
    }

    /// Whether an operation comes to anything that is still to be tried.
    pub(crate) fn is_left_in(&self, reference: &Reference) -> bool {
        let steps = [&self.agent, &self.engine];
        let stages = [&self.controller, &self.client];
        steps.iter().any(|kinds| kinds.is_left_in(reference, "agent"))
            || stages.iter().any(|kinds| kinds.is_left_in(reference, "controller"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        let kinds = [&self.agent, &self.engine, &self.controller, &self.client];
        kinds.iter().all(|kinds| kinds.left.is_empty())
    }

    /// What is tried in an operation: each program dies once at most.
    pub(crate) fn next(&mut self, reference: &Reference, addresses: &[String]) -> Kills {
        let steps = ["before", "after"];
        let stages = ["before", "begun", "after"];
        let mut kills = Vec::new();
        for host in 1..=addresses.len() {
            let agent = self.agent.take(reference, Program::Agent(host), &steps, addresses, None);
            // A host whose Engine dies is held to less, so not where its agent is to lose no request. And who dies after a
            // step does not come to it again, so the other one would wait for it in vain.
            if !reference.serves || agent.is_none() {
                let but = agent.as_ref().map(|kill| kill.kind.as_str());
                let engine = Program::Engine(host);
                kills.extend(self.engine.take(reference, engine, &steps, addresses, but));
            }
            kills.extend(agent);
        }
        let controller =
            self.controller.take(reference, Program::Controller, &stages, addresses, None);
        let but = controller.as_ref().map(|kill| kill.kind.clone());
        // A client in whose hook nobody was killed: `begun` is before it is asked.
        let client =
            self.client.take(reference, Program::Client, &stages, addresses, but.as_deref());
        kills.extend(controller);
        kills.extend(client);
        Kills(kills)
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |kinds: &Kinds| kinds.left.iter().cloned().collect::<Vec<_>>().join(" ");
        let (steps, engine) = (list(&self.agent), list(&self.engine));
        let (stages, client) = (list(&self.controller), list(&self.client));
        write!(
            f,
            "DHOW_KILLS_SEED={}; steps: {steps}; steps of an Engine: {engine}; stages: {stages}; \
             stages of a client: {client}",
            self.seed
        )
    }
}
