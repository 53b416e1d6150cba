//! What people do, how versions behave and what goes wrong, all from one number.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use dhow_agent::engine::fake::{Behaviour, Restore};
use dhow_proto::wire::Operation;

use crate::number::Numbers;
use crate::shuffle::Odds;

/// Versions `v1` to `v5`.
pub(crate) const VERSIONS: usize = 5;

/// Nothing goes wrong any more, and nobody begins anything, after this time.
pub(crate) const CALM: Duration = Duration::from_secs(100);

/// One thing a person does.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    /// Pause before.
    pub(crate) after: Duration,
    pub(crate) operation: Operation,
    /// 1 is `v1`.
    pub(crate) version: usize,
    pub(crate) hooks: Vec<&'static str>,
    /// The hook that fails.
    pub(crate) failing: Option<&'static str>,
    /// The client goes away for good after this time.
    pub(crate) leaves: Option<Duration>,
    pub(crate) skip_offline: bool,
    pub(crate) rolls_back: bool,
    /// Whoever is told that a hook was left behind looks whether it ran, runs it where it did not, and says so.
    pub(crate) looks: bool,
}

/// One thing that goes wrong. Hosts by their index; each lasts for a while.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// No message passes between a host and the controller.
    Cut { host: usize, lasts: Duration },
    /// None passes one way; from the host where `up`.
    OneWay { host: usize, up: bool, lasts: Duration },
    /// Messages wait, and then all come.
    Held { host: usize, lasts: Duration },
    /// The agent is killed; with `power`, what it did not sync is gone.
    Agent { host: usize, power: bool, lasts: Duration },
    /// The controller is killed.
    Controller { lasts: Duration },
    /// The controller is stopped (as by SIGSTOP) and cut off, another process takes its place, and then it goes on.
    Paused { lasts: Duration },
    /// A person is cut off.
    Person { person: usize, lasts: Duration },
    /// A person's client is killed; later they attach to what it began.
    Client { person: usize, lasts: Duration },
    /// A host's Engine is killed.
    Engine { host: usize, restore: Restore, lasts: Duration },
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number.
    pub seed: u64,
    pub(crate) hosts: usize,
    /// Hosts with the role job, beside web, which is everywhere.
    pub(crate) jobs: Vec<usize>,
    /// What does not just work, by host and version.
    pub(crate) behaviours: BTreeMap<(usize, usize), Behaviour>,
    pub(crate) people: Vec<Vec<Action>>,
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// The app has all that a config may give it: files, a certificate, a second network, boot groups, and prunes soon.
    pub(crate) furnished: bool,
    /// How long a rollout waits for hosts that are away.
    pub(crate) wait_for_hosts: Duration,
    pub(crate) tick: Duration,
    pub(crate) latency: Duration,
    pub(crate) odds: Odds,
    /// Seconds by which clocks are ahead: the controller's, then each host's.
    pub(crate) ahead: Vec<i64>,
    /// In the end the controller forgets what this host is to do.
    pub(crate) forgets: Option<usize>,
    pub(crate) numbers: Numbers,
}

impl Scenario {
    /// The scenario of a seed, always the same.
    pub fn new(seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        let hosts = 1 + n.index(4);
        let jobs = (0..hosts).filter(|_| n.percent(40)).collect();
        let behaviours = behaviours(&mut n, hosts);
        let people = people(&mut n);
        let faults = faults(&mut n, hosts, people.len());
        let shuffled = n.percent(60);
        let odds = match shuffled {
            true => Odds { repeat: n.between(0, 20), delay: n.between(0, 20) },
            false => Odds::default(),
        };
        Self {
            seed,
            hosts,
            jobs,
            behaviours,
            people,
            faults,
            furnished: false,
            wait_for_hosts: Duration::from_secs(3),
            tick: Duration::from_millis([40, 80, 120][n.index(3)]),
            latency: n.millis(1, 300),
            odds,
            ahead: (0..=hosts)
                .map(|_| i64::try_from(n.between(0, 240)).unwrap_or(0) - 120)
                .collect(),
            forgets: n.percent(30).then(|| n.index(hosts)),
            numbers: n,
        }
    }

    /// True where a version works on a host.
    pub(crate) fn works(&self, host: usize, version: usize) -> bool {
        match self.behaviours.get(&(host, version)) {
            None | Some(Behaviour::Well | Behaviour::HealthyAfter(_)) => true,
            Some(Behaviour::Unhealthy | Behaviour::Exits(..) | Behaviour::StartRefused(_)) => false,
        }
    }
}

fn behaviours(n: &mut Numbers, hosts: usize) -> BTreeMap<(usize, usize), Behaviour> {
    let mut all = BTreeMap::new();
    for version in 1..=VERSIONS {
        let behaviour = match n.between(0, 9) {
            0..=4 => continue,
            5 | 6 => Behaviour::HealthyAfter(n.millis(200, 3_000)),
            7 => Behaviour::Unhealthy,
            8 => Behaviour::Exits(Duration::from_millis(300), 1),
            _ => Behaviour::StartRefused("exec format error".to_owned()),
        };
        let only = n.percent(50).then(|| n.index(hosts));
        for host in (0..hosts).filter(|host| only.is_none_or(|only| only == *host)) {
            all.insert((host, version), behaviour.clone());
        }
    }
    all
}

const HOOKS: [&str; 4] = ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"];

fn people(n: &mut Numbers) -> Vec<Vec<Action>> {
    let count = if n.percent(35) { 2 } else { 1 };
    (0..count)
        .map(|person| {
            let actions = n.between(1, if person == 0 { 5 } else { 2 });
            (0..actions).map(|i| action(n, person == 0 && i == 0)).collect()
        })
        .collect()
}

fn action(n: &mut Numbers, first: bool) -> Action {
    let operation = match n.between(0, 9) {
        _ if first => Operation::Deploy,
        0 | 1 => Operation::Redeploy,
        2 | 3 => Operation::Rollback,
        _ => Operation::Deploy,
    };
    let hooks: Vec<&str> = match n.percent(40) {
        true => HOOKS.into_iter().filter(|_| n.percent(60)).collect(),
        false => Vec::new(),
    };
    let failing = match hooks.is_empty() {
        false if n.percent(10) => Some(hooks[n.index(hooks.len())]),
        _ => None,
    };
    Action {
        after: if first { n.millis(500, 3_000) } else { n.millis(0, 15_000) },
        operation,
        version: 1 + n.index(VERSIONS),
        hooks,
        failing,
        leaves: n.percent(15).then(|| n.millis(100, 12_000)),
        skip_offline: n.percent(40),
        rolls_back: n.percent(25),
        looks: false,
    }
}

fn faults(n: &mut Numbers, hosts: usize, people: usize) -> Vec<(Duration, Fault)> {
    if n.percent(10) {
        return Vec::new();
    }
    let count = n.between(1, 7);
    let mut all: Vec<(Duration, Fault)> = (0..count)
        .map(|_| {
            let at = n.millis(1_000, 70_000);
            let longest = if n.percent(50) { 4_000 } else { 30_000 };
            let lasts = n.millis(200, longest);
            let host = n.index(hosts);
            let fault = match n.between(0, 9) {
                0 | 1 => Fault::Cut { host, lasts },
                2 => Fault::OneWay { host, up: n.percent(50), lasts },
                3 => Fault::Held { host, lasts },
                4 | 5 => Fault::Agent { host, power: n.percent(50), lasts },
                6 | 7 => Fault::Controller { lasts },
                8 => Fault::Paused { lasts },
                _ => Fault::Person { person: n.index(people), lasts },
            };
            (at, fault)
        })
        .collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} hosts, job on {:?}, latency up to {:?}, tick {:?}, {:?}, clocks {:?}, forgets {:?}",
            self.seed,
            self.hosts,
            self.jobs,
            self.latency,
            self.tick,
            self.odds,
            self.ahead,
            self.forgets
        )?;
        for ((host, version), behaviour) in &self.behaviours {
            writeln!(f, "  v{version} on h{host}: {behaviour:?}")?;
        }
        for (person, actions) in self.people.iter().enumerate() {
            for action in actions {
                writeln!(f, "  p{person}: {action:?}")?;
            }
        }
        for (at, fault) in &self.faults {
            writeln!(f, "  at {at:?}: {fault:?}")?;
        }
        Ok(())
    }
}
