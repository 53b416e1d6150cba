//! Carries an operation on an app across its hosts, stage by stage.
//!
//! In: starts, hook reports and cancellations from people; what hosts report. Out: intents in the store, events and hook
//! requests to clients. Always true: one rollout per app at a time; what a rollout decided is stored before it acts on
//! it; only the holder of its ownership key writes; a rollout that ends without success leaves every host with an
//! intent that nothing will retry.

pub mod gate;
pub mod hooks;
pub mod intents;
pub mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod secrets;
pub mod stages;
