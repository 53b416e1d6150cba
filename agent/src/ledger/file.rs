//! One file of the ledger: its name, and the frame that tells a whole file from a damaged one.

use sha2::{Digest as _, Sha256};

/// Begins every file; the digit is the version of this frame.
const MAGIC: &[u8; 8] = b"dhowled1";
const DIGEST: usize = 32;

/// Names of keys up to this length are used as they are, so that a person finds the file; the longest key is longer
/// than the 255 bytes a file name may have.
const PLAIN_NAME: usize = 200;

/// What a file holds of its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Wanted,
    Settled,
    Attempted,
    Failed,
    Marks,
    Hold,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Wanted, ".wanted"),
    (Kind::Settled, ".settled"),
    (Kind::Attempted, ".attempted"),
    (Kind::Failed, ".failed"),
    (Kind::Marks, ".marks"),
    (Kind::Hold, ".hold"),
];

/// Why a file is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("it does not begin as a ledger file")]
    Magic,
    #[error("its checksum does not fit")]
    Checksum,
}

pub(super) fn name(unit_key: &str, kind: Kind) -> String {
    let (_, suffix) = KINDS.iter().find(|(k, _)| *k == kind).expect("every kind has a suffix");
    if unit_key.len() <= PLAIN_NAME {
        format!("{unit_key}{suffix}")
    } else {
        format!("~{}{suffix}", hex::encode(Sha256::digest(unit_key)))
    }
}

pub(super) fn kind(name: &str) -> Option<Kind> {
    KINDS.iter().find(|(_, suffix)| name.ends_with(suffix)).map(|(kind, _)| *kind)
}

/// Magic, SHA-256 of the payload, payload.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(payload);
    [MAGIC.as_slice(), digest.as_slice(), payload].concat()
}

pub(super) fn unframe(bytes: &[u8]) -> Result<&[u8], FrameError> {
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or(FrameError::Magic)?;
    let (digest, payload) = rest.split_at_checked(DIGEST).ok_or(FrameError::Checksum)?;
    if Sha256::digest(payload).as_slice() == digest {
        Ok(payload)
    } else {
        Err(FrameError::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_noticed() {
        let whole = frame(b"intent");
        assert_eq!(unframe(&whole), Ok(b"intent".as_slice()));
        for cut in 0..whole.len() {
            assert!(unframe(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(unframe(&flipped).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn a_name_fits_a_file_system_and_tells_its_kind() {
        let long = "k".repeat(400);
        assert!(name(&long, Kind::Attempted).len() < 255);
        assert_eq!(kind(&name("role!shop!!web", Kind::Settled)), Some(Kind::Settled));
        assert_eq!(kind("role!shop!!web.wanted.tmp"), None);
    }
}
