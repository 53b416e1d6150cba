//! The moment a rollout exists: its header, the app's lock and its boot number are written at once, or not at all.

use std::time::Duration;

use dhow_proto::model::App;
use tokio::time::Instant;

use super::ask::{Ask, LockWait};
use crate::rollout::Rollouts;
use crate::rollout::book::{read_header, stages_of};
use crate::rollout::error::{Locked, StartError};
use crate::rollout::record::{
    AppRecord, FORMAT, Facts, Header, HostFact, Joined, KamalLockRecord, LockRecord, RolloutId,
    State, from_json, key, to_json,
};
use crate::rollout::secrets::Bundles;
use crate::rollout::stages::{Content, Work};
use crate::store::{Compare, Op, StoreError, Txn};
use dhow_proto::model::Document as _;
use dhow_proto::model::spec::Spec;

/// What stands in the way.
enum Blocked {
    /// The app's lock.
    Lock(Box<LockRecord>),
    /// Somebody changed something between our look and our write.
    Raced,
}

impl Rollouts {
    /// Stores the rollout; waits for the app's lock for as long as asked.
    pub(super) async fn store_rollout(
        &self,
        user: &str,
        ask: Ask,
        spec: &Spec,
        bundles: &Bundles,
        hosts: Vec<HostFact>,
    ) -> Result<(), StartError> {
        let begun = Instant::now();
        let mut header = self.header(user, ask.clone(), hosts);
        header.joined = self.joined(&ask).await?;
        loop {
            // Hosts and locks are waited for at length: the blobs must not have been collected meanwhile.
            self.keep_blobs(&ask, spec, bundles).await?;
            let lock = match self.try_store(&mut header).await? {
                Ok(()) => return Ok(()),
                Err(Blocked::Raced) => continue,
                Err(Blocked::Lock(lock)) => lock,
            };
            let locked = |waited: Option<Duration>| {
                StartError::Locked(Box::new(Locked {
                    app: ask.app.clone(),
                    by: lock.by.clone(),
                    since: lock.since,
                    operation: lock.operation.as_str().to_owned(),
                    version: lock.version.clone(),
                    rollout: lock.rollout_id.clone(),
                    waited: waited.map(|w| w.as_secs()),
                }))
            };
            let Some(wait) = ask.lock_wait else { return Err(locked(None)) };
            let left = wait.timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(locked(Some(wait.timeout)));
            }
            self.wait_for_lock(&ask.app, wait, left).await?;
        }
    }

    fn header(&self, user: &str, ask: Ask, hosts: Vec<HostFact>) -> Header {
        Header {
            v: FORMAT,
            id: ask.id,
            app: ask.app,
            operation: ask.operation,
            version: ask.version,
            spec: ask.spec,
            bundles: ask.bundles,
            hosts,
            roles: ask.roles,
            roles_given: ask.roles_given,
            policy: ask.policy,
            await_client_s: ask.await_client.as_secs(),
            hooks: ask.hooks,
            performer: ask.performer,
            performer_name: ask.performer_name,
            command: ask.command,
            subcommand: ask.subcommand,
            parent: ask.parent.and_then(|p| RolloutId::try_from(p).ok()),
            joined: None,
            lock_wait_s: ask.lock_wait.map(|wait| wait.timeout.as_secs()),
            started_by: user.to_owned(),
            started_at: self.inner.rooms.clock.now(),
            finished_at: None,
            facts: Facts::default(),
            stage: 0,
            committed: false,
            state: State::Running,
        }
    }

    async fn try_store(&self, header: &mut Header) -> Result<Result<(), Blocked>, StartError> {
        let store = &self.inner.rooms.store;
        let (app, id) = (&header.app, &header.id);
        let (lock_key, app_key) = (key::lock(app), key::app(app));
        let entry = store.get(app_key.clone()).await?;
        let (app_unchanged, mut record) = match &entry {
            Some(entry) => (Compare::unchanged(entry), from_json(entry)?),
            None => (Compare::absent(&app_key), AppRecord::new(app.clone())),
        };
        record.boot += 1;
        for host in &header.hosts {
            let known = record.hosts.iter_mut().find(|(name, _)| *name == host.name);
            match known {
                Some((_, config)) => config.clone_from(&host.config),
                None => record.hosts.push((host.name.clone(), host.config.clone())),
            }
        }
        header.facts = Facts {
            boot: record.boot,
            digest: None,
            stopped: record.stopped,
            maintenance: record.maintenance.clone(),
        };
        header.started_at = self.inner.rooms.clock.now();
        let lock = LockRecord {
            v: FORMAT,
            rollout_id: id.clone(),
            by: header.started_by.clone(),
            since: header.started_at,
            operation: header.operation,
            version: header.version.clone(),
        };
        let mut txn = Txn::new()
            .when(app_unchanged)
            .when(Compare::absent(key::rollout(id)))
            .then(Op::put(key::rollout(id), to_json(header)))
            .then(Op::put(key::running(id), ""))
            .then(Op::put(key::indexed(app, header.started_at, id), id.to_string()))
            .then(Op::put(app_key, to_json(&record)))
            .otherwise(Op::get(&lock_key));
        txn = match &header.joined {
            // Under the outer rollout's lock, for as long as that is held.
            Some(_) => txn.when(Compare::exists(&lock_key)),
            None => txn.when(Compare::absent(&lock_key)).then(Op::put(&lock_key, to_json(&lock))),
        };
        let outcome = store.txn(txn).await?;
        if outcome.succeeded {
            tracing::info!(rollout.id = %id, app = %app, version = %header.version,
                operation = header.operation.as_str(), user = %header.started_by, "rollout begun");
            return Ok(Ok(()));
        }
        if header.joined.is_none()
            && let Some(crate::store::OpResult::Got(Some(entry))) = outcome.results.first()
        {
            return Ok(Err(Blocked::Lock(Box::new(from_json(entry)?))));
        }
        if read_header(&**store, id).await?.is_some() {
            return Err(StartError::IdTaken(id.clone()));
        }
        if header.joined.is_some() && store.get(lock_key).await?.is_none() {
            header.joined = None;
        }
        Ok(Err(Blocked::Raced))
    }

    /// A rollout inside a hook of another one of the same app, while that holds the lock.
    async fn joined(&self, ask: &Ask) -> Result<Option<Joined>, StartError> {
        let Some(parent) = &ask.parent else { return Ok(None) };
        let unknown = || StartError::NoParent(parent.clone());
        let store = &*self.inner.rooms.store;
        let id = RolloutId::try_from(parent.clone()).map_err(|_| unknown())?;
        let outer = read_header(store, &id).await?.ok_or_else(unknown)?;
        if outer.app != ask.app {
            // A hook may deploy another app, under that one's own lock.
            return Ok(None);
        }
        let holder = outer.joined.as_ref().map_or(&outer.id, |j| &j.lock);
        let Some(entry) = store.get(key::lock(&ask.app)).await? else { return Ok(None) };
        let lock: LockRecord = from_json(&entry)?;
        if lock.rollout_id != *holder {
            return Ok(None);
        }
        let kamal = match &outer.joined {
            Some(joined) => joined.kamal.clone(),
            None => self.kamal_lock(&outer).await?,
        };
        Ok(Some(Joined { lock: holder.clone(), kamal }))
    }

    /// Kamal's lock as the outer rollout's stages so far left it.
    async fn kamal_lock(&self, outer: &Header) -> Result<Option<KamalLockRecord>, StartError> {
        let bytes = self.inner.rooms.blobs.load(outer.spec.digest).await?;
        let spec = Spec::from_bytes(&bytes).map_err(StartError::Spec)?;
        let stages = stages_of(outer, &spec);
        let mut held = None;
        for stage in stages.iter().take(outer.stage) {
            let Work::Intents { changes, .. } = &stage.work else { continue };
            for change in changes {
                match change.content {
                    Content::App(part) if part.locked => held = Some(change.host.clone()),
                    Content::App(_) if held.as_ref() == Some(&change.host) => held = None,
                    Content::App(_) | Content::Proxy { .. } | Content::Role(_) => {}
                }
            }
        }
        Ok(held.map(|host| KamalLockRecord {
            host,
            holder: outer.performer_name.clone(),
            at_unix_s: outer.started_at.as_second(),
            version: outer.version.to_string(),
        }))
    }

    /// Waits until the lock changes, the interval passed or nothing is left of the wait.
    async fn wait_for_lock(
        &self,
        app: &App,
        wait: LockWait,
        left: Duration,
    ) -> Result<(), StartError> {
        let store = &self.inner.rooms.store;
        let key = key::lock(app);
        let snapshot = store.read_all(key.clone()).await?;
        if snapshot.entries.iter().all(|e| e.key != key) {
            return Ok(());
        }
        let freed = async {
            let mut watch = store.watch(key, snapshot.revision.next()).await?;
            watch.next().await.map(|_| ())
        };
        let nap = left.min(wait.interval.max(Duration::from_millis(100)));
        match tokio::time::timeout(nap, freed).await {
            // Changed, or the history is gone: look again, at the latest after the interval.
            Ok(Ok(()) | Err(StoreError::Compacted { .. } | StoreError::Lagged)) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
        }
    }
}
