//! A WebSocket that echoes (RFC 6455): text, binary, ping and close, no extensions.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::serve::stopped;
use crate::sha1::sha1;

/// Larger frames end the connection; tests send small ones.
const MAX_FRAME: u64 = 1 << 20;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// `Sec-WebSocket-Accept` for a client's key (section 4.2.2).
pub(crate) fn accept_key(key: &str) -> String {
    STANDARD.encode(sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

/// Repeats every message until the peer closes, or the app stops (then it says 1001, going away).
pub(crate) async fn echo<S>(mut stream: S, mut stopping: watch::Receiver<bool>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        // Dropping a half-read frame is safe: the connection ends then.
        let (opcode, payload) = tokio::select! {
            frame = read_frame(&mut stream) => frame?,
            () = stopped(&mut stopping) => {
                return write_frame(&mut stream, 0x80 | CLOSE, &1001_u16.to_be_bytes()).await;
            }
        };
        match opcode & 0x0f {
            PING => write_frame(&mut stream, 0x80 | PONG, &payload).await?,
            PONG => {}
            CLOSE => return write_frame(&mut stream, 0x80 | CLOSE, &payload).await,
            // With its own first byte, so that fragments come back as fragments.
            _ => write_frame(&mut stream, opcode, &payload).await?,
        }
    }
}

/// The first byte (FIN and opcode) and the unmasked payload.
async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        length => u64::from(length),
    };
    if length > MAX_FRAME {
        return Err(io::Error::other("the frame is too large"));
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok((first, payload))
}

async fn write_frame<S: AsyncWrite + Unpin>(
    stream: &mut S,
    first: u8,
    payload: &[u8],
) -> io::Result<()> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65536 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_matches_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn a_masked_text_comes_back_unmasked() {
        let (near, far) = tokio::io::duplex(1024);
        let (_stop, stopping) = watch::channel(false);
        let echoing = tokio::spawn(echo(far, stopping));
        let mut near = near;
        // "Hello", masked: section 5.7 of the RFC.
        near.write_all(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58])
            .await
            .unwrap();
        let mut answer = [0; 7];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\x81\x05Hello");
        drop(near);
        assert!(echoing.await.unwrap().is_err());
    }
}
