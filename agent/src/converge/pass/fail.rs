//! A generation that failed: recorded first, then gone back from.

use dhow_proto::model::status::{Failure, Held, Phase};

use super::super::resolve::{ResolveError, Resolved};
use super::super::unit::UnitLoop;
use super::rounds::Aim;
use super::tell::Seen;
use super::{Next, Outcome};
use crate::ledger::{Accepted, Known};

impl UnitLoop {
    /// Records a failure before anything else, so that no restart tries the generation again.
    pub(super) fn fail(&mut self, wanted: &Accepted, failure: Failure) -> Next {
        self.waiting_since = None;
        self.goes_back = true;
        tracing::warn!(unit = %self.unit, generation = %wanted.generation(), step = %failure.step, reason = %failure.reason, "generation failed");
        match self.rooms.ledger.fail(&self.unit, wanted.generation(), &failure) {
            // Said at once: going back may take long.
            Ok(()) => {
                self.post(wanted, Phase::Failed(failure), None);
                Next::Again
            }
            Err(error) => {
                tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
                self.unrecorded = Some((wanted.generation(), failure));
                Next::Retry
            }
        }
    }

    /// A generation that failed: what it started is stopped, what settled before serves on.
    pub(super) async fn fall_back(&mut self, known: &Known, wanted: &Accepted) -> Next {
        let Some(failed) = known.failed.clone() else { return Next::Idle };
        let phase = || Phase::Failed(failed.failure.clone());
        // After a restart nothing was said yet, and what follows may take long or not come about.
        let told = self.rooms.board.get(&self.unit).is_some_and(|before| {
            before.generation == wanted.generation() && matches!(before.phase, Phase::Failed(_))
        });
        if !told {
            self.post(wanted, phase(), None);
        }
        if let Some(hold) = self.unit.app().and_then(|app| self.rooms.ledger.held(app)) {
            return self.failed_and_held(wanted, phase(), &hold.held, None);
        }
        let settled = match &known.settled {
            Some(settled) => match self.rooms.resolve(&settled.intent).await {
                Ok(resolved) => Some(resolved),
                Err(error) => {
                    tracing::warn!(unit = %self.unit, %error, "what settled before cannot be read");
                    return Next::Wait;
                }
            },
            None => None,
        };
        match self.give_up(wanted, wanted, settled.as_ref(), Some(&phase())).await {
            (Outcome::Agreed, observed) if settled.is_none() => {
                self.post(wanted, phase(), observed.as_ref());
                return Next::Idle;
            }
            (Outcome::Agreed, _) => {}
            (Outcome::Superseded, _) => return Next::Again,
            (Outcome::Unresolved(_), _) => return Next::Wait,
            (Outcome::Unobservable(error), _) => return self.unobservable(wanted, error),
            (Outcome::Held(held), observed) => {
                return self.failed_and_held(wanted, phase(), &held, observed.as_ref());
            }
            (_, observed) => {
                self.post(wanted, phase(), observed.as_ref());
                return Next::Retry;
            }
        }
        let Some(mut settled) = settled else {
            self.post(wanted, phase(), None);
            return Next::Idle;
        };
        settled.wanted = settled.wanted.settled();
        let aim =
            Aim { wanted, resolved: &settled, tells: Some(&phase()), repairs: true, adopts: false };
        match self.rounds(&aim).await {
            (Outcome::Held(held), observed) => {
                self.failed_and_held(wanted, phase(), &held, observed.as_ref())
            }
            (Outcome::Agreed, observed) => {
                self.repaired();
                self.post(wanted, phase(), observed.as_ref());
                Next::Idle
            }
            (Outcome::Superseded, _) => Next::Again,
            (Outcome::Unobservable(error), _) => self.unobservable(wanted, error),
            (_, observed) => {
                self.post(wanted, phase(), observed.as_ref());
                Next::Retry
            }
        }
    }

    /// Stops what `tried` has started, which is not to serve; `settled` is what serves instead, if anything does.
    pub(super) async fn give_up(
        &mut self,
        wanted: &Accepted,
        tried: &Accepted,
        settled: Option<&Resolved>,
        tells: Option<&Phase>,
    ) -> (Outcome, Option<Seen>) {
        let mut given_up = match self.rooms.resolve_begun(&tried.intent) {
            Ok(Some(resolved)) => resolved,
            Err(ResolveError::Later(reason)) => return (Outcome::Unresolved(reason), None),
            // What cannot be understood was never begun either.
            Ok(None) | Err(ResolveError::Never(_)) => return (Outcome::Agreed, None),
        };
        given_up.wanted = given_up.wanted.abandoned(settled.map(|s| &s.wanted));
        let aim = Aim { wanted, resolved: &given_up, tells, repairs: false, adopts: false };
        self.rounds(&aim).await
    }

    /// The generation failed, and the app is on hold: it stays failed, and nothing is changed.
    fn failed_and_held(
        &mut self,
        wanted: &Accepted,
        phase: Phase,
        held: &Held,
        seen: Option<&Seen>,
    ) -> Next {
        let next = self.hold(held);
        if next != Next::Retry {
            let mut status = self.status(wanted, phase, seen);
            status.warnings.push(format!("on hold: {held}"));
            self.rooms.board.post(status);
        }
        next
    }
}
