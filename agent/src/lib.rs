#![doc = include_str!("../README.md")]

pub mod answers;
pub mod clock;
pub mod command;
pub mod converge;
pub mod engine;
pub mod execute;
pub mod host;
pub mod ledger;
pub mod notify;
pub mod plan;
pub mod proxy;
pub mod session;
pub mod settings;
pub mod supervise;

#[cfg(test)]
mod testing;
