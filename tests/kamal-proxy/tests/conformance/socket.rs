//! A WebSocket client, just enough to know whether the connection lives.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;

use crate::http::{self, Ask};

/// An open WebSocket.
pub(crate) struct Socket(BufReader<TcpStream>);

impl Socket {
    /// Shakes hands at `ask`'s path.
    pub(crate) fn open(ask: &Ask) -> Self {
        let mut stream = http::connect(ask.address).unwrap();
        ask.clone()
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .write(&mut stream)
            .unwrap();
        let mut reader = BufReader::new(stream);
        let answer = http::read_head(&mut reader).unwrap();
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        Self(reader)
    }

    /// Says hello and waits for the echo. The frames are those of RFC 6455, section 5.7.
    pub(crate) fn hello(&mut self) {
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        self.0.get_mut().write_all(&masked).unwrap();
        let mut echo = [0; 7];
        self.0.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"\x81\x05Hello");
    }

    /// Reads until the connection is closed; how does not matter.
    pub(crate) fn until_closed(mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "still open"),
        }
    }
}
