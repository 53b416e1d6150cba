//! The one connection to a controller: the agent dials, says what it has, asks for what it lacks, reports what is.
//!
//! In: intents and requests of the controller. Out: accepted intents in the ledger; statuses, events and answers.
//! Always true: at most one session; every queue is bounded; a unit the controller does not name is left alone; an
//! intent is answered by acceptance or by a refusal with its reason.

mod backoff;
mod board;
mod connect;
mod dispatch;
mod enrol;
mod fetch;
mod identity;
mod renew;
mod requests;
mod stream;

#[cfg(test)]
mod tests;

pub use board::Board;
pub use connect::{Connector, Rooms, SessionSettings};
pub(crate) use dispatch::chain;
pub use enrol::{Join, JoinError, Token, join};
pub use fetch::{BlobSource, FetchError, Fetcher, MAX_BLOB, NotFetched};
pub use identity::{IdentityError, Stored};
pub use requests::Host;
