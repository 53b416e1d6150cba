//! A death: who, in which play, at which point; as text, so that one can be asked for again.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use dhow_agent::engine::fake::Restore;
use dhow_agent::plan::StepKind;
use dhow_controller::rollout::stages::StageKind;

use super::fate::{Death, Point};
use super::plays::HOSTS;
use crate::scenario::Fault;

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The agent of a host.
    Agent(usize),
    /// Its Engine, whose containers run on.
    Engine(usize),
    /// Its Engine, which stops them all when it comes back.
    BareEngine(usize),
    /// The controller.
    Controller,
    /// The client.
    Client,
}

/// A [`Victim`], wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as the victims")]
pub enum Program {
    Agent,
    Engine,
    BareEngine,
    Controller,
    Client,
}

impl Program {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Agent, Self::Engine, Self::BareEngine, Self::Controller, Self::Client];
}

impl Victim {
    /// What it is.
    pub fn program(self) -> Program {
        match self {
            Self::Agent(_) => Program::Agent,
            Self::Engine(_) => Program::Engine,
            Self::BareEngine(_) => Program::BareEngine,
            Self::Controller => Program::Controller,
            Self::Client => Program::Client,
        }
    }

    /// Everybody who can die at a point: of what is on hosts, that of the host whose step it is, or of each host.
    pub fn at(label: &str) -> Vec<Self> {
        let own = (0..HOSTS).filter(|host| label.ends_with(&format!(" on h{host}")));
        let own: Vec<usize> = own.collect();
        let hosts = if own.is_empty() { (0..HOSTS).collect() } else { own };
        let of_host = |host| [Self::Agent(host), Self::Engine(host), Self::BareEngine(host)];
        hosts.into_iter().flat_map(of_host).chain([Self::Controller, Self::Client]).collect()
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(host) => write!(f, "agent-{host}"),
            Self::Engine(host) => write!(f, "engine-{host}"),
            Self::BareEngine(host) => write!(f, "bare-engine-{host}"),
            Self::Controller => f.write_str("controller"),
            Self::Client => f.write_str("client"),
        }
    }
}

impl FromStr for Victim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::at("").into_iter();
        all.into_iter().find(|v| v.to_string() == text).ok_or(format!("nobody is {text:?}"))
    }
}

/// Somebody's death at a point of a play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Index in [`super::PLAYS`].
    pub play: usize,
    /// Who.
    pub victim: Victim,
    /// The point as the program says it.
    pub label: String,
    /// When it is met for this time, from 1.
    pub times: usize,
}

impl Kill {
    pub(crate) fn point(&self) -> Point {
        (self.label.clone(), self.times)
    }

    /// With what is started again after a service manager's or a person's time.
    pub(crate) fn death(&self) -> Death {
        let lasts = Duration::from_secs(1);
        let fault = match self.victim {
            Victim::Agent(host) => Fault::Agent { host, power: false, lasts },
            Victim::Engine(host) => {
                Fault::Engine { host, restore: Restore::Live, lasts: 3 * lasts }
            }
            Victim::BareEngine(host) => {
                Fault::Engine { host, restore: Restore::Stopped, lasts: 3 * lasts }
            }
            Victim::Controller => Fault::Controller { lasts },
            Victim::Client => Fault::Client { person: 0, lasts: 3 * lasts },
        };
        Death { fault, late: Duration::ZERO }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.play, self.victim, self.times, self.label)
    }
}

impl FromStr for Kill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [play, victim, times, label] = text.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            return Err(format!("{text:?} is not: play, victim, times, point"));
        };
        let number = |text: &str| text.parse::<usize>().map_err(|e| format!("{text:?}: {e}"));
        Ok(Self {
            play: number(play)?,
            victim: victim.parse()?,
            label: label.to_owned(),
            times: number(times)?,
        })
    }
}

/// What happens at a point and when: `agent before stop`, `controller after boot`, `client ran pre-deploy`.
pub fn what(label: &str) -> &str {
    let end = [" of ", " on h"].iter().filter_map(|word| label.find(word)).min();
    &label[..end.unwrap_or(label.len())]
}

/// Steps that no rollout brings about, and why.
const NO_STEPS: [(StepKind, &str); 7] = [
    (StepKind::StopProxy, "rollouts do not reboot or remove the proxy yet"),
    (StepKind::Unpause, "nobody pauses containers here"),
    (StepKind::StopTraffic, "rollouts do not begin maintenance yet"),
    (StepKind::ResumeTraffic, "nor end it"),
    (StepKind::RemoveRoute, "rollouts do not remove apps yet"),
    (StepKind::RemoveAppFiles, "the same"),
    (StepKind::RemoveEnv, "the same"),
];

/// Every point somebody has to be killed at, as [`what`] says it. What is not among them is killed at on a host alone:
/// `agent/src/converge/tests/kills.rs`.
pub fn kinds() -> BTreeSet<String> {
    let steps = StepKind::ALL.iter().filter(|kind| !NO_STEPS.iter().any(|(no, _)| no == *kind));
    let steps = steps.flat_map(|kind| ["before", "after"].map(|at| format!("agent {at} {kind}")));
    let stages = StageKind::ALL
        .iter()
        .flat_map(|kind| ["before", "begun", "after"].map(|at| format!("controller {at} {kind}")));
    let end = ["before", "written", "after"].map(|at| format!("controller {at} put-back"));
    let hooks = StageKind::ALL.iter().filter(|kind| kind.is_hook());
    let hooks = hooks.flat_map(|hook| ["is to run", "ran"].map(|at| format!("client {at} {hook}")));
    steps.chain(stages).chain(end).chain(hooks).collect()
}
