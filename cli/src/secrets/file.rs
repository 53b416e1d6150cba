//! Reads a secrets file, whatever is in its place.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;

use crate::config::outside::PIPE_SECONDS;
use crate::config::outside::system::read_file;

/// Bytes a secrets file may have. Real ones have a few kilobytes.
pub const MAX_FILE: usize = 1024 * 1024;

/// Why a file that exists could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A directory has its name.
    #[error("is a directory, not a file")]
    Directory,
    /// It is longer than [`MAX_FILE`].
    #[error("is larger than {} MiB, which no secrets file is", MAX_FILE / 1024 / 1024)]
    TooLarge,
    /// The system refused, for example because a permission is missing; or it is a device, or a pipe without an end.
    #[error("cannot be read")]
    Read(#[source] std::io::Error),
}

/// The bytes of `path`, or `None` when there is no such file.
///
/// # Errors
///
/// [`FileError`].
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let wait = Duration::from_secs(PIPE_SECONDS);
    match read_file(path, MAX_FILE as u64, wait) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(None),
            ErrorKind::IsADirectory => Err(FileError::Directory),
            ErrorKind::FileTooLarge => Err(FileError::TooLarge),
            _ => Err(FileError::Read(error)),
        },
    }
}
