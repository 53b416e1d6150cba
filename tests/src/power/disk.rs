//! A disk that tells what is on it from what a program sees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::call::{Call, Event};

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// All of it is lost.
    None,
    /// Each write and each change of a name is lost or not, as follows from this number.
    Seed(u64),
}

impl Luck {
    /// Whether the next thing that was not synced is there.
    fn spares(&mut self) -> bool {
        let Self::Seed(state) = self else { return false };
        // SplitMix64: any generator would do.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
enum Write {
    At(u64, Vec<u8>),
    Length(u64),
}

/// A change of a folder: a name is this file, or none.
type Entry = (PathBuf, Option<usize>);

/// What was not synced, in order, and how much was before it.
#[derive(Clone, Debug)]
struct Pending<T> {
    synced: usize,
    rest: Vec<T>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { synced: 0, rest: Vec::new() }
    }
}

impl<T> Pending<T> {
    fn end(&self) -> usize {
        self.synced + self.rest.len()
    }

    /// All up to an [`end`](Self::end) of before; another sync may have covered some of it meanwhile.
    fn sync(&mut self, end: usize) -> Vec<T> {
        let count = end.saturating_sub(self.synced);
        self.synced += count;
        self.rest.drain(..count).collect()
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    synced: Vec<u8>,
    pending: Pending<Write>,
    folder: bool,
}

/// A sync that began: what it covers.
#[derive(Clone, Debug)]
enum Sync {
    File { file: usize, end: usize },
    Folder { folder: PathBuf, end: usize },
}

/// The files below a folder: as the program sees them, and as the disk has them.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    synced: BTreeMap<PathBuf, usize>,
    /// Changes of names that were not synced, by folder.
    pending: BTreeMap<PathBuf, Pending<Entry>>,
    open: BTreeMap<i64, (usize, u64)>,
    syncing: BTreeMap<u32, Sync>,
    syncs: usize,
}

impl Disk {
    /// The folder `root` is there already and stays; nothing is in it.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            files: Vec::new(),
            names: BTreeMap::new(),
            synced: BTreeMap::new(),
            pending: BTreeMap::new(),
            open: BTreeMap::new(),
            syncing: BTreeMap::new(),
            syncs: 0,
        }
    }

    /// How often something was synced.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.syncs
    }

    /// Writes what a power cut now would leave into `to`, which stands for the root.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn after_power_cut(&self, mut luck: Luck, to: &Path) -> Result<()> {
        let mut names = self.synced.clone();
        for (path, file) in self.pending.values().flat_map(|pending| &pending.rest) {
            if luck.spares() {
                match file {
                    Some(file) => names.insert(path.clone(), *file),
                    None => names.remove(path),
                };
            }
        }
        // In order of paths, so a folder comes before what is in it; what is in a folder that has no name is lost.
        for (path, file) in names {
            let place = to.join(path.strip_prefix(&self.root).context("below the root")?);
            if !place.parent().is_some_and(Path::is_dir) {
                continue;
            }
            let file = &self.files[file];
            if file.folder {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
                continue;
            }
            let mut bytes = file.synced.clone();
            for write in &file.pending.rest {
                if luck.spares() {
                    apply(&mut bytes, write);
                }
            }
            let mut options = fs::OpenOptions::new();
            let mut made =
                options.create(true).write(true).truncate(true).mode(0o600).open(&place)?;
            std::io::Write::write_all(&mut made, &bytes)?;
        }
        Ok(())
    }

    pub(super) fn close_all(&mut self) {
        self.open.clear();
        self.syncing.clear();
    }

    pub(super) fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Began(call) => {
                if is_sync(&call) {
                    self.begin_sync(&call);
                }
                Ok(())
            }
            Event::Ended(call) => {
                self.ended(&call).with_context(|| format!("{} {:?}", call.name, call.args.first()))
            }
        }
    }

    fn ended(&mut self, call: &Call) -> Result<()> {
        let returned = call.returned();
        if returned < 0 {
            self.syncing.remove(&call.process);
            return Ok(());
        }
        match call.name.as_str() {
            "open" | "openat" | "creat" => self.opened(call),
            "write" => self.written(call, call.bytes(1), None),
            "writev" => self.written(call, call.pieces(1), None),
            "pwrite64" => self.written(call, call.bytes(1), Some(call.number(3)?)),
            "pwritev" | "pwritev2" => self.written(call, call.pieces(1), Some(call.number(3)?)),
            "ftruncate" => {
                let length = call.number(1)?;
                self.change(call, Write::Length(length));
                Ok(())
            }
            "lseek" => {
                let open = self.own_descriptor(call).and_then(|number| self.open.get_mut(&number));
                if let Some((_, position)) = open {
                    *position = u64::try_from(returned).context("a position")?;
                }
                Ok(())
            }
            "fsync" | "fdatasync" => {
                if !self.syncing.contains_key(&call.process) {
                    self.begin_sync(call);
                }
                self.end_sync(call.process);
                Ok(())
            }
            "mkdir" => self.made_folder(&call.path(0)?),
            "mkdirat" => self.made_folder(&call.path(1)?),
            "rename" => self.renamed(&call.path(0)?, &call.path(1)?),
            "renameat" | "renameat2" => self.renamed(&call.path(1)?, &call.path(3)?),
            "unlink" | "rmdir" => self.removed(&call.path(0)?),
            "unlinkat" => self.removed(&call.path(1)?),
            other => {
                let below = call.args.iter().any(|arg| arg.contains(&hexadecimal(&self.root)));
                if below { bail!("{other} is not known here") } else { Ok(()) }
            }
        }
    }

    fn is_below(&self, path: &Path) -> bool {
        path.starts_with(&self.root) && path != self.root
    }

    /// SQLite's index of its log lives in memory that processes share: it is made anew from the log.
    fn is_kept(&self, path: &Path) -> bool {
        self.is_below(path) && !path.as_os_str().to_string_lossy().ends_with("-shm")
    }

    /// The descriptor of a call on one of our files; its number may be a socket's by now.
    fn own_descriptor(&self, call: &Call) -> Option<i64> {
        call.descriptor(0).filter(|(_, path)| self.is_kept(path)).map(|(number, _)| number)
    }

    fn opened(&mut self, call: &Call) -> Result<()> {
        let Some((number, path)) = call.returned_descriptor() else { return Ok(()) };
        self.open.remove(&number);
        if !self.is_kept(&path) {
            return Ok(());
        }
        let file = match self.names.get(&path) {
            Some(file) => *file,
            None if call.has("O_CREAT") => {
                self.files.push(File::default());
                let file = self.files.len() - 1;
                self.named(&path, Some(file));
                file
            }
            None => bail!("{} was there before the record began", path.display()),
        };
        if call.has("O_TRUNC") {
            self.files[file].pending.rest.push(Write::Length(0));
        }
        self.open.insert(number, (file, 0));
        Ok(())
    }

    fn written(&mut self, call: &Call, bytes: Result<Vec<u8>>, at: Option<u64>) -> Result<()> {
        let Some(number) = self.own_descriptor(call) else { return Ok(()) };
        let Some((file, position)) = self.open.get_mut(&number) else { return Ok(()) };
        let mut bytes = bytes?;
        bytes.truncate(usize::try_from(call.returned()).context("a length")?);
        let offset = at.unwrap_or(*position);
        if at.is_none() {
            *position += bytes.len() as u64;
        }
        self.files[*file].pending.rest.push(Write::At(offset, bytes));
        Ok(())
    }

    fn change(&mut self, call: &Call, write: Write) {
        let open = self.own_descriptor(call).and_then(|number| self.open.get(&number));
        if let Some((file, _)) = open {
            self.files[*file].pending.rest.push(write);
        }
    }

    fn named(&mut self, path: &Path, file: Option<usize>) {
        match file {
            Some(file) => self.names.insert(path.to_owned(), file),
            None => self.names.remove(path),
        };
        let folder = path.parent().unwrap_or(path).to_owned();
        self.pending.entry(folder).or_default().rest.push((path.to_owned(), file));
    }

    fn made_folder(&mut self, path: &Path) -> Result<()> {
        if self.is_below(path) {
            self.files.push(File { folder: true, ..File::default() });
            self.named(path, Some(self.files.len() - 1));
        }
        Ok(())
    }

    fn renamed(&mut self, from: &Path, to: &Path) -> Result<()> {
        if !self.is_kept(from) && !self.is_kept(to) {
            return Ok(());
        }
        let file =
            *self.names.get(from).with_context(|| format!("{} is not known", from.display()))?;
        self.named(to, Some(file));
        self.named(from, None);
        Ok(())
    }

    fn removed(&mut self, path: &Path) -> Result<()> {
        if self.names.contains_key(path) {
            self.named(path, None);
        }
        Ok(())
    }

    fn begin_sync(&mut self, call: &Call) {
        let Some((number, path)) = call.descriptor(0) else { return };
        let open = self.own_descriptor(call).and(self.open.get(&number)).map(|(file, _)| *file);
        let sync = match open {
            Some(file) if !self.files[file].folder => {
                Sync::File { file, end: self.files[file].pending.end() }
            }
            _ if path == self.root || self.names.contains_key(&path) => {
                let end = self.pending.get(&path).map_or(0, Pending::end);
                Sync::Folder { folder: path, end }
            }
            _ => return,
        };
        self.syncing.insert(call.process, sync);
    }

    fn end_sync(&mut self, process: u32) {
        match self.syncing.remove(&process) {
            None => return,
            Some(Sync::File { file, end }) => {
                let file = &mut self.files[file];
                for write in file.pending.sync(end) {
                    apply(&mut file.synced, &write);
                }
            }
            Some(Sync::Folder { folder, end }) => {
                for (path, file) in self.pending.entry(folder).or_default().sync(end) {
                    match file {
                        Some(file) => self.synced.insert(path, file),
                        None => self.synced.remove(&path),
                    };
                }
            }
        }
        self.syncs += 1;
    }
}

fn is_sync(call: &Call) -> bool {
    matches!(call.name.as_str(), "fsync" | "fdatasync")
}

fn hexadecimal(path: &Path) -> String {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Length(length) => bytes.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0),
        Write::At(offset, data) => {
            let from = usize::try_from(*offset).unwrap_or(usize::MAX);
            let end = from.saturating_add(data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[from..end].copy_from_slice(data);
        }
    }
}
