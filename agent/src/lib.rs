//! The agent of one Docker host: converges it on what the controller wants.

pub mod engine;
pub mod execute;
pub mod host;
pub mod plan;
pub mod proxy;
