//! PURE: whether a stage may go on, from what its hosts say.
//!
//! In: the units waited for with the generation written for each, and what is known of their hosts. Out: go on, wait for
//! these, or fail with every host's reason. Always true: a stage fails only when no host is still at work, so that the
//! others finish first, as with Kamal.

use std::fmt;
use std::time::Duration;

use dhow_proto::model::status::{Failure, Phase, StepProgress};
use dhow_proto::model::{Generation, HostName, Unit};
use dhow_proto::wire::FailureKind;

use super::stages::Gate;

/// A host away for so long is silent. Presence ends after at most 12 s without a message, and a person is told within
/// 15 s; a restart of an agent takes less, and so does an agent that waits before it dials a controller again (10 s at most).
pub const SILENCE: Duration = Duration::from_secs(14);

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has a session.
    Here {
        /// What its agent understands.
        features: Vec<String>,
    },
    /// It has none.
    Away {
        /// For so long.
        since: Duration,
    },
}

/// A unit waited for, and what is known of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Enrolled name of the host.
    pub host: HostName,
    /// The unit.
    pub unit: Unit,
    /// What was written.
    pub generation: Generation,
    /// What an agent needs to carry it out.
    pub features: Vec<String>,
    /// Units of the host it comes after.
    pub after: Vec<Unit>,
    /// Of the host.
    pub presence: Presence,
    /// What the host last said of the unit.
    pub phase: Option<(Generation, Phase)>,
    /// What the host refused, and why.
    pub refusal: Option<(Generation, String)>,
}

/// What a unit is waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitFor {
    /// The host.
    pub host: HostName,
    /// The unit.
    pub unit: Unit,
    /// What it does.
    pub doing: Doing,
}

/// What a unit that is waited for does.
#[derive(Clone, Debug, PartialEq)]
pub enum Doing {
    /// The host has not said anything of the intent.
    NotTold,
    /// It is at work.
    Working(Option<StepProgress>),
    /// A condition on the host does not hold yet.
    Condition(String),
    /// The host is away, but not for long enough to give up.
    Away(Duration),
}

/// `web-1: role shop/web: pull image`.
impl fmt::Display for WaitFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.host, self.unit)?;
        match &self.doing {
            Doing::NotTold => f.write_str("not begun"),
            Doing::Working(None) => f.write_str("at work"),
            Doing::Working(Some(step)) => f.write_str(&step.text),
            Doing::Condition(what) => f.write_str(what),
            Doing::Away(since) => write!(f, "no word for {} s", since.as_secs()),
        }
    }
}

/// A unit that did not settle.
#[derive(Clone, Debug, PartialEq)]
pub struct HostFailure {
    /// The host.
    pub host: HostName,
    /// The unit.
    pub unit: Unit,
    /// Why.
    pub why: Why,
}

/// Why a unit did not settle.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// The agent says so.
    Failed(Failure),
    /// In a sentence, with the kind for programs.
    Said(FailureKind, String),
    /// No word for too long: whether it settled is unknown.
    Silent(Duration),
}

impl Why {
    /// The reason in a sentence.
    pub fn reason(&self) -> String {
        match self {
            Self::Failed(failure) => failure.reason.clone(),
            Self::Said(_, text) => text.clone(),
            Self::Silent(since) => format!("no word from the host for {} s", since.as_secs()),
        }
    }
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Go on.
    Advance,
    /// Not yet.
    Wait {
        /// For these.
        on: Vec<WaitFor>,
        /// Look again after so long, even if nothing is heard.
        look_again: Option<Duration>,
        /// Those that failed already, while others are still at work.
        failed: Vec<HostFailure>,
    },
    /// At least one, and nothing is at work any more.
    Fail(Vec<HostFailure>),
}

/// What one unit's state means.
enum Outcome {
    Settled,
    Waiting(Doing),
    Failed(Why),
}

fn outcome(seen: &Seen) -> Outcome {
    let said = |kind, text: String| Outcome::Failed(Why::Said(kind, text));
    if let Presence::Here { features } = &seen.presence {
        let lacks: Vec<&str> =
            seen.features.iter().filter(|f| !features.contains(f)).map(String::as_str).collect();
        if !lacks.is_empty() {
            let text = format!("agent too old: it lacks {}", lacks.join(", "));
            return said(FailureKind::Unsupported, text);
        }
    }
    // What is the host's own and no app's, kamal-proxy, is written by the rollouts of all its apps, for all of them.
    let shared = seen.unit.app().is_none();
    let is_about = |generation: Generation| match shared {
        true => generation >= seen.generation,
        false => generation == seen.generation,
    };
    // Of what is shared an older or a newer one may have come about all the same.
    let told = seen.phase.as_ref().map(|(generation, _)| *generation);
    if let Some((generation, reason)) = &seen.refusal
        && is_about(*generation)
        && (!shared || told.is_none_or(|told| told < *generation))
    {
        return said(FailureKind::Other, format!("the agent refused the intent: {reason}"));
    }
    let phase = seen.phase.as_ref().filter(|(generation, _)| *generation >= seen.generation);
    let doing = match phase {
        Some((generation, _)) if !is_about(*generation) => {
            return said(FailureKind::Other, "another rollout changed the unit".to_owned());
        }
        // What settled stays settled, also while the host is away.
        Some((_, Phase::Settled)) => return Outcome::Settled,
        Some((_, Phase::Failed(failure))) => return Outcome::Failed(Why::Failed(failure.clone())),
        Some((_, Phase::Held(held))) => {
            return said(FailureKind::Locked, format!("on hold: {held}"));
        }
        Some((_, Phase::AwaitingSecrets(what))) => {
            let text = format!("awaiting secrets: {what}");
            return said(FailureKind::Secrets, text);
        }
        // Only the end of a rollout asks for that.
        Some((generation, Phase::Released)) if *generation == seen.generation => {
            return Outcome::Settled;
        }
        Some((_, Phase::Released)) => {
            return said(FailureKind::Other, "the unit was released on the host".to_owned());
        }
        Some((_, Phase::Removed)) => {
            return said(FailureKind::Other, "the unit was removed on the host".to_owned());
        }
        Some((_, Phase::Converging(step))) => Doing::Working(step.clone()),
        Some((_, Phase::AwaitingCondition(what))) => Doing::Condition(what.clone()),
        Some((_, Phase::Pending)) | None => Doing::NotTold,
    };
    match seen.presence {
        Presence::Away { since } if since >= SILENCE => Outcome::Failed(Why::Silent(since)),
        Presence::Away { since } => Outcome::Waiting(Doing::Away(since)),
        Presence::Here { .. } => Outcome::Waiting(doing),
    }
}

/// Decides. `seen` is in the order the units were written: what a unit comes after stands before it.
pub fn verdict(gate: Gate, seen: &[Seen]) -> Verdict {
    let mut settled = 0;
    let mut on = Vec::new();
    let mut failed: Vec<HostFailure> = Vec::new();
    // Units that will never begin, as one they come after failed: neither waited for nor named.
    let mut halted: Vec<(&HostName, &Unit)> = Vec::new();
    for unit in seen {
        let stuck = |other: &Unit| {
            failed.iter().any(|f| f.host == unit.host && f.unit == *other)
                || halted.iter().any(|(host, halted)| **host == unit.host && *halted == other)
        };
        let behind = unit.after.iter().any(stuck);
        match outcome(unit) {
            Outcome::Settled => settled += 1,
            Outcome::Failed(_) if behind => halted.push((&unit.host, &unit.unit)),
            Outcome::Failed(why) => {
                let (host, unit) = (unit.host.clone(), unit.unit.clone());
                failed.push(HostFailure { host, unit, why });
            }
            Outcome::Waiting(_) if behind => halted.push((&unit.host, &unit.unit)),
            Outcome::Waiting(doing) => {
                on.push(WaitFor { host: unit.host.clone(), unit: unit.unit.clone(), doing });
            }
        }
    }
    let needed = match gate {
        Gate::All => seen.len(),
        Gate::Any => 1.min(seen.len()),
        Gate::Count(n) => n.min(seen.len()),
    };
    if failed.is_empty() && settled >= needed {
        return Verdict::Advance;
    }
    if on.is_empty() {
        return Verdict::Fail(failed);
    }
    let away = on.iter().filter_map(|w| match w.doing {
        Doing::Away(since) => Some(SILENCE.saturating_sub(since)),
        Doing::NotTold | Doing::Working(_) | Doing::Condition(_) => None,
    });
    let look_again = away.min();
    Verdict::Wait { on, look_again, failed }
}

#[cfg(test)]
mod tests;
