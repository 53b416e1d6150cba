//! Decides what to do: the pure function from what is wanted and what is observed to steps.
//!
//! In: [`Wanted`] and [`Observed`]. Out: a [`Plan`]. Always true: same input, same plan; an equal state gives
//! an empty plan; at every prefix of a plan whatever served before it still serves, until its successor does;
//! no step holds a secret.

use dhow_proto::model::Unit;
use dhow_proto::model::intent::{Absent, Desired};
use dhow_proto::model::status::Held;
use dhow_proto::wire::FailureKind;

mod app;
mod current;
mod hold;
mod observed;
mod proxy;
mod remove;
mod role;
mod serving;
mod settle;
mod step;
mod wanted;

pub(crate) use app::asks_routes;
pub use current::{Live, live};
pub use hold::hold;
pub use observed::{
    AppFiles, Foreign, LockView, Observed, ObservedApp, ObservedProxy, ObservedRole, ProxyView,
    Routes, Switch,
};
pub(crate) use proxy::{asks_proxy, boot_image};
#[cfg(test)]
pub(crate) use serving::intent_label;
pub(crate) use serving::version_of;
pub use serving::{is_maintenance, serving, staged_digest};
pub use settle::{has_come_to_serve, is_alone};
pub use step::{ContainerRef, Mark, Step, StepKind, leaves_engine, most_telling, tells_routes};
pub use wanted::{Bundle, Bundles, Mode, Wanted, WantedError};

/// What is to be done about a unit.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// In this order; empty: the observed state agrees with what is wanted.
    Steps(Vec<Step>),
    /// Another deployer is at work: change nothing.
    Held(Held),
    /// It cannot be done; nothing was changed. As final as a failed step.
    Impossible(Impossible),
    /// A bundle that a step needs cannot be opened here; in a sentence.
    AwaitingSecrets(String),
    /// Something outside the unit must come first and is expected to; look again on the next event. Where a
    /// new generation waits for longer than a minute, treat it as [`Plan::Impossible`].
    Waiting(Impossible),
}

/// Why something cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// For programs.
    pub kind: FailureKind,
    /// One sentence.
    pub reason: String,
}

impl Impossible {
    fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

impl Plan {
    /// True where nothing is left to do.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Steps(steps) if steps.is_empty())
    }

    fn impossible(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self::Impossible(Impossible::new(kind, reason))
    }
}

/// Lists the steps from `observed` to `wanted`.
///
/// `observed` is what [`crate::execute::Worker::observe`] gave for the same unit.
pub fn plan(wanted: &Wanted, observed: &Observed) -> Plan {
    match (&wanted.intent.desired, observed) {
        (Desired::Absent(Absent::Release), _) => Plan::Steps(Vec::new()),
        (Desired::Settle { .. }, _) => Plan::impossible(
            FailureKind::Other,
            "which generation to settle was not decided before planning",
        ),
        (Desired::Absent(Absent::Remove), observed) => remove::plan(wanted, observed),
        (Desired::Proxy(intent), Observed::Proxy(observed)) => {
            proxy::plan(wanted, intent, observed)
        }
        (Desired::App(intent), Observed::App(observed)) => app::plan(wanted, intent, observed),
        (Desired::Role(intent), Observed::Role(observed)) => role::plan(wanted, intent, observed),
        (
            Desired::Proxy(_)
            | Desired::App(_)
            | Desired::Role(_)
            | Desired::Accessory(_)
            | Desired::Agent(_)
            | Desired::Task(_),
            _,
        ) => unsupported(&wanted.intent.unit),
    }
}

fn unsupported(unit: &Unit) -> Plan {
    Plan::impossible(
        FailureKind::Unsupported,
        format!("this agent does not carry out {unit} in this form yet"),
    )
}

/// As people read it: one step a line.
impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Steps(steps) if steps.is_empty() => f.write_str("nothing to do"),
            Self::Steps(steps) => {
                for (i, step) in steps.iter().enumerate() {
                    if i > 0 {
                        f.write_str("\n")?;
                    }
                    write!(f, "{step}")?;
                }
                Ok(())
            }
            Self::Held(held) => write!(f, "held: {held}"),
            Self::Impossible(why) => write!(f, "impossible: {}", why.reason),
            Self::AwaitingSecrets(why) => write!(f, "awaiting secrets: {why}"),
            Self::Waiting(why) => write!(f, "waiting: {}", why.reason),
        }
    }
}
