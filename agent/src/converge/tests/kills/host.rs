//! A host on a model Engine whose agent and Engine die as their fate says and are started again, as a service manager does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::model::intent::{
    After, AppIntent, Desired, FileBlob, Intent, KamalLock, LatestTag, Prepare, PreparedRole,
    ProxyIntent, Prune, StagedImage, StopStale,
};
use dhow_proto::model::secrets::{Purpose, SealedSecrets, Secrets};
use dhow_proto::model::status::{Phase, Status};
use dhow_proto::model::{Document as _, Generation, Unit, Version, kamal};
use dhow_proto::seal::Bundle;
use secrecy::SecretString;

use super::super::world::Agent;
use super::fate::{Fate, Mortal, Strike};
use crate::engine::fake::{Behaviour, FakeImage};
use crate::engine::{ContainerState, Engine as _};
use crate::execute::tests::world::{self as intents, REPOSITORY, Role, World, app, role_unit};

pub(super) struct Host {
    pub(super) fate: Fate,
    pub(super) world: World,
    agent: Option<Agent>,
    numbers: BTreeMap<Unit, u64>,
    /// What the app's intent says by now.
    part: AppIntent,
}

fn tar(path: &str, content: &str) -> bytes::Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    builder.into_inner().unwrap().into()
}

/// Slow to answer, so that a switch has a middle.
pub(super) fn image(version: &str) -> FakeImage {
    let behaviour = Behaviour::HealthyAfter(Duration::from_secs(3));
    let mut image = intents::image(version).behaving(behaviour);
    image.files.insert("/assets".to_owned(), tar(&format!("./{version}.js"), version));
    image
}

impl Host {
    /// With versions v1 to v3 and an unhealthy v9 in the registry.
    pub(super) async fn new(strikes: &[Strike]) -> Self {
        let world = World::new();
        world.engine.create_network("backend").await.unwrap();
        for version in ["v1", "v2", "v3"] {
            world.engine.publish(image(version), None);
        }
        world.engine.publish(image("v9").behaving(Behaviour::Unhealthy), None);
        let fate = Fate::new(world.engine.clone(), strikes);
        let roles = ["web", "job"].map(|r| r.parse().unwrap()).to_vec();
        let part = AppIntent { staged: None, roles, ..intents::app_intent("v1") };
        let mut host = Self { fate, world, agent: None, numbers: BTreeMap::new(), part };
        host.agent = Some(Agent::at(host.life()));
        host
    }

    /// What an agent process starts with.
    fn life(&self) -> World {
        let engine = Mortal { engine: self.world.engine.clone(), fate: self.fate.clone() };
        self.world.again(Arc::new(engine), Breakpoints::of(Arc::new(self.fate.clone())))
    }

    pub(super) fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    /// `kill -9` of the agent, and what a service manager does next.
    pub(super) async fn restart(&mut self) {
        let (agent, life) = (self.agent.take().unwrap(), self.life());
        self.cut_off();
        let agent = agent.killed(life).await;
        self.fate.revive();
        self.agent = Some(agent);
    }

    /// As if it had been in the middle of writing a file, taking the lock and freeing it as well.
    fn cut_off(&self) {
        let kamal = self.world.home.join(".kamal");
        let places = [self.world.memory(), kamal.join("proxy"), kamal.join("apps/shop/env/roles")];
        for place in places.iter().filter(|place| place.is_dir()) {
            std::fs::write(place.join(".dhow-a1B2c3"), "half").unwrap();
        }
        if kamal.is_dir() {
            for lock in [".dhow-lock-a1B2c3", "lock-shop.released"] {
                let lock = kamal.join(lock);
                std::fs::create_dir_all(&lock).unwrap();
                std::fs::write(lock.join("details"), "half").unwrap();
            }
        }
    }

    /// The unit's status once it is as asked for, whoever dies meanwhile.
    pub(super) async fn until(&mut self, unit: &Unit, is: impl Fn(&Status) -> bool) -> Arc<Status> {
        loop {
            tokio::select! {
                biased;
                () = self.fate.died() => {}
                status = self.agent().status(unit, &is) => return status,
            }
            self.restart().await;
        }
    }

    fn intent(&mut self, unit: Unit, rollout: u64, desired: Desired) -> Intent {
        let number = self.numbers.entry(unit.clone()).or_default();
        *number += 1;
        let generation = Generation { epoch: 0, number: *number };
        let host = intents::absent(unit.clone(), dhow_proto::model::intent::Absent::Release);
        Intent {
            generation,
            rollout_id: Some(format!("rollout-{rollout}")),
            desired,
            ..host.intent
        }
    }

    /// As a controller that is told nothing: until the agent has it.
    pub(super) async fn offer(&mut self, intent: &Intent) {
        if self.fate.is_dead() {
            self.restart().await;
        }
        self.agent().offer(intent);
    }

    /// Offers an intent and waits until it has settled.
    pub(super) async fn settle(&mut self, unit: Unit, rollout: u64, desired: Desired) {
        let intent = self.intent(unit, rollout, desired);
        self.settle_intent(&intent).await;
    }

    async fn settle_intent(&mut self, intent: &Intent) {
        self.offer(intent).await;
        let generation = intent.generation;
        let status = self
            .until(&intent.unit, |s| {
                s.generation == generation
                    && matches!(
                        s.phase,
                        Phase::Settled
                            | Phase::Released
                            | Phase::Removed
                            | Phase::Failed(_)
                            | Phase::Held(_)
                            | Phase::AwaitingSecrets(_)
                    )
            })
            .await;
        let fine = matches!(status.phase, Phase::Settled | Phase::Released | Phase::Removed);
        assert!(fine, "{}: {:?}", intent.unit, status.phase);
    }

    pub(super) fn give(&self, role: &Role) {
        self.agent().give_blob(role.template.to_bytes());
    }

    /// A role's intent, not offered yet.
    pub(super) fn role(&mut self, role: &Role, after: Option<&str>) -> Intent {
        self.give(role);
        let unit = role_unit(role.name);
        let after = after.map(|name| {
            let unit = role_unit(name);
            let number = self.numbers[&unit];
            After { unit, generation: Generation { epoch: 0, number } }
        });
        let mut intent = self.intent(unit, role.boot, role.wanted().intent.desired);
        intent.after = after.into_iter().collect();
        intent
    }

    fn certificate(&self) -> SealedSecrets {
        let mut pair = Secrets::new();
        pair.insert("certificate_pem", SecretString::from("cert"));
        pair.insert("private_key_pem", SecretString::from("key"));
        let unit = role_unit("web");
        let bundle = Bundle::seal(&pair, &unit, Purpose::Tls).unwrap();
        let key = bundle.wrap(&"h1".parse().unwrap(), &self.agent().host_key.public_bytes());
        let ciphertext = self.agent().give_blob(bundle.ciphertext);
        SealedSecrets { ciphertext, key: key.unwrap(), purpose: Purpose::Tls, unit }
    }

    /// kamal-proxy as its boot number says.
    pub(super) async fn proxy(&mut self, boot: u64) {
        let wanted = intents::proxy_wanted(boot);
        let Desired::Proxy(intent) = &wanted.intent.desired else { panic!("a proxy") };
        self.agent().give_blob(wanted.proxy_template().unwrap().to_bytes());
        let intent = ProxyIntent { ..intent.clone() };
        self.settle(Unit::Proxy, boot, Desired::Proxy(intent)).await;
    }

    /// What the stages of a rollout write before the boot.
    pub(super) async fn prepare(&mut self, version: &str, boot: u64) {
        let version: Version = version.parse().unwrap();
        let unit = Unit::App(app());
        let mut part = AppIntent { lock: None, latest: None, ..self.part.clone() };
        part.staged = Some(StagedImage {
            version: version.clone(),
            digest: None,
            pull: boot,
            registry: None,
            local_only: false,
        });
        self.settle(unit.clone(), boot, Desired::App(part.clone())).await;
        part.lock = Some(KamalLock {
            holder: "Ann".to_owned(),
            at_unix_s: 1_700_000_000,
            version: version.to_string(),
            message: kamal::LOCK_MESSAGE.to_owned(),
            wait: None,
        });
        self.settle(unit.clone(), boot, Desired::App(part.clone())).await;
        self.proxy(0).await;
        part.stop_stale = Some(StopStale {
            number: boot,
            roles: part.roles.clone(),
            drain_timeout: Duration::from_secs(20),
        });
        self.settle(unit.clone(), boot, Desired::App(part.clone())).await;
        let page = self.agent().give_blob(format!("page of {version}").into_bytes());
        part.prepare = Some(Prepare {
            version,
            roles: vec![PreparedRole {
                role: "web".parse().unwrap(),
                asset_path: Some("/assets".to_owned()),
                tls: Some(self.certificate()),
            }],
            error_pages: vec![FileBlob { name: "404.html".to_owned(), content: page }],
        });
        self.settle(unit, boot, Desired::App(part.clone())).await;
        self.part = part;
    }

    /// What they write after it.
    pub(super) async fn finish(&mut self, version: &str, boot: u64) {
        let unit = Unit::App(app());
        let mut part = self.part.clone();
        let version = version.parse().unwrap();
        part.latest = Some(LatestTag { version, digest: None, when_serving: false });
        self.settle(unit.clone(), boot, Desired::App(part.clone())).await;
        part.prune = Some(Prune { number: boot, retain: 1 });
        self.settle(unit.clone(), boot, Desired::App(part.clone())).await;
        self.part = part;
        self.unlock(boot).await;
    }

    pub(super) async fn unlock(&mut self, boot: u64) {
        self.part.lock = None;
        let part = self.part.clone();
        self.settle(Unit::App(app()), boot, Desired::App(part)).await;
    }

    pub(super) fn web(version: &str, boot: u64) -> Role {
        let mut role = Role::web(version).boot(boot);
        role.template.asset_path = Some("/assets".to_owned());
        role.template.container.options.networks = vec!["backend".to_owned()];
        if let Some(proxy) = &mut role.template.proxy {
            proxy.error_pages = true;
        }
        role
    }

    /// A whole deploy, as a controller's stages bring it about.
    pub(super) async fn deploy(&mut self, version: &str, boot: u64) {
        self.prepare(version, boot).await;
        self.boot(version, boot).await;
        self.finish(version, boot).await;
    }

    /// Its roles.
    pub(super) async fn boot(&mut self, version: &str, boot: u64) {
        let web = self.role(&Self::web(version, boot), None);
        self.settle_intent(&web).await;
        let job = self.role(&Role::job(version).boot(boot), Some("web"));
        self.settle_intent(&job).await;
        self.fate.must_serve(&["shop-web", "shop-job"]);
    }

    /// The same, where web was told already.
    pub(super) async fn boot_again(&mut self, version: &str, boot: u64) {
        let unit = role_unit("web");
        let number = self.numbers[&unit];
        self.until(&unit, |s| s.generation.number == number && s.phase == Phase::Settled).await;
        let job = self.role(&Role::job(version).boot(boot), Some("web"));
        self.settle_intent(&job).await;
    }

    /// Offers a role's intent that is expected to settle.
    pub(super) async fn settle_role(&mut self, role: &Role) {
        let intent = self.role(role, None);
        self.settle_intent(&intent).await;
    }

    /// Whatever is left to do is done, and a last restart finds nothing to do.
    pub(super) async fn rest(&mut self) -> Result<(), String> {
        self.quiet().await?;
        let calls = self.fate.met().len();
        self.restart().await;
        self.quiet().await?;
        match &self.fate.met()[calls..] {
            [] => Ok(()),
            more => Err(format!("a restart finds something to do: {more:?}")),
        }
    }

    /// Until nothing was done for longer than any drain and resync.
    async fn quiet(&mut self) -> Result<(), String> {
        for _ in 0..20 {
            let before = self.fate.met().len();
            let until = tokio::time::Instant::now() + Duration::from_secs(70);
            loop {
                tokio::select! {
                    () = self.fate.died() => {}
                    () = tokio::time::sleep_until(until) => break,
                }
                self.restart().await;
            }
            if self.fate.met().len() == before {
                return Ok(());
            }
        }
        Err(format!("it does not come to rest: {:?}", self.fate.met()))
    }

    /// Everything that is left on the host and in the agent's memory, without what differs from run to run.
    pub(super) async fn snapshot(&self) -> String {
        let mut lines = Vec::new();
        let engine = &self.world.engine;
        let names: BTreeMap<String, String> =
            engine.all().iter().map(|c| (c.short_id().to_owned(), unsuffixed(&c.name))).collect();
        for c in engine.all() {
            let mut labels = c.labels.clone();
            let intent = labels.remove(kamal::LABEL_INTENT).is_some();
            lines.push(format!(
                "container {} {} {} {:?} ours {intent} {labels:?} env {:?}",
                unsuffixed(&c.name),
                c.state.as_str(),
                c.image,
                c.networks,
                engine.env_of(&c.id),
            ));
        }
        for (service, route) in engine.routes() {
            let targets = route.targets.iter().map(|t| {
                let (id, port) = t.split_once(':').unwrap_or((t, ""));
                format!("{}:{port}", names.get(id).map_or("nobody", String::as_str))
            });
            let targets: Vec<String> = targets.collect();
            lines.push(format!("route {service} {targets:?} {:?}", route.state));
        }
        for image in
            engine.images(crate::engine::ImageFilter::Repository(REPOSITORY)).await.unwrap()
        {
            let mut tags = image.tags;
            tags.sort();
            lines.push(format!("image {tags:?}"));
        }
        lines.push(format!("networks {:?}", engine.networks(kamal::NETWORK).await.unwrap().len()));
        files(&self.world.home, &self.world.home, &mut lines);
        for (name, text) in crate::ledger::peek(&self.world.memory()) {
            let mut memory: serde_json::Value = serde_json::from_slice(&text).unwrap();
            if name.starts_with("marks!") {
                // Of ciphertexts, which are random.
                memory["prepared"] = memory["prepared"].is_string().into();
                lines.push(format!("memory {name} {memory}"));
            } else if !memory["lock"].is_null() {
                // A removed app's memory that says nothing may stay.
                lines.push(format!("memory {name} lock {}", memory["lock"]));
            }
        }
        for unit in self.agent().ledger.units() {
            let known = self.agent().ledger.known(&unit);
            let number = |a: Option<u64>| a.map_or("none".to_owned(), |n| n.to_string());
            lines.push(format!(
                "ledger {unit} wanted {} settled {} failed {}",
                number(known.wanted.map(|a| a.generation().number)),
                number(known.settled.map(|a| a.generation().number)),
                number(known.failed.map(|f| f.generation.number)),
            ));
        }
        lines.sort();
        lines.join("\n")
    }

    /// Containers of the app that run, by name.
    pub(super) fn running(&self) -> Vec<String> {
        let all = self.world.engine.all();
        let up = all.iter().filter(|c| c.state == ContainerState::Running);
        let mut names: Vec<String> = up.map(|c| unsuffixed(&c.name)).collect();
        names.sort();
        names
    }
}

/// The hex of a renamed container comes from its id.
fn unsuffixed(name: &str) -> String {
    name.split_once("_replaced_").map_or(name.to_owned(), |(name, _)| format!("{name}_replaced"))
}

fn sorted(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

fn files(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    for path in sorted(folder) {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() {
            lines.push(format!("directory {name}"));
            files(root, &path, lines);
        } else if name.ends_with("audit.log") {
            // Written before what it tells of, so a step that is done again says so again.
            let text = std::fs::read_to_string(&path).unwrap();
            let said: BTreeSet<String> = text
                .lines()
                .map(|l| unsuffixed(l.split_once("] ").map_or(l, |(_, rest)| rest)))
                .collect();
            // Of a container that was created and not started when somebody died.
            let again = |line: &String| !line.contains("Started app version");
            lines.extend(said.into_iter().filter(again).map(|line| format!("audit {line}")));
        } else {
            lines.push(format!("file {name} {:?}", std::fs::read_to_string(&path).unwrap()));
        }
    }
}
