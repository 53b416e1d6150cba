//! What hosts that were away have still to catch up with, and what of it is given up.
//!
//! Always true: what is promised of a unit waits only for what can still come about, or is itself given up; a unit whose
//! promise is given up is told to be what it was.

use std::collections::{BTreeMap, BTreeSet};

use dhow_proto::model::intent::{Absent, After, Desired, Intent};
use dhow_proto::model::status::Phase;
use dhow_proto::model::{HostName, Unit};

use super::Driver;
use super::intents::{At, place, restored};
use crate::rollout::book::{Entry, note};
use crate::rollout::fallback::{Kept, Moment, depth, has_failed, in_vain};
use crate::rollout::fence::{DriveError, Write};
use crate::rollout::record::key;
use crate::store::{self, epoch};

/// The app's units on one host, as stored.
pub(super) struct OnHost {
    host: HostName,
    /// As found, and with the host's word of what was before this rollout.
    kept: BTreeMap<Unit, (Kept, Kept)>,
    newest: BTreeMap<Unit, (store::Entry, Intent)>,
}

impl OnHost {
    /// What is promised to the host and, as far as was heard, has neither come about nor failed there.
    pub(super) fn promised(&self) -> BTreeMap<Unit, Intent> {
        let kept = self.kept.iter().map(|(unit, (_, heard))| (unit, &heard.promised));
        kept.filter_map(|(unit, promised)| Some((unit.clone(), promised.clone()?))).collect()
    }

    /// True where `unit` has since been told something else that is no help to what waits for it.
    fn is_overwritten(&self, waiting: &Intent, after: &After) -> bool {
        self.newest.get(&after.unit).is_some_and(|(_, newest)| {
            newest.generation != after.generation && newest.version() != waiting.version()
        })
    }

    fn is_of(&self, unit: &Unit, rollout_id: &str) -> bool {
        let newest = self.newest.get(unit);
        newest.is_some_and(|(_, newest)| newest.rollout_id.as_deref() == Some(rollout_id))
    }
}

impl Driver {
    /// What is stored of the app's units on a host, those that have left its config among them.
    pub(super) async fn on_host(&self, host: &HostName) -> Result<OnHost, DriveError> {
        let mut units: BTreeSet<Unit> = self.units_of_app().into_iter().collect();
        for entry in self.book.fence().store().read_all(key::all_promised(host)).await?.entries {
            if key::host_of_promise(&entry.key, &self.book.header.app).is_some() {
                units.insert(Intent::from_bytes(&entry.value)?.unit);
            }
        }
        let at: Vec<At> = units.into_iter().map(|unit| (host.clone(), unit)).collect();
        let keys: Vec<_> = at.iter().map(|(host, unit)| key::intent(host, unit)).collect();
        let mut newest = BTreeMap::new();
        for ((_, unit), entry) in at.iter().zip(self.book.fence().read(&keys).await?) {
            let Some(entry) = entry else { continue };
            let intent = Intent::from_bytes(&entry.value)?;
            newest.insert(unit.clone(), (entry, intent));
        }
        let kept = at.iter().zip(self.kept(&at).await?).map(|((host, unit), found)| {
            let told = self.fleet.status(host, unit);
            let heard = found.clone().heard(told.as_ref(), Moment::Begin);
            (unit.clone(), (found, heard))
        });
        let kept = kept.collect();
        Ok(OnHost { host: host.clone(), kept, newest })
    }

    /// Those of the hosts that the app has promised something to.
    pub(super) async fn promised_to(
        &self,
        hosts: BTreeSet<&HostName>,
    ) -> Result<BTreeSet<HostName>, DriveError> {
        // Few, of however many hosts: one look at all of them instead of one a host.
        let mut promised_to = BTreeSet::new();
        for entry in self.book.fence().store().read_all(key::promises()).await?.entries {
            let host = key::host_of_promise(&entry.key, &self.book.header.app);
            promised_to.extend(host.filter(|host| hosts.contains(host)));
        }
        Ok(promised_to)
    }

    /// The app's shared part and its roles; kamal-proxy, which is not the app's alone, waits for nothing.
    fn units_of_app(&self) -> Vec<Unit> {
        let app = &self.book.header.app;
        let roles = self.book.spec.roles.iter().map(|r| Unit::Role(app.clone(), r.name.clone()));
        std::iter::once(Unit::App(app.clone())).chain(roles).collect()
    }

    /// True where the host says that what is waited for has failed there: as it was said first or, where that was said again
    /// under a newer generation and is promised no longer, as it was said last.
    pub(super) fn failed_there(
        &self,
        host: &HostName,
        after: &After,
        promised: &BTreeMap<Unit, Intent>,
    ) -> bool {
        let Some(told) = self.fleet.status(host, &after.unit) else { return false };
        let said_again = told.generation > after.generation && !promised.contains_key(&after.unit);
        let settled = told.settled.is_some_and(|settled| settled >= after.generation);
        has_failed(&told, after.generation)
            || (said_again && !settled && has_failed(&told, told.generation))
    }

    /// Where the rollout succeeded: gives up what hosts are promised of roles that it is not about, and what waits for what it
    /// has overwritten; with a line for people.
    pub(super) async fn give_up_overwritten(&mut self) -> Result<(), DriveError> {
        let header = self.book.header.clone();
        let id = header.id.as_str();
        let mut entry = Entry::default();
        for host in self.promised_to(header.hosts.iter().map(|h| &h.name).collect()).await? {
            let on = self.on_host(&host).await?;
            let mut promised = on.promised();
            // What a run of this that was cut short has written is not what the rollout is about.
            let is_about = |unit: &Unit| match unit {
                Unit::Role(_, role) => on.is_of(unit, id) && header.roles.contains(role),
                _ => true,
            };
            promised.retain(|unit, p| !is_about(unit) && !self.has_begun(&host, unit, p));
            let vain = in_vain(&promised, |waiting, after| {
                self.failed_there(&host, after, &promised) || on.is_overwritten(waiting, after)
            });
            for unit in &vain {
                let missed = promised.get(unit).and_then(Intent::version);
                let missed = missed.map_or_else(String::new, ToString::to_string);
                entry
                    .events
                    .push(note(format!("{host}: {unit} no longer catches up with {missed}")));
            }
            entry.writes.extend(self.give_up(&on, &vain).await?);
        }
        if entry.writes.is_empty() { Ok(()) } else { self.book.write(header, entry).await }
    }

    /// True where what is promised is at work on its host, or over.
    fn has_begun(&self, host: &HostName, unit: &Unit, promise: &Intent) -> bool {
        self.fleet.status(host, unit).is_some_and(|told| {
            told.generation == promise.generation
                && !matches!(told.phase, Phase::Pending | Phase::AwaitingCondition(_))
        })
    }

    /// Writes that take promises back, and have what still waits be what it was. Repeated after any part of them they come
    /// to the same.
    pub(super) async fn give_up(
        &self,
        on: &OnHost,
        units: impl IntoIterator<Item = &Unit>,
    ) -> Result<Vec<Write>, DriveError> {
        let epoch = epoch::read(self.book.fence().store()).await?;
        let promised = on.promised();
        let mut units: Vec<&Unit> = units.into_iter().collect();
        // Where only a part is written, what is left is still seen to wait for it.
        units.sort_by_key(|unit| std::cmp::Reverse(depth(&promised, unit)));
        let mut writes = Vec::new();
        for unit in units {
            let Some((found, heard)) = on.kept.get(unit) else { continue };
            let Some(promised) = heard.promised.clone() else { continue };
            let mut kept = Kept { promised: None, ..heard.clone() };
            let attempts = |desired: &Desired| matches!(desired, Desired::Settle { attempted, .. } if *attempted == promised.generation);
            let mut now = on.newest.get(unit).map(|(_, newest)| newest.clone());
            if let Some((entry, newest)) = on.newest.get(unit)
                && newest.generation == promised.generation
            {
                let back = self.instead(&on.host, &promised, &kept);
                writes.extend(place(&on.host, back.clone(), Some(entry), epoch)?.1);
                now = Some(back);
            }
            if now.is_some_and(|now| attempts(&now.desired)) {
                // As this rollout's own: its end, where it is begun again, leaves that to the next one.
                let rollout_id = Some(self.book.header.id.to_string());
                kept.attempted = Some(Intent { rollout_id, ..promised });
            }
            writes.extend(kept.writes(found, &on.host, unit));
        }
        Ok(writes)
    }

    /// What a unit is to be whose promise is given up. A host that is away, or has not told of it, knows better what came
    /// about.
    fn instead(&self, host: &HostName, promised: &Intent, kept: &Kept) -> Intent {
        let id = self.book.header.id.as_str();
        let told = self.fleet.status(host, &promised.unit).is_some();
        let tells = told && self.fleet.online(host).is_some();
        let desired = match (kept.base(), tells) {
            (Some(base), true) => return restored(base, id),
            (None, true) => Desired::Absent(Absent::Release),
            (base, false) => Desired::Settle {
                attempted: promised.generation,
                otherwise: base.map(|base| base.generation),
            },
        };
        restored(&Intent { desired, ..promised.clone() }, id)
    }
}
