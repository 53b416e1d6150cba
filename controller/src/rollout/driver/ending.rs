//! A rollout that does not succeed: every host it touched is left with an intent that nothing retries.
//!
//! Always true: doing this twice comes to the same, so a driver that died here is continued by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dhow_proto::model::intent::{Absent, After, Desired, Intent};
use dhow_proto::model::status::Phase;
use dhow_proto::model::{Generation, HostName, Unit, Version};

use super::intents::{At, place, restored};
use super::{Driver, summary};
use crate::claim;
use crate::rollout::book::{Entry, note};
use crate::rollout::fallback::{Kept, Moment, depth, has_failed, in_vain};
use crate::rollout::fence::{DriveError, Write};
use crate::rollout::gate::{Presence, SILENCE};
use crate::rollout::intents::{fact, idle, is_lock_of};
use crate::rollout::record::{FailurePolicy, HostFact, State, key};
use crate::rollout::stages::Gate;
use crate::store::epoch;

/// How long the end waits for Kamal's lock to be freed on its host: longer than a host's silence takes to notice.
const UNLOCKED: Duration = Duration::from_secs(20);

/// How long the end waits for hosts to go back to the version before.
const BACK: Duration = Duration::from_secs(600);

/// What the end of a rollout without success is called where a test stops.
const END: &str = "put-back";

/// Tries before a key that other apps' rollouts also write is given up on.
const TRIES: usize = 8;

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It settled what this rollout wanted.
    Switched,
    /// It did not, or did not begin.
    NotSwitched,
    /// Nobody can say.
    Unknown,
}

/// A unit that this rollout has written.
#[derive(Clone)]
struct Touched {
    /// The newest intent.
    intent: Intent,
    /// What became of it.
    fate: Fate,
    /// As stored.
    found: Kept,
    /// With the host's word.
    kept: Kept,
}

/// What the end has written.
struct Written {
    host: HostName,
    unit: Unit,
    generation: Generation,
    /// Units of the host it comes after.
    after: Vec<Unit>,
}

impl Driver {
    pub(super) async fn end(&mut self) -> Result<(), DriveError> {
        let State::Ending { as_, reason } = self.book.header.state.clone() else { return Ok(()) };
        self.point("before", END).await;
        if !self.book.header.committed {
            self.put_back().await?;
        }
        self.point("after", END).await;
        self.finish(State::Ended { as_, reason }).await
    }

    async fn put_back(&mut self) -> Result<(), DriveError> {
        // Also those that were away: the commit, which did not come about, may have written what they were to catch up with.
        let hosts = self.book.header.hosts.clone();
        self.until_told(&hosts).await?;
        let mut tries = TRIES;
        let written = loop {
            match self.try_put_back(&hosts).await {
                Err(DriveError::Conflict) if tries > 1 => tries -= 1,
                other => break other?,
            }
        };
        self.point("written", END).await;
        let away = |host: &HostName| hosts.iter().any(|h| h.name == *host && h.away);
        let written = written.into_iter().filter(|w| !away(&w.host));
        let (wait, written): (Duration, Vec<Written>) = match self.book.header.policy {
            // Kamal's lock should be gone when the person is told, so that the next command finds none.
            FailurePolicy::Stop => {
                let is_app = |unit: &Unit| matches!(unit, Unit::App(_));
                (UNLOCKED, written.filter(|w| is_app(&w.unit)).collect())
            }
            FailurePolicy::Rollback => (BACK, written.collect()),
        };
        if written.is_empty() {
            return Ok(());
        }
        let after: Vec<&[Unit]> = written.iter().map(|w| w.after.as_slice()).collect();
        let units: Vec<_> =
            written.iter().map(|w| (w.host.clone(), w.unit.clone(), w.generation)).collect();
        let deadline = tokio::time::Instant::now().checked_add(wait);
        let text = match self.wait(Gate::All, &units, &after, deadline).await? {
            Ok(()) => return Ok(()),
            Err(failures) if failures.is_empty() => {
                format!("not confirmed within {} s", wait.as_secs())
            }
            Err(failures) => summary(&failures),
        };
        let header = self.book.header.clone();
        self.book.write(header, Entry::event(note(format!("putting hosts back: {text}")))).await
    }

    /// Waits for hosts that may still say what became of what they were told, as long as silence is borne. A controller that
    /// has just started has heard of nobody: it would leave to them what is not theirs to decide.
    async fn until_told(&self, hosts: &[HostFact]) -> Result<(), DriveError> {
        let deadline = tokio::time::Instant::now() + SILENCE;
        let mut open: Vec<At> = Vec::new();
        for host in hosts.iter().filter(|h| !h.away) {
            if let Presence::Away { .. } = self.presence(&host.name)
                && self.patience(&host.name).is_none()
            {
                continue;
            }
            let (touched, _) = self.touched(host).await?;
            let touched = touched.into_iter().filter(|t| t.kept.base().is_some());
            open.extend(touched.map(|t| (host.name.clone(), t.intent.unit)));
        }
        let mut changes = self.fleet.changes();
        loop {
            changes.mark_unchanged();
            let is_open = |(host, unit): &At| {
                let is_here = matches!(self.presence(host), Presence::Here { .. });
                self.fleet.status(host, unit).is_none()
                    && self.fleet.refusal(host, unit).is_none()
                    && (is_here || self.patience(host).is_some())
            };
            open.retain(is_open);
            let late = tokio::time::Instant::now() >= deadline;
            if open.is_empty() || late {
                return Ok(());
            }
            // Late or changed: it is looked at again.
            let _ = tokio::time::timeout_at(deadline, changes.changed()).await;
        }
    }

    /// Writes what every touched unit should be; the units that were written for, each after those it waits for.
    async fn try_put_back(&mut self, hosts: &[HostFact]) -> Result<Vec<Written>, DriveError> {
        let epoch = epoch::read(self.book.fence().store()).await?;
        let mut writes: Vec<Write> = Vec::new();
        let mut written = Vec::new();
        for host in hosts {
            let (touched, never_here) = self.touched(host).await?;
            let switched =
                touched.iter().any(|t| self.is_new_role(&t.intent) && t.fate == Fate::Switched);
            let released =
                never_here && !switched && touched.iter().all(|t| t.fate != Fate::Unknown);
            let (touched, given_up) = self.without_vain(host, touched, switched).await?;
            writes.extend(given_up);
            // What each unit has after this, for what is to wait for it; none where its host decides.
            let mut now: BTreeMap<Unit, Option<Generation>> = BTreeMap::new();
            for mut unit in touched {
                let Touched { intent, found, .. } = unit.clone();
                let at = &intent.unit;
                let Some(mut next) = self.next(host, &unit, switched)? else {
                    // It keeps what it has: that is what the next rollout falls back to.
                    now.insert(at.clone(), Some(intent.generation));
                    writes.extend(Kept::only(intent.clone()).writes(&found, &host.name, at));
                    continue;
                };
                if let Some(promised) = &unit.kept.promised {
                    // Free of what it waits for it would overtake the pull of its image.
                    let again = |after: &After| {
                        let same = Some(after.generation);
                        let generation = now.get(&after.unit).copied().unwrap_or(same)?;
                        Some(After { unit: after.unit.clone(), generation })
                    };
                    next.after = promised.after.iter().filter_map(again).collect();
                }
                let key = key::intent(&host.name, at);
                let current = self.book.fence().store().get(key).await?;
                let (generation, write) = place(&host.name, next.clone(), current.as_ref(), epoch)?;
                let settles = |desired: &Desired| matches!(desired, Desired::Settle { .. });
                now.insert(at.clone(), Some(generation).filter(|_| !settles(&next.desired)));
                let after = next.after.iter().map(|a| a.unit.clone()).collect();
                if self.stays(&unit, switched) {
                    // But for the lock it settled, with the roles that go with it.
                    unit.kept = Kept::only(next);
                } else if settles(&next.desired) && !settles(&intent.desired) {
                    unit.kept.attempted = Some(intent.clone());
                } else if let Some(promised) = &mut unit.kept.promised {
                    promised.generation = generation;
                    promised.after = next.after;
                }
                writes.extend(unit.kept.writes(&found, &host.name, at));
                writes.extend(write);
                let host = host.name.clone();
                written.push(Written { host, unit: at.clone(), generation, after });
            }
            if let Some((generation, unlocks)) = self.unlocks(&host.name, epoch).await? {
                let unit = Unit::App(self.book.header.app.clone());
                written.push(Written {
                    host: host.name.clone(),
                    unit,
                    generation,
                    after: Vec::new(),
                });
                writes.extend(unlocks);
            }
            if released {
                // The app was never here: what its first, failed rollout claimed is free again.
                let held = claim::read(self.book.fence().store(), &host.name).await?;
                let gone = claim::give_up(&held, &self.book.header.app, &[]);
                writes.extend(gone.into_iter().map(|(compare, op)| (Some(compare), op)));
            }
        }
        self.book.fence().commit_chunked(writes).await?;
        Ok(written)
    }

    /// A rollout inside one of this one's hooks has written the app's intent anew, with this one's lock of Kamal in it: the
    /// same without. None where there is no such intent.
    async fn unlocks(
        &self,
        host: &HostName,
        epoch: u64,
    ) -> Result<Option<(Generation, Vec<Write>)>, DriveError> {
        let header = &self.book.header;
        let unit = Unit::App(header.app.clone());
        let current = self.book.fence().store().get(key::intent(host, &unit)).await?;
        let Some(entry) = current else { return Ok(None) };
        let mut intent = Intent::from_bytes(&entry.value)?;
        let written = intent.generation;
        let Desired::App(app) = &mut intent.desired else { return Ok(None) };
        let is_inner = intent.rollout_id.as_deref() != Some(header.id.as_str());
        if !is_inner || !app.lock.as_ref().is_some_and(|lock| is_lock_of(header, lock)) {
            return Ok(None);
        }
        app.lock = None;
        let (generation, write) = place(host, intent.clone(), Some(&entry), epoch)?;
        let mut writes: Vec<Write> = write.into_iter().collect();
        let next = Intent { generation, ..intent };
        for found in self.kept(&[(host.clone(), unit.clone())]).await? {
            let same = |kept: &Intent| kept.generation == written;
            let mut kept = found.clone();
            for kept in [&mut kept.settled, &mut kept.promised].into_iter().flatten() {
                if same(kept) {
                    *kept = next.clone();
                }
            }
            writes.extend(kept.writes(&found, host, &unit));
        }
        Ok(Some((generation, writes)))
    }

    /// What this rollout has written on a host, and whether the app was never there before.
    async fn touched(&self, host: &HostFact) -> Result<(Vec<Touched>, bool), DriveError> {
        let own = self.own_intents(&self.units_of(std::slice::from_ref(host))?).await?;
        let app = Unit::App(self.book.header.app.clone());
        let at: Vec<_> = std::iter::once(&app)
            .chain(own.iter().map(|(_, intent)| &intent.unit))
            .map(|unit| (host.name.clone(), unit.clone()))
            .collect();
        let mut kept = self.kept(&at).await?.into_iter();
        let never_here = kept.next().is_none_or(|app| app.base().is_none());
        let id = self.book.header.id.as_str();
        let touched = own.into_iter().zip(kept).map(|((_, intent), found)| {
            let told = self.fleet.status(&host.name, &intent.unit);
            let fate = self.fate(&host.name, &intent, &found);
            let mut kept = found.clone().heard(told.as_ref(), Moment::End(id));
            // The same under another number would be tried once more.
            let failed = told.is_some_and(|told| has_failed(&told, intent.generation));
            let again =
                |p: &mut Intent| failed && intent.version().is_some_and(|v| p.version() == Some(v));
            kept.promised.take_if(again);
            Touched { intent, fate, found, kept }
        });
        Ok((touched.collect(), never_here))
    }

    /// What is promised to a host in vain is given up; the rest in an order in which each comes after what it waits for. With
    /// the writes for units that this rollout has not touched.
    async fn without_vain(
        &self,
        host: &HostFact,
        mut touched: Vec<Touched>,
        switched: bool,
    ) -> Result<(Vec<Touched>, Vec<Write>), DriveError> {
        let promised = self.book.fence().store().read_all(key::all_promised(&host.name)).await?;
        if promised.entries.is_empty() {
            return Ok((touched, Vec::new()));
        }
        let on = self.on_host(&host.name).await?;
        let mut promised = on.promised();
        for touched in &touched {
            match &touched.kept.promised {
                Some(kept) => drop(promised.insert(touched.intent.unit.clone(), kept.clone())),
                None => drop(promised.remove(&touched.intent.unit)),
            }
        }
        let back: BTreeMap<&Unit, Option<&Version>> = touched
            .iter()
            .map(|t| {
                let what = if self.stays(t, switched) { Some(&t.intent) } else { t.kept.base() };
                (&t.intent.unit, what.and_then(Intent::version))
            })
            .collect();
        let vain = in_vain(&promised, |waiting, after| {
            let other = |version: &Option<&Version>| *version != waiting.version();
            self.failed_there(&host.name, after, &promised)
                || (after.unit != Unit::Proxy && back.get(&after.unit).is_some_and(other))
        });
        let (own, others): (BTreeSet<&Unit>, BTreeSet<&Unit>) =
            vain.iter().partition(|unit| touched.iter().any(|t| t.intent.unit == **unit));
        let given_up = self.give_up(&on, others).await?;
        for touched in touched.iter_mut().filter(|t| own.contains(&t.intent.unit)) {
            touched.kept.promised = None;
        }
        touched.sort_by_key(|t| depth(&promised, &t.intent.unit));
        Ok((touched, given_up))
    }

    fn goes_back(&self) -> bool {
        self.book.header.policy == FailurePolicy::Rollback
    }

    /// A role's intent of this rollout's own, not one written by its end.
    fn is_new_role(&self, intent: &Intent) -> bool {
        match &intent.desired {
            Desired::Role(role) => role.boot == self.book.header.facts.boot,
            Desired::Proxy(_)
            | Desired::App(_)
            | Desired::Accessory(_)
            | Desired::Agent(_)
            | Desired::Task(_)
            | Desired::Absent(_)
            | Desired::Settle { .. } => false,
        }
    }

    fn fate(&self, host: &HostName, intent: &Intent, kept: &Kept) -> Fate {
        let said = self.fleet.status(host, &intent.unit);
        // One that is just arriving has not told yet what it told before.
        let told = said.is_some() || kept.base().is_none();
        let said = said.filter(|s| s.generation == intent.generation);
        let here = told && matches!(self.presence(host), Presence::Here { .. });
        match said.map(|s| s.phase) {
            Some(Phase::Settled) => Fate::Switched,
            Some(
                Phase::Failed(_)
                | Phase::Held(_)
                | Phase::AwaitingSecrets(_)
                | Phase::Released
                | Phase::Removed,
            ) => Fate::NotSwitched,
            Some(Phase::Pending | Phase::AwaitingCondition(_)) | None if here => Fate::NotSwitched,
            Some(Phase::Pending | Phase::AwaitingCondition(_) | Phase::Converging(_)) | None => {
                Fate::Unknown
            }
        }
    }

    /// True where a unit keeps what this rollout wrote.
    fn stays(&self, unit: &Touched, switched: bool) -> bool {
        if matches!(unit.intent.desired, Desired::Settle { .. } | Desired::Absent(_)) {
            return false;
        }
        match unit.intent.unit {
            // Its roles serve the new version, so its image and files are those.
            Unit::App(_) => switched && !self.goes_back(),
            // Where nothing settled before there is nothing to go back to: what serves is better than nothing.
            Unit::Role(..) if self.goes_back() => {
                unit.fate == Fate::Switched && unit.kept.base().is_none()
            }
            _ => unit.fate == Fate::Switched,
        }
    }

    /// What to write for a unit; none where it keeps what it has.
    fn next(
        &self,
        host: &HostFact,
        unit: &Touched,
        switched: bool,
    ) -> Result<Option<Intent>, DriveError> {
        let header = &self.book.header;
        let id = header.id.as_str();
        let (intent, kept) = (&unit.intent, &unit.kept);
        let base = kept.base();
        if matches!(intent.desired, Desired::Settle { .. } | Desired::Absent(_)) {
            // Written by this very end, before a restart. What stays is written again as it is.
            return Ok(Some(intent.clone()));
        }
        let stays = self.stays(unit, switched);
        if let Unit::App(_) = &intent.unit {
            let mut next = match base {
                _ if stays => intent.clone(),
                Some(base) => restored(base, id),
                None => {
                    let host = fact(header, &host.name)?;
                    let desired = Desired::App(idle(&self.book.spec, host));
                    Intent { desired, after: Vec::new(), ..intent.clone() }
                }
            };
            if let Desired::App(app) = &mut next.desired {
                // The outer rollout's lock stays its own.
                let outer = header.joined.as_ref().and_then(|j| j.kamal.as_ref());
                if outer.is_none_or(|k| k.host != host.name) {
                    app.lock = None;
                } else if let Desired::App(current) = &intent.desired {
                    app.lock.clone_from(&current.lock);
                }
            }
            return Ok(Some(next));
        }
        match (unit.fate, base) {
            _ if stays => Ok(None),
            (Fate::Switched | Fate::NotSwitched, Some(base)) => Ok(Some(restored(base, id))),
            // Between what it tried and what it was never told of there is nothing that it could choose by itself.
            (Fate::Unknown, Some(base)) if kept.promised.is_some() => Ok(Some(restored(base, id))),
            // One that switched stays.
            (Fate::Switched | Fate::NotSwitched, None) => {
                let desired = Desired::Absent(Absent::Release);
                Ok(Some(Intent { desired, after: Vec::new(), ..intent.clone() }))
            }
            (Fate::Unknown, base) => {
                let desired = Desired::Settle {
                    attempted: intent.generation,
                    otherwise: base.map(|base| base.generation),
                };
                Ok(Some(Intent { desired, after: Vec::new(), ..intent.clone() }))
            }
        }
    }
}
