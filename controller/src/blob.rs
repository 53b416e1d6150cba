//! Keeps bytes too large for an intent, as files named by their digest, beside the store.
//!
//! In: uploads in chunks, for a digest announced before. Out: chunks by offset. Always true: a file
//! under its final name is complete, on disk, and has the digest it is named by, or reading says
//! so; who may read which blob is decided by the caller.
//!
//! ```text
//! blobs/ab/cdef…      a blob
//! blobs/incoming/…    uploads on their way; emptied when opened
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dhow_proto::model::BlobDigest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Largest blob. Agent binaries are the largest thing that travels as one, at 10 MiB.
pub const MAX_BLOB_BYTES: u64 = 64 * 1024 * 1024;

/// Largest piece [`Blobs::read`] returns; fits a message with room for its frame.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;

const INCOMING: &str = "incoming";

/// What a damaged blob's file is named by instead.
const DAMAGED: &str = "damaged";

/// Why a blob was refused or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Nobody uploaded it, or it was collected.
    #[error("no blob {0}")]
    Missing(BlobDigest),
    /// More than [`MAX_BLOB_BYTES`].
    #[error("blob is larger than {MAX_BLOB_BYTES} bytes")]
    TooLarge,
    /// What was uploaded is not what was announced.
    #[error("uploaded bytes have the digest {found}, announced was {announced}")]
    WrongDigest {
        /// What the upload was for.
        announced: BlobDigest,
        /// What came.
        found: BlobDigest,
    },
    /// The file on disk is not what was once written: it was set aside, upload it again.
    #[error("blob {0} is damaged on disk")]
    Damaged(BlobDigest),
    /// An offset beyond its end.
    #[error("offset {offset} is beyond the blob's {size} bytes")]
    BeyondEnd {
        /// What was asked for.
        offset: u64,
        /// How large it is.
        size: u64,
    },
    /// The file system failed; also when the disk is full.
    #[error("could not read or write a blob")]
    Io(#[from] io::Error),
}

/// The blobs of one controller.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: Arc<Path>,
    uploads: Arc<AtomicU64>,
    turn: Turn,
    place: Place,
}

/// Where file work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On threads that may block.
    BlockingThread,
    /// On the caller's: for simulated time, which a thread outside of it would not keep to.
    Caller,
}

/// Held while a file is found old and deleted, and while one is made new: else what somebody was just told is here would
/// go. Keeps which names this process has seen durable, as each look would otherwise wait for the disk: a deploy asks
/// for the same few blobs at every stage.
#[derive(Clone, Debug, Default)]
struct Turn(Arc<Mutex<BTreeSet<BlobDigest>>>);

impl Turn {
    fn take(&self) -> MutexGuard<'_, BTreeSet<BlobDigest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs {
    /// Opens the folder (made with mode 0700 when it does not exist) and drops unfinished uploads.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        Self::open_working(folder, Place::BlockingThread)
    }

    /// As [`open`](Self::open), with a say in where the file work is done.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn open_working(folder: &Path, place: Place) -> Result<Self, BlobError> {
        let incoming = folder.join(INCOMING);
        make_folder(folder)?;
        match fs::remove_dir_all(&incoming) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        make_folder(&incoming)?;
        // What a blob's name hangs on: this folder is a name in the one above.
        sync_name(&incoming)?;
        Ok(Self { folder: folder.into(), uploads: Arc::default(), turn: Turn::default(), place })
    }

    /// Whether the blob is here; does not look at its bytes. One that is counts as new for
    /// [`gc`](Self::gc) from now on, as whoever asks is about to name it.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub async fn has(&self, digest: BlobDigest) -> Result<bool, BlobError> {
        let (path, turn) = (self.path(&digest), self.turn.clone());
        off_thread(self.place, move || {
            {
                let durable = turn.take();
                if !touch(&path)? {
                    return Ok(false);
                }
                if durable.contains(&digest) {
                    return Ok(true);
                }
            }
            // Another's upload may be between its rename and its sync, or was when the controller was killed: what is said
            // to be here is not uploaded again, so its name has to be durable.
            sync_name(&path)?;
            // It is new, so nobody has collected it meanwhile.
            turn.take().insert(digest);
            Ok(true)
        })
        .await
    }

    /// Begins an upload. Two uploads of the same blob do not disturb each other.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub async fn upload(&self, announced: BlobDigest) -> Result<Upload, BlobError> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(INCOMING).join(number.to_string());
        let (last, turn, place) = (self.path(&announced), self.turn.clone(), self.place);
        off_thread(place, move || {
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            let temporary = Temporary(temporary);
            let hash = Sha256::new();
            Ok(Upload { announced, last, turn, temporary, file, hash, size: 0, place })
        })
        .await
    }

    /// Stores bytes at hand; returns their digest.
    ///
    /// # Errors
    ///
    /// As [`Upload::write`] and [`Upload::finish`].
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<BlobDigest, BlobError> {
        let bytes = bytes.into();
        let digest = BlobDigest::of(&bytes);
        if !self.has(digest).await? {
            self.upload(digest).await?.write(bytes).await?.finish().await?;
        }
        Ok(digest)
    }

    /// Reads at most `max` bytes (and at most [`MAX_CHUNK_BYTES`]) from `offset` on; empty at the
    /// end. The reader of the whole verifies the digest, as the agent does.
    ///
    /// # Errors
    ///
    /// [`BlobError::Missing`], [`BlobError::BeyondEnd`].
    pub async fn read(
        &self,
        digest: BlobDigest,
        offset: u64,
        max: usize,
    ) -> Result<Bytes, BlobError> {
        let path = self.path(&digest);
        off_thread(self.place, move || {
            let mut file = open_blob(&path, digest)?;
            let size = file.metadata()?.len();
            if offset > size {
                return Err(BlobError::BeyondEnd { offset, size });
            }
            file.seek(SeekFrom::Start(offset))?;
            let mut chunk = Vec::new();
            file.take(max.min(MAX_CHUNK_BYTES) as u64).read_to_end(&mut chunk)?;
            Ok(chunk.into())
        })
        .await
    }

    /// Reads a whole blob and verifies it.
    ///
    /// # Errors
    ///
    /// [`BlobError::Missing`]; [`BlobError::Damaged`], after which it is missing, so that the next
    /// upload cures it.
    pub async fn load(&self, digest: BlobDigest) -> Result<Bytes, BlobError> {
        let (path, turn) = (self.path(&digest), self.turn.clone());
        off_thread(self.place, move || {
            let mut bytes = Vec::new();
            // A file grown beyond the limit is damaged whatever is in it.
            open_blob(&path, digest)?.take(MAX_BLOB_BYTES + 1).read_to_end(&mut bytes)?;
            if BlobDigest::of(&bytes) == digest {
                return Ok(bytes.into());
            }
            let mut durable = turn.take();
            durable.remove(&digest);
            fs::rename(&path, path.with_extension(DAMAGED))?;
            Err(BlobError::Damaged(digest))
        })
        .await
    }

    /// The size of a blob in bytes.
    ///
    /// # Errors
    ///
    /// [`BlobError::Missing`].
    pub async fn size(&self, digest: BlobDigest) -> Result<u64, BlobError> {
        let path = self.path(&digest);
        off_thread(self.place, move || Ok(open_blob(&path, digest)?.metadata()?.len())).await
    }

    /// Deletes blobs that are not in `live` and were not uploaded within `grace`, the time between
    /// an upload and the intent that names it. Returns how many.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`]; what was deleted until then stays deleted.
    pub async fn gc(
        &self,
        live: BTreeSet<BlobDigest>,
        grace: Duration,
    ) -> Result<usize, BlobError> {
        let (folder, turn) = (Arc::clone(&self.folder), self.turn.clone());
        off_thread(self.place, move || {
            let mut deleted = 0;
            for file in stored(&folder)? {
                if file.digest.is_some_and(|digest| live.contains(&digest)) {
                    continue;
                }
                let mut durable = turn.take();
                // A file from the future counts as new.
                let age = file.path.metadata()?.modified()?.elapsed().unwrap_or_default();
                if age >= grace {
                    if let Some(digest) = file.digest {
                        durable.remove(&digest);
                    }
                    fs::remove_file(&file.path)?;
                    deleted += 1;
                }
            }
            Ok(deleted)
        })
        .await
    }

    fn path(&self, digest: &BlobDigest) -> PathBuf {
        let hex = digest.to_string();
        let (first, rest) = hex.split_at(2);
        self.folder.join(first).join(rest)
    }
}

/// A blob on its way in. Dropped before [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    announced: BlobDigest,
    last: PathBuf,
    turn: Turn,
    temporary: Temporary,
    file: File,
    hash: Sha256,
    size: u64,
    place: Place,
}

impl Upload {
    /// Appends a piece; gives the upload back for the next one.
    ///
    /// # Errors
    ///
    /// [`BlobError::TooLarge`], [`BlobError::Io`]; the upload is then over.
    pub async fn write(mut self, piece: impl Into<Bytes>) -> Result<Self, BlobError> {
        let piece = piece.into();
        self.size += piece.len() as u64;
        if self.size > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge);
        }
        off_thread(self.place, move || {
            self.hash.update(&piece);
            self.file.write_all(&piece)?;
            Ok(self)
        })
        .await
    }

    /// Makes the blob durable and readable.
    ///
    /// # Errors
    ///
    /// [`BlobError::WrongDigest`] when the bytes are not those announced; [`BlobError::Io`].
    pub async fn finish(self) -> Result<(), BlobError> {
        let Self { announced, last, turn, temporary, file, hash, size: _, place } = self;
        off_thread(place, move || {
            let digest: [u8; 32] = hash.finalize().into();
            if digest != *announced.as_bytes() {
                let found = BlobDigest::try_from(&digest[..]).unwrap_or(announced);
                return Err(BlobError::WrongDigest { announced, found });
            }
            file.sync_all()?;
            let folder = last.parent().unwrap_or(&last);
            make_folder(folder)?;
            {
                let _turn = turn.take();
                // It may have come in slowly: the grace begins when it is here.
                touch(&temporary.0)?;
                fs::rename(&temporary.0, &last)?;
            }
            sync_name(&last)?;
            turn.take().insert(announced);
            Ok(())
        })
        .await
    }
}

/// A file that is deleted unless it got another name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone after a rename; what cannot be deleted goes at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

struct Stored {
    /// None: set aside as damaged.
    digest: Option<BlobDigest>,
    path: PathBuf,
}

/// Every file that is named as a blob, or was.
fn stored(folder: &Path) -> Result<Vec<Stored>, BlobError> {
    let mut found = Vec::new();
    for first in fs::read_dir(folder)? {
        let first = first?;
        let prefix = first.file_name();
        if prefix.len() != 2 || !first.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(first.path())? {
            let file = file?;
            let hex = format!("{}{}", prefix.to_string_lossy(), file.file_name().to_string_lossy());
            let path = file.path();
            match BlobDigest::try_from(hex) {
                Ok(digest) => found.push(Stored { digest: Some(digest), path }),
                Err(_) if path.extension().is_some_and(|e| e == DAMAGED) => {
                    found.push(Stored { digest: None, path });
                }
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

fn open_blob(path: &Path, digest: BlobDigest) -> Result<File, BlobError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BlobError::Missing(digest),
        _ => BlobError::Io(error),
    })
}

/// Sets the time of a file to now; whether there is such a file.
fn touch(path: &Path) -> Result<bool, BlobError> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match utimensat(CWD, path, &times, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(BlobError::Io(error.into())),
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Makes the name of a blob's file durable: with its folder, and that with the folder above.
fn sync_name(file: &Path) -> Result<(), BlobError> {
    file.ancestors().skip(1).take(2).try_for_each(sync_folder)
}

fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    Ok(File::open(folder)?.sync_all()?)
}

/// Runs file work where it may block.
async fn off_thread<T: Send + 'static>(
    place: Place,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    if place == Place::Caller {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => Err(BlobError::Io(io::Error::other(failed))),
    }
}

#[cfg(test)]
mod tests;
