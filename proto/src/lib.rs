#![doc = include_str!("../README.md")]

pub mod dial;
pub mod model;
pub mod seal;
pub mod token;
pub mod wire;
