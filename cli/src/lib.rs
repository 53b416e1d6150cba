//! Part of dhow.

pub mod secrets;
