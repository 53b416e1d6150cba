//! A tap on what an agent or a person's client says to a controller: what goes through TLS, before and after it.
//!
//! The tap has a certificate authority of its own, which the client is made to trust, and speaks to the controller with
//! the client's own certificate. So both ends run as they always do, with their own programs and TLS.

pub mod relay;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::fleet::run::{Process, wait_until};
use crate::fleet::{Fleet, binary};

/// A relay in the hub; ends when dropped.
#[derive(Debug)]
pub struct Tap {
    dir: PathBuf,
    _process: Process,
}

impl Tap {
    /// Leads the client with this `identity` file (an agent's `identity.json`, a person's `login.json`) through a relay on
    /// `port` of the hub to the controller at `upstream`. The client must not run yet.
    ///
    /// # Errors
    ///
    /// When the relay does not come up.
    pub fn start(
        fleet: &Fleet,
        name: &str,
        port: u16,
        upstream: &str,
        identity: &Path,
    ) -> Result<Self> {
        let dir = fleet.dir().join(format!("tap-{name}"));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let mut command = fleet.hub().enter();
        command.arg(binary("dhow-tap")?).arg(format!("{}:{port}", fleet.hub().address()));
        command.arg(upstream).arg(identity).arg(&dir);
        let log = fleet.dir().join(format!("logs/tap-{name}.log"));
        let mut process = Process::start("dhow-tap", &mut command, &log)?;
        wait_until("the tap listens", Duration::from_secs(20), || {
            if process.ended()?.is_some() {
                bail!("the tap ended: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            Ok(dir.join(relay::READY).exists().then_some(()))
        })?;
        Ok(Self { dir, _process: process })
    }

    /// What went through so far, one entry for each direction of each connection: the bytes as they are, and the messages
    /// of every HTTP/2 stream without the frames between their parts.
    ///
    /// # Errors
    ///
    /// When the records cannot be read.
    pub fn heard(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut heard = Vec::new();
        for entry in fs::read_dir(&self.dir).context("list the tap's records")? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "bytes") {
                continue;
            }
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            for (stream, data) in messages(&bytes) {
                heard.push((format!("{} stream {stream}", path.display()), data));
            }
            heard.push((path.display().to_string(), bytes));
        }
        Ok(heard)
    }
}

/// What clients send before their first frame (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The DATA of each stream, in order. The last frame may be cut off.
fn messages(bytes: &[u8]) -> BTreeMap<u32, Vec<u8>> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut streams: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    while let [a, b, c, kind, _flags, s0, s1, s2, s3, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (payload, next) = after.split_at(length.min(after.len()));
        if *kind == 0 {
            let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]) & 0x7fff_ffff;
            streams.entry(stream).or_default().extend_from_slice(payload);
        }
        rest = next;
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_into_frames_is_whole_again() {
        let frame = |kind: u8, stream: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, 0, 0, 0, 0, stream], payload].concat()
        };
        let bytes = [
            PREFACE.to_vec(),
            frame(4, 0, b"settings"),
            frame(0, 1, b"can"),
            frame(0, 3, b"other"),
            frame(0, 1, b"ary"),
            frame(0, 3, b"cut off")[..12].to_vec(),
        ]
        .concat();
        let found = messages(&bytes);
        assert_eq!(found[&1], b"canary");
        assert_eq!(found[&3], b"othercut");
    }
}
