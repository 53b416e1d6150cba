//! A model of a disk, for tests and simulations: it loses what was not synced.
//!
//! In: calls of [`Io`]. Out: what a file system would answer. Always true: bytes survive a loss of power once the file was
//! synced, a name (made, renamed, removed) once its directory was; everything else may be lost, each on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Io;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Written within it since it was synced.
    patches: Vec<(usize, Vec<u8>)>,
    /// Written anew since it was synced.
    anew: bool,
}

impl Inode {
    fn sync(&mut self) {
        self.synced.clone_from(&self.bytes);
        self.patches.clear();
        self.anew = false;
    }
}

#[derive(Clone, Default)]
struct Files {
    inodes: BTreeMap<u64, Inode>,
    /// Names as processes see them, and as they are after a loss of power.
    seen: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    next: u64,
    /// Operations until power is lost; none: it stays.
    left: Option<u64>,
}

/// A model disk; clones are the same one.
#[derive(Clone, Default)]
pub struct FakeDisk(Arc<Mutex<Files>>);

impl FakeDisk {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another disk with the same on it, to look at what a program is at work with.
    pub fn copy(&self) -> Self {
        let files = Files { left: None, ..self.lock().clone() };
        Self(Arc::new(Mutex::new(files)))
    }

    /// Lets so many operations that write succeed; the ones after fail, as power is lost.
    pub fn cut_power_after(&self, operations: u64) {
        self.lock().left = Some(operations);
    }

    /// Loses power and gets it back. Of what was not synced, each part is kept where `keeps` says so: a file's bytes (else
    /// the first half of them), each sector of what was written within it, a name in a directory.
    pub fn lose_power(&self, mut keeps: impl FnMut() -> bool) {
        let mut files = self.lock();
        let files = &mut *files;
        for inode in files.inodes.values_mut() {
            if inode.anew {
                if !keeps() {
                    let half = inode.bytes.len() / 2;
                    inode.bytes.truncate(half);
                }
            } else {
                inode.bytes.clone_from(&inode.synced);
                for (at, patch) in &inode.patches {
                    // A disk writes its sectors in any order.
                    for (i, sector) in patch.chunks(SECTOR).enumerate() {
                        if keeps() {
                            let from = at + i * SECTOR;
                            inode.bytes[from..from + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
            inode.sync();
        }
        let names: BTreeSet<PathBuf> =
            files.seen.keys().chain(files.durable.keys()).cloned().collect();
        for name in names {
            let (seen, durable) = (files.seen.get(&name), files.durable.get(&name));
            if seen != durable && keeps() {
                match seen.copied() {
                    Some(inode) => files.durable.insert(name, inode),
                    None => files.durable.remove(&name),
                };
            }
        }
        files.seen.clone_from(&files.durable);
        let named: BTreeSet<u64> = files.seen.values().copied().collect();
        files.inodes.retain(|number, _| named.contains(number));
        files.left = None;
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation that writes.
    fn write_op(&self) -> io::Result<MutexGuard<'_, Files>> {
        let mut files = self.lock();
        match &mut files.left {
            Some(0) => Err(io::Error::other("power is lost")),
            Some(left) => {
                *left -= 1;
                Ok(files)
            }
            None => Ok(files),
        }
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Io for FakeDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        // Durable at once, as the real one makes it.
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.lock();
        let inside = files.seen.keys().filter(|p| p.parent() == Some(dir));
        Ok(inside.filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let files = self.lock();
        let inode = files.seen.get(path).ok_or_else(missing)?;
        Ok(files.inodes.get(inode).map(|i| i.bytes.clone()).unwrap_or_default())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.write_op()?;
        let number = match files.seen.get(path) {
            // The same file, truncated: what was synced of it may be gone too.
            Some(there) => *there,
            None => {
                files.next += 1;
                files.next
            }
        };
        files.seen.insert(path.to_owned(), number);
        let inode = files.inodes.entry(number).or_default();
        inode.bytes = bytes.to_vec();
        inode.anew = true;
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut files = self.write_op()?;
        let number = *files.seen.get(path).ok_or_else(missing)?;
        files.inodes.entry(number).or_default().sync();
        Ok(())
    }

    fn write_at(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.write_op()?;
        let number = *files.seen.get(path).ok_or_else(missing)?;
        let inode = files.inodes.entry(number).or_default();
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let there = inode.bytes.get_mut(at..at + bytes.len());
        there.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        inode.patches.push((at, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self, path: &Path) -> io::Result<()> {
        self.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.write_op()?;
        let number = files.seen.remove(from).ok_or_else(missing)?;
        files.seen.insert(to.to_owned(), number);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut files = self.write_op()?;
        files.seen.remove(path).map(|_| ()).ok_or_else(missing)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut files = self.write_op()?;
        let files = &mut *files;
        files.durable.retain(|name, _| name.parent() != Some(dir));
        let inside = files.seen.iter().filter(|(name, _)| name.parent() == Some(dir));
        files.durable.extend(inside.map(|(name, number)| (name.clone(), *number)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> PathBuf {
        PathBuf::from("/d/f")
    }

    #[test]
    fn a_name_needs_its_directory_and_bytes_their_file_to_be_synced() {
        let disk = FakeDisk::new();
        disk.write(&file(), b"old!").unwrap();
        disk.sync(&file()).unwrap();
        disk.lose_power(|| false);
        assert!(disk.read(&file()).is_err(), "its directory was not synced");
        disk.write(&file(), b"old!").unwrap();
        disk.sync_dir(Path::new("/other")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.lose_power(|| false);
        assert_eq!(disk.read(&file()).unwrap(), b"ol", "its bytes were not synced");
    }

    #[test]
    fn a_rename_and_a_removal_are_lost_with_an_unsynced_directory() {
        let disk = FakeDisk::new();
        let other = Path::new("/d/g");
        for (path, bytes) in [(file().as_path(), b"1"), (other, b"2")] {
            disk.write(path, bytes).unwrap();
            disk.sync(path).unwrap();
        }
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.rename(other, &file()).unwrap();
        disk.lose_power(|| false);
        assert_eq!(disk.read(&file()).unwrap(), b"1");
        assert_eq!(disk.read(other).unwrap(), b"2");
        disk.remove(other).unwrap();
        disk.lose_power(|| false);
        assert_eq!(disk.read(other).unwrap(), b"2");
        disk.remove(other).unwrap();
        disk.lose_power(|| true);
        assert!(disk.read(other).is_err());
    }
}
