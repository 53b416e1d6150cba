//! The agents' side of the controller: sessions, presence, what hosts report, blobs.
//!
//! In: agent streams, intents in the store. Out: intents to agents; a picture of the fleet for rollouts and people.
//! Always true: what the picture says of a unit came from that host's own certificate; the picture is never stored;
//! a host has one session, the newest.

mod dispatch;
mod fetch;
pub(crate) mod news;
mod picture;
mod service;
mod session;

pub use dispatch::dispatch_intents;
pub use picture::{Fleet, Online, RequestRefused};
pub use service::FleetGateway;
pub use session::Rooms;

use std::time::Duration;

/// Time between an agent's heartbeats. Three missed ones are within the 15 s in which silence must be noticed.
pub const HEARTBEAT: Duration = Duration::from_secs(4);

/// A host that sent nothing for so long is silent: its session ends.
pub const SILENCE: Duration = Duration::from_secs(12);

/// Messages waiting for one agent. A full channel means a slow agent: its session is dropped and it resyncs.
pub(crate) const OUTBOX: usize = 64;
