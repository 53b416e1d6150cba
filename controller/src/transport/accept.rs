//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::stream::{Connection, Incoming, Stream};
use super::tls::Tls;
use crate::ca;

/// Connections the kernel keeps until we take them: all agents may come back in the same second.
const BACKLOG: u32 = 4096;

/// Handshakes at a time, per core: one takes 0.25 ms of CPU and waits for the network meanwhile.
const HANDSHAKES_PER_CORE: usize = 64;

/// A client that takes longer for its handshake is dead or hostile.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// After `accept` fails for want of file descriptors or memory; doubled up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Connections between handshake and server; the server takes them at once.
const INCOMING_DEPTH: usize = 64;

/// Where connections come from: a port of the machine, or of a simulated network.
pub trait Acceptor: Send + Sync + 'static {
    /// A connection before TLS.
    type Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection and where it comes from. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

impl Acceptor for TcpListener {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (tcp, remote) = Self::accept(self).await?;
        // Small messages are to leave at once; a failure costs latency only.
        let _ = tcp.set_nodelay(true);
        Ok((tcp, remote))
    }
}

/// A bound port.
#[derive(Debug)]
pub struct Listener<A = TcpListener> {
    acceptor: A,
    tls: Arc<Tls>,
}

impl Listener {
    /// Binds `address`; port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// The system's, as when the port is taken.
    pub fn bind(address: SocketAddr, tls: Arc<Tls>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart need not wait for connections of the time before to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self::over(socket.listen(BACKLOG)?, tls))
    }

    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.local_addr()
    }
}

impl<A: Acceptor> Listener<A> {
    /// Over a port that is bound already.
    pub fn over(acceptor: A, tls: Arc<Tls>) -> Self {
        Self { acceptor, tls }
    }

    /// Splits the listener into the loop that accepts, until `shutdown`, and what it accepts.
    pub fn start(
        self,
        shutdown: CancellationToken,
    ) -> (impl Future<Output = ()> + Send, Incoming<A::Socket>) {
        let (ready, incoming) = mpsc::channel(INCOMING_DEPTH);
        (self.run(ready, shutdown), Incoming(incoming))
    }

    async fn run(self, ready: mpsc::Sender<Stream<A::Socket>>, shutdown: CancellationToken) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places = Arc::new(Semaphore::new(cores * HANDSHAKES_PER_CORE));
        // Dropped at the end, and handshakes that still run with it.
        let mut handshakes = JoinSet::new();
        let mut pause = SHORTEST_PAUSE;
        loop {
            let accepted = tokio::select! {
                // A connection not accepted yet waits in the backlog or is refused by the kernel.
                () = shutdown.cancelled() => return,
                // Reaps finished ones; they have told their outcome themselves.
                Some(_) = handshakes.join_next() => continue,
                accepted = self.accept(&places) => accepted,
            };
            match accepted {
                Ok((tcp, remote, place)) => {
                    if pause > SHORTEST_PAUSE {
                        tracing::info!("accepting connections again");
                    }
                    pause = SHORTEST_PAUSE;
                    handshakes.spawn(greet(
                        tcp,
                        remote,
                        Arc::clone(&self.tls),
                        ready.clone(),
                        place,
                    ));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Once for all of them until it works again.
                    if pause == SHORTEST_PAUSE {
                        tracing::error!(%error, "could not accept a connection");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Cancel-safe: the place is taken before the connection, and given back when dropped.
    async fn accept(
        &self,
        places: &Arc<Semaphore>,
    ) -> io::Result<(A::Socket, SocketAddr, OwnedSemaphorePermit)> {
        let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
        let (tcp, remote) = self.acceptor.accept().await?;
        Ok((tcp, remote, place))
    }
}

/// Errors of `accept` that say that the connection went away, and nothing of the next one
/// (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Does the handshake and hands the stream on.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    tcp: S,
    remote: SocketAddr,
    tls: Arc<Tls>,
    ready: mpsc::Sender<Stream<S>>,
    place: OwnedSemaphorePermit,
) {
    let acceptor = TlsAcceptor::from(tls.current());
    let inner = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(inner)) => inner,
        // A port scanner or a health check: nothing that anybody refused.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            tracing::debug!(remote.address = %remote, "a client left during its handshake");
            return;
        }
        Ok(Err(error)) => {
            tracing::warn!(remote.address = %remote, %error, "refused a connection");
            return;
        }
        Err(_) => {
            tracing::warn!(remote.address = %remote, "a handshake took too long");
            return;
        }
    };
    drop(place);
    let certificate = inner.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    // Verified inside the handshake; an error here would be a difference between the two.
    let peer = match certificate.map(|certificate| ca::peer(certificate)).transpose() {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(remote.address = %remote, %error, "refused a certificate");
            return;
        }
    };
    // Fails when the server is gone, and then so is the connection.
    let _ = ready.send(Stream { inner, connection: Connection { remote, peer } }).await;
}
