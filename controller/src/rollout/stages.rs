//! PURE: what a rollout does, in order: a spec, the hosts in effect and the options become stages.
//!
//! In: [`Spec`], [`Plan`]. Out: stages, as data. Always true: same input, same stages, whatever was recorded since, so a
//! stage's index names it across restarts; hosts of the primary role come first in every list; a host is in exactly one
//! boot group; no role but the primary one boots before the first primary container is healthy.

use std::collections::BTreeSet;
use std::time::Duration;

use dhow_proto::model::spec::{RoleSpec, Spec};
use dhow_proto::model::{App, HostName, RoleName, Unit};

use super::record::{HostFact, Operation};

mod in_effect;
mod kind;
mod text;

pub use kind::StageKind;

use in_effect::InEffect;

/// What of a rollout shapes its stages. Fixed when the rollout is stored.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// What is done.
    pub operation: Operation,
    /// Hosts in effect, the primary host in effect first. Those away are left for the end.
    pub hosts: &'a [HostFact],
    /// Roles in effect.
    pub roles: &'a [RoleName],
    /// Hooks the client offers; others are skipped.
    pub hooks: &'a BTreeSet<String>,
    /// True for a rollout inside a hook of another one, which holds Kamal's lock already.
    pub joined: bool,
}

/// One step of a rollout across hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// What it is about.
    pub kind: StageKind,
    /// As people read it, beside the hosts; unique within a rollout.
    pub name: String,
    /// Hosts it is about, by enrolled name.
    pub hosts: Vec<HostName>,
    /// What is done.
    pub work: Work,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Asks every host whether each of its roles has a container of the version.
    FindContainers,
    /// Writes intents, then waits at a gate.
    Intents {
        /// Written in this order; per host, a unit comes after those it waits for.
        changes: Vec<Change>,
        /// When to go on.
        gate: Gate,
        /// Units waited for: those of `changes` and, where a gate let some of them pass early, of stages before.
        watched: Vec<Watched>,
        /// The digest this unit's host reports is pinned for all others.
        pins: bool,
    },
    /// Runs a hook on the client.
    Hook(Hook),
    /// Waits.
    Pause(Duration),
    /// Records what settled as the app's new state, leaves intents for hosts that were away, and frees the app unless
    /// `keep_lock`. What fails after this undoes nothing.
    Commit {
        /// `setup` holds the app's lock until its last hook ended, as Kamal does.
        keep_lock: bool,
    },
}

/// When a stage of intents is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Every watched unit settled.
    All,
    /// One of them did, and none failed before it.
    Any,
    /// So many did.
    Count(usize),
}

/// An intent to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Enrolled name of the host.
    pub host: HostName,
    /// The unit.
    pub unit: Unit,
    /// What it says.
    pub content: Content,
    /// Units of the same host that must have settled this rollout's intent first.
    pub after: Vec<Unit>,
}

/// A unit that a gate looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// Enrolled name of the host.
    pub host: HostName,
    /// The unit.
    pub unit: Unit,
    /// As in its [`Change`]: where one of these failed, the unit is not waited for.
    pub after: Vec<Unit>,
}

/// What an intent says, before facts, secrets and generations are filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Network, and the container where a proxied role runs.
    Proxy {
        /// False: network only.
        container: bool,
    },
    /// The app's shared part, so far.
    App(AppPart),
    /// The role at the version.
    Role(RoleName),
}

/// Which fields of an app intent this rollout sets by now; others stay as they last settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppPart {
    /// The image is wanted.
    pub staged: bool,
    /// Kamal's lock is held.
    pub locked: bool,
    /// Stale containers are stopped.
    pub stale: bool,
    /// Files are there.
    pub prepared: bool,
    /// The latest tag means the version.
    pub tagged: bool,
    /// The tag waits until the host's own roles serve (a host catching up).
    pub when_serving: bool,
    /// Old containers and images are pruned.
    pub pruned: bool,
}

/// A hook and what differs from stage to stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `pre-deploy`.
    pub name: &'static str,
    /// `KAMAL_HOSTS`: as the config spells them.
    pub hosts: Vec<HostName>,
    /// `KAMAL_LOCK`.
    pub locked: bool,
    /// `KAMAL_RUNTIME` is given.
    pub runtime: bool,
    /// Kamal gives it the secrets files' entries.
    pub with_secrets: bool,
}

/// The stages of a rollout. Empty only where no host is in effect.
pub fn stages(spec: &Spec, plan: &Plan<'_>) -> Vec<Stage> {
    let fleet = InEffect::new(spec, plan);
    if fleet.hosts.is_empty() {
        return Vec::new();
    }
    Builder { spec, plan, fleet, part: AppPart::default(), stages: Vec::new() }.build()
}

/// Intents for hosts that were away, to be written once the rollout succeeded: the newest version, nothing in between.
/// Those `without_proxy` are given one whatever the operation: nobody is there to set them up first.
pub fn catch_up(spec: &Spec, plan: &Plan<'_>, without_proxy: &[HostName]) -> Vec<Change> {
    let away: Vec<HostFact> = plan.hosts.iter().filter(|h| h.away).cloned().collect();
    let here: Vec<HostFact> = away.iter().map(|h| HostFact { away: false, ..h.clone() }).collect();
    let fleet = InEffect::new(spec, &Plan { hosts: &here, ..plan.clone() });
    let part = AppPart {
        staged: true,
        prepared: prepares(spec),
        tagged: true,
        when_serving: true,
        ..AppPart::default()
    };
    let mut changes = Vec::new();
    for host in &fleet.hosts {
        let boots_proxy = plan.operation.boots_proxy() || without_proxy.contains(&host.name);
        if boots_proxy {
            changes.push(proxy(spec, host));
        }
        changes.push(app(&spec.app, host, part));
        let mut roles = fleet.boot_host(spec, host, &fleet.roles);
        // The proxy, the image and the files come first, as the stages would have had it.
        let proxy = boots_proxy.then_some(Unit::Proxy);
        let first: Vec<Unit> = proxy.into_iter().chain([Unit::App(spec.app.clone())]).collect();
        for change in &mut roles {
            change.after.splice(0..0, first.iter().cloned());
        }
        changes.extend(roles);
    }
    // The app unit itself would wait for the roles (its tag does) while they wait for it: its other fields come first,
    // and an app unit with a tag that waits settles once image and files are there.
    changes
}

/// True where files are wanted before containers start: error pages, assets, custom certificates.
pub fn prepares(spec: &Spec) -> bool {
    let files = |r: &RoleSpec| {
        r.tls_secrets.is_some() || r.templates.iter().any(|t| t.template.asset_path.is_some())
    };
    spec.error_pages.as_ref().is_some_and(|pages| !pages.is_empty()) || spec.roles.iter().any(files)
}

fn names(hosts: &[&HostFact]) -> Vec<HostName> {
    hosts.iter().map(|h| h.name.clone()).collect()
}

fn spelled(hosts: &[&HostFact]) -> Vec<HostName> {
    hosts.iter().map(|h| h.config.clone()).collect()
}

fn app(app: &App, host: &HostFact, part: AppPart) -> Change {
    Change {
        host: host.name.clone(),
        unit: Unit::App(app.clone()),
        content: Content::App(part),
        after: Vec::new(),
    }
}

fn proxy(spec: &Spec, host: &HostFact) -> Change {
    Change {
        host: host.name.clone(),
        unit: Unit::Proxy,
        content: Content::Proxy { container: spec.has_proxy(&host.config) },
        after: Vec::new(),
    }
}

fn watch(changes: &[Change]) -> Vec<Watched> {
    changes
        .iter()
        .map(|c| Watched { host: c.host.clone(), unit: c.unit.clone(), after: c.after.clone() })
        .collect()
}

struct Builder<'a> {
    spec: &'a Spec,
    plan: &'a Plan<'a>,
    fleet: InEffect<'a>,
    /// What app intents hold by now.
    part: AppPart,
    stages: Vec<Stage>,
}

impl Builder<'_> {
    fn build(mut self) -> Vec<Stage> {
        match self.plan.operation {
            Operation::Setup | Operation::Deploy | Operation::Redeploy => self.lock_and_pull(),
            Operation::Rollback => {
                self.find_containers();
                self.lock();
            }
        }
        let everywhere = spelled(&self.fleet.hosts);
        self.hook(StageKind::PreDeploy, "pre-deploy hook", everywhere.clone(), true);
        if self.plan.operation == Operation::Rollback {
            self.part.staged = true;
            self.everywhere(StageKind::FindImage, "find image");
        }
        self.proxy_and_stale();
        if prepares(self.spec) {
            self.part.prepared = true;
            self.everywhere(StageKind::Prepare, "prepare");
        }
        self.boot();
        self.part.tagged = true;
        self.part.pruned = self.plan.operation.boots_proxy();
        // On each host the tag comes first; what is pruned nobody could go back to, tagged elsewhere or not.
        let name = if self.part.pruned { "tag latest, prune" } else { "tag latest" };
        self.everywhere(StageKind::TagLatest, name);
        self.unlock();
        let keep_lock = self.plan.operation == Operation::Setup;
        self.push(StageKind::Record, "record", Vec::new(), Work::Commit { keep_lock });
        self.hook(StageKind::PostDeploy, "post-deploy hook", everywhere, keep_lock);
        self.stages
    }

    fn push(&mut self, kind: StageKind, name: impl Into<String>, hosts: Vec<HostName>, work: Work) {
        self.stages.push(Stage { kind, name: name.into(), hosts, work });
    }

    fn intents(&mut self, kind: StageKind, name: impl Into<String>, changes: Vec<Change>) {
        let watched = watch(&changes);
        let hosts = hosts_of(&watched);
        let work = Work::Intents { changes, gate: Gate::All, watched, pins: false };
        self.push(kind, name, hosts, work);
    }

    /// Kamal's lock is a directory on the primary host in effect.
    fn lock_host(&self) -> &HostName {
        let first = self.plan.hosts.iter().find(|h| self.fleet.hosts.contains(h));
        &first.unwrap_or(self.fleet.hosts[0]).name
    }

    fn app_change(&self, host: &HostFact) -> Change {
        let locked = self.part.locked && host.name == *self.lock_host();
        app(&self.spec.app, host, AppPart { locked, ..self.part })
    }

    fn everywhere(&mut self, kind: StageKind, name: &str) {
        let changes = self.fleet.hosts.iter().map(|h| self.app_change(h)).collect();
        self.intents(kind, name, changes);
    }

    fn on_lock_host(&mut self, kind: StageKind, name: &str) {
        let lock_host = self.lock_host().clone();
        let hosts = self.fleet.hosts.iter().filter(|h| h.name == lock_host);
        let changes = hosts.map(|h| self.app_change(h)).collect();
        self.intents(kind, name, changes);
    }

    fn find_containers(&mut self) {
        let hosts = names(&self.fleet.hosts);
        self.push(StageKind::FindContainers, "find containers", hosts, Work::FindContainers);
    }

    /// The lock is on the host that pulls first, but where `--roles` leaves the primary role out. It comes before the
    /// pull: a rollout that somebody else's lock refuses has pulled nothing.
    fn lock_and_pull(&mut self) {
        let first = self.fleet.hosts[0];
        if !self.plan.joined && *self.lock_host() == first.name {
            self.part.locked = true;
            self.pull("lock, pull");
        } else {
            self.lock();
            self.pull("pull first");
        }
    }

    /// The first primary host alone pulls the tag and reports the digest; the others then pull exactly that.
    fn pull(&mut self, on_first: &str) {
        self.part.staged = true;
        let first = self.fleet.hosts[0];
        let changes = vec![self.app_change(first)];
        let watched = watch(&changes);
        let hosts = hosts_of(&watched);
        let work = Work::Intents { changes, gate: Gate::All, watched, pins: true };
        self.push(StageKind::PullFirst, on_first, hosts, work);
        // Then one host for each registry mirror that has not seen the image, so that a mirror fetches it once.
        let mut seen: BTreeSet<&str> = BTreeSet::from(["", &first.mirror]);
        let rest = self.fleet.hosts.iter().skip(1);
        let (seeds, others): (Vec<&HostFact>, Vec<&HostFact>) =
            rest.partition(|h| seen.insert(&h.mirror));
        let changes = |hosts: &[&HostFact]| hosts.iter().map(|h| self.app_change(h)).collect();
        let (seeds, others): (Vec<Change>, Vec<Change>) = (changes(&seeds), changes(&others));
        for (name, changes) in [("pull once for each mirror", seeds), ("pull", others)] {
            if !changes.is_empty() {
                self.intents(StageKind::Pull, name, changes);
            }
        }
    }

    /// Two units of each host that have nothing to do with each other.
    fn proxy_and_stale(&mut self) {
        let (boots, stops) = (self.plan.operation.boots_proxy(), self.plan.operation.stops_stale());
        let mut changes = Vec::new();
        if boots {
            changes.extend(self.fleet.hosts.iter().map(|h| proxy(self.spec, h)));
        }
        if stops {
            self.part.stale = true;
            changes.extend(self.fleet.hosts.iter().map(|h| self.app_change(h)));
        }
        match (boots, stops) {
            (true, true) => self.intents(StageKind::Proxy, "proxy, stale containers", changes),
            (true, false) => self.intents(StageKind::Proxy, "proxy", changes),
            (false, true) => self.intents(StageKind::Proxy, "stale containers", changes),
            (false, false) => {}
        }
    }

    fn lock(&mut self) {
        if !self.plan.joined {
            self.part.locked = true;
            self.on_lock_host(StageKind::Lock, "lock");
        }
    }

    fn unlock(&mut self) {
        if !self.plan.joined {
            self.part.locked = false;
            self.on_lock_host(StageKind::Unlock, "unlock");
        }
    }

    fn hook(&mut self, kind: StageKind, stage: &str, hosts: Vec<HostName>, locked: bool) {
        // A hook's stage is called as the hook is.
        let name = kind.as_str();
        if !self.plan.hooks.contains(name) {
            return;
        }
        let with_secrets = matches!(name, "pre-deploy" | "post-deploy");
        let runtime = name == "post-deploy";
        let enrolled = self.fleet.hosts.iter().filter(|h| hosts.contains(&h.config));
        let enrolled = enrolled.map(|h| h.name.clone()).collect();
        let hook = Hook { name, hosts, locked, runtime, with_secrets };
        self.push(kind, stage, enrolled, Work::Hook(hook));
    }

    fn boot(&mut self) {
        let groups = self.fleet.groups(self.spec);
        let wait = Duration::from_secs(self.spec.boot.wait_s);
        let count = groups.len();
        for (i, group) in groups.iter().enumerate() {
            let of = if count == 1 { String::new() } else { format!(" {} of {count}", i + 1) };
            let hosts = spelled(group);
            let named = |hook: StageKind| format!("{hook} hook{of}");
            let (before, after) = (StageKind::PreAppBoot, StageKind::PostAppBoot);
            self.hook(before, &named(before), hosts.clone(), true);
            self.boot_group(&of, group, i == 0);
            self.hook(after, &named(after), hosts, true);
            if !wait.is_zero() {
                self.push(StageKind::Pause, format!("pause{of}"), names(group), Work::Pause(wait));
            }
        }
    }

    /// The barrier is one per rollout: in the first group, other roles are written only once a primary container is
    /// healthy. From then on a host's roles go out together and wait for one another on the host.
    fn boot_group(&mut self, of: &str, group: &[&HostFact], first: bool) {
        let roles = self.fleet.roles.clone();
        let all: Vec<Change> =
            group.iter().flat_map(|h| self.fleet.boot_host(self.spec, h, &roles)).collect();
        let is_primary =
            |c: &Change| matches!(&c.content, Content::Role(r) if Some(r) == self.fleet.primary);
        let (primary, others): (Vec<Change>, Vec<Change>) = all.into_iter().partition(is_primary);
        if !first || others.is_empty() || primary.is_empty() {
            let mut changes = primary;
            changes.extend(others);
            return self.intents(StageKind::Boot, format!("boot{of}"), changes);
        }
        let watched = watch(&primary);
        let role = self.fleet.primary.map_or_else(String::new, ToString::to_string);
        let hosts = hosts_of(&watched);
        let work = Work::Intents {
            changes: primary.clone(),
            gate: Gate::Any,
            watched: watched.clone(),
            pins: false,
        };
        self.push(StageKind::BootPrimary, format!("boot {role}{of}"), hosts, work);
        let watched: Vec<Watched> = watched.into_iter().chain(watch(&others)).collect();
        let hosts = hosts_of(&watched);
        let work = Work::Intents { changes: others, gate: Gate::All, watched, pins: false };
        self.push(StageKind::Boot, format!("boot{of}"), hosts, work);
    }
}

fn hosts_of(watched: &[Watched]) -> Vec<HostName> {
    let mut hosts: Vec<HostName> = Vec::new();
    for unit in watched {
        if !hosts.contains(&unit.host) {
            hosts.push(unit.host.clone());
        }
    }
    hosts
}

#[cfg(test)]
mod tests;
