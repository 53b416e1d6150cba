//! What is remembered of units and apps, beside the ledger, because the host does not show it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use dhow_proto::model::{App, Unit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Marks;
use crate::ledger::{Disk, Folder};
use crate::plan::Mark;

/// Lines of ours that are kept at most. They are forgotten earlier (see the worker's audit); this bounds the file while
/// another deployer's line keeps the app on hold.
const OWN_LINES: usize = 1024;

/// What an app's last adoption found, and what was written since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AppMemory {
    /// Where the audit log is: the home is that of the app's `ssh.user`.
    pub(crate) audit_log: Option<PathBuf>,
    /// Length of the audit log then.
    pub(crate) audit_from: u64,
    /// Lines written since.
    pub(crate) own_lines: Vec<String>,
    /// Containers without the label `dhow.intent` then.
    pub(crate) adopted: BTreeSet<String>,
    /// Details of the lock taken here; remembered before it is taken.
    pub(crate) lock: Option<String>,
}

/// A directory of small JSON files. Callers serialise their writes.
pub(crate) struct Memory {
    directory: PathBuf,
    /// Opened when it is first needed.
    folder: Mutex<Option<Arc<Folder>>>,
}

impl Memory {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, folder: Mutex::default() }
    }

    pub(crate) fn marks(&self, unit: &Unit) -> io::Result<Marks> {
        Ok(self.load(&unit_file(unit))?.unwrap_or_default())
    }

    pub(crate) fn set_mark(&self, unit: &Unit, mark: &Mark) -> io::Result<()> {
        let mut marks = self.marks(unit)?;
        marks.set(mark);
        self.save(&unit_file(unit), &marks)
    }

    /// None: never adopted.
    pub(crate) fn app(&self, app: &App) -> io::Result<Option<AppMemory>> {
        self.load(&app_file(app))
    }

    /// Of every app that was ever adopted here.
    pub(crate) fn apps(&self) -> io::Result<Vec<AppMemory>> {
        let names = self.folder()?.names()?;
        let apps = names.iter().filter(|n| n.starts_with("app!") && n.ends_with(".json"));
        apps.filter_map(|name| self.load(name).transpose()).collect()
    }

    pub(crate) fn set_app(&self, app: &App, memory: &AppMemory) -> io::Result<()> {
        self.save(&app_file(app), memory)
    }

    pub(crate) fn forget_app(&self, app: &App) -> io::Result<()> {
        match self.folder()?.remove(&app_file(app)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Remembers a line before it is written: a crash in between must not make our own line foreign.
    pub(crate) fn own_line(&self, app: &App, line: &str) -> io::Result<()> {
        let mut memory = self.app(app)?.unwrap_or_default();
        memory.own_lines.push(line.to_owned());
        let excess = memory.own_lines.len().saturating_sub(OWN_LINES);
        memory.own_lines.drain(..excess);
        self.set_app(app, &memory)
    }

    fn folder(&self) -> io::Result<Arc<Folder>> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        match &*folder {
            Some(folder) => Ok(Arc::clone(folder)),
            None => {
                let opened = Arc::new(Folder::open(&self.directory, Arc::new(Disk))?);
                Ok(Arc::clone(folder.insert(opened)))
            }
        }
    }

    fn load<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match self.folder()?.read(name) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
        self.folder()?.replace(name, &bytes)
    }
}

fn unit_file(unit: &Unit) -> String {
    format!("marks!{}.json", unit.key())
}

fn app_file(app: &App) -> String {
    format!("app!{}!{}.json", app.service, app.destination_label())
}
