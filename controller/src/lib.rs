//! The controller of dhow: holds the desired state of a fleet and drives its rollouts.

pub mod clock;
pub mod store;
