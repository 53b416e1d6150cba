//! Who is killed when: one of each kind of step and stage that the operations came to when nobody was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::rig::Reference;

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
    pub(crate) fn before(program: Program, kind: &str) -> Self {
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
    taken: usize,
}

impl Kinds {
    /// Of the points `WHO before KIND …`.
    fn of(references: &[Reference], who: &str) -> Self {
        let mut often = BTreeMap::new();
        for reference in references {
            let kinds: BTreeSet<&str> =
                reference.points.iter().filter_map(|point| kind(point, who)).collect();
            for kind in kinds {
                *often.entry(kind.to_owned()).or_default() += 1;
            }
        }
        Self { left: often.keys().cloned().collect(), often, taken: 0 }
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
        self.taken += 1;
        Some(Kill { program, when: times[self.taken % times.len()], kind })
    }
}

/// The kind of step or stage of a point that begins with `WHO before`.
fn kind<'a>(point: &'a str, who: &str) -> Option<&'a str> {
    point.strip_prefix(who)?.strip_prefix(" before ")?.split(' ').next()
}

/// Everything that is still to be tried.
#[derive(Debug)]
pub(crate) struct Pending {
    agent: Kinds,
    controller: Kinds,
    client: Kinds,
}

impl Pending {
    pub(crate) fn of(references: &[Reference]) -> Self {
        Self {
            agent: Kinds::of(references, "agent"),
            controller: Kinds::of(references, "controller"),
            client: Kinds::of(references, "controller"),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        [&self.agent, &self.controller, &self.client].iter().all(|kinds| kinds.left.is_empty())
    }

    /// What is tried in an operation: each program dies once at most.
    pub(crate) fn next(&mut self, reference: &Reference, addresses: &[String]) -> Kills {
        let steps = ["before", "after"];
        let stages = ["before", "begun", "after"];
        let mut kills = Vec::new();
        for host in 1..=addresses.len() {
            let agent = Program::Agent(host);
            kills.extend(self.agent.take(reference, agent, &steps, addresses, None));
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
        let (steps, stages, client) =
            (list(&self.agent), list(&self.controller), list(&self.client));
        write!(f, "steps: {steps}; stages: {stages}; stages of a client: {client}")
    }
}
