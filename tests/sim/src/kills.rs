//! Killed at every step: a calm world in which one program dies at one point of a rollout.
//!
//! In: a play, a victim and a point. Out: what is left, to be compared with what a run leaves in which nobody died, and
//! the points that were met. Points are what the programs' breakpoints tell: before and after each step of the agents'
//! executors, before, inside and after each stage of the rollout, and around each hook that the client runs. A death is
//! kill -9; what a service manager restarts is restarted, and a person attaches to what their client began.

mod fate;
mod kill;
mod plays;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use serde_json::{Value, json};

pub(crate) use fate::{Death, Fate};
pub use kill::{Kill, Program, Victim, kinds, what};
pub use plays::PLAYS;

use crate::check::Broken;
use crate::run::Run;
use crate::world::World;

/// All kills are played with the same random bytes: the way up to a death is that of the run without.
const SEED: u64 = 1;

/// Longer than any play takes.
const OVER: Duration = Duration::from_secs(900);

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Points of the play's last operation, each with how often it had been met by then. Those before what the play
    /// itself kills are not among them.
    pub met: Vec<(String, usize)>,
    /// True once the victim died, or nobody was to.
    pub struck: bool,
    /// What is left, a line each, without what differs from run to run.
    pub left: Vec<String>,
}

impl Outcome {
    /// As one line, for another process.
    pub fn to_line(&self) -> String {
        json!({ "met": self.met, "struck": self.struck, "left": self.left }).to_string()
    }

    /// What [`Outcome::to_line`] wrote.
    pub fn from_line(line: &str) -> Option<Self> {
        let all: Value = serde_json::from_str(line).ok()?;
        let of = |name: &str| all.get(name).cloned();
        Some(Self {
            met: serde_json::from_value(of("met")?).ok()?,
            struck: of("struck")?.as_bool()?,
            left: serde_json::from_value(of("left")?).ok()?,
        })
    }
}

/// Plays, with a death or without. Once in a process only, as [`crate::simulate`].
///
/// # Errors
///
/// The promise that was broken, and when.
pub fn play(number: usize, kill: Option<&Kill>) -> Result<Outcome, String> {
    mad_turmoil::rand::set_rng(rand::rngs::StdRng::seed_from_u64(SEED));
    let kill = kill.cloned();
    // As for seeds: keys of hash maps are drawn once a thread.
    let simulation = std::thread::spawn(move || on_this_thread(number, kill.as_ref()));
    simulation.join().unwrap_or_else(|_| Err("a program panicked".to_owned()))
}

fn on_this_thread(number: usize, kill: Option<&Kill>) -> Result<Outcome, String> {
    let play = PLAYS.get(number).ok_or("there is no such play")?;
    let setup = tokio::runtime::Builder::new_current_thread().build();
    let setup = setup.map_err(|e| e.to_string())?;
    let world = setup.block_on(World::new(play.scenario(SEED)));
    let mut world = world.map_err(|e| format!("{e:#}"))?;
    drop(setup);
    let engines = world.hosts.iter().map(|host| host.engine.clone()).collect();
    let mut deaths = Vec::new();
    deaths.extend(play.death());
    deaths.extend(kill.map(|kill| (kill.point(), kill.death())));
    let expected = deaths.len();
    world.fate = Some(Fate::new(engines, deaths));
    let mut run = Run::new(Arc::new(world));
    let ended = |run: &Run, broken: Broken| format!("after {:?}: {broken}", run.elapsed());
    let left = all(&mut run).map_err(|broken| ended(&run, broken))?;
    let fate = run.world.fate.as_ref().ok_or("it is there")?;
    let since = match play.death() {
        Some((point, _)) => fate.met().iter().position(|met| *met == point).map_or(0, |at| at + 1),
        None => 0,
    };
    let met = fate.met().split_off(since);
    Ok(Outcome { met, struck: fate.struck() == expected, left })
}

fn all(run: &mut Run) -> Result<Vec<String>, Broken> {
    run.until(OVER, true)?;
    run.end_well()?;
    snapshot::of(&run.world)
}
