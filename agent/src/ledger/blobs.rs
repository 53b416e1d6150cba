//! Blobs on this host: bytes named by their digest, so that a restart or a policy rollback needs nobody.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dhow_proto::model::{BlobDigest, BlobRef};

use super::{Folder, Io};

/// Why bytes were not kept.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Whoever sent them sent something else.
    #[error("the bytes are not those of blob {0}")]
    Mismatch(BlobDigest),
    /// The disk.
    #[error("could not write blob {0}")]
    Write(BlobDigest, #[source] io::Error),
}

impl BlobError {
    /// Whose bytes.
    pub fn blob(&self) -> BlobDigest {
        match self {
            Self::Mismatch(blob) | Self::Write(blob, _) => *blob,
        }
    }
}

/// The cache. What an intent of the ledger names is kept, other blobs are collected.
pub struct Blobs {
    folder: Folder,
}

impl Blobs {
    /// Makes the directory (0700) where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(dir: &Path, io: Arc<dyn Io>) -> io::Result<Self> {
        Ok(Self { folder: Folder::open(dir, io)? })
    }

    /// The bytes, verified; none where they are missing or damaged (then they are fetched again).
    pub fn get(&self, blob: &BlobRef) -> Option<Bytes> {
        let bytes = self.folder.read(&blob.digest.to_string()).ok()?;
        if BlobDigest::of(&bytes) == blob.digest {
            return Some(bytes.into());
        }
        tracing::warn!(blob = %blob.digest, "a cached blob is damaged: it is fetched again");
        None
    }

    /// Keeps bytes, durably.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub fn put(&self, blob: &BlobRef, bytes: &[u8]) -> Result<(), BlobError> {
        self.put_all(&[(*blob, bytes)])
    }

    /// Keeps the bytes of several blobs, durably, with one wait for the disk.
    ///
    /// # Errors
    ///
    /// [`BlobError`], of the first that is wrong or of the first of all.
    pub fn put_all<B: AsRef<[u8]>>(&self, blobs: &[(BlobRef, B)]) -> Result<(), BlobError> {
        let Some((first, _)) = blobs.first() else { return Ok(()) };
        if let Some((wrong, _)) = blobs.iter().find(|(b, bytes)| BlobRef::of(bytes.as_ref()) != *b)
        {
            return Err(BlobError::Mismatch(wrong.digest));
        }
        let names: Vec<String> = blobs.iter().map(|(b, _)| b.digest.to_string()).collect();
        let bytes = blobs.iter().map(|(_, bytes)| bytes.as_ref());
        let files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(bytes).collect();
        self.folder.replace_all(&files).map_err(|e| BlobError::Write(first.digest, e))
    }

    /// Removes what is not in `keep`; gives how many went.
    ///
    /// # Errors
    ///
    /// The directory cannot be listed, or not all could be removed: they wait for the next time.
    pub(super) fn collect(&self, keep: &BTreeSet<BlobRef>) -> io::Result<usize> {
        let keep: BTreeSet<String> = keep.iter().map(|b| b.digest.to_string()).collect();
        let mut names = self.folder.names()?;
        names.retain(|name| !keep.contains(name));
        let gone = self.folder.remove_all(&names)?;
        self.folder.tidy()?;
        Ok(gone)
    }
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}
