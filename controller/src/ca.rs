//! Says who is who: the controller's own certificate authority, its tokens and its revocations.
//!
//! In: certificate requests of hosts and people who proved who they are, by a token or by the
//! certificate they renew. Out: short-lived certificates, and the judgement on those presented.
//! Always true: the CA's key is never on disk in clear; a certificate carries the name the caller
//! decided on, nothing from the request but its key; a token's secret is stored as its hash only.
//!
//! ```text
//! token ── check, spend ─▶ Grant ─▶ Identity ── issue(csr) ─▶ certificate
//! handshake ── peer(certificate) ─▶ Peer ── Revocations::check ─▶ served or refused
//! ```

mod authority;
mod identity;
mod issue;
mod revoke;
#[cfg(test)]
mod tests;
mod token;
mod wrap;

pub use authority::{Ca, CaError, CaSet, Validity};
pub use identity::{Identity, IdentityError, Peer, Serial, UserName, UserNameError, peer};
pub use issue::{IssueError, Issued, MAX_CSR_BYTES, ServerCertificate, check_server_names};
pub use revoke::{Revocations, Revoked};
pub use token::{Grant, Kind, NewToken, Presented, Role, TokenError, Tokens};
pub use wrap::{WrapError, WrapSecret};
