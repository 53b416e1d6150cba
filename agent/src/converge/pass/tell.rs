//! What a pass tells: statuses on the board, and events.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dhow_proto::model::status::{Failure, Phase, Serving, Status};
use dhow_proto::model::{ImageDigest, Unit};
use dhow_proto::wire::{EventKind, FailureKind};

use super::super::resolve::{ResolveError, Resolved};
use super::super::unit::UnitLoop;
use super::{Next, Outcome};
use crate::execute::ObserveError;
use crate::ledger::Accepted;
use crate::plan::{self, Impossible, Observed};

impl UnitLoop {
    /// Tells of what stands in the way of something that is not a new generation's failure.
    pub(super) fn report_trouble(
        &mut self,
        wanted: &Accepted,
        outcome: Outcome,
        observed: Option<Seen>,
    ) -> Next {
        match outcome {
            Outcome::Agreed | Outcome::Superseded => Next::Again,
            Outcome::Held(held) => {
                let next = self.hold(&held);
                if next != Next::Retry {
                    self.post(wanted, Phase::Held(held), observed.as_ref());
                }
                next
            }
            Outcome::AwaitingSecrets(what) => {
                self.post(wanted, Phase::AwaitingSecrets(what), observed.as_ref());
                Next::Idle
            }
            Outcome::Waiting(Impossible { reason, .. }) | Outcome::Unresolved(reason) => {
                self.post(wanted, Phase::AwaitingCondition(reason), observed.as_ref());
                Next::Wait
            }
            Outcome::Failed(failure) => {
                tracing::warn!(unit = %self.unit, step = %failure.step, reason = %failure.reason, "repair failed; it is tried again");
                let mut status = self.status(wanted, Phase::Converging(None), observed.as_ref());
                status.warnings.push(repair_failed(&failure));
                self.rooms.board.post(status);
                Next::Retry
            }
            Outcome::Interrupted(failure) => {
                tracing::warn!(unit = %self.unit, step = %failure.step, reason = %failure.reason, "the Engine went away during a step; it is looked at again");
                let mut status = self.status(wanted, Phase::Converging(None), observed.as_ref());
                status.warnings.push(format!(
                    "interrupted at `{}`, as the Docker Engine went away: {}",
                    failure.step, failure.reason
                ));
                self.rooms.board.post(status);
                Next::Wait
            }
            Outcome::Unobservable(error) => self.unobservable(wanted, error),
        }
    }

    pub(super) fn unresolved(&mut self, wanted: &Accepted, error: &ResolveError) -> Next {
        self.post(wanted, Phase::AwaitingCondition(error.to_string()), None);
        Next::Wait
    }

    /// Nothing may be concluded: what was said before stays, with a warning.
    pub(super) fn unobservable(&mut self, wanted: &Accepted, error: ObserveError) -> Next {
        let text = crate::session::chain(&error);
        let known = self.rooms.ledger.known(&self.unit);
        if error.is_final()
            && let Some(failed) = known.failed.filter(|f| f.generation == wanted.generation())
        {
            // Nothing was begun, so there is nothing to go back from; failing anew would never end.
            self.post(wanted, Phase::Failed(failed.failure), None);
            return Next::Idle;
        }
        if matches!(error, ObserveError::Unsupported) {
            let failure = Failure::new("plan", FailureKind::Unsupported, text, self.now());
            return self.fail(wanted, failure);
        }
        if matches!(error, ObserveError::Layout(_)) && known.settled.as_ref() != Some(wanted) {
            let failure = Failure::new("observe", FailureKind::Other, text, self.now());
            return self.fail(wanted, failure);
        }
        tracing::warn!(unit = %self.unit, error = %text, "the unit could not be observed");
        self.rooms.board.set_engine_reachable(
            self.rooms.board.engine_reachable() && !matches!(error, ObserveError::Engine(_)),
        );
        let mut status = match self.rooms.board.get(&self.unit) {
            Some(status) if status.generation == wanted.generation() => {
                Arc::unwrap_or_clone(status)
            }
            // Who waits for it is told what for.
            _ => self.status(wanted, Phase::AwaitingCondition(text.clone()), None),
        };
        status.warnings = vec![text];
        self.rooms.board.post(status);
        Next::Wait
    }

    /// The unit is as it should be: what is missing from now on is drift. Tells, where drift was told of, that it is mended.
    pub(super) fn repaired(&mut self) {
        self.goes_back = false;
        if let Some(drift) = self.told.take() {
            let text = format!("{}: repaired, `{drift}` was needed", self.unit);
            self.event(EventKind::Repaired, &text);
        }
    }

    pub(super) fn event(&self, kind: EventKind, text: &str) {
        tracing::info!(unit = %self.unit, "{text}");
        if let Err(error) = self.rooms.events.push(self.now(), Some(&self.unit), kind, text) {
            tracing::error!(%error, "an event could not be kept");
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.rooms.clock.now()
    }

    pub(super) fn post(&self, wanted: &Accepted, phase: Phase, seen: Option<&Seen>) {
        self.rooms.board.post(self.status(wanted, phase, seen));
    }

    pub(super) fn status(&self, wanted: &Accepted, phase: Phase, seen: Option<&Seen>) -> Status {
        let unit: Unit = self.unit.clone();
        let settled = self.rooms.ledger.known(&unit).settled.map(|s| s.generation());
        let before = self.rooms.board.get(&unit);
        let seen = seen.cloned().unwrap_or_else(|| Seen {
            serving: before.as_ref().map(|b| b.serving.clone()).unwrap_or_default(),
            staged_digest: None,
            maintenance: before.as_ref().is_some_and(|b| b.maintenance),
            step_times: Vec::new(),
        });
        // Times of the steps that brought a generation about stay with it.
        let step_times = match before {
            Some(before)
                if seen.step_times.is_empty() && before.generation == wanted.generation() =>
            {
                before.step_times.clone()
            }
            _ => seen.step_times,
        };
        Status {
            unit,
            generation: wanted.generation(),
            phase,
            serving: seen.serving,
            staged_digest: seen.staged_digest,
            observed_at: self.now(),
            settled,
            warnings: Vec::new(),
            maintenance: seen.maintenance,
            step_times,
        }
    }
}

/// A warning for people.
pub(super) fn repair_failed(failure: &Failure) -> String {
    format!("repair failed at `{}`: {}", failure.step, failure.reason)
}

/// What a status tells of an observation.
#[derive(Clone)]
pub(super) struct Seen {
    serving: Vec<Serving>,
    staged_digest: Option<ImageDigest>,
    maintenance: bool,
    step_times: Vec<(String, Duration)>,
}

impl Seen {
    pub(super) fn of(
        resolved: &Resolved,
        observed: &Observed,
        times: &[(String, Duration)],
    ) -> Self {
        Self {
            serving: plan::serving(&resolved.wanted, observed),
            staged_digest: plan::staged_digest(&resolved.wanted, observed),
            maintenance: plan::is_maintenance(&resolved.wanted, observed),
            step_times: times.to_vec(),
        }
    }
}
