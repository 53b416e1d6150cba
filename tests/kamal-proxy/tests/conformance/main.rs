//! The conformance suite: what a deployer relies on in kamal-proxy v0.9.2, one test a scenario.
//!
//! The expected results were measured on the real proxy. The suite runs against an *image* in the
//! machine's Docker Engine: the stand-in's, or the one in the docker-archive that `DHOW_PROXY_IMAGE` names, so
//! nothing here may lean on what only the stand-in does (wording of pages, column widths of `list`, usage texts, the
//! state file, anything that happens within 50 ms).
//!
//! Times: "never early" is strict, because that is a promise. "Not late" is lenient, because the
//! machine may be busy; where lateness is the point, the alternative is many seconds away.

#![expect(
    clippy::unwrap_used,
    reason = "a test may end with a panic, and its helpers are part of it"
)]

mod bodies;
mod deploy;
mod docker;
mod drain;
mod http;
mod maintenance;
mod packaging;
mod pages;
mod restart;
mod rig;
mod routing;
mod socket;
mod startup;
