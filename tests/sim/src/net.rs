//! The port of a controller on the simulated network.

use std::io;
use std::net::SocketAddr;

use dhow_controller::transport::Acceptor;
use turmoil::net::{TcpListener, TcpStream};

/// Where controllers listen.
pub(crate) const PORT: u16 = 7443;

/// A bound port.
pub(crate) struct Port(TcpListener);

impl Port {
    pub(crate) async fn bind() -> io::Result<Self> {
        Ok(Self(TcpListener::bind(("0.0.0.0", PORT)).await?))
    }
}

impl Acceptor for Port {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}
