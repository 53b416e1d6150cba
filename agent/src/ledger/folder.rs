//! A folder of small files, each replaced whole, durable at the cost of one write into a journal that is there already.
//!
//! In: names and bytes. Out: the same after a loss of power at any point, or what was there before. Always true: what
//! [`Folder::replace`] and [`Folder::remove`] acknowledged survives; of what they did not acknowledge, each change is there
//! whole or not at all.
//!
//! A file that is made, synced and renamed costs a disk three waits, most of them for the file system's own journal. Here a
//! change is appended to a file whose blocks are there, and only its data is waited for; what the journal holds is
//! folded into plain files when it is full, when the folder is opened, and when somebody asks for it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::io::{Io, TEMPORARY, replace};

/// The journal's file.
const JOURNAL: &str = "journal";
/// Its size: some dozen rollouts of an app, so that folding is rare.
const CAPACITY: usize = 512 * 1024;
/// Records from this size on go to their files at once.
const LARGE: usize = CAPACITY / 8;
/// Begins a record; the digit is the version of its form.
const MAGIC: &[u8; 8] = b"dhowjrn1";
const DIGEST: usize = 32;
/// Magic, digest, length of the rest.
const HEAD: usize = MAGIC.len() + DIGEST + 4;

/// A file's name and its new bytes; none: it goes.
type Change<'a> = (&'a str, Option<&'a [u8]>);

/// A folder. One process at a time has it open.
pub(crate) struct Folder {
    io: Arc<dyn Io>,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the journal holds: newer than the plain files. None: removed.
    newest: BTreeMap<String, Option<Vec<u8>>>,
    /// Where the next record goes.
    at: usize,
    /// A record was cut short: nothing may follow it before the journal is empty again.
    broken: bool,
}

impl Folder {
    /// Opens the folder, made (0700) where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be made, read or brought into order.
    pub(crate) fn open(dir: &Path, io: Arc<dyn Io>) -> io::Result<Self> {
        io.create_dir(dir)?;
        let mut there = false;
        for name in io.list(dir)? {
            // A write that a crash cut short.
            if name.ends_with(TEMPORARY) {
                let _ = io.remove(&dir.join(&name));
            }
            there |= name == JOURNAL;
        }
        let journal = if there { io.read(&dir.join(JOURNAL))? } else { Vec::new() };
        let folder = Self { io, dir: dir.to_owned(), state: Mutex::default() };
        let mut state = folder.lock();
        state.newest = records(&journal);
        if journal.len() != CAPACITY {
            folder.write_out(&state)?;
            replace(&*folder.io, dir, JOURNAL, &vec![0; CAPACITY])?;
            state.newest.clear();
        } else if journal != vec![0; CAPACITY] {
            folder.fold_into_files(&mut state)?;
        }
        drop(state);
        Ok(folder)
    }

    /// Names of all files, sorted.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let state = self.lock();
        let mut names = self.io.list(&self.dir)?;
        names.retain(|name| {
            name != JOURNAL && !name.ends_with(TEMPORARY) && !state.newest.contains_key(name)
        });
        let newer = state.newest.iter().filter(|(_, bytes)| bytes.is_some());
        names.extend(newer.map(|(name, _)| name.clone()));
        names.sort();
        Ok(names)
    }

    /// A whole file.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the file system's.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.lock();
        match state.newest.get(name) {
            Some(Some(bytes)) => Ok(bytes.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => self.io.read(&self.dir.join(name)),
        }
    }

    /// Replaces a file, or makes it. Durable when this returns.
    ///
    /// # Errors
    ///
    /// Not durable: after a crash it holds all of the old or all of the new bytes.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace_all(&[(name, bytes)])
    }

    /// As [`Self::replace`], for several files with one wait for the disk.
    ///
    /// # Errors
    ///
    /// Not all are durable: after a crash each holds all of its old or all of its new bytes.
    pub(crate) fn replace_all(&self, files: &[(&str, &[u8])]) -> io::Result<()> {
        let mut state = self.lock();
        let mut changes: Vec<Change<'_>> = Vec::new();
        for (name, bytes) in files {
            if bytes.len() >= LARGE {
                // An older record must not come back over it.
                self.append(&mut state, &std::mem::take(&mut changes))?;
                self.fold_into_files(&mut state)?;
                replace(&*self.io, &self.dir, name, bytes)?;
            } else {
                changes.push((name, Some(bytes)));
            }
        }
        self.append(&mut state, &changes)
    }

    /// Removes a file. Durable when this returns.
    ///
    /// # Errors
    ///
    /// `NotFound`, or not durable.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        match state.newest.get(name) {
            Some(Some(_)) => {}
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            None => drop(self.io.read(&self.dir.join(name))?),
        }
        self.append(&mut state, &[(name, None)])
    }

    /// Removes those of these files that are there, with one wait for the disk; gives how many.
    ///
    /// # Errors
    ///
    /// Not all removals are durable.
    pub(crate) fn remove_all(&self, names: &[String]) -> io::Result<usize> {
        let there = self.names()?;
        let gone: Vec<Change<'_>> =
            names.iter().filter(|n| there.contains(n)).map(|n| (n.as_str(), None)).collect();
        self.append(&mut self.lock(), &gone)?;
        Ok(gone.len())
    }

    /// Folds what the journal holds into plain files, where it is half full: for a time when nobody waits.
    ///
    /// # Errors
    ///
    /// The file system's; nothing is lost.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.at > CAPACITY / 2 { self.fold_into_files(&mut state) } else { Ok(()) }
    }

    fn append(&self, state: &mut State, changes: &[Change<'_>]) -> io::Result<()> {
        let mut rest = changes;
        while !rest.is_empty() {
            // What is not yet synced must not be folded away, so as many go at once as there is room for.
            let mut records = Vec::new();
            let mut fit = 0;
            for (name, bytes) in rest {
                let record = record(name, *bytes);
                if fit > 0 && state.at + records.len() + record.len() > CAPACITY {
                    break;
                }
                records.extend(record);
                fit += 1;
            }
            if state.broken || state.at + records.len() > CAPACITY {
                self.fold_into_files(state)?;
            }
            let journal = self.dir.join(JOURNAL);
            let written = self
                .io
                .write_at(&journal, state.at as u64, &records)
                .and_then(|()| self.io.sync_data(&journal));
            if let Err(error) = written {
                state.broken = true;
                return Err(error);
            }
            state.at += records.len();
            let (done, left) = rest.split_at(fit);
            for (name, bytes) in done {
                state.newest.insert((*name).to_owned(), bytes.map(<[u8]>::to_vec));
            }
            rest = left;
        }
        Ok(())
    }

    fn fold_into_files(&self, state: &mut State) -> io::Result<()> {
        self.write_out(state)?;
        // Where only a part can be cleared, nothing may follow what is left.
        state.broken = true;
        // The first record goes before the others: else what is left of them could be older than the files.
        let journal = self.dir.join(JOURNAL);
        let clear = |from: usize, to: usize| {
            self.io.write_at(&journal, from as u64, &vec![0; to - from])?;
            self.io.sync_data(&journal)
        };
        clear(0, HEAD)?;
        clear(HEAD, CAPACITY)?;
        *state = State::default();
        Ok(())
    }

    /// Makes plain files of what the journal holds. The journal still holds it afterwards.
    fn write_out(&self, state: &State) -> io::Result<()> {
        if state.newest.is_empty() {
            return Ok(());
        }
        for (name, bytes) in &state.newest {
            let path = self.dir.join(name);
            match bytes {
                Some(bytes) => {
                    let temporary = self.dir.join(format!("{name}{TEMPORARY}"));
                    self.io.write(&temporary, bytes)?;
                    self.io.sync(&temporary)?;
                    self.io.rename(&temporary, &path)?;
                }
                None => match self.io.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                },
            }
        }
        self.io.sync_dir(&self.dir)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in a folder that another has open: nothing is brought into order.
#[cfg(test)]
pub(crate) fn peek(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(TEMPORARY) {
            files.insert(name, std::fs::read(path).unwrap());
        }
    }
    let journal = files.remove(JOURNAL).unwrap_or_default();
    for (name, bytes) in records(&journal) {
        match bytes {
            Some(bytes) => files.insert(name, bytes),
            None => files.remove(&name),
        };
    }
    files
}

/// Magic, SHA-256 of what follows, length of the rest; the name's length, the name, whether it is there, its bytes.
fn record(name: &str, bytes: Option<&[u8]>) -> Vec<u8> {
    let rest = 2 + name.len() + 1 + bytes.map_or(0, <[u8]>::len);
    let mut body = Vec::with_capacity(4 + rest);
    body.extend_from_slice(&u32::try_from(rest).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend_from_slice(name.as_bytes());
    body.push(u8::from(bytes.is_some()));
    body.extend_from_slice(bytes.unwrap_or_default());
    let digest = Sha256::digest(&body);
    [MAGIC.as_slice(), digest.as_slice(), &body].concat()
}

/// The newest bytes of every name, up to the first record that is not whole.
fn records(mut journal: &[u8]) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut newest = BTreeMap::new();
    while let Some((name, bytes, after)) = first(journal) {
        newest.insert(name, bytes);
        journal = after;
    }
    newest
}

type First<'a> = (String, Option<Vec<u8>>, &'a [u8]);

fn first(journal: &[u8]) -> Option<First<'_>> {
    let rest = journal.strip_prefix(MAGIC.as_slice())?;
    let (digest, body) = rest.split_at_checked(DIGEST)?;
    let (length, _) = body.split_first_chunk::<4>()?;
    let (body, after) = body.split_at_checked(4 + u32::from_be_bytes(*length) as usize)?;
    if Sha256::digest(body).as_slice() != digest {
        return None;
    }
    let (name_length, rest) = body[4..].split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*name_length)))?;
    let (is_there, bytes) = rest.split_first()?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some((name, (*is_there == 1).then(|| bytes.to_vec()), after))
}

#[cfg(test)]
mod tests;
