//! Types generated from `dhow/v1/*.proto`. They stay at the edges: rooms work with [`crate::model`].
#![expect(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the .proto files hold the documentation"
)]

tonic::include_proto!("dhow.v1");
