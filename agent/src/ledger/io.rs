//! The few things the ledger asks of a file system, so that a test can be one that loses what was not synced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Ends the name of a file that is being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// A file system. Nothing is durable before the matching `sync`.
pub trait Io: Send + Sync + 'static {
    /// Makes a directory and its parents (0700), durably; there already is success.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a directory, sorted.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// A whole file.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the file system's.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Writes a file (0600), replacing what it held.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file's content durable.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Writes within a file that is there, and does not make it longer.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the file system's; then any part may be written.
    fn write_at(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what [`Self::write_at`] wrote into a file that was durable before.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn sync_data(&self, path: &Path) -> io::Result<()>;

    /// Renames, replacing.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes renames and removals in a directory durable.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Replaces a file so that, after a crash at any point, it holds either all of the old or all of the new bytes.
pub(crate) fn replace(io: &dyn Io, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}{TEMPORARY}"));
    io.write(&temporary, bytes)?;
    io.sync(&temporary)?;
    io.rename(&temporary, &dir.join(name))?;
    io.sync_dir(dir)
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Io for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => self.sync_dir(parent.unwrap_or(Path::new("."))),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn write_at(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.write_all_at(bytes, at)
    }

    fn sync_data(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}
