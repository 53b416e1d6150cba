//! The port that agents and people connect to: TCP, TLS, and who is on the other end.
//!
//! In: connections. Out: streams for the gRPC server, each with the identity its certificate
//! proved, or none. Always true: what comes out has finished its handshake under TLS 1.3, and a
//! certificate that is foreign, expired or revoked did not get this far.
//!
//! ```text
//! accept ─▶ handshake (own task, limited, timed) ─▶ queue ─▶ gRPC server
//! ```
//!
//! An own accept loop instead of the gRPC library's, because certificates and revocations change
//! while it runs, and because a thousand agents that come back at once must neither overflow the
//! backlog nor starve those that are connected.

mod accept;
mod limit;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Duration;

use tonic::transport::Server;

pub use accept::{Acceptor, Listener};
pub use limit::raise_open_files;
pub use stream::{Connection, Incoming, Stream};
pub use tls::{Tls, TlsError, crypto_provider};

/// A connection that is silent for so long is asked for a sign of life …
const PING_AFTER: Duration = Duration::from_secs(5);

/// … and closed when none comes for so long. Together below the 15 s in which a dead agent must be
/// noticed (design, §4).
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// Streams one connection may have open: a CLI has two or three, an agent a session and fetches.
const MAX_STREAMS: u32 = 64;

/// Received headers beyond this are no call of ours.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// A gRPC server with the limits and pings every connection gets.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING_AFTER))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        // For fairness between the streams of a connection; memory is used only as it fills.
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
}
