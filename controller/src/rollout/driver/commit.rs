//! The version is the app's: what settled is recorded, absent hosts get their intents, the app is free.

use dhow_proto::model::intent::{Desired, Intent};
use dhow_proto::model::{HostName, Unit};
use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;

use super::intents::At;
use super::{Driver, Went};
use crate::claim;
use crate::rollout::book::{Entry, note, plan_of};
use crate::rollout::fallback::Kept;
use crate::rollout::fence::{DriveError, Write};
use crate::rollout::intents::fact;
use crate::rollout::record::{
    AppRecord, Header, HostFact, LockRecord, RolloutId, State, from_json, key, to_json,
};
use crate::rollout::stages::catch_up;
use crate::store::{Compare, Op};

impl Driver {
    pub(super) async fn commit(&mut self, keep_lock: bool) -> Result<Went, DriveError> {
        let here: Vec<HostFact> =
            self.book.header.hosts.iter().filter(|h| !h.away).cloned().collect();
        let touched = self.units_of(&here)?;
        let mut settled = self.settled(&touched).await?;
        self.give_up_claims(&here).await?;
        self.leave_intents_for_the_absent().await?;
        settled.extend(self.promised().await?);
        self.give_up_overwritten().await?;
        let mut writes = Vec::new();
        match settled.len() <= FEW {
            true => writes.extend(settled),
            false => self.book.fence().commit_chunked(settled).await?,
        }
        writes.push(self.app_record().await?);
        if !keep_lock {
            writes.extend(self.unlock().await?);
        }
        let mut header = self.book.header.clone();
        header.committed = true;
        Ok(Went::Done(Box::new(header), writes))
    }

    /// Every unit this rollout may have written on these hosts.
    pub(super) fn units_of(&self, hosts: &[HostFact]) -> Result<Vec<At>, DriveError> {
        let app = &self.book.header.app;
        let mut units = Vec::new();
        for host in hosts {
            units.push((host.name.clone(), Unit::Proxy));
            units.push((host.name.clone(), Unit::App(app.clone())));
            for role in self.roles_on(&host.name)? {
                units.push((host.name.clone(), Unit::Role(app.clone(), role)));
            }
        }
        Ok(units)
    }

    /// The newest intents of these units that this rollout wrote.
    pub(super) async fn own_intents(
        &self,
        units: &[At],
    ) -> Result<Vec<(HostName, Intent)>, DriveError> {
        let keys: Vec<_> = units.iter().map(|(host, unit)| key::intent(host, unit)).collect();
        let mut own = Vec::new();
        for ((host, _), entry) in units.iter().zip(self.book.fence().read(&keys).await?) {
            let Some(entry) = entry else { continue };
            let intent = Intent::from_bytes(&entry.value)?;
            if intent.rollout_id.as_deref() == Some(self.book.header.id.as_str()) {
                own.push((host.clone(), intent));
            }
        }
        Ok(own)
    }

    /// Gates let all of these pass, so they settled, also where the host is not heard of now.
    async fn settled(&self, units: &[At]) -> Result<Vec<Write>, DriveError> {
        self.keep(units, |_, intent| Kept::only(intent)).await
    }

    /// The rollout succeeded, so what the absent ones have missed is what they go back to, though they do not know it yet.
    async fn promised(&self) -> Result<Vec<Write>, DriveError> {
        let away: Vec<HostFact> =
            self.book.header.hosts.iter().filter(|h| h.away).cloned().collect();
        let promise = |found: Kept, intent: Intent| {
            // The host may have kept an earlier promise that nobody heard of.
            let earlier = found.promised.filter(|p| p.rollout_id != intent.rollout_id);
            Kept {
                settled: found.settled,
                attempted: earlier.or(found.attempted),
                promised: Some(intent),
            }
        };
        self.keep(&self.units_of(&away)?, promise).await
    }

    /// What is to be kept of the units that this rollout has written, of what is kept now and the newest intent.
    async fn keep(
        &self,
        units: &[At],
        kept: impl Fn(Kept, Intent) -> Kept,
    ) -> Result<Vec<Write>, DriveError> {
        let own = self.own_intents(units).await?;
        let at: Vec<At> = own.iter().map(|(host, i)| (host.clone(), i.unit.clone())).collect();
        let mut writes = Vec::new();
        for ((host, intent), found) in own.into_iter().zip(self.kept(&at).await?) {
            let unit = intent.unit.clone();
            writes.extend(kept(found.clone(), intent).writes(&found, &host, &unit));
        }
        Ok(writes)
    }

    /// What is kept of these units.
    pub(super) async fn kept(&self, units: &[At]) -> Result<Vec<Kept>, DriveError> {
        let keys: Vec<_> = units.iter().flat_map(|(host, unit)| Kept::keys(host, unit)).collect();
        let found = self.book.fence().read(&keys).await?;
        let kept = found.chunks(3).map(|found| match found {
            [settled, attempted, promised] => Ok(Kept {
                settled: read(settled.as_ref())?,
                attempted: read(attempted.as_ref())?,
                promised: read(promised.as_ref())?,
            }),
            _ => Ok(Kept::default()),
        });
        kept.collect()
    }

    async fn give_up_claims(&mut self, hosts: &[HostFact]) -> Result<(), DriveError> {
        for host in hosts {
            let held = claim::read(self.book.fence().store(), &host.name).await?;
            let keep = claim::wanted(&self.book.spec, &host.config);
            let writes = claim::give_up(&held, &self.book.header.app, &keep);
            let writes = writes.into_iter().map(|(compare, op)| (Some(compare), op)).collect();
            self.book.fence().commit_chunked(writes).await?;
        }
        Ok(())
    }

    async fn leave_intents_for_the_absent(&mut self) -> Result<(), DriveError> {
        let hooks = self.book.header.hook_names();
        let plan = plan_of(&self.book.header, &hooks);
        let changes = catch_up(&self.book.spec, &plan, &self.without_proxy().await?);
        let mut refused: Vec<HostName> = Vec::new();
        for change in &changes {
            let Unit::App(_) = &change.unit else { continue };
            let config = fact(&self.book.header, &change.host)?.config.clone();
            let held = claim::read(self.book.fence().store(), &change.host).await?;
            let wanted = claim::wanted(&self.book.spec, &config);
            if let Err(taken) = claim::check(&change.host, &held, &wanted) {
                let header = self.book.header.clone();
                let text = format!("{config} will not catch up: {taken}");
                self.book.write(header, Entry::event(note(text))).await?;
                refused.push(change.host.clone());
                continue;
            }
            let writes = claim::acquire(&change.host, &held, &wanted);
            let writes = writes.into_iter().map(|(compare, op)| (Some(compare), op)).collect();
            self.book.fence().commit_chunked(writes).await?;
        }
        let changes: Vec<_> = changes.into_iter().filter(|c| !refused.contains(&c.host)).collect();
        self.write_changes(&changes).await
    }

    /// Absent hosts that no earlier rollout has given a kamal-proxy.
    async fn without_proxy(&self) -> Result<Vec<HostName>, DriveError> {
        let header = &self.book.header;
        let away: Vec<&HostFact> = header.hosts.iter().filter(|h| h.away).collect();
        let keys: Vec<_> = away.iter().map(|h| key::intent(&h.name, &Unit::Proxy)).collect();
        let mut without = Vec::new();
        for (host, entry) in away.into_iter().zip(self.book.fence().read(&keys).await?) {
            let intent = entry.map(|e| Intent::from_bytes(&e.value)).transpose()?;
            // Its own is what this very commit wrote before a restart.
            let earlier = intent.filter(|i| i.rollout_id.as_deref() != Some(header.id.as_str()));
            if !earlier.is_some_and(|i| matches!(i.desired, Desired::Proxy(_))) {
                without.push(host.name.clone());
            }
        }
        Ok(without)
    }

    async fn app_record(&self) -> Result<Write, DriveError> {
        let header = &self.book.header;
        let key = key::app(&header.app);
        let entry = self.book.fence().store().get(key.clone()).await?;
        let (compare, mut record) = match &entry {
            Some(entry) => (Compare::unchanged(entry), from_json::<AppRecord>(entry)?),
            None => (Compare::absent(&key), AppRecord::new(header.app.clone())),
        };
        record.version = Some(header.version.clone());
        record.digest = header.facts.digest.clone();
        Ok((Some(compare), Op::put(key, to_json(&record))))
    }

    /// Frees the app's lock, where it is this rollout's.
    pub(super) async fn unlock(&self) -> Result<Option<Write>, DriveError> {
        let key = key::lock(&self.book.header.app);
        let Some(entry) = self.book.fence().store().get(key.clone()).await? else {
            return Ok(None);
        };
        let lock: LockRecord = from_json(&entry)?;
        let mine = lock.rollout_id == self.book.header.id;
        Ok(mine.then(|| (Some(Compare::unchanged(&entry)), Op::delete(key))))
    }

    /// The last stage is over, which is part of `header` and `entry`.
    pub(super) async fn succeed(
        &mut self,
        mut header: Header,
        entry: Entry,
    ) -> Result<(), DriveError> {
        header.state = State::Succeeded;
        self.close(header, entry).await
    }

    /// The rollout is over: stored, the app free, clients told.
    pub(super) async fn finish(&mut self, state: State) -> Result<(), DriveError> {
        let mut header = self.book.header.clone();
        header.state = state;
        self.close(header, Entry::default()).await
    }

    async fn close(&mut self, mut header: Header, mut entry: Entry) -> Result<(), DriveError> {
        header.finished_at = Some(self.book.now());
        let finished = finished(&header);
        entry.events.push(Kind::Finished(finished.clone()));
        entry.writes.push((None, Op::delete(key::running(&header.id))));
        let lock = key::lock(&header.app);
        let frees = |(_, op): &Write| matches!(op, Op::Delete { key } if *key == lock);
        if !entry.writes.iter().any(frees) {
            entry.writes.extend(self.unlock().await?);
        }
        self.book.write(header, entry).await?;
        let header = &self.book.header;
        tracing::info!(rollout.id = %header.id, app = %header.app, version = %header.version,
            state = ?finished.state(), "rollout is over");
        self.book.hub().finish(finished);
        self.forget_old().await
    }

    /// History is bounded: the oldest rollouts of the app go, with their stages and events.
    async fn forget_old(&self) -> Result<(), DriveError> {
        let index = self.book.fence().store().read_all(key::index(&self.book.header.app)).await?;
        let old = index.entries.len().saturating_sub(KEPT);
        for entry in index.entries.into_iter().take(old) {
            let id = RolloutId::try_from(String::from_utf8_lossy(&entry.value).into_owned())?;
            // One that is still at work (the outer one of a very busy hook) stays.
            if self.book.fence().store().get(key::running(&id)).await?.is_some() {
                continue;
            }
            let gone = vec![
                (None, Op::delete_prefix(key::stages(&id))),
                (None, Op::delete_prefix(key::events(&id))),
                (None, Op::delete(key::rollout(&id))),
                (None, Op::delete(entry.key)),
            ];
            self.book.fence().commit(gone).await?;
        }
        Ok(())
    }
}

fn read(entry: Option<&crate::store::Entry>) -> Result<Option<Intent>, DriveError> {
    Ok(entry.map(|e| Intent::from_bytes(&e.value)).transpose()?)
}

/// What settled of a usual app: few enough to be recorded with the rest.
const FEW: usize = 48;

/// Rollouts of an app whose history is kept: months of a team that deploys every day.
const KEPT: usize = 200;

/// What clients are told of a rollout that is over.
pub(crate) fn finished(header: &Header) -> wire::RolloutFinished {
    let end = header.finished_at.unwrap_or(header.started_at);
    let runtime = end.duration_since(header.started_at);
    wire::RolloutFinished {
        state: crate::rollout::query::state(header).into(),
        reason: header.state.reason().to_owned(),
        runtime: Some(prost_types::Duration {
            seconds: runtime.as_secs(),
            nanos: runtime.subsec_nanos(),
        }),
    }
}
