//! The three programs as people start them, on this machine's loopback: what they refuse, what they print, where settings
//! come from. Needs neither root nor Docker: an agent whose Engine cannot be reached is as good as any other here, and where
//! rollouts are to succeed there is one on a model Engine.

#[path = "programs/away.rs"]
mod away;
#[path = "programs/flags.rs"]
mod flags;
#[path = "programs/leftovers.rs"]
mod leftovers;
#[path = "programs/model.rs"]
mod model;
#[path = "programs/output.rs"]
mod output;
#[path = "programs/power.rs"]
mod power;
#[path = "programs/refusals.rs"]
mod refusals;
#[path = "programs/scripts.rs"]
mod scripts;
#[path = "programs/settings.rs"]
mod settings;
#[path = "programs/sick.rs"]
mod sick;
#[path = "programs/stage.rs"]
mod stage;
