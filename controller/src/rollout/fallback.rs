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
    /// What a rollout that did not succeed tried, with an outcome that was unknown when it ended.
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
        if let Some(promised) = self.promised.take() {
            let failed = told.is_some_and(|s| {
                s.generation >= promised.generation && matches!(s.phase, Phase::Failed(_))
            });
            if settled.is_some_and(|g| g >= promised.generation) {
                self.settled = Some(promised);
            } else if moment != Moment::Begin || !failed {
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
