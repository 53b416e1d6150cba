//! The controller of dhow: holds the desired state of a fleet and drives its rollouts.

pub mod api;
pub mod blob;
pub mod ca;
pub mod claim;
pub mod clock;
pub mod command;
pub mod gateway;
pub mod host;
pub mod rollout;
pub mod server;
pub mod services;
pub mod settings;
pub mod store;
pub mod supervise;
pub mod transport;
