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
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Disk;
    use crate::ledger::fake::FakeDisk;

    fn open(disk: &FakeDisk) -> Folder {
        Folder::open(Path::new("/f"), Arc::new(disk.clone())).unwrap()
    }

    #[test]
    fn a_full_journal_is_folded_and_loses_nothing() {
        let disk = FakeDisk::new();
        let folder = open(&disk);
        let bytes = vec![7; LARGE - 1];
        for round in 0..20u8 {
            folder.replace("a", &[round]).unwrap();
            folder.replace(&format!("b{round}"), &bytes).unwrap();
        }
        folder.remove("b3").unwrap();
        disk.lose_power(|| false);
        let folder = open(&disk);
        assert_eq!(folder.read("a").unwrap(), [19]);
        assert_eq!(folder.names().unwrap().len(), 20);
        assert!(folder.read("b3").is_err());
        assert_eq!(folder.read("b19").unwrap(), bytes);
    }

    #[test]
    fn many_files_at_once_are_one_wait_and_lose_nothing_where_the_journal_is_full() {
        let disk = FakeDisk::new();
        let folder = open(&disk);
        let bytes = vec![7; LARGE - 1];
        let names: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
        let mut files: Vec<(&str, &[u8])> = names.iter().map(|n| (&**n, &*bytes)).collect();
        let large = vec![8; LARGE];
        files[20].1 = &large;
        folder.replace_all(&files).unwrap();
        let few: Vec<(&str, &[u8])> =
            names[..5].iter().map(|n| (&**n, b"few".as_slice())).collect();
        // There is room for them by then: a write and a wait are enough.
        folder.replace("00", b"old").unwrap();
        disk.cut_power_after(2);
        folder.replace_all(&few).unwrap();
        disk.cut_power_after(2);
        let gone = ["07", "none", "08", "09"].map(str::to_owned);
        assert_eq!(folder.remove_all(&gone).unwrap(), 3);
        disk.cut_power_after(u64::MAX);
        disk.lose_power(|| false);
        let folder = open(&disk);
        let length = |n: &String| folder.read(n).ok().map(|bytes| bytes.len());
        let found: Vec<Option<usize>> = names.iter().map(length).collect();
        for (n, found) in found.into_iter().enumerate() {
            let expected = match n {
                0..5 => Some(3),
                7..10 => None,
                20 => Some(LARGE),
                _ => Some(LARGE - 1),
            };
            assert_eq!(found, expected, "{n}");
        }
    }

    #[test]
    fn a_large_file_is_not_undone_by_an_older_record() {
        let disk = FakeDisk::new();
        let folder = open(&disk);
        folder.replace("a", b"small").unwrap();
        folder.replace("a", &vec![1; LARGE]).unwrap();
        disk.lose_power(|| false);
        assert_eq!(open(&disk).read("a").unwrap().len(), LARGE);
    }

    #[test]
    fn a_record_that_failed_does_not_hide_those_after_it() {
        let disk = FakeDisk::new();
        let folder = open(&disk);
        folder.replace("a", b"1").unwrap();
        disk.cut_power_after(1);
        folder.replace("a", b"2").unwrap_err();
        disk.cut_power_after(u64::MAX);
        folder.replace("b", b"3").unwrap();
        disk.lose_power(|| true);
        let folder = open(&disk);
        assert_eq!(folder.read("b").unwrap(), b"3");
        assert_eq!(folder.read("a").unwrap(), b"1");
    }

    #[test]
    fn a_journal_that_could_not_be_cleared_whole_hides_nothing_after_it() {
        for operations in 0..8 {
            let disk = FakeDisk::new();
            let folder = open(&disk);
            folder.replace("a", b"1").unwrap();
            disk.cut_power_after(operations);
            let large = folder.replace("b", &vec![1; LARGE]);
            disk.cut_power_after(u64::MAX);
            folder.replace("c", b"3").unwrap();
            disk.lose_power(|| true);
            let folder = open(&disk);
            assert_eq!(folder.read("c").unwrap(), b"3", "after {operations} operations: {large:?}");
            assert_eq!(folder.read("a").unwrap(), b"1");
        }
    }

    #[test]
    fn on_a_real_disk_it_is_the_same_after_another_open() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Folder::open(dir.path(), Arc::new(Disk)).unwrap();
        let folder = open();
        folder.replace("a", b"1").unwrap();
        folder.replace("b", b"2").unwrap();
        folder.remove("a").unwrap();
        assert_eq!(folder.names().unwrap(), ["b"]);
        drop(folder);
        let folder = open();
        assert_eq!(
            (folder.names().unwrap(), folder.read("b").unwrap()),
            (vec!["b".to_owned()], b"2".to_vec())
        );
        assert!(folder.remove("a").is_err());
    }

    #[derive(Clone, Debug)]
    enum Do {
        Replace(u8, u8, usize),
        ReplaceAll(u8, usize),
        Remove(u8),
        Tidy,
        Restart { opening: u64, kept: u64, operations: u64 },
    }

    fn step() -> impl Strategy<Value = Do> {
        let size = prop_oneof![9 => 0..200usize, 1 => LARGE - 200..LARGE + 10];
        prop_oneof![
            6 => (0..3u8, any::<u8>(), size).prop_map(|(name, byte, size)| Do::Replace(name, byte, size)),
            2 => (any::<u8>(), 0..LARGE + 10).prop_map(|(byte, size)| Do::ReplaceAll(byte, size)),
            1 => (0..3u8).prop_map(Do::Remove),
            1 => Just(Do::Tidy),
            2 => (0..16u64, any::<u64>(), 0..12u64)
                .prop_map(|(opening, kept, operations)| Do::Restart { opening, kept, operations }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_acknowledged_survives_and_each_change_is_whole(steps in prop::collection::vec(step(), 1..60)) {
            let disk = FakeDisk::new();
            let mut folder = open(&disk);
            // Of each name what it may hold: the last acknowledged, and what was tried since.
            let mut may: BTreeMap<u8, Vec<Option<Vec<u8>>>> = (0..3).map(|n| (n, vec![None])).collect();
            for step in steps {
                match step {
                    Do::Replace(name, byte, size) => {
                        let bytes = vec![byte; size];
                        let done = folder.replace(&name.to_string(), &bytes).is_ok();
                        let may = may.get_mut(&name).unwrap();
                        if done { may.clear(); }
                        may.push(Some(bytes));
                    }
                    Do::ReplaceAll(byte, size) => {
                        let bytes = vec![byte; size];
                        let names: Vec<String> = (0..3).map(|n| n.to_string()).collect();
                        let files: Vec<(&str, &[u8])> = names.iter().map(|n| (&**n, &*bytes)).collect();
                        let done = folder.replace_all(&files).is_ok();
                        for may in may.values_mut() {
                            if done { may.clear(); }
                            may.push(Some(bytes.clone()));
                        }
                    }
                    Do::Remove(name) => {
                        let done = folder.remove(&name.to_string()).is_ok();
                        let may = may.get_mut(&name).unwrap();
                        if done { may.clear(); }
                        may.push(None);
                    }
                    Do::Tidy => drop(folder.tidy()),
                    Do::Restart { opening, mut kept, operations } => {
                        let mut keeps = || {
                            kept = kept.rotate_right(1);
                            kept & 1 == 1
                        };
                        disk.lose_power(&mut keeps);
                        // Once more while what is there is brought into order.
                        disk.cut_power_after(opening);
                        drop(Folder::open(Path::new("/f"), Arc::new(disk.clone())));
                        disk.lose_power(&mut keeps);
                        folder = open(&disk);
                        for (name, may) in &mut may {
                            let found = folder.read(&name.to_string()).ok();
                            prop_assert!(may.contains(&found), "{name}: {:?} bytes", found.map(|f| f.len()));
                            *may = vec![found];
                        }
                        disk.cut_power_after(operations);
                    }
                }
            }
        }
    }
}
