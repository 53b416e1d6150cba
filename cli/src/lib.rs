//! Part of dhow.

pub mod config;
pub mod secrets;
