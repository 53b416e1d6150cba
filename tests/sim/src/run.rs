//! Steps through a scenario: begins and ends faults, checks after every step, restarts everything in the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dhow_agent::engine::fake::Restore;
use rand::SeedableRng as _;
use turmoil::Sim;

use crate::check::{self, Broken, Checks};
use crate::kills::{Death, Fate};
use crate::number::Numbers;
use crate::scenario::{CALM, Fault, Scenario};
use crate::world::{CONTROLLERS, World};
use crate::{agent, controller, person};

/// After the last fault: back-off, silence, the wait for a client, two tries of a version that does not work.
const PATIENCE: Duration = Duration::from_secs(240);

/// After the last restart: longer than the agent's period of looking again.
const SECOND_LIFE: Duration = Duration::from_secs(75);

/// After a paused controller goes on, until it is killed.
const ZOMBIE: Duration = Duration::from_secs(2);

/// Between two looks whether everything is quiet.
const LOOK: Duration = Duration::from_secs(1);

enum Change {
    Begin(Fault),
    End(Fault),
    /// The controller that was paused is killed.
    Bury(usize),
}

/// What a simulation that kept every promise tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Everything that happened, as a number: the same whenever the seed is run.
    pub trace: u64,
    /// Rollouts that succeeded.
    pub succeeded: usize,
    /// Rollouts that ended otherwise.
    pub ended: usize,
}

/// Runs the scenario of a seed.
///
/// Once in a process only: hash maps, tokio and TLS draw from one stream of random bytes, which follows from the seed.
///
/// # Errors
///
/// The promise that was broken, and when.
pub fn simulate(seed: u64) -> Result<Summary, String> {
    mad_turmoil::rand::set_rng(rand::rngs::StdRng::seed_from_u64(seed));
    // A thread of its own, as the keys of hash maps are drawn once a thread, and this one may have drawn them before.
    let simulation = std::thread::spawn(move || on_this_thread(seed));
    simulation.join().unwrap_or_else(|_| Err("a program panicked".to_owned()))
}

fn on_this_thread(seed: u64) -> Result<Summary, String> {
    let scenario = Scenario::new(seed);
    let setup = tokio::runtime::Builder::new_current_thread().build();
    let setup = setup.map_err(|e| e.to_string())?;
    let world = setup.block_on(World::new(scenario)).map_err(|e| format!("{e:#}"))?;
    drop(setup);
    let mut run = Run::new(Arc::new(world));
    let outcome = run.all();
    outcome.map_err(|broken| format!("after {:?}: {broken}", run.sim.elapsed()))?;
    let (succeeded, ended) = check::outcomes(&run.world);
    Ok(Summary { trace: run.checks.trace, succeeded, ended })
}

pub(crate) struct Run {
    pub(crate) world: Arc<World>,
    sim: Sim<'static>,
    checks: Checks,
    /// What changes when; the next one last.
    changes: Vec<(Duration, Change)>,
    /// The controller that is paused.
    paused: Option<usize>,
    numbers: Numbers,
    people_left: bool,
}

fn name(host: usize) -> String {
    format!("h{host}")
}

impl Run {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let scenario = &world.scenario;
        let mut sim = turmoil::Builder::new()
            .rng_seed(scenario.seed)
            .tick_duration(scenario.tick)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(scenario.latency)
            .simulation_duration(Duration::from_secs(3600))
            .tcp_capacity(65_536)
            .enable_random_order()
            .build();
        for (index, controller) in CONTROLLERS.into_iter().enumerate() {
            let world = Arc::clone(&world);
            sim.host(controller, move || {
                let run = controller::run(Arc::clone(&world), index);
                async move { Ok(run.await?) }
            });
        }
        for index in 0..world.hosts.len() {
            let world = Arc::clone(&world);
            sim.host(name(index), move || {
                let run = agent::run(Arc::clone(&world), index);
                async move { Ok(run.await?) }
            });
        }
        for index in 0..world.people.len() {
            let run = person::run(Arc::clone(&world), index);
            sim.client(format!("p{index}"), async move { Ok(run.await?) });
        }
        let mut changes = Vec::new();
        for (at, fault) in &scenario.faults {
            changes.push((*at, Change::Begin(fault.clone())));
        }
        changes.reverse();
        let checks = Checks::new(Arc::clone(&world));
        let numbers = scenario.numbers.clone();
        Self { world, sim, checks, changes, paused: None, numbers, people_left: true }
    }

    fn all(&mut self) -> Result<(), Broken> {
        self.until(CALM, true)?;
        self.calm();
        self.end_well()?;
        self.second_life()
    }

    /// Whatever happened: everything comes to rest, and nothing is left behind.
    pub(crate) fn end_well(&mut self) -> Result<(), Broken> {
        self.quiet()?;
        check::ended(&self.world)
    }

    /// When it is.
    pub(crate) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    fn step(&mut self) -> Result<(), Broken> {
        self.people_left = !self.sim.step().map_err(|e| format!("a program ended: {e}"))?;
        self.world.now.set(self.sim.elapsed());
        if let Some(Death { fault, late }) = self.world.fate.as_ref().and_then(Fate::dying) {
            match late.is_zero() {
                true => self.change(Change::Begin(fault)),
                false => self.later(late, Change::Begin(fault)),
            }
            self.world.fate.iter().for_each(Fate::is_done);
        }
        self.checks.step()
    }

    /// Steps on; with `early`, until nothing is left to do.
    pub(crate) fn until(&mut self, end: Duration, early: bool) -> Result<(), Broken> {
        while self.sim.elapsed() < end && !(early && !self.people_left && self.changes.is_empty()) {
            while self.changes.last().is_some_and(|(at, _)| *at <= self.sim.elapsed()) {
                let (_, change) = self.changes.pop().expect("there is one");
                self.change(change);
            }
            self.step()?;
        }
        Ok(())
    }

    fn later(&mut self, wait: Duration, change: Change) {
        let due = self.sim.elapsed() + wait;
        let at = self.changes.partition_point(|(other, _)| *other > due);
        self.changes.insert(at, (due, change));
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Begin(fault) => {
                tracing::info!(?fault, at = ?self.sim.elapsed(), "begins");
                let lasts = self.begin(&fault);
                self.later(lasts, Change::End(fault));
            }
            Change::End(fault) => {
                tracing::info!(?fault, at = ?self.sim.elapsed(), "ends");
                self.end(&fault);
            }
            Change::Bury(old) => {
                self.sim.crash(CONTROLLERS[old]);
                self.paused = None;
                for peer in self.peers() {
                    self.sim.repair(CONTROLLERS[old], peer.as_str());
                }
                for host in 0..self.world.hosts.len() {
                    self.checks.away(host, false);
                }
            }
        }
    }

    fn peers(&self) -> Vec<String> {
        let people = (0..self.world.people.len()).map(|p| format!("p{p}"));
        (0..self.world.hosts.len()).map(name).chain(people).collect()
    }

    fn active(&self) -> usize {
        self.world.active.load(Ordering::Relaxed)
    }

    fn begin(&mut self, fault: &Fault) -> Duration {
        match fault {
            Fault::Cut { host, lasts } => {
                self.checks.away(*host, true);
                CONTROLLERS.iter().for_each(|&c| self.sim.partition(name(*host), c));
                *lasts
            }
            Fault::OneWay { host, up: true, lasts } => {
                CONTROLLERS.iter().for_each(|&c| self.sim.partition_oneway(name(*host), c));
                *lasts
            }
            Fault::OneWay { host, up: false, lasts } => {
                CONTROLLERS.iter().for_each(|&c| self.sim.partition_oneway(c, name(*host)));
                *lasts
            }
            Fault::Held { host, lasts } => {
                // On turmoil's links the last word counts: what waits on one that was cut does come.
                self.checks.away(*host, false);
                CONTROLLERS.iter().for_each(|&c| self.sim.hold(name(*host), c));
                *lasts
            }
            Fault::Agent { host, power, lasts } => {
                self.sim.crash(name(*host));
                if *power {
                    let numbers = &mut self.numbers;
                    self.world.hosts[*host].disk.lose_power(|| numbers.percent(50));
                }
                *lasts
            }
            Fault::Controller { lasts } => {
                self.sim.crash(CONTROLLERS[self.active()]);
                *lasts
            }
            Fault::Paused { lasts } => {
                if self.paused.is_none() {
                    let old = self.active();
                    self.paused = Some(old);
                    self.world.gates[old].send_replace(false);
                    for peer in self.peers() {
                        self.sim.partition(CONTROLLERS[old], peer.as_str());
                    }
                    self.take_over(1 - old);
                }
                *lasts
            }
            Fault::Person { person, lasts } => {
                CONTROLLERS.iter().for_each(|&c| self.sim.partition(format!("p{person}"), c));
                *lasts
            }
            Fault::Client { person, lasts } => {
                self.world.people[*person].has_client.send_replace(false);
                *lasts
            }
            Fault::Engine { host, lasts, .. } => {
                self.world.hosts[*host].engine.go_away();
                *lasts
            }
        }
    }

    /// Starts a controller in the place of the other one.
    fn take_over(&mut self, new: usize) {
        self.world.active.store(new, Ordering::Relaxed);
        self.world.gates[new].send_replace(true);
        self.sim.bounce(CONTROLLERS[new]);
    }

    fn repair(&mut self, peer: &str) {
        for (index, controller) in CONTROLLERS.into_iter().enumerate() {
            // One that is paused stays cut off.
            if self.paused != Some(index) {
                self.sim.repair(peer, controller);
            }
        }
    }

    fn end(&mut self, fault: &Fault) {
        match fault {
            Fault::Cut { host, .. } | Fault::OneWay { host, .. } => {
                self.repair(&name(*host));
                self.checks.away(*host, false);
            }
            Fault::Held { host, .. } => {
                self.checks.away(*host, false);
                for (index, controller) in CONTROLLERS.into_iter().enumerate() {
                    if self.paused != Some(index) {
                        self.sim.release(name(*host), controller);
                    }
                }
            }
            Fault::Agent { host, .. } => self.sim.bounce(name(*host)),
            Fault::Controller { .. } => self.sim.bounce(CONTROLLERS[self.active()]),
            Fault::Paused { .. } => {
                if let Some(old) = self.paused {
                    self.world.gates[old].send_replace(true);
                    self.later(ZOMBIE, Change::Bury(old));
                }
            }
            Fault::Person { person, .. } => self.repair(&format!("p{person}")),
            Fault::Client { person, .. } => {
                self.world.people[*person].has_client.send_replace(true);
            }
            Fault::Engine { host, restore, .. } => {
                self.world.hosts[*host].engine.come_back(*restore);
                if *restore == Restore::Stopped {
                    self.checks.stopped(*host);
                }
            }
        }
    }

    /// Ends whatever is still wrong.
    fn calm(&mut self) {
        while let Some((_, change)) = self.changes.pop() {
            match change {
                Change::Begin(_) => {}
                Change::End(fault) => self.end(&fault),
                Change::Bury(old) => self.change(Change::Bury(old)),
            }
        }
        for host in 0..self.world.hosts.len() {
            self.repair(&name(host));
            self.checks.away(host, false);
        }
    }

    fn quiet(&mut self) -> Result<(), Broken> {
        let deadline = self.sim.elapsed() + PATIENCE;
        loop {
            let next = self.sim.elapsed() + LOOK;
            self.until(next, false)?;
            let left = match self.people_left {
                true => Some("a person still waits".to_owned()),
                false => check::busy(&self.world)?,
            };
            match left {
                // Statuses on their way, ownership to lapse, containers to be stopped.
                None => {
                    let next = self.sim.elapsed() + Duration::from_secs(15);
                    return self.until(next, false);
                }
                Some(left) if self.sim.elapsed() > deadline => return Err(left),
                Some(_) => {}
            }
        }
    }

    /// Every program is started anew, the controller may have forgotten a host: nothing changes.
    fn second_life(&mut self) -> Result<(), Broken> {
        if let Some(host) = self.world.scenario.forgets {
            check::forget(&self.world, host);
        }
        let before = check::picture(&self.world);
        for host in 0..self.world.hosts.len() {
            self.sim.bounce(name(host));
        }
        self.sim.bounce(CONTROLLERS[self.active()]);
        let end = self.sim.elapsed() + SECOND_LIFE;
        self.until(end, false)?;
        let after = check::picture(&self.world);
        for (host, (before, after)) in before.iter().zip(&after).enumerate() {
            if before != after {
                return Err(format!(
                    "promises 5 and 6: after restarts h{host} changed from {before:?} to {after:?}"
                ));
            }
        }
        Ok(())
    }
}
