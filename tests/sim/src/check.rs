//! The promises, checked against the models and the store: while a scenario runs, and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dhow_agent::engine::{ContainerState, ObservedContainer};
use dhow_agent::ledger::Ledger;
use dhow_controller::rollout::record::{Header, State};
use dhow_controller::store::{Entry, Event, Revision, Store, Watch};
use dhow_proto::model::intent::{Desired, Intent};
use dhow_proto::model::{Generation, Unit, kamal};
use futures_util::FutureExt as _;

use crate::agent::LEDGER;
use crate::world::World;

/// The service of the role that is proxied.
const SERVICE: &str = "shop-web";

/// A host counts as away once it was cut off for so long: what was on its way has arrived or is lost.
const SETTLED_AWAY: Duration = Duration::from_secs(1);

/// A broken promise, with its number in the design.
pub(crate) type Broken = String;

/// Watches a simulation.
pub(crate) struct Checks {
    world: Arc<World>,
    watch: Watch,
    generations: BTreeMap<String, Generation>,
    /// Rollouts in the order in which they began to write intents.
    writers: Vec<String>,
    over: BTreeMap<String, State>,
    /// Hosts where the app was served.
    served: BTreeSet<usize>,
    /// Version each host's role is to have now.
    current: BTreeMap<(usize, String), String>,
    /// Versions a host could have been told.
    told: BTreeSet<(usize, String, String)>,
    /// Containers ever seen.
    known: BTreeSet<(usize, String)>,
    away: BTreeMap<usize, Duration>,
    steps: u64,
    /// Everything that happened, folded into a number.
    pub(crate) trace: u64,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the store in memory answers at once")
}

impl Checks {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let watch = now(world.store.watch("".into(), Revision(2))).expect("nothing is compacted");
        Self {
            world,
            watch,
            generations: BTreeMap::new(),
            writers: Vec::new(),
            over: BTreeMap::new(),
            served: BTreeSet::new(),
            current: BTreeMap::new(),
            told: BTreeSet::new(),
            known: BTreeSet::new(),
            away: BTreeMap::new(),
            steps: 0,
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Notes that a host is out of reach from now on, or not any more.
    pub(crate) fn away(&mut self, host: usize, is_away: bool) {
        if is_away {
            self.away.entry(host).or_insert(self.world.now.elapsed());
        } else {
            self.away.remove(&host);
        }
    }

    /// Everything on a host was stopped with its Engine: that it serves again is asked in the end.
    pub(crate) fn stopped(&mut self, host: usize) {
        self.served.remove(&host);
    }

    fn note(&mut self, text: &str) {
        // FNV-1a.
        for byte in text.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// After every step.
    pub(crate) fn step(&mut self) -> Result<(), Broken> {
        while let Some(batch) = self.watch.next().now_or_never() {
            let batch = batch.map_err(|error| format!("the checks missed writes: {error}"))?;
            for event in batch.events {
                if let Event::Put(entry) = event {
                    self.written(&entry)?;
                }
            }
        }
        self.steps += 1;
        let elapsed = self.world.now.elapsed();
        for host in 0..self.world.hosts.len() {
            let gone = self.away.get(&host).is_some_and(|since| elapsed > *since + SETTLED_AWAY);
            if !gone {
                let told = self.current.iter().filter(|((at, _), _)| *at == host);
                self.told
                    .extend(told.map(|((at, role), version)| (*at, role.clone(), version.clone())));
            }
            self.look(host)?;
        }
        Ok(())
    }

    fn look(&mut self, host: usize) -> Result<(), Broken> {
        let world = Arc::clone(&self.world);
        let engine = &world.hosts[host].engine;
        if engine.answers(SERVICE) {
            self.served.insert(host);
        } else if self.served.contains(&host) {
            return Err(format!(
                "promises 4 and 5: h{host} served and does not any more: {}",
                containers(&world, host)
            ));
        }
        // Listing them is costly, and none is there for a few steps only.
        if !self.steps.is_multiple_of(8) {
            return Ok(());
        }
        for container in engine.all() {
            if !self.known.insert((host, container.id.clone())) {
                continue;
            }
            self.note(&format!("h{host} {}", container.name));
            let Some(role) = container.labels.get(kamal::LABEL_ROLE) else { continue };
            let version = version(&container);
            if !self.told.contains(&(host, role.clone(), version.to_owned())) {
                return Err(format!(
                    "promise 6: h{host} made {} though it was away for as long as it was wanted",
                    container.name
                ));
            }
        }
        Ok(())
    }

    fn written(&mut self, entry: &Entry) -> Result<(), Broken> {
        let key = entry.key.as_str().unwrap_or_default().to_owned();
        self.note(&key);
        let parts: Vec<&str> = key.split('/').collect();
        match parts.as_slice() {
            ["intent", host, ..] => self.intent(&key, host, entry),
            ["rollout", _] => self.header(&key, entry),
            _ => Ok(()),
        }
    }

    fn intent(&mut self, key: &str, host: &str, entry: &Entry) -> Result<(), Broken> {
        let intent = Intent::from_bytes(&entry.value).map_err(|e| format!("{key}: {e}"))?;
        let before = self.generations.insert(key.to_owned(), intent.generation);
        if before.is_some_and(|before| before > intent.generation) {
            return Err(format!("promise 3: {key} fell back to {}", intent.generation));
        }
        if let Some(rollout) = &intent.rollout_id {
            match self.writers.iter().position(|w| w == rollout) {
                None => self.writers.push(rollout.to_string()),
                Some(at) if at + 1 < self.writers.len() => {
                    return Err(format!(
                        "promise 2: {rollout} wrote {key} after {} had begun",
                        self.writers[at + 1]
                    ));
                }
                Some(_) => {}
            }
        }
        let host = self.world.hosts.iter().position(|h| h.name == host).ok_or("an unknown host")?;
        if let (Unit::Role(_, role), Desired::Role(desired)) = (&intent.unit, &intent.desired) {
            let version = desired.variants[0].version.to_string();
            self.current.insert((host, role.to_string()), version);
        }
        Ok(())
    }

    fn header(&mut self, key: &str, entry: &Entry) -> Result<(), Broken> {
        let header = parse(entry)?;
        self.note(&format!("{:?}", header.state));
        if let Some(before) = self.over.get(key)
            && *before != header.state
        {
            return Err(format!("promise 2: {key} was {before:?} and became {:?}", header.state));
        }
        if header.state.is_over() {
            self.over.insert(key.to_owned(), header.state);
        }
        Ok(())
    }
}

fn parse(entry: &Entry) -> Result<Header, Broken> {
    serde_json::from_slice(&entry.value).map_err(|e| format!("{}: {e}", entry.key))
}

fn entries(world: &World, prefix: &str) -> Vec<Entry> {
    let store: &dyn Store = &*world.store;
    now(store.read_all(prefix)).expect("the store in memory does not fail").entries
}

fn version(container: &ObservedContainer) -> &str {
    container.image.rsplit_once(':').map_or("", |(_, tag)| tag)
}

/// What runs of a role.
fn running(world: &World, host: usize, role: &str) -> Vec<ObservedContainer> {
    let mut all = world.hosts[host].engine.all();
    all.retain(|c| {
        c.state == ContainerState::Running
            && c.labels.get(kamal::LABEL_ROLE).is_some_and(|r| r == role)
    });
    all
}

/// All containers of a host, for a person.
pub(crate) fn containers(world: &World, host: usize) -> String {
    let all = world.hosts[host].engine.all();
    let lines: Vec<String> =
        all.iter().map(|c| format!("{} {}", c.name, c.state.as_str())).collect();
    lines.join(", ")
}

/// What the host keeps of its units.
pub(crate) fn ledger(world: &World, host: usize) -> Result<Ledger, Broken> {
    // The agent has its own open.
    let disk = Arc::new(world.hosts[host].disk.copy());
    Ledger::open(Path::new(LEDGER), disk).map_err(|e| format!("h{host}: {e}"))
}

fn intents(world: &World, host: usize) -> Result<Vec<Intent>, Broken> {
    let entries = entries(world, &format!("intent/{}/", world.hosts[host].name));
    entries
        .iter()
        .map(|e| Intent::from_bytes(&e.value).map_err(|error| format!("{}: {error}", e.key)))
        .collect()
}

/// What is still at work; none: everything is quiet.
pub(crate) fn busy(world: &World) -> Result<Option<String>, Broken> {
    if let Some(entry) = entries(world, "running/").first() {
        return Ok(Some(format!("promise 2: {} is stuck", entry.key)));
    }
    for host in 0..world.hosts.len() {
        let ledger = ledger(world, host)?;
        for intent in intents(world, host)? {
            let known = ledger.known(&intent.unit);
            let accepted = known.wanted.as_ref().map(|w| w.generation());
            let settled = known.settled.map(|s| s.generation());
            let failed = known.failed.map(|f| f.generation);
            // What comes after a unit that failed never begins: the barrier of a host that catches up.
            let behind = intent.after.iter().any(|after| {
                let failed = ledger.known(&after.unit).failed.map(|f| f.generation);
                failed >= Some(after.generation)
            });
            let applied = match &intent.desired {
                Desired::Settle { .. } | Desired::Absent(_) => true,
                _ if behind => true,
                _ => settled == accepted || failed == accepted,
            };
            if accepted != Some(intent.generation) || !applied {
                return Ok(Some(format!(
                    "promise 6: h{host} has {accepted:?} of {} {} (settled {settled:?}, failed {failed:?})",
                    intent.unit, intent.generation
                )));
            }
        }
    }
    Ok(None)
}

/// What must be true once everything is quiet.
pub(crate) fn ended(world: &World) -> Result<(), Broken> {
    for prefix in ["lock/", "running/", "owner/"] {
        if let Some(entry) = entries(world, prefix).first() {
            return Err(format!("promise 2: {} is left", entry.key));
        }
    }
    for host in &world.hosts {
        if host.dir.join("home/.kamal/lock-shop").exists() {
            return Err(format!("promise 2: Kamal's lock is left on {}", host.name));
        }
    }
    let hooks = world.hooks.lock().expect("no panic holds it");
    if let Some((id, times)) = hooks.iter().find(|(_, times)| **times > 1) {
        return Err(format!("hook {id} ran {times} times"));
    }
    let headers = headers(world)?;
    for (id, answer) in world.answers.lock().expect("no panic holds it").iter() {
        let header = headers.iter().find(|h| h.id.as_str() == id);
        match (answer, header) {
            (Ok(()), None) => {
                return Err(format!("promise 1: {id} was accepted and is not stored"));
            }
            (_, Some(h)) if !h.state.is_over() => {
                return Err(format!("promise 2: {id} is {:?}", h.state));
            }
            (_, Some(h)) if h.state != State::Succeeded && h.state.reason().is_empty() => {
                return Err(format!("promise 2: {id} ended without a reason"));
            }
            _ => {}
        }
    }
    for host in 0..world.hosts.len() {
        host_ended(world, host, &headers)?;
    }
    Ok(())
}

pub(crate) fn headers(world: &World) -> Result<Vec<Header>, Broken> {
    let entries = entries(world, "rollout/");
    let own = entries.iter().filter(|e| e.key.as_str().is_some_and(|k| k.split('/').count() == 2));
    let mut headers = own.map(parse).collect::<Result<Vec<_>, _>>()?;
    headers.sort_by_key(|h| h.started_at);
    Ok(headers)
}

fn host_ended(world: &World, host: usize, headers: &[Header]) -> Result<(), Broken> {
    let has = || containers(world, host);
    let works = |version: &str| {
        let number = version.trim_start_matches('v').parse().unwrap_or(0);
        world.scenario.works(host, number)
    };
    let ledger = ledger(world, host)?;
    for intent in intents(world, host)? {
        let Unit::Role(_, role) = &intent.unit else { continue };
        let known = ledger.known(&intent.unit);
        let failed = known.failed.as_ref().map(|f| f.generation);
        let wanted = match failed == Some(intent.generation) {
            true => known.settled.as_ref().map(|s| &s.intent.desired),
            false => Some(&intent.desired),
        };
        let runs = running(world, host, role.as_str());
        if runs.len() > 1 {
            return Err(format!("promise 3: h{host} runs {role} more than once: {}", has()));
        }
        if let Some(bad) = runs.iter().find(|c| !works(version(c))) {
            return Err(format!("promise 5: {} runs on h{host} and never worked", bad.name));
        }
        // Otherwise nothing of it ever settled, or the agent decides what stays: checked above.
        if let Some(Desired::Role(desired)) = wanted {
            let version_wanted = desired.variants[0].version.as_str();
            let right = runs.first().is_some_and(|c| version(c) == version_wanted);
            if works(version_wanted) && !right {
                return Err(format!(
                    "promise 3: h{host} is to run {role} {version_wanted} and has {}",
                    has()
                ));
            }
        }
    }
    let name = &world.hosts[host].name;
    let last = headers.iter().rfind(|h| h.hosts.iter().any(|f| f.name.as_str() == name));
    if let Some(last) = last.filter(|h| h.state == State::Succeeded) {
        let version_wanted = last.version.as_str();
        let away = last.hosts.iter().any(|f| f.name.as_str() == name && f.away);
        let runs = running(world, host, "web");
        let right = runs.first().is_some_and(|c| version(c) == version_wanted);
        if !right && (!away || works(version_wanted)) {
            return Err(format!("promise 3: {} succeeded, h{host} has {}", last.id, has()));
        }
    }
    Ok(())
}

/// How many rollouts succeeded, and how many did not.
pub(crate) fn outcomes(world: &World) -> (usize, usize) {
    let headers = headers(world).unwrap_or_default();
    let succeeded = headers.iter().filter(|h| h.state == State::Succeeded).count();
    (succeeded, headers.len() - succeeded)
}

/// What runs everywhere, and how often something was made or started.
pub(crate) fn picture(world: &World) -> Vec<(String, usize)> {
    (0..world.hosts.len())
        .map(|host| {
            let engine = &world.hosts[host].engine;
            let mut all: Vec<String> = engine
                .all()
                .iter()
                .filter(|c| c.state == ContainerState::Running)
                .map(|c| format!("{} {}", c.name, c.id))
                .collect();
            all.sort();
            let changes = ["create", "start", "stop", "remove", "rename"];
            let calls = engine.calls();
            (all.join(", "), calls.iter().filter(|c| changes.contains(&c.as_str())).count())
        })
        .collect()
}

/// Deletes what the controller knows of a host's units.
pub(crate) fn forget(world: &World, host: usize) {
    let store: &dyn Store = &*world.store;
    for entry in entries(world, &format!("intent/{}/", world.hosts[host].name)) {
        now(store.delete(entry.key)).expect("the store in memory does not fail");
    }
}
