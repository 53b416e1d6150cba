//! A `settle` intent: what is there decides how a rollout ended on this host.

use dhow_proto::model::Generation;
use dhow_proto::model::status::Phase;

use super::super::resolve::ResolveError;
use super::super::unit::UnitLoop;
use super::{Next, Outcome, Target};
use crate::ledger::{Accepted, Known};
use crate::plan::{self, Observed};

impl UnitLoop {
    /// A `settle` intent: the attempted generation where it serves, else the one before.
    pub(super) async fn settle(
        &mut self,
        known: &Known,
        wanted: &Accepted,
        attempted: Generation,
        otherwise: Option<Generation>,
    ) -> Next {
        // It ends a rollout: it begins none, so it forgives nothing that happened meanwhile.
        if let Some(next) = self.held(wanted).await {
            return next;
        }
        // Decided before, or settled when it was asked about: what is missing since is drift, not an outcome.
        let mut serves = known.settled.clone().filter(|s| s.generation() >= attempted);
        let tried = known.attempted.clone().filter(|a| a.generation() == attempted);
        if let Some(tried) = tried.filter(|_| serves.is_none()) {
            match self.has_come_to_serve(known, wanted, &tried).await {
                Err(next) => return next,
                Ok(true) => serves = Some(tried),
                Ok(false) => {
                    if let Err(next) = self.give_up_attempt(known, wanted, &tried).await {
                        return next;
                    }
                }
            }
        }
        // What this host settled last, whichever that is: of the one named it may not have heard, or have settled a newer.
        let before = otherwise.and_then(|_| known.settled.clone());
        let Some(accepted) = serves.or(before) else { return self.let_go(wanted).await };
        let target = Target { settled: true, accepted, adopts: false, tells: None };
        let (outcome, observed) = self.bring_about(wanted, &target).await;
        match outcome {
            Outcome::Agreed => {
                if self.rooms.ledger.settle(&target.accepted).is_err() {
                    return Next::Retry;
                }
                self.repaired();
                self.post(wanted, Phase::Settled, observed.as_ref());
                Next::Idle
            }
            Outcome::Superseded => Next::Again,
            other => self.report_trouble(wanted, other, observed),
        }
    }

    /// Whether what was tried serves; or what to do while that cannot be told.
    async fn has_come_to_serve(
        &mut self,
        known: &Known,
        wanted: &Accepted,
        tried: &Accepted,
    ) -> Result<bool, Next> {
        if known.has_failed(tried.generation()) {
            return Ok(false);
        }
        let resolved = match self.rooms.resolve_begun(&tried.intent) {
            Ok(Some(resolved)) => resolved,
            Err(error @ ResolveError::Later(_)) => return Err(self.unresolved(wanted, &error)),
            Ok(None) | Err(ResolveError::Never(_)) => return Ok(false),
        };
        match self.rooms.worker.observe(&resolved.wanted, None).await {
            Ok(Observed::Role(observed)) => plan::has_come_to_serve(&resolved.wanted, &observed)
                .map_err(|why| self.report_trouble(wanted, Outcome::Waiting(why), None)),
            // What else there is settles by itself: nothing of it replaces anything.
            Ok(_) => Ok(false),
            Err(error) if error.is_final() => Ok(false),
            Err(error) => Err(self.unobservable(wanted, error)),
        }
    }

    /// Stops what a rollout that has ended began on this host and what does not serve.
    pub(super) async fn give_up_attempt(
        &mut self,
        known: &Known,
        wanted: &Accepted,
        tried: &Accepted,
    ) -> Result<(), Next> {
        let settled = match &known.settled {
            Some(settled) => match self.rooms.resolve(&settled.intent).await {
                Ok(resolved) => Some(resolved),
                Err(error) => return Err(self.unresolved(wanted, &error)),
            },
            None => None,
        };
        match self.give_up(wanted, tried, settled.as_ref(), None).await {
            (Outcome::Agreed, _) => Ok(()),
            // Where nothing can be looked at, nothing was begun.
            (Outcome::Unobservable(error), _) if error.is_final() => Ok(()),
            (Outcome::Superseded, _) => Err(Next::Again),
            (other, observed) => Err(self.report_trouble(wanted, other, observed)),
        }
    }
}
