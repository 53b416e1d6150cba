//! Reads a secrets file, whatever is in its place.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use secrecy::zeroize::Zeroizing;

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
    /// The system refused, for example because a permission is missing.
    #[error("cannot be read")]
    Read(#[source] std::io::Error),
}

/// The bytes of `path`, or `None` when there is no such file.
///
/// # Errors
///
/// [`FileError`].
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(None),
        Err(other) => return Err(FileError::Read(other)),
    };
    if file.metadata().map_err(FileError::Read)?.is_dir() {
        return Err(FileError::Directory);
    }
    // The limit is kept while reading, as a pipe does not tell its length.
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(FileError::Read)?;
    if bytes.len() > MAX_FILE {
        return Err(FileError::TooLarge);
    }
    Ok(Some(bytes))
}
