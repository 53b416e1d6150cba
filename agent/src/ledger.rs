//! Keeps, per unit, the newest intent accepted (wanted) and the last one that served (settled), across restarts.
//!
//! In: intents from the session, outcomes from the converge loops. Out: what is known of a unit, and one `watch` that
//! moves when anything was accepted.
//! Always true: a unit's generation only grows, and an intent is published only after it is durable, so a crash can
//! repeat work but never forget it. A file that cannot be read costs its own unit its memory, never the agent its start.
//!
//! Writes are synchronous: a few KiB that the disk is waited for, and nothing may be said before they are done.

mod blobs;
mod collect;
mod events;
pub mod fake;
mod file;
mod folder;
mod io;
mod record;

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dhow_proto::model::error::FieldError;
use dhow_proto::model::intent::{Absent, Desired, Intent};
use dhow_proto::model::status::{Failure, Held};
use dhow_proto::model::{App, BlobDigest, FEATURES, Generation, Unit};
use tokio::sync::watch;

pub use blobs::{BlobError, Blobs};
pub use collect::collect_blobs;
pub use events::{Events, QUEUE};
pub use io::{Disk, Io};
pub use record::{Accepted, Failed, Hold};

use file::Kind;
pub(crate) use folder::Folder;
#[cfg(test)]
pub(crate) use folder::peek;
pub(crate) use io::replace as replace_file;

/// Units a host may have. A controller that sends more is broken or hostile; a busy host has a few dozen.
pub const MAX_UNITS: usize = 4096;

/// Why an offered intent was refused.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Fencing: somebody who does not know the newest state wrote it.
    #[error("generation {offered} is older than {current}")]
    Outdated {
        /// Newest accepted.
        current: Generation,
        /// The one offered.
        offered: Generation,
    },
    /// Two writers used one number: never to be papered over.
    #[error("generation {generation} was already accepted with other content")]
    Conflicting {
        /// The number.
        generation: Generation,
    },
    /// Not an intent this build can read.
    #[error("malformed")]
    Malformed(#[from] FieldError),
    /// The intent needs what this build lacks.
    #[error("agent too old: it does not know `{feature}`; upgrade it")]
    FeatureMissing {
        /// The first feature that is missing.
        feature: String,
    },
    /// More than [`MAX_UNITS`].
    #[error("this host has {MAX_UNITS} units already")]
    TooManyUnits,
    /// Not durable, so not accepted. May be offered again.
    #[error("could not write the ledger")]
    Write(#[source] std::io::Error),
}

/// What accepting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// A newer generation; it is durable and published.
    New,
    /// The same intent again.
    Known,
}

/// A file that could not be read when the agent started; its unit waits for the controller to send its intent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// Path below the ledger's directory.
    pub file: String,
    /// What is wrong.
    pub reason: String,
}

/// What is known of one unit.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Newest accepted; none where its file was unreadable.
    pub wanted: Option<Accepted>,
    /// Last that served.
    pub settled: Option<Accepted>,
    /// The intent a `settle` speaks of, or the role's that was at work when it was released; kept while that is wanted.
    pub attempted: Option<Accepted>,
    /// The generation that failed and is never tried again.
    pub failed: Option<Failed>,
    /// Small facts the unit's executor must not forget (numbers already acted on, a staged digest).
    pub marks: BTreeMap<String, String>,
}

impl Known {
    /// True where this generation failed: it is never tried again, by timer, event or restart.
    pub fn has_failed(&self, generation: Generation) -> bool {
        self.failed.as_ref().is_some_and(|f| f.generation == generation)
    }

    /// Newest generation known of, also where the wanted one was unreadable: nothing older is accepted.
    fn newest(&self) -> Option<Generation> {
        let accepted = [&self.wanted, &self.settled, &self.attempted];
        let of_intents = accepted.into_iter().flatten().map(Accepted::generation);
        of_intents.chain(self.failed.as_ref().map(|f| f.generation)).max()
    }
}

#[derive(Default)]
struct State {
    units: BTreeMap<Unit, Known>,
    holds: BTreeMap<App, Hold>,
    corrupt: Vec<Corrupt>,
}

/// The ledger of one host. Share it behind an `Arc`.
pub struct Ledger {
    folder: Folder,
    root: PathBuf,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Ledger {
    /// Reads what is there; makes the directory (0700) where there is none.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or listed. Single unreadable files are listed in [`Self::corrupt`] instead.
    pub fn open(root: &Path, io: Arc<dyn Io>) -> std::io::Result<Self> {
        let folder = Folder::open(root, io)?;
        let mut state = State::default();
        for name in folder.names()? {
            if let Err(reason) = load(&folder, &name, &mut state) {
                tracing::error!(file = %name, %reason, "a ledger file cannot be read: its unit waits for its intent");
                state.corrupt.push(Corrupt { file: name, reason });
            }
        }
        Ok(Self {
            folder,
            root: root.to_owned(),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        })
    }

    /// Moves whenever an intent was accepted, a unit was forgotten or a hold was changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Files that could not be read at the start.
    pub fn corrupt(&self) -> Vec<Corrupt> {
        self.lock().corrupt.clone()
    }

    /// Every unit, sorted.
    pub fn units(&self) -> Vec<Unit> {
        self.lock().units.keys().cloned().collect()
    }

    /// What is known of a unit; empty where nothing is.
    pub fn known(&self, unit: &Unit) -> Known {
        self.lock().units.get(unit).cloned().unwrap_or_default()
    }

    /// Takes an intent: the generation rule. It is durable and published when this returns.
    ///
    /// `bytes` are the encoded wire message: their digest names the content.
    ///
    /// # Errors
    ///
    /// [`AcceptError`]; then nothing has changed.
    pub fn accept(&self, bytes: &[u8]) -> Result<Accept, AcceptError> {
        let offered = Accepted::from_bytes(bytes)?;
        if let Some(feature) =
            offered.intent.features.iter().find(|f| !FEATURES.contains(&f.as_str()))
        {
            return Err(AcceptError::FeatureMissing { feature: feature.clone() });
        }
        let unit = offered.intent.unit.clone();
        let mut state = self.lock();
        if state.units.len() >= MAX_UNITS && !state.units.contains_key(&unit) {
            return Err(AcceptError::TooManyUnits);
        }
        let known = state.units.get(&unit).cloned().unwrap_or_default();
        if let Some(verdict) = judge(&known, &offered) {
            return verdict;
        }
        let attempted = attempted_of(&known, &offered.intent);
        if let Some(attempted) = &attempted {
            self.write(&unit, Kind::Attempted, &attempted.bytes).map_err(AcceptError::Write)?;
        }
        self.write(&unit, Kind::Wanted, bytes).map_err(AcceptError::Write)?;
        if attempted.is_none() && known.attempted.is_some() {
            // Only tidiness: an old one is looked at only by what names it, or lets the unit go.
            let _ = self.remove(&unit, Kind::Attempted);
        }
        state.units.insert(unit, Known { wanted: Some(offered), attempted, ..known });
        drop(state);
        self.publish();
        Ok(Accept::New)
    }

    /// Notes that an intent serves. Its ciphertexts and templates are kept from now on.
    ///
    /// # Errors
    ///
    /// Not durable; the caller tries again.
    pub fn settle(&self, accepted: &Accepted) -> std::io::Result<()> {
        let unit = &accepted.intent.unit;
        let mut state = self.lock();
        let known = state.units.entry(unit.clone()).or_default();
        if known.settled.as_ref() == Some(accepted) {
            return Ok(());
        }
        self.write(unit, Kind::Settled, &accepted.bytes)?;
        known.settled = Some(accepted.clone());
        drop(state);
        self.publish();
        Ok(())
    }

    /// Records that a generation failed: it is never tried again.
    ///
    /// # Errors
    ///
    /// Not durable; the caller must not go on as if it were.
    pub fn fail(
        &self,
        unit: &Unit,
        generation: Generation,
        failure: &Failure,
    ) -> std::io::Result<()> {
        let failed = Failed { generation, failure: failure.clone() };
        let mut state = self.lock();
        self.write(unit, Kind::Failed, &failed.to_bytes(unit))?;
        state.units.entry(unit.clone()).or_default().failed = Some(failed);
        Ok(())
    }

    /// Remembers a small fact of a unit.
    ///
    /// # Errors
    ///
    /// Not durable.
    pub fn mark(&self, unit: &Unit, name: &str, value: &str) -> std::io::Result<()> {
        let mut state = self.lock();
        let known = state.units.entry(unit.clone()).or_default();
        if known.marks.get(name).is_some_and(|v| v == value) {
            return Ok(());
        }
        let mut marks = known.marks.clone();
        marks.insert(name.to_owned(), value.to_owned());
        self.write(unit, Kind::Marks, &record::marks_to_bytes(unit, &marks))?;
        known.marks = marks;
        Ok(())
    }

    /// Forgets what settled, failed and was marked: the unit is gone or released. Its wanted intent stays, as it is what
    /// says so, and as its generation fences older ones.
    ///
    /// # Errors
    ///
    /// A file could not be removed.
    pub fn clear(&self, unit: &Unit) -> std::io::Result<()> {
        let mut state = self.lock();
        // The attempted one before what settled, which may be the same and is what spares it.
        for kind in [Kind::Attempted, Kind::Settled, Kind::Marks] {
            self.remove(unit, kind)?;
        }
        if let Some(known) = state.units.get_mut(unit) {
            known.settled = None;
            known.attempted = None;
            known.marks.clear();
        }
        Ok(())
    }

    /// The hold on an app, if there is one.
    pub fn held(&self, app: &App) -> Option<Hold> {
        self.lock().holds.get(app).cloned()
    }

    /// Puts an app on hold. One that is on hold already stays so since when it was, for the newest reason.
    ///
    /// # Errors
    ///
    /// Not durable.
    pub fn hold(&self, app: &App, held: Held) -> std::io::Result<()> {
        let mut state = self.lock();
        let before = state.holds.get(app);
        if before.is_some_and(|before| before.held == held) {
            return Ok(());
        }
        let of_app = state.units.iter().filter(|(unit, _)| unit.app() == Some(app));
        let wanted = of_app.filter_map(|(_, known)| known.wanted.as_ref());
        let rollouts = match before {
            // Another reason is no other hold: it began when it began.
            Some(before) => before.rollouts.clone(),
            None => wanted.filter_map(|w| w.intent.rollout_id.clone()).collect(),
        };
        let hold = Hold { held, rollouts };
        self.replace(&hold_file(app), &hold.to_bytes(app))?;
        state.holds.insert(app.clone(), hold);
        drop(state);
        self.publish();
        Ok(())
    }

    /// Ends a hold.
    ///
    /// # Errors
    ///
    /// The file could not be removed: the hold stays.
    pub fn adopt(&self, app: &App) -> std::io::Result<()> {
        let mut state = self.lock();
        if state.holds.contains_key(app) {
            self.folder.remove(&hold_file(app))?;
            state.holds.remove(app);
            drop(state);
            self.publish();
        }
        Ok(())
    }

    /// Removes the blobs that no wanted, settled or attempted intent names; gives how many went.
    ///
    /// No intent is accepted meanwhile: one that named a blob which is just going would find it here, and miss it after
    /// a restart without a controller.
    ///
    /// # Errors
    ///
    /// The directory cannot be listed.
    pub fn collect(&self, blobs: &Blobs) -> std::io::Result<usize> {
        let state = self.lock();
        let intents = state
            .units
            .values()
            .flat_map(|k| [&k.wanted, &k.settled, &k.attempted].into_iter().flatten());
        let gone = blobs.collect(&intents.flat_map(|a| a.intent.blobs()).collect())?;
        self.folder.tidy()?;
        Ok(gone)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn write(&self, unit: &Unit, kind: Kind, payload: &[u8]) -> std::io::Result<()> {
        self.replace(&file::name(&unit.key(), kind), payload)
    }

    fn replace(&self, name: &str, payload: &[u8]) -> std::io::Result<()> {
        self.folder.replace(name, &file::frame(payload))
    }

    fn remove(&self, unit: &Unit, kind: Kind) -> std::io::Result<()> {
        match self.folder.remove(&file::name(&unit.key(), kind)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("root", &self.root).finish_non_exhaustive()
    }
}

/// The generation rule: none where the offered intent is to be taken.
fn judge(known: &Known, offered: &Accepted) -> Option<Result<Accept, AcceptError>> {
    let generation = offered.generation();
    let current = known.newest()?;
    if generation < current {
        return Some(Err(AcceptError::Outdated { current, offered: generation }));
    }
    let same_number = [&known.wanted, &known.settled]
        .into_iter()
        .flatten()
        .find(|a| a.generation() == generation)?;
    if same_number.digest != offered.digest {
        return Some(Err(AcceptError::Conflicting { generation }));
    }
    // With the wanted file lost, the same intent again is what brings it back.
    known.wanted.is_some().then_some(Ok(Accept::Known))
}

/// The intent whose outcome a `settle` asks about, where this host has it; of a role that is released, the one that has not
/// settled: what it began must not be left behind.
fn attempted_of(known: &Known, next: &Intent) -> Option<Accepted> {
    match &next.desired {
        Desired::Settle { attempted, .. } => {
            let candidates = [&known.wanted, &known.attempted, &known.settled];
            candidates.into_iter().flatten().find(|a| a.generation() == *attempted).cloned()
        }
        Desired::Absent(Absent::Release) => {
            let is_role = |w: &&Accepted| matches!(w.intent.desired, Desired::Role(_));
            let unsettled = |a: &&Accepted| known.settled.as_ref() != Some(*a);
            let begun = known.wanted.as_ref().filter(is_role).filter(unsettled);
            begun.or(known.attempted.as_ref().filter(unsettled)).cloned()
        }
        Desired::Proxy(_)
        | Desired::App(_)
        | Desired::Role(_)
        | Desired::Accessory(_)
        | Desired::Agent(_)
        | Desired::Task(_)
        | Desired::Absent(Absent::Remove) => None,
    }
}

fn hold_file(app: &App) -> String {
    file::name(&Unit::App(app.clone()).key(), Kind::Hold)
}

fn load(folder: &Folder, name: &str, state: &mut State) -> Result<(), String> {
    let Some(kind) = file::kind(name) else { return Ok(()) };
    let bytes = folder.read(name).map_err(|e| e.to_string())?;
    let payload = file::unframe(&bytes).map_err(|e| e.to_string())?;
    let accepted = || Accepted::from_bytes(payload).map_err(|e| e.to_string());
    let mut known = |unit: &Unit, change: &mut dyn FnMut(&mut Known)| {
        if file::name(&unit.key(), kind) != name {
            return Err(format!("it is about another unit: {unit}"));
        }
        change(state.units.entry(unit.clone()).or_default());
        Ok(())
    };
    match kind {
        Kind::Wanted => {
            let accepted = accepted()?;
            known(&accepted.intent.unit, &mut |k| k.wanted = Some(accepted.clone()))?;
        }
        Kind::Settled => {
            let accepted = accepted()?;
            known(&accepted.intent.unit, &mut |k| k.settled = Some(accepted.clone()))?;
        }
        Kind::Attempted => {
            let accepted = accepted()?;
            known(&accepted.intent.unit, &mut |k| k.attempted = Some(accepted.clone()))?;
        }
        Kind::Failed => {
            let (unit, failed) = Failed::from_bytes(payload).map_err(|e| e.to_string())?;
            known(&unit, &mut |k| k.failed = Some(failed.clone()))?;
        }
        Kind::Marks => {
            let (unit, marks) = record::marks_from_bytes(payload)?;
            known(&unit, &mut |k| k.marks = marks.clone())?;
        }
        Kind::Hold => {
            let (app, hold) = Hold::from_bytes(payload)?;
            state.holds.insert(app, hold);
        }
    }
    Ok(())
}

/// SHA-256 of an encoded intent, as `Welcome` names it.
pub fn digest_of(bytes: &[u8]) -> BlobDigest {
    BlobDigest::of(bytes)
}
