//! The harness that holds dhow to its promises on real Docker hosts.
//!
//! In: the programs of this workspace, as processes. Out: fleets of hosts on one machine, load on
//! the apps they run, snapshots of what is on them, and real Kamal beside dhow.
//! Always true: what a test starts is ended and removed when its values are dropped, also after a
//! panic; what a killed test run left is removed when the next fleet starts.
//!
//! How to run and write tests is told in `tests/README.md`.

pub mod bench;
pub mod demo;
pub mod fleet;
pub mod kamal;
pub mod load;
pub mod power;
pub mod project;
pub mod snapshot;
pub mod suite;
pub mod tap;

pub use fleet::{Agent, Controller, Fleet, FleetOptions, Host, Hub};
pub use project::{Project, ProjectSpec};
