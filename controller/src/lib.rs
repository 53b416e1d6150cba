//! The controller of dhow: holds the desired state of a fleet and drives its rollouts.

pub mod blob;
pub mod ca;
pub mod clock;
pub mod gateway;
pub mod host;
pub mod rollout;
pub mod store;
pub mod transport;
