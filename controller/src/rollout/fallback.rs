//! PURE: what a unit goes back to when a rollout does not succeed.
//!
//! In: what the store keeps of a unit, and what its host says. Out: the same with less left open. Always true: an
//! intent counts as settled only where its rollout's gate passed it or the host said so itself.

use dhow_proto::model::intent::Intent;
use dhow_proto::model::status::{Phase, Status};
use dhow_proto::model::{HostName, Unit};

use super::fence::Write;
use super::record::key;
use crate::store::{Key, Op};

/// What the store keeps of a unit besides its newest intent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    /// What settled last, as far as was heard.
    pub settled: Option<Intent>,
    /// What a rollout tried, or promised before the last one did, with an outcome that was unknown when it ended.
    pub attempted: Option<Intent>,
    /// What a rollout that succeeded wants of a host that was away.
    pub promised: Option<Intent>,
}

/// When a host's word is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment<'a> {
    /// The rollout has written nothing for the unit yet: the status speaks of what was before.
    Begin,
    /// The rollout of this id is over: the status may speak of what it wrote.
    End(&'a str),
}

impl Kept {
    /// Where to read it.
    pub(super) fn keys(host: &HostName, unit: &Unit) -> [Key; 3] {
        [key::settled(host, unit), key::attempted(host, unit), key::promised(host, unit)]
    }

    /// Of a unit that settled this, with nothing open.
    pub(super) fn only(settled: Intent) -> Self {
        Self { settled: Some(settled), ..Self::default() }
    }

    /// What the unit goes back to.
    pub(super) fn base(&self) -> Option<&Intent> {
        self.promised.as_ref().or(self.settled.as_ref())
    }

    /// What is left open once the host's status is taken into account.
    pub(super) fn heard(mut self, told: Option<&Status>, moment: Moment<'_>) -> Self {
        let settled = told.and_then(|s| s.settled);
        let is_own =
            |a: &Intent| matches!(moment, Moment::End(id) if a.rollout_id.as_deref() == Some(id));
        if let Some(attempted) = self.attempted.take_if(|a| !is_own(a)) {
            // A status of something newer that settled says that this did not.
            let decided = told.is_some_and(|s| {
                s.generation > attempted.generation && matches!(s.phase, Phase::Settled)
            });
            if settled == Some(attempted.generation) {
                self.settled = Some(attempted);
            } else if moment == Moment::Begin && !decided {
                self.attempted = Some(attempted);
            }
        }
        // The rollout's own was made by a commit that did not come about.
        if let Some(promised) = self.promised.take().filter(|p| !is_own(p)) {
            // At the end a newer one that failed is the rollout's own.
            let speaks = |s: &Status| match moment {
                Moment::Begin => s.generation >= promised.generation,
                Moment::End(_) => s.generation == promised.generation,
            };
            let failed = told.is_some_and(|s| speaks(s) && matches!(s.phase, Phase::Failed(_)));
            if settled.is_some_and(|g| g >= promised.generation) {
                self.settled = Some(promised);
            } else if !failed {
                self.promised = Some(promised);
            }
        }
        self
    }

    /// The writes that make `self` of what was `found`.
    pub(super) fn writes(&self, found: &Self, host: &HostName, unit: &Unit) -> Vec<Write> {
        let [settled, attempted, promised] = Self::keys(host, unit);
        let pairs = [
            (settled, &found.settled, &self.settled),
            (attempted, &found.attempted, &self.attempted),
            (promised, &found.promised, &self.promised),
        ];
        let changed = pairs.into_iter().filter(|(_, old, new)| old != new);
        changed
            .map(|(key, _, new)| match new {
                Some(intent) => (None, Op::put(key, intent.to_bytes())),
                None => (None, Op::delete(key)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use dhow_proto::model::Generation;
    use dhow_proto::model::intent::{Absent, Desired, HostPart};
    use dhow_proto::model::status::Failure;
    use dhow_proto::wire::FailureKind;

    use super::*;

    fn generation(number: u64) -> Generation {
        Generation { epoch: 0, number }
    }

    fn intent(number: u64) -> Intent {
        Intent {
            unit: Unit::Proxy,
            generation: generation(number),
            features: Vec::new(),
            rollout_id: Some(format!("r{number}")),
            after: Vec::new(),
            host: HostPart {
                config_host: HostName::try_from("h1").unwrap(),
                ssh_user: None,
                run_directory: None,
            },
            desired: Desired::Absent(Absent::Release),
        }
    }

    fn says(number: u64, phase: Phase, settled: Option<u64>) -> Status {
        Status {
            unit: Unit::Proxy,
            generation: generation(number),
            phase,
            serving: Vec::new(),
            staged_digest: None,
            observed_at: SystemTime::UNIX_EPOCH,
            settled: settled.map(generation),
            warnings: Vec::new(),
            maintenance: false,
            step_times: Vec::new(),
        }
    }

    fn failed() -> Phase {
        let kind = FailureKind::Exited;
        Phase::Failed(Failure::new("start", kind, "exited", SystemTime::UNIX_EPOCH))
    }

    /// The generation gone back to, of a unit that settled 1, is promised 2, and whose host says this.
    fn back(told: Option<Status>, moment: Moment<'_>) -> u64 {
        let kept = Kept { promised: Some(intent(2)), ..Kept::only(intent(1)) };
        kept.heard(told.as_ref(), moment).base().unwrap().generation.number
    }

    #[test]
    fn what_is_promised_counts_until_its_host_says_that_it_failed() {
        for moment in [Moment::Begin, Moment::End("r3")] {
            assert_eq!(back(None, moment), 2);
            assert_eq!(back(Some(says(1, Phase::Settled, Some(1))), moment), 2);
            assert_eq!(back(Some(says(2, Phase::Settled, Some(2))), moment), 2);
            assert_eq!(back(Some(says(2, failed(), Some(1))), moment), 1);
        }
        // What failed is the rollout's own, at its end; before its begin it is the promise that was said again.
        assert_eq!(back(Some(says(3, failed(), Some(1))), Moment::End("r3")), 2);
        assert_eq!(back(Some(says(3, failed(), Some(1))), Moment::Begin), 1);
        assert_eq!(back(Some(says(3, failed(), Some(2))), Moment::Begin), 2);
        // Of a rollout that does not succeed after all.
        assert_eq!(back(None, Moment::End("r2")), 1);
    }

    #[test]
    fn what_was_tried_counts_where_its_host_settled_it_and_nowhere_else() {
        let back = |told: Option<Status>, moment| {
            let kept = Kept { attempted: Some(intent(2)), ..Kept::only(intent(1)) };
            let heard = kept.heard(told.as_ref(), moment);
            (heard.base().unwrap().generation.number, heard.attempted.is_some())
        };
        let settle = |settled| Some(says(3, Phase::Settled, Some(settled)));
        assert_eq!(back(settle(2), Moment::Begin), (2, false));
        assert_eq!(back(settle(1), Moment::Begin), (1, false));
        assert_eq!(back(None, Moment::Begin), (1, true), "nobody knows yet");
        assert_eq!(back(None, Moment::End("r2")), (1, true), "its own attempt");
        assert_eq!(back(settle(2), Moment::End("r4")), (2, false));
    }
}
