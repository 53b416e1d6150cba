//! A `settle` intent: what is there decides how a rollout ended on this host.

use dhow_proto::model::Generation;
use dhow_proto::model::status::Phase;

use super::super::resolve::ResolveError;
use super::super::unit::UnitLoop;
use super::{Next, Outcome, Target};
use crate::ledger::{Accepted, Known};
use crate::plan::{self, Chosen, Observed};

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
        let tried =
            known.attempted.iter().chain(&known.settled).find(|a| a.generation() == attempted);
        let mut chosen = plan::settle(None, otherwise, None);
        // Decided before, or settled when it was asked about: what is missing since is drift, not an outcome.
        let decided = known.settled.clone().filter(|s| s.generation() >= attempted);
        let resolved = match tried {
            Some(tried) if decided.is_none() => match self.rooms.resolve(&tried.intent).await {
                Ok(resolved) => Some(resolved),
                // Whether it serves cannot be told yet: nothing may be concluded.
                Err(error @ ResolveError::Later(_)) => return self.unresolved(wanted, &error),
                Err(ResolveError::Never(_)) => None,
            },
            _ => None,
        };
        if let Some(resolved) = resolved {
            match self.rooms.worker.observe(&resolved.wanted, None).await {
                Ok(Observed::Role(observed)) => {
                    chosen = plan::settle(Some(&resolved.wanted), otherwise, Some(&observed));
                }
                Ok(_) => {}
                Err(error) => return self.unobservable(wanted, error),
            }
        }
        let accepted = match chosen {
            _ if decided.is_some() => decided,
            Chosen::Release => return self.release(wanted).await,
            Chosen::Generation(generation) if generation == attempted => tried.cloned(),
            // Only the ledger's own settled intent can be older than the one named; its content is the same.
            Chosen::Generation(_) => known.settled.clone(),
        };
        let Some(accepted) = accepted else { return self.release(wanted).await };
        let target = Target { settled: true, accepted, adopts: false };
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
}
