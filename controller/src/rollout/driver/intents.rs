//! A stage of intents: written once, whatever happens in between, then waited for at its gate.

use std::collections::BTreeMap;
use std::time::Duration;

use dhow_proto::model::intent::{After, Desired, Intent};
use dhow_proto::model::{BlobRef, Document as _, Generation, HostName, Unit};
use dhow_proto::wire;
use tokio::time::Instant;

use super::{Driver, Went, failed, summary};
use crate::claim;
use crate::rollout::book::Entry as BookEntry;
use crate::rollout::fallback::Moment;
use crate::rollout::fence::{DriveError, Write};
use crate::rollout::gate::{HostFailure, Seen, Verdict, verdict};
use crate::rollout::intents::{Before, Source, desired, fact, features, host_part};
use crate::rollout::record::{Header, key};
use crate::rollout::stages::{Change, Content, Gate, StageKind, Watched};
use crate::store::{Compare, Entry, Op, epoch};

/// A unit of a host.
pub(super) type At = (HostName, Unit);

/// Tries before a key that other apps' rollouts also write (the proxy's) is given up on.
const TRIES: usize = 8;

impl Driver {
    pub(super) async fn carry_out(
        &mut self,
        kind: StageKind,
        changes: &[Change],
        gate: Gate,
        watched: &[Watched],
        pins: bool,
    ) -> Result<Went, DriveError> {
        if let Some(reason) = self.claim(changes).await? {
            return Ok(failed(reason));
        }
        self.write_changes(changes).await?;
        let at: Vec<At> = watched.iter().map(|w| (w.host.clone(), w.unit.clone())).collect();
        let wanted = self.generations(&at).await?;
        let after: Vec<&[Unit]> = watched.iter().map(|w| w.after.as_slice()).collect();
        self.point("written", kind).await;
        tracing::debug!(stage = %kind, units = at.len(), "waiting at the gate");
        match self.wait(gate, &wanted, &after, None).await? {
            Ok(()) => {}
            Err(failures) => return Ok(failed(summary(&failures))),
        }
        let mut header = self.book.header.clone();
        if pins && let Some((host, unit)) = at.first() {
            let status = self.fleet.status(host, unit);
            header.facts.digest = status.and_then(|s| s.staged_digest);
        }
        Ok(Went::Done(Box::new(header), Vec::new()))
    }

    /// What a change claims must be the app's before anything is done with it. The reason where it is another's.
    async fn claim(&mut self, changes: &[Change]) -> Result<Option<String>, DriveError> {
        for change in changes.iter().filter(|c| claims(c)) {
            let (held, wanted) = self.claims_on(&self.book.header, change).await?;
            if let Err(taken) = claim::check(&change.host, &held, &wanted) {
                return Ok(Some(taken.to_string()));
            }
            let writes = claim::acquire(&change.host, &held, &wanted);
            let writes = writes.into_iter().map(|(compare, op)| (Some(compare), op)).collect();
            self.book.fence().commit_chunked(writes).await?;
        }
        Ok(None)
    }

    /// Whether all that the changes claim is the app's already.
    pub(super) async fn are_claimed(
        &self,
        header: &Header,
        changes: &[Change],
    ) -> Result<bool, DriveError> {
        for change in changes.iter().filter(|c| claims(c)) {
            let (held, wanted) = self.claims_on(header, change).await?;
            if claim::check(&change.host, &held, &wanted).is_err()
                || !claim::acquire(&change.host, &held, &wanted).is_empty()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn claims_on(
        &self,
        header: &Header,
        change: &Change,
    ) -> Result<(Vec<claim::Held>, Vec<claim::Claim>), DriveError> {
        let config = &fact(header, &change.host)?.config;
        let held = claim::read(self.book.fence().store(), &change.host).await?;
        Ok((held, claim::wanted(&self.book.spec, config)))
    }

    /// Writes every change that is not written yet. Retries where another app's rollout changed a shared unit.
    pub(super) async fn write_changes(&mut self, changes: &[Change]) -> Result<(), DriveError> {
        let mut tries = TRIES;
        loop {
            let writes = self.changes(&self.book.header, changes).await?;
            match self.book.fence().commit_chunked(writes).await {
                Err(DriveError::Conflict) if tries > 1 => tries -= 1,
                other => return other,
            }
        }
    }

    /// The writes of the changes that are not written yet.
    pub(super) async fn changes(
        &self,
        header: &Header,
        changes: &[Change],
    ) -> Result<Vec<Write>, DriveError> {
        let at: Vec<At> = changes.iter().map(|c| (c.host.clone(), c.unit.clone())).collect();
        let keys: Vec<_> = at.iter().map(|(host, unit)| key::intent(host, unit)).collect();
        let found = self.book.fence().read(&keys).await?.into_iter().zip(self.kept(&at).await?);
        let epoch = epoch::read(self.book.fence().store()).await?;
        let mut proxies: BTreeMap<HostName, Option<BlobRef>> = BTreeMap::new();
        let mut written: BTreeMap<At, Generation> = BTreeMap::new();
        let mut writes: Vec<Write> = Vec::new();
        for (change, (current, mut kept)) in changes.iter().zip(found) {
            if matches!(change.content, Content::Proxy { .. }) {
                let template = self.compose_proxy(&change.host).await?;
                proxies.insert(change.host.clone(), template);
            }
            let newest = current.as_ref().map(|e| Intent::from_bytes(&e.value)).transpose()?;
            if newest.is_some_and(|i| i.rollout_id.as_deref() != Some(header.id.as_str())) {
                // The last moment at which the host's word is about what was before.
                let told = self.fleet.status(&change.host, &change.unit);
                let heard = kept.clone().heard(told.as_ref(), Moment::Begin);
                writes.extend(heard.writes(&kept, &change.host, &change.unit));
                kept = heard;
            }
            let before = Before {
                settled: kept.base().map(|base| &base.desired),
                attempted: kept.attempted.as_ref().map(|attempted| &attempted.desired),
                proxy: proxies.get(&change.host).copied().flatten(),
            };
            let after = self.after(change, &written).await?;
            let intent = self.intent(header, change, before, after)?;
            let at = (change.host.clone(), change.unit.clone());
            let (generation, write) = place(&change.host, intent, current.as_ref(), epoch)?;
            written.insert(at, generation);
            writes.extend(write);
        }
        Ok(writes)
    }

    fn intent(
        &self,
        header: &Header,
        change: &Change,
        before: Before<'_>,
        after: Vec<After>,
    ) -> Result<Intent, DriveError> {
        let book = &self.book;
        let source = Source { header, spec: &book.spec, bundles: &book.bundles };
        Ok(Intent {
            unit: change.unit.clone(),
            generation: Generation::default(),
            features: features(&change.unit),
            rollout_id: Some(header.id.to_string()),
            after,
            host: host_part(&book.spec, fact(header, &change.host)?),
            desired: desired(source, change, before)?,
        })
    }

    /// The generations a change waits for: of this very write, or of a stage before.
    async fn after(
        &self,
        change: &Change,
        written: &BTreeMap<At, Generation>,
    ) -> Result<Vec<After>, DriveError> {
        let mut after = Vec::new();
        for unit in &change.after {
            let at = (change.host.clone(), unit.clone());
            let generation = match written.get(&at) {
                Some(generation) => *generation,
                None => match self.generations(&[at]).await?.pop() {
                    Some((_, _, generation)) => generation,
                    None => continue,
                },
            };
            after.push(After { unit: unit.clone(), generation });
        }
        Ok(after)
    }

    /// The proxy of a host as all its apps want it, as a blob.
    async fn compose_proxy(&self, host: &HostName) -> Result<Option<BlobRef>, DriveError> {
        let held = claim::read(self.book.fence().store(), host).await?;
        let claims: Vec<claim::Claim> = held.into_iter().map(|h| h.claim).collect();
        // Two that spell out different ones were refused when they claimed; the own one is as good as any then.
        let template =
            claim::compose(&claims).unwrap_or_else(|_| Some(self.book.spec.proxy.clone()));
        let Some(template) = template else { return Ok(None) };
        let bytes = template.to_bytes();
        let blob = BlobRef::of(&bytes);
        self.blobs.put(bytes).await?;
        Ok(Some(blob))
    }

    /// The newest generations written for these units; those without an intent are left out.
    pub(super) async fn generations(
        &self,
        at: &[At],
    ) -> Result<Vec<(HostName, Unit, Generation)>, DriveError> {
        let keys: Vec<_> = at.iter().map(|(host, unit)| key::intent(host, unit)).collect();
        let found = self.book.fence().read(&keys).await?;
        let mut generations = Vec::with_capacity(at.len());
        for ((host, unit), entry) in at.iter().zip(found) {
            let Some(entry) = entry else { continue };
            let intent = Intent::from_bytes(&entry.value)?;
            generations.push((host.clone(), unit.clone(), intent.generation));
        }
        Ok(generations)
    }

    fn look(&self, wanted: &[(HostName, Unit, Generation)], after: &[&[Unit]]) -> Vec<Seen> {
        wanted
            .iter()
            .enumerate()
            .map(|(i, (host, unit, generation))| Seen {
                host: host.clone(),
                unit: unit.clone(),
                generation: *generation,
                features: features(unit),
                after: after.get(i).map(|a| a.to_vec()).unwrap_or_default(),
                presence: self.presence(host),
                phase: self.fleet.status(host, unit).map(|s| (s.generation, s.phase)),
                refusal: self.fleet.refusal(host, unit),
            })
            .collect()
    }

    /// Waits until the gate opens; the failures where it does not, none where only the deadline passed.
    pub(super) async fn wait(
        &mut self,
        gate: Gate,
        wanted: &[(HostName, Unit, Generation)],
        after: &[&[Unit]],
        deadline: Option<Instant>,
    ) -> Result<Result<(), Vec<HostFailure>>, DriveError> {
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(expired);
        let mut changes = self.fleet.changes();
        loop {
            changes.mark_unchanged();
            let seen = self.look(wanted, after);
            self.tell(wanted);
            match verdict(gate, &seen) {
                Verdict::Advance => return Ok(Ok(())),
                Verdict::Fail(failures) => {
                    self.tell_failures(&failures).await?;
                    return Ok(Err(failures));
                }
                Verdict::Wait { on, look_again, failed } => {
                    // At once: a person learns of a failed host while the others still work.
                    self.tell_failures(&failed).await?;
                    self.book.hub().waiting_for(on.iter().map(ToString::to_string).collect());
                    let again = tokio::time::sleep(look_again.unwrap_or(Duration::MAX));
                    tokio::pin!(again);
                    loop {
                        let look = self.tell_silence().await?;
                        tokio::select! {
                            // The gate names a host that it waits for itself.
                            biased;
                            // Cancel-safe: an unseen change stays unseen, and silence is counted from what was heard.
                            _ = changes.changed() => break,
                            () = &mut again => break,
                            () = &mut expired => return Ok(Err(Vec::new())),
                            () = tokio::time::sleep(look) => {}
                        }
                    }
                }
            }
        }
    }

    async fn tell_failures(&mut self, failures: &[HostFailure]) -> Result<(), DriveError> {
        self.named_silent(failures);
        let events = self.news(failures);
        if events.is_empty() {
            return Ok(());
        }
        let header = self.book.header.clone();
        self.book.write(header, BookEntry { events, ..BookEntry::default() }).await
    }

    fn tell(&self, wanted: &[(HostName, Unit, Generation)]) {
        for (host, unit, generation) in wanted {
            let status = self.fleet.status(host, unit);
            let Some(status) = status.filter(|s| s.generation == *generation) else { continue };
            let wire = wire::Status::from(&status);
            self.book.hub().progress(wire::HostProgress {
                host: host.to_string(),
                unit: wire.unit,
                phase: wire.phase,
                step: wire.step,
                awaiting: wire.awaiting,
            });
        }
    }
}

/// Every operation first touches a host with an app unit that has nothing but its image or the lock.
fn claims(change: &Change) -> bool {
    match &change.content {
        Content::App(part) => !(part.stale || part.prepared || part.tagged || part.pruned),
        Content::Proxy { .. } | Content::Role(_) => false,
    }
}

/// Finds an intent's generation, and the write it takes: none where it is stored already.
pub(super) fn place(
    host: &HostName,
    mut intent: Intent,
    current: Option<&Entry>,
    epoch: u64,
) -> Result<(Generation, Option<Write>), DriveError> {
    let key = key::intent(host, &intent.unit);
    let Some(entry) = current else {
        intent.generation = Generation { epoch, number: 1 };
        let write = (Some(Compare::absent(&key)), Op::put(key, intent.to_bytes()));
        return Ok((intent.generation, Some(write)));
    };
    let stored = Intent::from_bytes(&entry.value)?;
    intent.generation = stored.generation;
    // A restored store may hold numbers that hosts have seen used otherwise: then the epoch tells them apart.
    if stored == intent && stored.generation.epoch == epoch {
        return Ok((stored.generation, None));
    }
    intent.generation = Generation { epoch, number: stored.generation.number + 1 };
    let write = (Some(Compare::unchanged(entry)), Op::put(key, intent.to_bytes()));
    Ok((intent.generation, Some(write)))
}

/// What an intent would restore: the one that settled, free of conditions, as this rollout's word.
pub(super) fn restored(base: &Intent, rollout_id: &str) -> Intent {
    let mut intent = base.clone();
    intent.rollout_id = Some(rollout_id.to_owned());
    intent.after = Vec::new();
    if let Desired::App(app) = &mut intent.desired {
        // What settled may have been written inside another rollout's lock.
        app.lock = None;
    }
    intent
}
