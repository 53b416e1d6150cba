//! The `dhow` command: compiles a project's configuration and asks the controller to roll it out.

pub mod bundle;
pub mod caller;
pub mod client;
pub mod command;
pub mod config;
pub mod errors;
pub mod follow;
pub mod home;
pub mod hooks;
pub mod output;
pub mod performer;
pub mod project;
pub mod secrets;
pub mod selection;
