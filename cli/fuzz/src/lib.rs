//! The readers under test, and the worlds they are fuzzed in.
//!
//! They are included by path: what reads text is pure, so it can be built without the rest of the
//! CLI. Should one of these rooms begin to use something outside, this crate stops to build.

// The config room calls the shared model by its crate's name, which is this crate here.
extern crate self as dhow_proto;

/// `cli/src`.
#[path = "../../src"]
mod cli {
    pub mod config;
}
pub use cli::config;

/// `cli/src/secrets`.
#[path = "../../src/secrets"]
mod secrets {
    pub mod dotenv;
    pub mod words;
}
pub use secrets::{dotenv, words};

/// The part of the shared model that specs are made of.
#[path = "../../../proto/src/model"]
pub mod model {
    pub mod app;
    pub mod document;
    pub mod error;
    pub mod kamal;
    pub mod name;
    pub mod spec;
    pub mod template;
}

/// Stand-ins for the two messages which that part converts to and from; nothing is sent here.
pub mod wire {
    /// An app.
    pub struct AppRef {
        /// Its service.
        pub service: String,
        /// Its destination; empty without one.
        pub destination: String,
    }

    /// A blob.
    pub struct BlobRef {
        /// Its digest.
        pub digest: Vec<u8>,
        /// Its length.
        pub size: u64,
    }
}

pub mod world;
