//! PURE: what a unit goes back to when a rollout does not succeed.
//!
//! In: what the store keeps of a unit, and what its host says. Out: the same with less left open. Always true: an
//! intent counts as settled only where its rollout's gate passed it or the host said so itself.

use std::collections::{BTreeMap, BTreeSet};

use dhow_proto::model::intent::{After, Intent};
use dhow_proto::model::status::{Phase, Status};
use dhow_proto::model::{Generation, HostName, Unit};

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
    /// What a rollout that succeeded wants of a host that was away, under the generation it was said with last: before a
    /// rollout begins that is the unit's newest.
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
            let failed = told.is_some_and(|s| has_failed(s, promised.generation));
            if settled == Some(promised.generation) {
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

/// True where the host says that this generation failed.
pub(crate) fn has_failed(told: &Status, generation: Generation) -> bool {
    told.generation == generation && matches!(told.phase, Phase::Failed(_))
}

/// Which of the promises made to one host cannot come about any more: they wait for something that is `lost` to them, or for
/// another promise that cannot.
pub(crate) fn in_vain(
    promised: &BTreeMap<Unit, Intent>,
    lost: impl Fn(&Intent, &After) -> bool,
) -> BTreeSet<Unit> {
    let mut vain: BTreeSet<Unit> = BTreeSet::new();
    loop {
        let waits = |p: &Intent| p.after.iter().any(|a| vain.contains(&a.unit) || lost(p, a));
        let more = promised.iter().filter(|(unit, p)| !vain.contains(*unit) && waits(p));
        let more: Vec<Unit> = more.map(|(unit, _)| unit.clone()).collect();
        if more.is_empty() {
            return vain;
        }
        vain.extend(more);
    }
}

/// How many promises must come about one after another before that of this unit.
pub(crate) fn depth(promised: &BTreeMap<Unit, Intent>, unit: &Unit) -> usize {
    let mut depth = 0;
    let mut level: BTreeSet<&Unit> = BTreeSet::from([unit]);
    // What is stored is no circle; where it were one, that would end all the same.
    while depth < promised.len() {
        let afters = level.iter().filter_map(|unit| promised.get(*unit)).flat_map(|p| &p.after);
        level = afters.map(|after| &after.unit).collect();
        if level.is_empty() {
            break;
        }
        depth += 1;
    }
    depth
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

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
        // What settled or failed is the rollout's own.
        assert_eq!(back(Some(says(3, failed(), Some(1))), Moment::End("r3")), 2);
        assert_eq!(back(Some(says(3, Phase::Settled, Some(3))), Moment::End("r3")), 2);
        assert_eq!(back(Some(says(3, failed(), Some(2))), Moment::End("r3")), 2);
        // Of a rollout that does not succeed after all.
        assert_eq!(back(None, Moment::End("r2")), 1);
    }

    #[test]
    fn a_promise_is_in_vain_with_all_that_wait_for_it() {
        let role = |name: &str| Unit::Role(crate::rollout::sample::app(), name.parse().unwrap());
        let promise = |name: &str, number: u64, after: &[(&str, u64)]| {
            let after = after.iter();
            let after =
                after.map(|(name, n)| After { unit: role(name), generation: generation(*n) });
            let unit = role(name);
            (unit.clone(), Intent { unit, after: after.collect(), ..intent(number) })
        };
        let promised = BTreeMap::from([
            promise("a", 1, &[]),
            promise("b", 2, &[("a", 1)]),
            promise("c", 3, &[("b", 2)]),
            promise("d", 4, &[("x", 9)]),
        ]);
        let vain = |lost: &str| {
            let vain = in_vain(&promised, |_, after| after.unit == role(lost));
            vain.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(vain("a").len(), 2, "{:?}", vain("a"));
        assert_eq!(vain("x"), [role("d").to_string()]);
        assert_eq!(vain("d"), Vec::<String>::new());
        let depths = ["a", "b", "c"].map(|name| depth(&promised, &role(name)));
        assert_eq!(depths, [0, 1, 2]);
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
