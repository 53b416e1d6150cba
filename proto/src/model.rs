//! The words of the design as types: parsed once at the edge, then trusted.
//!
//! In: wire messages and JSON documents. Out: values whose rules hold. Every refusal is a
//! [`FieldError`] that names the path of the field. Nothing here does I/O.

pub mod app;
pub mod document;
pub mod error;
pub mod generation;
pub mod intent;
pub mod kamal;
pub mod name;
pub mod secrets;
pub mod spec;
pub mod status;
pub mod template;
pub mod unit;

pub use app::App;
pub use document::{BlobDigest, BlobRef, Document};
pub use error::FieldError;
pub use generation::Generation;
pub use name::{
    AccessoryName, ContainerName, Destination, HostName, ImageDigest, ImageRef, RoleName,
    ServiceName, Version,
};
pub use unit::Unit;

/// Features this build understands in an intent. An intent names those it needs, and a controller
/// withholds it from an agent that does not list them: protobuf drops unknown fields silently.
pub const FEATURES: &[&str] = &["proxy", "app", "role"];

/// Oldest and newest protocol version this build speaks.
pub const PROTOCOL: std::ops::RangeInclusive<u32> = 1..=1;
