//! A controller's rooms around a fleet, on a store that can die under it, and clients that run hooks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::model::intent::{Absent, Desired, Intent};
use dhow_proto::model::spec::Spec;
use dhow_proto::model::status::Phase;
use dhow_proto::model::{BlobRef, Document as _, Unit};
use dhow_proto::wire;
use dhow_proto::wire::deploy_response::Message;
use dhow_proto::wire::rollout_event::Kind;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::fleet::Fleet;
use super::mortal::Mortal;
use crate::blob::Blobs;
use crate::claim;
use crate::clock::Clock;
use crate::host::HostRecord;
use crate::rollout::record::{RolloutId, from_json, key};
use crate::rollout::sample::{app, host, role, spec};
use crate::rollout::seams::Watched as _;
use crate::rollout::{Attachment, ClientReport, Rollouts, Rooms, Settings};
use crate::store::memory::Memory;
use crate::store::{Entry, Key, Store};
use crate::supervise::Supervisor;

/// Wall and monotonic time as tokio's paused one.
struct Paused {
    start: tokio::time::Instant,
}

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap() + self.start.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

pub(super) struct World {
    pub(super) store: Arc<Mortal>,
    pub(super) fleet: Arc<Fleet>,
    inner: Arc<Memory>,
    pub(super) blobs: Blobs,
    clock: Arc<dyn Clock>,
    started: AtomicUsize,
    _folder: tempfile::TempDir,
}

pub(super) fn hooks(names: &[&str]) -> Vec<wire::HookFile> {
    let file =
        |name: &&str| wire::HookFile { name: (*name).to_owned(), digest: vec![7; 32].into() };
    names.iter().map(file).collect()
}

impl World {
    /// With these hosts enrolled and online.
    pub(super) async fn new(hosts: &[&str]) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Paused { start: tokio::time::Instant::now() });
        let inner = Arc::new(Memory::new(Arc::clone(&clock)));
        let store = Arc::new(Mortal::new(Arc::clone(&inner)));
        let fleet = Fleet::new(Arc::clone(&inner), Arc::clone(&clock));
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let started = AtomicUsize::new(0);
        let world = Self { store, fleet, inner, blobs, clock, started, _folder: folder };
        for name in hosts {
            world.enrol(name).await;
            world.fleet.arrive(name);
        }
        // Ends with the test's runtime.
        drop(tokio::spawn(Arc::clone(&world.fleet).run()));
        world
    }

    pub(super) async fn enrol(&self, name: &str) {
        let record = HostRecord {
            v: 1,
            name: host(name),
            aliases: Vec::new(),
            host_key: "00".repeat(32),
            enrolled_at: self.clock.now(),
            serial: "1".to_owned(),
            expires_at: self.clock.now(),
            revoked: false,
        };
        let store: &dyn Store = &*self.inner;
        let value = serde_json::to_vec(&record).unwrap();
        store.put(format!("host/{name}"), value).await.unwrap();
    }

    /// A controller process.
    pub(super) fn rollouts(&self, replica: &str) -> Rollouts {
        self.rollouts_at(replica, Breakpoints::default())
    }

    /// As [`Self::rollouts`], asked at its points.
    pub(super) fn rollouts_at(&self, replica: &str, breakpoints: Breakpoints) -> Rollouts {
        let rooms = Rooms {
            store: self.store.clone(),
            blobs: self.blobs.clone(),
            clock: Arc::clone(&self.clock),
            fleet: self.fleet.clone(),
            tasks: Supervisor::new().tasks(),
        };
        let await_client = Duration::from_secs(900);
        let settings = Settings { replica: replica.to_owned(), await_client, breakpoints };
        Rollouts::new(rooms, settings).unwrap()
    }

    /// Ends a controller process without a word.
    pub(super) async fn kill(&self, rollouts: Rollouts) {
        rollouts.inner.rooms.tasks.shutdown().cancel();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub(super) fn spec(&self, version: &str) -> Spec {
        let mut spec = spec(version, &[("web", &["h1", "h2"]), ("job", &["h2", "h3"])]);
        spec.registry.login = false;
        spec
    }

    pub(super) async fn start(&self, version: &str, names: &[&str]) -> wire::StartRollout {
        self.start_spec(&self.spec(version), names).await
    }

    pub(super) async fn start_spec(&self, spec: &Spec, names: &[&str]) -> wire::StartRollout {
        let bytes = spec.to_bytes();
        let blob = BlobRef::of(&bytes);
        self.blobs.put(bytes).await.unwrap();
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        wire::StartRollout {
            app: Some((&spec.app).into()),
            operation: wire::Operation::Deploy.into(),
            version: spec.version.to_string(),
            spec: Some(blob.into()),
            bundles: None,
            options: Some(wire::RolloutOptions {
                hosts: spec.app_hosts().into_iter().map(ToString::to_string).collect(),
                roles: spec.roles.iter().map(|r| r.name.to_string()).collect(),
                ..Default::default()
            }),
            hooks: hooks(names),
            performer: "ann@test".to_owned(),
            performer_name: "Ann".to_owned(),
            command: "deploy".to_owned(),
            subcommand: String::new(),
            parent_rollout: String::new(),
            rollout_id: format!("rollout-{number:04}"),
        }
    }

    pub(super) async fn deploy(
        &self,
        rollouts: &Rollouts,
        version: &str,
        names: &[&str],
    ) -> (wire::RolloutState, String) {
        self.run(rollouts, self.start(version, names).await).await
    }

    pub(super) async fn run(
        &self,
        rollouts: &Rollouts,
        start: wire::StartRollout,
    ) -> (wire::RolloutState, String) {
        let id = rollouts.start("ann", start).await.unwrap();
        self.wait(rollouts, &id).await
    }

    pub(super) async fn wait(&self, rollouts: &Rollouts, id: &str) -> (wire::RolloutState, String) {
        loop {
            let Ok(mut events) = rollouts.watch(id, 0).await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            while let Some(event) = events.recv().await {
                if let Some(Kind::Finished(finished)) = event.kind {
                    // Hosts act on the last intents, the driver gives its ownership up.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    return (finished.state(), finished.reason);
                }
            }
        }
    }

    pub(super) async fn until(&self, rollouts: &Rollouts, id: &str, state: wire::RolloutState) {
        loop {
            let rollout = rollouts.get(id).await.unwrap().rollout.unwrap();
            if rollout.state() == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn attach(&self, rollouts: &Rollouts, id: &str) -> Attachment {
        let offered = hooks(&["pre-deploy"]);
        loop {
            match rollouts.attach(id, &offered, 0).await {
                Ok(attached) => return attached,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    pub(super) fn served(&self) -> String {
        self.fleet.lines(Fleet::served_by)
    }

    pub(super) fn tags(&self) -> String {
        self.fleet.lines(Fleet::tag_on)
    }

    pub(super) fn kamal_locked(&self) -> bool {
        self.fleet.locked()
    }

    /// True where the rollout is stored.
    pub(super) async fn knows(&self, id: &str) -> bool {
        let key = key::rollout(&RolloutId::try_from(id.to_owned()).unwrap());
        self.inner.get(key).await.unwrap().is_some()
    }

    pub(super) async fn record<T: DeserializeOwned>(&self, key: Key) -> T {
        from_json(&self.inner.get(key).await.unwrap().unwrap()).unwrap()
    }

    pub(super) async fn intent(&self, name: &str, unit: &str) -> Intent {
        let unit = match unit {
            "app" => Unit::App(app()),
            name => Unit::Role(app(), role(name)),
        };
        let entry = self.inner.get(key::intent(&host(name), &unit)).await.unwrap().unwrap();
        Intent::from_bytes(&entry.value).unwrap()
    }

    /// What is not as the role's wanted intent has it; none where it holds or there is none.
    pub(super) async fn unsettled(&self, name: &str, unit: &str) -> Option<String> {
        let at = Unit::Role(app(), role(unit));
        let entry = self.inner.get(key::intent(&host(name), &at)).await.unwrap()?;
        let intent = Intent::from_bytes(&entry.value).unwrap();
        let status = self.fleet.status(&host(name), &at)?;
        let told = status.generation == intent.generation
            && matches!(status.phase, Phase::Settled | Phase::Released);
        let serves = match &intent.desired {
            Desired::Role(role) => {
                let served = self.fleet.served_by(&host(name));
                served.contains(&format!("{unit} {}", role.variants[0].version))
            }
            Desired::Absent(Absent::Release) | Desired::Settle { .. } => true,
            _ => false,
        };
        (!told || !serves).then(|| format!("{intent:?} but {status:?}"))
    }

    async fn all(&self, prefix: &str) -> Vec<Entry> {
        let store: &dyn Store = &*self.inner;
        store.read_all(prefix).await.unwrap().entries
    }

    pub(super) async fn dump(&self) -> Vec<(String, Vec<u8>)> {
        let entries = self.all("").await;
        entries.into_iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect()
    }

    /// What the store says of hosts and the app, without what differs from run to run.
    pub(super) async fn state(&self) -> String {
        let mut lines = Vec::new();
        for prefix in ["app/", "claim/", "intent/", "settled/", "attempted/", "promised/"] {
            for entry in self.all(prefix).await {
                let text = match Intent::from_bytes(&entry.value) {
                    // An end that is done again may count what settled under the number it wrote it under.
                    Ok(intent) if prefix == "settled/" => format!("{:?}", intent.desired),
                    Ok(intent) => format!("{intent:?}"),
                    Err(_) => String::from_utf8_lossy(&entry.value).into_owned(),
                };
                lines.push(format!("{} {text}", entry.key));
            }
        }
        lines.push(format!("served {}", self.served()));
        lines.push(format!("tags {}", self.tags()));
        lines.push(format!("booted {}", self.fleet.lines(Fleet::booted_on)));
        lines.join("\n")
    }

    pub(super) async fn claims(&self, name: &str) -> Vec<String> {
        let held = claim::read(&*self.inner, &host(name)).await.unwrap();
        held.iter().map(|h| format!("{} by {}", h.claim.thing, h.claim.owner)).collect()
    }

    /// What no finished rollout may leave behind, and rules hosts saw broken.
    pub(super) async fn leftovers(&self) -> Vec<String> {
        // A controller that died right after its last write leaves its ownership to lapse.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let mut left = self.fleet.violations();
        for prefix in ["lock/", "running/", "owner/"] {
            left.extend(self.all(prefix).await.iter().map(|e| e.key.to_string()));
        }
        left
    }
}

/// A CLI: it announces a hook, runs it once it is told to, and tells how it went as often as it must.
#[derive(Default)]
pub(super) struct Client {
    announced: Option<wire::HookRequest>,
    pub(super) ran: Vec<wire::HookRequest>,
}

impl Client {
    /// Until the rollout is over; none where the stream ended before.
    pub(super) async fn serve(
        &mut self,
        attached: &mut Attachment,
        exit: impl Fn(&str) -> i32,
    ) -> Option<wire::RolloutFinished> {
        for hook in &self.ran {
            report(attached, hook, exit(&hook.name)).await;
        }
        while let Some(response) = attached.responses.recv().await {
            match response.message.unwrap() {
                Message::Hook(hook) => {
                    let started = wire::HookStarted { hook_id: hook.hook_id.clone() };
                    let _ = attached.reports.send(ClientReport::HookStarted(started)).await;
                    self.announced = Some(hook);
                }
                Message::Event(wire::RolloutEvent { kind: Some(Kind::Hook(hook)), .. })
                    if hook.state() == wire::HookState::Started =>
                {
                    let mine = self.announced.take_if(|a| a.hook_id == hook.hook_id);
                    let Some(mine) = mine else { continue };
                    report(attached, &mine, exit(&mine.name)).await;
                    self.ran.push(mine);
                }
                Message::Finished(finished) => return Some(finished),
                Message::Accepted(_) | Message::Event(_) => {}
            }
        }
        None
    }
}

async fn report(attached: &Attachment, hook: &wire::HookRequest, exit_code: i32) {
    let hook_id = hook.hook_id.clone();
    let finished = wire::HookFinished { hook_id, exit_code, error: String::new() };
    let _ = attached.reports.send(ClientReport::HookFinished(finished)).await;
}

/// Runs every hook as it is asked for, until the rollout is over.
pub(super) async fn serve(
    attached: &mut Attachment,
    exit: impl Fn(&str) -> i32,
) -> (Vec<wire::HookRequest>, wire::RolloutFinished) {
    let mut client = Client::default();
    let finished = client.serve(attached, exit).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    (client.ran, finished)
}

pub(super) async fn until_hook(attached: &mut Attachment) -> wire::HookRequest {
    loop {
        let response = attached.responses.recv().await.unwrap();
        if let Some(Message::Hook(hook)) = response.message {
            return hook;
        }
    }
}

/// Announces a hook and waits for the word to go.
pub(super) async fn begin(attached: &mut Attachment, hook: &wire::HookRequest) {
    let started = wire::HookStarted { hook_id: hook.hook_id.clone() };
    attached.reports.send(ClientReport::HookStarted(started)).await.unwrap();
    loop {
        let response = attached.responses.recv().await.unwrap();
        let Some(Message::Event(event)) = response.message else { continue };
        if matches!(event.kind, Some(Kind::Hook(h)) if h.state() == wire::HookState::Started) {
            return;
        }
    }
}

pub(super) fn describe(hook: &wire::HookRequest) -> String {
    let shown =
        |e: &&wire::EnvVar| !matches!(e.name.as_str(), "KAMAL_RECORDED_AT" | "DHOW_ROLLOUT");
    let env: Vec<String> =
        hook.env.iter().filter(shown).map(|e| format!("{}={}", e.name, e.value)).collect();
    format!("{} {}", hook.name, env.join(" "))
}
