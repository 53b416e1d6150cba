//! The CA's key at rest: encrypted under a secret that is kept apart from the store.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::pbkdf2;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// PBKDF2-HMAC-SHA256 rounds for what a person chose (OWASP Password Storage Cheat Sheet, 2023).
const PASSPHRASE_ROUNDS: u32 = 600_000;

/// A random key of 256 bits cannot be guessed, so it needs no slowing down.
const RANDOM_KEY_ROUNDS: u32 = 1;

/// Upper bound when reading a record, so that a forged one cannot stall the start for hours.
const MAX_ROUNDS: u32 = 10_000_000;

/// Marks a file that [`WrapSecret::create_file`] made, so that it is not mistaken for a passphrase.
const RANDOM_KEY_PREFIX: &str = "dhow-wrap-key-1 ";

/// A passphrase file larger than this is the wrong file.
const MAX_SECRET_BYTES: u64 = 4096;

/// The secret that opens the CA's key.
pub struct WrapSecret {
    secret: Zeroizing<Vec<u8>>,
    rounds: u32,
}

impl fmt::Debug for WrapSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrapSecret(redacted)")
    }
}

/// Why the CA's key could not be wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The file with the secret could not be read or written.
    #[error("could not use the CA's passphrase file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file is empty or far too large.
    #[error("{} does not hold a passphrase", path.display())]
    NoSecret {
        /// Which file.
        path: PathBuf,
    },
    /// Others can read the file.
    #[error("{} can be read by others (mode {mode:o}): set it to 0600", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The passphrase is not the one the key was wrapped with, or the record was changed.
    #[error("the passphrase does not open the CA's key")]
    WrongSecret,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

/// The CA's key as it is stored. Bytes are base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrappedKey {
    /// PBKDF2-HMAC-SHA256 iterations.
    rounds: u32,
    salt: String,
    nonce: String,
    /// PKCS#8, AES-256-GCM with its tag.
    ciphertext: String,
}

impl WrapSecret {
    /// A passphrase from a file; a line end at its end is not part of it.
    ///
    /// # Errors
    ///
    /// [`WrapError::File`], [`WrapError::NoSecret`], and [`WrapError::Exposed`] when group or
    /// others can read it.
    pub fn from_file(path: &Path) -> Result<Self, WrapError> {
        let failed = |source| WrapError::File { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        // Group read is how systemd hands credentials to a service that is not root.
        if mode & 0o037 != 0 {
            return Err(WrapError::Exposed { path: path.to_owned(), mode });
        }
        let mut secret = Zeroizing::new(Vec::new());
        (&mut file).take(MAX_SECRET_BYTES + 1).read_to_end(&mut secret).map_err(failed)?;
        while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            secret.pop();
        }
        if secret.is_empty() || secret.len() as u64 > MAX_SECRET_BYTES {
            return Err(WrapError::NoSecret { path: path.to_owned() });
        }
        let random = secret.starts_with(RANDOM_KEY_PREFIX.as_bytes());
        let rounds = if random { RANDOM_KEY_ROUNDS } else { PASSPHRASE_ROUNDS };
        Ok(Self { secret, rounds })
    }

    /// Makes a new file (mode 0600) with a random key, and returns that key.
    ///
    /// # Errors
    ///
    /// [`WrapError::File`], also when the file exists; [`WrapError::NoRandomness`].
    pub fn create_file(path: &Path) -> Result<Self, WrapError> {
        let failed = |source| WrapError::File { path: path.to_owned(), source };
        let key = random::<32>()?;
        let line = Zeroizing::new(format!("{RANDOM_KEY_PREFIX}{}\n", BASE64.encode(*key)));
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        // The name, too: a store whose only key is lost with the power is worth nothing.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::fs::File::open(folder.unwrap_or(Path::new(".")));
        folder.and_then(|folder| folder.sync_all()).map_err(failed)?;
        let secret = Zeroizing::new(line.trim_end().as_bytes().to_vec());
        Ok(Self { secret, rounds: RANDOM_KEY_ROUNDS })
    }

    /// Encrypts `key`, bound to `context`: it opens only with the same secret and context.
    pub(super) fn wrap(&self, key: &[u8], context: &[u8]) -> Result<WrappedKey, WrapError> {
        let (salt, nonce) = (random::<16>()?, random::<12>()?);
        let mut ciphertext = key.to_vec();
        self.cipher(self.rounds, &*salt)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context),
                &mut ciphertext,
            )
            .map_err(|_| WrapError::WrongSecret)?;
        Ok(WrappedKey {
            rounds: self.rounds,
            salt: BASE64.encode(*salt),
            nonce: BASE64.encode(*nonce),
            ciphertext: BASE64.encode(ciphertext),
        })
    }

    /// Decrypts what [`wrap`](Self::wrap) made.
    pub(super) fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let decode = |text| BASE64.decode(text).map_err(|_| WrapError::WrongSecret);
        let nonce = Nonce::try_assume_unique_for_key(&decode(&wrapped.nonce)?)
            .map_err(|_| WrapError::WrongSecret)?;
        let mut key = Zeroizing::new(decode(&wrapped.ciphertext)?);
        let clear_len = self
            .cipher(wrapped.rounds, &decode(&wrapped.salt)?)?
            .open_in_place(nonce, Aad::from(context), &mut key)
            .map_err(|_| WrapError::WrongSecret)?
            .len();
        key.truncate(clear_len);
        Ok(key)
    }

    fn cipher(&self, rounds: u32, salt: &[u8]) -> Result<LessSafeKey, WrapError> {
        let rounds = NonZeroU32::new(rounds).filter(|rounds| rounds.get() <= MAX_ROUNDS);
        let rounds = rounds.ok_or(WrapError::WrongSecret)?;
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, &self.secret, &mut *key);
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| WrapError::WrongSecret)?;
        Ok(LessSafeKey::new(key))
    }
}

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, WrapError> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(&mut *bytes).map_err(|_| WrapError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> WrapSecret {
        // One round: the tests are about the meaning, not about the time.
        WrapSecret { secret: Zeroizing::new(text.as_bytes().to_vec()), rounds: 1 }
    }

    #[test]
    fn a_wrapped_key_opens_with_the_same_secret_only() {
        let wrapped = passphrase("one").wrap(b"the key", b"context").unwrap();
        assert_eq!(*passphrase("one").unwrap(&wrapped, b"context").unwrap(), b"the key");
        let wrong = |result| matches!(result, Err(WrapError::WrongSecret));
        assert!(wrong(passphrase("two").unwrap(&wrapped, b"context")));
        assert!(wrong(passphrase("one").unwrap(&wrapped, b"another")));
    }

    #[test]
    fn a_changed_record_does_not_open() {
        let wrapped = passphrase("one").wrap(b"the key", b"").unwrap();
        let changes: [fn(&mut WrappedKey); 6] = [
            |w| w.rounds = 2,
            |w| w.rounds = 0,
            |w| w.rounds = u32::MAX,
            |w| w.salt = BASE64.encode([0; 16]),
            |w| w.nonce = "AAAA".into(),
            |w| w.ciphertext = "not base64!".into(),
        ];
        for change in changes {
            let mut changed = wrapped.clone();
            change(&mut changed);
            assert!(matches!(passphrase("one").unwrap(&changed, b""), Err(WrapError::WrongSecret)));
        }
    }

    #[test]
    fn the_key_is_not_in_the_record() {
        let wrapped = passphrase("one").wrap(b"canary-canary", b"").unwrap();
        let json = serde_json::to_string(&wrapped).unwrap();
        assert!(!json.contains("canary") && !json.contains(&BASE64.encode("canary-canary")));
    }

    #[test]
    fn a_created_file_opens_what_it_wrapped_and_only_the_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.wrap");
        let wrapped = WrapSecret::create_file(&path).unwrap().wrap(b"key", b"").unwrap();
        let opened = WrapSecret::from_file(&path).unwrap();
        assert_eq!(*opened.unwrap(&wrapped, b"").unwrap(), b"key");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(WrapSecret::create_file(&path), Err(WrapError::File { .. })), "kept");
    }

    #[test]
    fn bad_passphrase_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        assert!(matches!(WrapSecret::from_file(&path), Err(WrapError::File { .. })));
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            WrapSecret::from_file(&path)
        };
        assert!(matches!(write("\n\n", 0o600), Err(WrapError::NoSecret { .. })));
        assert!(matches!(write(&"x".repeat(5000), 0o600), Err(WrapError::NoSecret { .. })));
        assert!(matches!(write("secret", 0o644), Err(WrapError::Exposed { mode: 0o644, .. })));
        let read = write("secret\r\n", 0o400).unwrap();
        assert_eq!(**read.secret, *b"secret");
        assert!(!format!("{read:?}").contains("secret"));
    }
}
