//! A little model of hosts that carry out intents: what they serve, what they tell, and what they do wrong on order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use dhow_proto::model::intent::{Absent, AppIntent, Desired, Intent, RoleIntent};
use dhow_proto::model::status::{Failure, Phase, Serving, Status};
use dhow_proto::model::{App, BlobDigest, Generation, HostName, ImageDigest, Unit};
use dhow_proto::wire;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::rollout::sample::{app, host};
use crate::rollout::seams::{Waits, Watched, Word};
use crate::store::Store;
use crate::store::memory::Memory;

/// In the place of a role: the image, whose pull may take its time.
pub(super) const IMAGE: &str = "image";

/// What a host does with a version of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Succeed,
    Fail,
    Hang,
    /// It switches, but the host is gone before it can say so.
    Vanish,
    /// It is gone before it switches.
    Silent,
}

#[derive(Default)]
struct Host {
    online: bool,
    last_seen: Option<SystemTime>,
    /// Docker does not answer there; its agent does.
    without_engine: bool,
    /// What the agent keeps: newest accepted intent and last settled generation of a unit.
    wanted: BTreeMap<Unit, Intent>,
    attempts: BTreeMap<(Unit, Generation), Intent>,
    settled: BTreeMap<Unit, Generation>,
    statuses: BTreeMap<Unit, Status>,
    told: BTreeMap<Unit, Status>,
    /// It is online, and has still to tell what it knows.
    arriving: bool,
    /// Role → version and boot number.
    serves: BTreeMap<String, (String, u64)>,
    booted: Vec<String>,
    containers: BTreeSet<(String, String)>,
    images: BTreeSet<String>,
    tag: String,
    locked: bool,
}

#[derive(Default)]
struct Model {
    hosts: BTreeMap<HostName, Host>,
    behaviours: BTreeMap<(String, String, String), Behaviour>,
    violations: Vec<String>,
}

pub(super) struct Fleet {
    model: Mutex<Model>,
    changed: watch::Sender<u64>,
    store: Arc<Memory>,
    clock: Arc<dyn Clock>,
}

fn digest(version: &str) -> ImageDigest {
    ImageDigest::try_from(format!("sha256:{}", BlobDigest::of(version.as_bytes()))).unwrap()
}

impl Fleet {
    pub(super) fn new(store: Arc<Memory>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { model: Mutex::default(), changed: watch::Sender::new(0), store, clock })
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    fn now(&self) -> SystemTime {
        SystemTime::try_from(self.clock.now()).unwrap()
    }

    pub(super) fn arrive(&self, name: &str) {
        self.connect(name, false);
    }

    /// A session of it has begun, and has told nothing yet.
    pub(super) fn begin_to_arrive(&self, name: &str) {
        self.connect(name, true);
    }

    fn connect(&self, name: &str, arriving: bool) {
        let now = self.now();
        let mut model = self.model();
        let entry = model.hosts.entry(host(name)).or_default();
        entry.online = true;
        entry.arriving = arriving;
        entry.last_seen = Some(now);
        drop(model);
        self.bump();
    }

    pub(super) fn leave(&self, name: &str) {
        let now = self.now();
        let mut model = self.model();
        let entry = model.hosts.get_mut(&host(name)).unwrap();
        entry.online = false;
        entry.last_seen = Some(now);
        drop(model);
        self.bump();
    }

    /// Docker answers on a host, or does not.
    pub(super) fn set_engine(&self, name: &str, answers: bool) {
        self.model().hosts.get_mut(&host(name)).unwrap().without_engine = !answers;
    }

    /// What the controller heard of a host is lost, as with a restart.
    pub(super) fn forget(&self, name: &str) {
        self.model().hosts.get_mut(&host(name)).unwrap().told.clear();
    }

    /// Every connection breaks, as with the controller at its end; the hosts that were online.
    pub(super) fn disconnect(&self) -> Vec<String> {
        let mut model = self.model();
        let online = model.hosts.iter_mut().filter(|(_, host)| host.online);
        let gone = online.map(|(name, host)| {
            host.online = false;
            name.to_string()
        });
        let gone = gone.collect();
        drop(model);
        self.bump();
        gone
    }

    pub(super) fn behave(&self, name: &str, role: &str, version: &str, behaviour: Behaviour) {
        let key = (name.to_owned(), role.to_owned(), version.to_owned());
        self.model().behaviours.insert(key, behaviour);
        self.bump();
    }

    pub(super) fn booted(&self, name: &str) -> Vec<String> {
        self.model().hosts[&host(name)].booted.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.model().violations.clone()
    }

    /// `h1: …` a line for every host that has something to say.
    pub(super) fn lines(&self, what: fn(&Self, &HostName) -> String) -> String {
        let names: Vec<HostName> = self.model().hosts.keys().cloned().collect();
        let lines = names.iter().map(|n| (n, what(self, n))).filter(|(_, text)| !text.is_empty());
        lines.map(|(n, text)| format!("{n}: {text}")).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn served_by(&self, name: &HostName) -> String {
        let model = self.model();
        let serves = model.hosts[name].serves.iter();
        serves
            .map(|(role, (version, _))| format!("{role} {version}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Every host with every role that serves there.
    pub(super) fn serving(&self) -> Vec<(String, String)> {
        let model = self.model();
        let hosts = model.hosts.iter();
        hosts.flat_map(|(h, host)| host.serves.keys().map(|r| (h.to_string(), r.clone()))).collect()
    }

    /// Everything that was booted on a host, in order.
    pub(super) fn booted_on(&self, name: &HostName) -> String {
        self.model().hosts[name].booted.join(", ")
    }

    pub(super) fn tag_on(&self, name: &HostName) -> String {
        self.model().hosts[name].tag.clone()
    }

    pub(super) fn locked(&self) -> bool {
        self.model().hosts.values().any(|h| h.locked)
    }

    /// Time for what is on its way.
    pub(super) async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// The agents' side, for as long as the test runs.
    pub(super) async fn run(self: Arc<Self>) {
        let mut changes = self.changed.subscribe();
        let store: &dyn Store = &*self.store;
        let mut writes = store
            .watch("intent/".into(), store.read_all("intent/").await.unwrap().revision.next())
            .await
            .unwrap();
        loop {
            changes.mark_unchanged();
            while self.look().await {}
            tokio::select! {
                _ = changes.changed() => {}
                batch = writes.next() => drop(batch.unwrap()),
            }
        }
    }

    /// One look at everything; true where something changed.
    async fn look(&self) -> bool {
        let store: &dyn Store = &*self.store;
        let entries = store.read_all("intent/").await.unwrap().entries;
        let now = self.now();
        let mut changed = false;
        let mut model = self.model();
        for entry in entries {
            let key = entry.key.as_str().unwrap().to_owned();
            let name = host(key.split('/').nth(1).unwrap());
            let intent = Intent::from_bytes(&entry.value).unwrap();
            changed |= model.take(&name, intent, now);
        }
        for entry in model.hosts.values_mut() {
            if entry.online {
                entry.last_seen = Some(now);
                if !entry.arriving && entry.told != entry.statuses {
                    entry.told = entry.statuses.clone();
                    changed = true;
                }
            }
        }
        drop(model);
        if changed {
            self.bump();
        }
        changed
    }
}

impl Model {
    /// Takes an intent in and goes on with it; true where that changed something.
    fn take(&mut self, name: &HostName, intent: Intent, now: SystemTime) -> bool {
        let Some(host) = self.hosts.get_mut(name).filter(|h| h.online) else { return false };
        if let Some(known) = host.wanted.get(&intent.unit) {
            let (old, new) = (known.generation, intent.generation);
            if new < old || (new == old && *known != intent) {
                self.violations.push(format!("{name} {}: {old} then {new}", intent.unit));
                return false;
            }
        }
        host.attempts.insert((intent.unit.clone(), intent.generation), intent.clone());
        host.wanted.insert(intent.unit.clone(), intent.clone());
        let before = host.statuses.get(&intent.unit).cloned();
        let done = before.as_ref().filter(|s| s.generation == intent.generation);
        if done.is_some_and(|s| s.phase.is_final()) {
            return host.tag_when_serving();
        }
        let behaviours = &self.behaviours;
        let behave = |role: &str, version: &str| {
            let key = (name.to_string(), role.to_owned(), version.to_owned());
            behaviours.get(&key).copied().unwrap_or(Behaviour::Succeed)
        };
        let phase = host.carry_out(&intent, behave, now);
        if phase == Phase::Settled && !matches!(intent.desired, Desired::Settle { .. }) {
            host.settled.insert(intent.unit.clone(), intent.generation);
        }
        let staged = match &intent.desired {
            Desired::App(AppIntent { staged: Some(staged), .. }) => {
                Some(digest(staged.version.as_str()))
            }
            _ => None,
        };
        let status = Status {
            unit: intent.unit.clone(),
            generation: intent.generation,
            phase,
            serving: Vec::<Serving>::new(),
            staged_digest: staged,
            observed_at: SystemTime::UNIX_EPOCH,
            settled: host.settled.get(&intent.unit).copied(),
            warnings: Vec::new(),
            maintenance: false,
            step_times: Vec::new(),
        };
        if before.as_ref() == Some(&status) {
            return false;
        }
        host.statuses.insert(intent.unit, status);
        true
    }
}

impl Host {
    fn carry_out(
        &mut self,
        intent: &Intent,
        behave: impl Fn(&str, &str) -> Behaviour,
        now: SystemTime,
    ) -> Phase {
        for after in &intent.after {
            let met = self.settled.get(&after.unit).is_some_and(|settled| {
                // As the agent has it: what settled another version since has not proved this one.
                let newer = self.attempts.get(&(after.unit.clone(), *settled));
                let other = newer.is_some_and(|n| match (n.version(), intent.version()) {
                    (Some(theirs), Some(ours)) => theirs != ours,
                    _ => false,
                });
                *settled == after.generation || (*settled > after.generation && !other)
            });
            if !met {
                return Phase::AwaitingCondition(format!("{} {}", after.unit, after.generation));
            }
        }
        match &intent.desired {
            Desired::App(files) => self.files(files, behave, now),
            Desired::Role(role) => self.boot(intent, role, behave, now),
            Desired::Absent(Absent::Release) => Phase::Released,
            Desired::Absent(Absent::Remove) => {
                if let Unit::Role(_, name) = &intent.unit {
                    self.serves.remove(name.as_str());
                }
                Phase::Removed
            }
            Desired::Settle { attempted, .. } => {
                let attempt = self.attempts.get(&(intent.unit.clone(), *attempted));
                let serves = attempt.is_some_and(|a| match (&a.desired, &a.unit) {
                    (Desired::Role(role), Unit::Role(_, name)) => {
                        let version = role.variants[0].version.to_string();
                        self.serves.get(name.as_str()) == Some(&(version, role.boot))
                    }
                    _ => false,
                });
                if serves {
                    self.settled.insert(intent.unit.clone(), *attempted);
                }
                Phase::Settled
            }
            _ => Phase::Settled,
        }
    }

    fn files(
        &mut self,
        files: &AppIntent,
        behave: impl Fn(&str, &str) -> Behaviour,
        now: SystemTime,
    ) -> Phase {
        self.locked = files.lock.is_some();
        if let Some(staged) = &files.staged {
            let version = staged.version.to_string();
            match behave(IMAGE, &version) {
                Behaviour::Hang => return Phase::Converging(None),
                Behaviour::Fail => {
                    let kind = wire::FailureKind::ImageMissing;
                    return Phase::Failed(Failure::new("pull", kind, "manifest unknown", now));
                }
                Behaviour::Succeed | Behaviour::Vanish | Behaviour::Silent => {}
            }
            if staged.local_only && !self.images.contains(&version) {
                let reason = format!("there is no image {version}");
                let kind = wire::FailureKind::ImageMissing;
                return Phase::Failed(Failure::new("find image", kind, reason, now));
            }
            if staged.digest.as_ref().is_some_and(|d| *d != digest(&version)) {
                let kind = wire::FailureKind::DigestMismatch;
                return Phase::Failed(Failure::new("pull", kind, "another digest", now));
            }
            self.images.insert(version);
        }
        if let Some(latest) = files.latest.as_ref().filter(|l| !l.when_serving) {
            self.tag = latest.version.to_string();
        }
        Phase::Settled
    }

    fn tag_when_serving(&mut self) -> bool {
        let Some(Intent { desired: Desired::App(files), .. }) = self.wanted.get(&Unit::App(app()))
        else {
            return false;
        };
        let Some(latest) = files.latest.as_ref().filter(|l| l.when_serving) else { return false };
        let version = latest.version.to_string();
        let serves = |r: &str| self.serves.get(r).is_some_and(|(v, _)| *v == version);
        if files.roles.iter().all(|r| serves(r.as_str())) && self.tag != version {
            self.tag = version;
            return true;
        }
        false
    }

    fn boot(
        &mut self,
        intent: &Intent,
        role: &RoleIntent,
        behave: impl Fn(&str, &str) -> Behaviour,
        now: SystemTime,
    ) -> Phase {
        let Unit::Role(_, name) = &intent.unit else { panic!("a role") };
        let version = role.variants[0].version.to_string();
        let wanted = (version.clone(), role.boot);
        if self.serves.get(name.as_str()) == Some(&wanted) {
            return Phase::Settled;
        }
        if !self.images.contains(&version) {
            let kind = wire::FailureKind::ImageMissing;
            return Phase::Failed(Failure::new("create", kind, "no such image", now));
        }
        let behaviour = behave(name.as_str(), &version);
        match behaviour {
            Behaviour::Fail => {
                let kind = wire::FailureKind::Exited;
                return Phase::Failed(Failure::new("start", kind, "exited with 1", now));
            }
            Behaviour::Hang => return Phase::Converging(None),
            Behaviour::Silent => {
                self.online = false;
                return Phase::Converging(None);
            }
            Behaviour::Succeed | Behaviour::Vanish => {}
        }
        self.serves.insert(name.to_string(), wanted);
        self.booted.push(format!("{name} {version}"));
        self.containers.insert((name.to_string(), version));
        if behaviour == Behaviour::Vanish {
            self.online = false;
        }
        Phase::Settled
    }
}

impl Watched for Fleet {
    fn online(&self, name: &HostName) -> Option<Vec<String>> {
        let model = self.model();
        model.hosts.get(name).filter(|h| h.online)?;
        Some(["proxy", "app", "role"].map(str::to_owned).to_vec())
    }

    fn mirror(&self, _host: &HostName) -> Option<String> {
        None
    }

    fn last_seen(&self, name: &HostName) -> Option<SystemTime> {
        self.model().hosts.get(name)?.last_seen
    }

    fn status(&self, name: &HostName, unit: &Unit) -> Option<Status> {
        self.model().hosts.get(name)?.told.get(unit).cloned()
    }

    fn statuses(&self, name: &HostName) -> Vec<Status> {
        let model = self.model();
        model.hosts.get(name).map(|h| h.told.values().cloned().collect()).unwrap_or_default()
    }

    fn refusal(&self, _: &HostName, _: &Unit) -> Option<(Generation, String)> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn asked<'a>(&'a self, name: &'a HostName) -> Waits<'a, Word> {
        Box::pin(async move {
            let model = self.model();
            match model.hosts.get(name).filter(|h| h.online) {
                None => Word::None,
                Some(host) if host.without_engine => Word::NoEngine,
                Some(_) => Word::Here,
            }
        })
    }

    fn containers<'a>(
        &'a self,
        name: &'a HostName,
        _: &'a App,
    ) -> Waits<'a, Result<Vec<wire::ContainerSummary>, String>> {
        Box::pin(async move {
            let model = self.model();
            if !model.hosts[name].online {
                return Err(format!("host {name} is offline"));
            }
            let containers = model.hosts[name].containers.iter();
            Ok(containers
                .map(|(role, version)| wire::ContainerSummary {
                    role: role.clone(),
                    version: version.clone(),
                    ..Default::default()
                })
                .collect())
        })
    }
}
