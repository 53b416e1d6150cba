//! Another deployer is respected: holds, their end, and the locks that are waited for.

use dhow_proto::model::intent::Desired;
use dhow_proto::model::status::{Held, Phase};
use dhow_proto::model::{App, Unit};
use dhow_proto::wire::EventKind;

use super::super::resolve::{ResolveError, Resolved};
use super::super::unit::UnitLoop;
use super::Next;
use crate::execute::ObserveError;
use crate::ledger::{Accepted, Known};
use crate::plan::{self, Observed};

/// The mark that says which generation has adopted what was there.
const ADOPTED: &str = "adopted";

impl UnitLoop {
    /// An app on hold, which only a newer rollout ends.
    pub(super) async fn held(&mut self, wanted: &Accepted) -> Option<Next> {
        let app = self.unit.app()?.clone();
        if let Some(hold) = self.rooms.ledger.held(&app) {
            if !hold.adopted_by(&wanted.intent) {
                return Some(self.still_held(wanted, &app, hold.held).await);
            }
            // What is there is adopted before the hold ends: the app's other units would find it foreign, and the new
            // hold would be one that this rollout cannot end.
            match self.rooms.resolve(&wanted.intent).await {
                Ok(resolved) => {
                    if let Err(error) = self.rooms.worker.adopt(&app, &resolved.wanted).await {
                        return Some(self.unobservable(wanted, error));
                    }
                }
                Err(error @ ResolveError::Later(_)) => {
                    return Some(self.unresolved(wanted, &error));
                }
                Err(ResolveError::Never(_)) => return None,
            }
            if self.rooms.ledger.adopt(&app).is_err() {
                return Some(Next::Retry);
            }
            self.event(EventKind::Adopted, &format!("{app}: adopted by a rollout"));
        }
        None
    }

    /// True until a generation of a rollout has been looked at once: what is foreign then is adopted, what becomes so
    /// later is another deployer's doing.
    pub(super) fn adopts(&self, known: &Known, wanted: &Accepted) -> bool {
        let generation = wanted.generation();
        self.unit.app().is_some()
            && wanted.intent.rollout_id.is_some()
            && self.looked_at != Some(generation)
            && known.marks.get(ADOPTED) != Some(&generation.to_string())
    }

    /// Observes; at the first look of a generation what is foreign is adopted, and all is looked at again. `before` is what
    /// was seen before steps that all succeeded. None where something newer is wanted meanwhile.
    pub(super) async fn look(
        &mut self,
        wanted: &Accepted,
        resolved: &Resolved,
        adopts: bool,
        before: Option<&Observed>,
    ) -> Result<Option<Observed>, ObserveError> {
        let worker = self.rooms.worker.clone();
        let Some(mut observed) = self.observe(wanted, resolved, before).await? else {
            return Ok(None);
        };
        if adopts {
            if let Some(app) = self.unit.app()
                && plan::hold(observed.foreign()).is_some()
            {
                worker.adopt(app, &resolved.wanted).await?;
                let generation = wanted.generation().to_string();
                if let Err(error) = self.rooms.ledger.mark(&self.unit, ADOPTED, &generation) {
                    // An agent that starts again adopts once more.
                    tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
                }
                observed = worker.observe(&resolved.wanted, None).await?;
            }
            self.looked_at = Some(wanted.generation());
        }
        Ok(Some(observed))
    }

    async fn observe(
        &mut self,
        wanted: &Accepted,
        resolved: &Resolved,
        before: Option<&Observed>,
    ) -> Result<Option<Observed>, ObserveError> {
        // Something happened in the Engine since.
        let before = match before {
            Some(Observed::App(_)) if self.was_woken() => None,
            before => before,
        };
        // What was heard of by now is seen by this look.
        self.note_woken();
        let mut changes = self.rooms.ledger.changes();
        let newer = async {
            loop {
                changes.mark_unchanged();
                let known = self.rooms.ledger.known(&self.unit);
                // A ledger that is gone tells of nothing newer.
                if known.wanted.as_ref() != Some(wanted) || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            observed = self.rooms.worker.observe(&resolved.wanted, before) => observed.map(Some),
            // Drop-safe: a look changes nothing on the host.
            () = newer => Ok(None),
        }
    }

    /// On hold, for the newest reason: a lock goes with the command that held it, what that did stays.
    async fn still_held(&mut self, wanted: &Accepted, app: &App, first: Held) -> Next {
        let mut held = first;
        if let Ok(resolved) = self.rooms.resolve(&wanted.intent).await
            && let Ok(observed) = self.rooms.worker.observe(&resolved.wanted, None).await
            && let Some(now) = plan::hold(observed.foreign())
        {
            if self.rooms.ledger.hold(app, now.clone()).is_err() {
                return Next::Retry;
            }
            held = now;
        }
        // No event tells of the end of a lock.
        let next = match held {
            Held::ForeignLock(_) => Next::Wait,
            Held::AuditLine(_)
            | Held::ForeignContainer(_)
            | Held::Local(_)
            | Held::StoppedTraffic(_) => Next::Idle,
        };
        self.post(wanted, Phase::Held(held), None);
        next
    }

    /// Records that the app is on hold, and what to do after that. A lock that a rollout waits for ends with the wait: that
    /// would be a hold which the rollout itself could not end.
    pub(super) fn hold(&self, held: &Held) -> Next {
        let Some(app) = self.unit.app().cloned() else { return Next::Idle };
        if matches!(held, Held::ForeignLock(_)) && self.lock_is_awaited(&app) {
            return Next::Wait;
        }
        if self.rooms.ledger.held(&app).is_none() {
            self.event(EventKind::Held, &format!("{app}: on hold, {held}"));
        }
        match self.rooms.ledger.hold(&app, held.clone()) {
            Ok(()) => Next::Idle,
            Err(_) => Next::Retry,
        }
    }

    fn lock_is_awaited(&self, app: &App) -> bool {
        let known = self.rooms.ledger.known(&Unit::App(app.clone()));
        known.wanted.is_some_and(|wanted| match &wanted.intent.desired {
            Desired::App(app) => app.lock.as_ref().is_some_and(|lock| lock.wait.is_some()),
            _ => false,
        })
    }
}
