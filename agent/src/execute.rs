//! Observes a unit and carries out steps, one at a time.
//!
//! In: a unit to look at, or one step. Out: what is there, or why the step failed, in the words a person needs.
//! Always true: a step ends by a deadline, is safe to repeat, and no secret reaches a log or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::model::secrets::Secrets;
use dhow_proto::model::status::Failure;
use dhow_proto::model::{App, RoleName};

use crate::engine::{Engine, EngineError};
use crate::host::{Homes, LayoutError, Memory};
use crate::plan::{Observed, Step, Switch, Wanted};

mod body;
mod failure;
mod observe;
mod prepare;
mod probe;
mod route;
mod run;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

/// Where steps read the time.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Where a worker works.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Where homes are looked up.
    pub homes: Homes,
    /// Directory beside the ledger for what is remembered of apps and marks; created when missing.
    pub memory: PathBuf,
    /// Where a test stops: before and after each step.
    pub breakpoints: Breakpoints,
    /// Where many files are copied.
    pub place: Place,
}

/// Where work is done that takes a while and never waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On threads that may block.
    BlockingThread,
    /// On the caller's: for simulated time, which a thread outside of it would not keep to.
    Caller,
}

/// Opened bundles of one intent. `Debug` shows names only.
#[derive(Debug, Default)]
pub struct OpenedSecrets {
    /// Environment of the role.
    pub env: Option<Secrets>,
    /// Registry login.
    pub registry: Option<Secrets>,
    /// Certificates by role.
    pub tls: BTreeMap<RoleName, Secrets>,
}

/// What a step may need beside itself.
pub struct StepContext<'a> {
    /// What the plan was made for.
    pub wanted: &'a Wanted,
    /// Its bundles.
    pub secrets: &'a OpenedSecrets,
    /// Told how far a long step got, in a few words; often.
    pub progress: &'a (dyn Fn(String) + Send + Sync),
}

/// Why a unit could not be observed; nothing may be concluded.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The Engine did not answer.
    #[error("could not read the state of the Docker Engine")]
    Engine(#[from] EngineError),
    /// Files could not be read.
    #[error("could not read {path}")]
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The user of the app's files is unknown.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Units of this kind are not carried out yet.
    #[error("units of this kind are not carried out by this agent yet")]
    Unsupported,
}

impl ObserveError {
    /// True where looking again cannot help: nothing of such a unit was ever begun on this host.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Layout(_) | Self::Unsupported => true,
            Self::Engine(_) | Self::Files { .. } => false,
        }
    }
}

/// Observes and acts on one host. Shared by every unit's loop: units of different apps run concurrently, but the
/// caller never runs two steps of one unit at once.
pub struct Worker {
    engine: Arc<dyn Engine>,
    settings: WorkerSettings,
    now: Now,
    memory: Memory,
    /// Directories that hold nothing any more of a process that was killed in the middle of a write.
    swept: tokio::sync::Mutex<BTreeSet<PathBuf>>,
    /// Serialises changes of the memory's files.
    writing: tokio::sync::Mutex<()>,
    /// One at a time: a rollout's end lets the app and its role want the same assets at once, and both use one container
    /// and one directory for them.
    bridging: tokio::sync::Mutex<()>,
    /// Read by routing steps, written by whoever stops the proxy. Held across a whole step on purpose.
    routing: tokio::sync::RwLock<()>,
    /// Since when each service has its targets.
    switches: Mutex<BTreeMap<String, Switch>>,
}

impl Worker {
    /// A worker on an Engine.
    pub fn new(engine: Arc<dyn Engine>, settings: WorkerSettings, now: Now) -> Self {
        let memory = Memory::new(settings.memory.clone());
        Self {
            engine,
            settings,
            now,
            memory,
            swept: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            bridging: tokio::sync::Mutex::default(),
            routing: tokio::sync::RwLock::default(),
            switches: Mutex::default(),
        }
    }

    /// The Engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Reads what there is of the unit that `wanted` is about. `before` is what a look just before it saw, where what was
    /// done since tells what became of it: for a role steps that [tell](crate::plan::tells_routes) what kamal-proxy routes,
    /// which is not asked again then; for an app steps that [leave the Engine](crate::plan::leaves_engine) as it was.
    ///
    /// # Errors
    ///
    /// [`ObserveError`]: nothing may be concluded, look again later.
    pub async fn observe(
        &self,
        wanted: &Wanted,
        before: Option<&Observed>,
    ) -> Result<Observed, ObserveError> {
        self.look(wanted, before).await
    }

    /// Carries out one step.
    ///
    /// Dropping the future leaves the step half-way, as a crash would: observe and plan again.
    ///
    /// # Errors
    ///
    /// [`Failure`] with exit code, health log and last log lines where it is about a container.
    pub async fn run(&self, step: &Step, context: &StepContext<'_>) -> Result<(), Box<Failure>> {
        self.point("before", step, context).await;
        let done = self.carry_out(step, context).await;
        self.point("after", step, context).await;
        done
    }

    async fn point(&self, when: &'static str, step: &Step, context: &StepContext<'_>) {
        let host = &context.wanted.intent.host.config_host;
        let unit = &context.wanted.intent.unit;
        let at = || format!("agent {when} {} of {unit} on {host}", step.kind());
        self.settings.breakpoints.reach(at).await;
    }

    /// Forgets what is remembered of an app: it is not managed here any more.
    ///
    /// # Errors
    ///
    /// The file could not be removed.
    pub async fn forget(&self, app: &App) -> std::io::Result<()> {
        let _writing = self.writing.lock().await;
        self.memory.forget_app(app)
    }

    /// A rollout of dhow adopts the app: what is there now is no longer foreign. Called once, when the first intent of
    /// a rollout for a unit of the app is accepted.
    ///
    /// # Errors
    ///
    /// [`ObserveError`] where that cannot be remembered.
    pub async fn adopt(&self, app: &App, wanted: &Wanted) -> Result<(), ObserveError> {
        self.adopt_app(app, wanted).await
    }
}
