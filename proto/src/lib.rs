#![doc = include_str!("../README.md")]

pub mod breakpoint;
pub mod dial;
mod enumerated;
pub mod model;
pub mod seal;
pub mod token;
pub mod wire;
