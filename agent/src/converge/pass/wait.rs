//! A generation that comes after something else on its host: what it waits for, and what is done meanwhile.

use dhow_proto::model::intent::{After, Intent};
use dhow_proto::model::status::Phase;
use tokio::time::Instant;

use super::super::unit::{RESYNC, UnitLoop};
use super::tell::repair_failed;
use super::{Next, Outcome, Target};
use crate::ledger::{Accepted, Known};
use crate::plan::{self, Observed};

/// The ledger's mark of a generation whose conditions were met.
const BEGUN: &str = "begun";

impl UnitLoop {
    /// The first condition that does not hold, for people.
    pub(super) fn missing_condition(&self, intent: &Intent) -> Option<String> {
        let missing = |after: &&After| match self.rooms.ledger.known(&after.unit).settled {
            None => true,
            Some(settled) if settled.generation() == after.generation => false,
            // A role that went back to another version has not proved the one that this waits for, and the image of a later
            // rollout is not the one that this needs.
            Some(settled) => {
                settled.generation() < after.generation
                    || matches!(
                        (intent.version(), settled.intent.version()),
                        (Some(ours), Some(theirs)) if ours != theirs
                    )
            }
        };
        intent.after.iter().find(missing).map(|after| {
            format!("{} must settle generation {} first", after.unit, after.generation)
        })
    }

    /// True where the conditions of this generation were met once. Begun, it goes on: beside what it has put up by then nothing
    /// could look after what settled before.
    pub(super) fn has_begun(&self, known: &Known, wanted: &Accepted) -> bool {
        known.marks.get(BEGUN) == Some(&wanted.generation().to_string())
    }

    /// The conditions of this generation are met.
    pub(super) fn begin(&self, wanted: &Accepted) -> std::io::Result<()> {
        self.rooms.ledger.mark(&self.unit, BEGUN, &wanted.generation().to_string())
    }

    /// Until a condition is met what settled before is what should be here: it is looked after, but for the first minute,
    /// in which a rollout is usually done with it, and but for what a generation in between has put in its place.
    pub(super) async fn wait_for(
        &mut self,
        known: &Known,
        wanted: &Accepted,
        missing: String,
    ) -> Next {
        let phase = Phase::AwaitingCondition(missing);
        let told = self.rooms.board.get(&self.unit);
        if told.is_none_or(|t| t.generation != wanted.generation() || t.phase != phase) {
            self.post(wanted, phase.clone(), None);
        }
        let since = match self.behind_since {
            Some((of, since)) if of == wanted.generation() => since,
            _ => self.behind_since.insert((wanted.generation(), Instant::now())).1,
        };
        let on_hold = self.unit.app().is_some_and(|app| self.rooms.ledger.held(app).is_some());
        let Some(settled) = known.settled.clone().filter(|_| since.elapsed() >= RESYNC && !on_hold)
        else {
            return Next::Idle;
        };
        if !self.is_alone(&settled).await {
            return Next::Idle;
        }
        let tells = Some(phase.clone());
        let target = Target { accepted: settled, settled: true, adopts: false, tells };
        match self.bring_about(wanted, &target).await {
            (Outcome::Agreed, observed) => {
                self.repaired();
                self.post(wanted, phase, observed.as_ref());
                Next::Idle
            }
            (Outcome::Superseded, _) => Next::Again,
            // Whether another deployer's doings are respected is for the generation that waits to say: its rollout may adopt.
            (Outcome::Held(_) | Outcome::AwaitingSecrets(_), _) => Next::Idle,
            (Outcome::Failed(failure), observed) => {
                let mut status = self.status(wanted, phase, observed.as_ref());
                status.warnings.push(repair_failed(&failure));
                self.rooms.board.post(status);
                Next::Retry
            }
            (_, observed) => {
                self.post(wanted, phase, observed.as_ref());
                Next::Wait
            }
        }
    }

    /// True where nothing runs in the unit's place but what this intent wants.
    async fn is_alone(&self, settled: &Accepted) -> bool {
        let Ok(Some(resolved)) = self.rooms.resolve_begun(&settled.intent) else { return false };
        match self.rooms.worker.observe(&resolved.wanted, None).await {
            Ok(Observed::Role(observed)) => plan::is_alone(&resolved.wanted, &observed),
            Ok(Observed::App(_) | Observed::Proxy(_)) => true,
            Err(_) => false,
        }
    }
}
