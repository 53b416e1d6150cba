//! A controller, its agents and its people on a simulated network, with faults that follow from a number.
//!
//! In: a seed. Out: nothing, or which promise was broken when. Everything is real but what is outside of the programs:
//! the network is turmoil's, the Engines, disks and the store are models, time is simulated. One seed is one process, so
//! that it goes the same way every time (see [`simulate`]).
//!
//! ```text
//! number   the generator scenarios are drawn from      scenario  what people do and what goes wrong, from a seed
//! clock    simulated time, off by some on each host    net       sockets of the simulated network
//! shuffle  messages repeated and reordered             gate      a controller that is paused between its writes
//! world    what outlives a crash                       controller, agent, person   the programs
//! run      steps through a scenario                    check     the promises
//! kills    the same world, calm but for a death at a point of a rollout
//! ```

mod agent;
mod check;
mod clock;
mod controller;
mod furnish;
mod gate;
mod kills;
mod net;
mod number;
mod person;
mod process;
mod run;
mod scenario;
mod shuffle;
mod world;

pub use kills::{Kill, Outcome, PLAYS, Program, Victim, kinds, play, what};
pub use process::in_a_process;
pub use run::{Summary, simulate};
pub use scenario::Scenario;
