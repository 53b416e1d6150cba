//! Observes a unit and carries out steps, one at a time.
//!
//! In: a unit to look at, or one step. Out: what is there, or why the step failed, in the words a person needs.
//! Always true: a step ends by a deadline, is safe to repeat, and no secret reaches a log or an error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use dhow_proto::model::secrets::Secrets;
use dhow_proto::model::status::Failure;
use dhow_proto::model::{App, RoleName};

use crate::engine::{Engine, EngineError};
use crate::host::{Homes, LayoutError};
use crate::plan::{Observed, Step, Wanted};

/// Where steps read the time.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Where a worker works.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Where homes are looked up.
    pub homes: Homes,
    /// Directory beside the ledger for what is remembered of apps and marks; created when missing.
    pub memory: PathBuf,
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

/// Observes and acts on one host. Shared by every unit's loop: units of different apps run concurrently, but the
/// caller never runs two steps of one unit at once.
pub struct Worker {
    engine: Arc<dyn Engine>,
    settings: WorkerSettings,
    now: Now,
}

impl Worker {
    /// A worker on an Engine.
    pub fn new(engine: Arc<dyn Engine>, settings: WorkerSettings, now: Now) -> Self {
        Self { engine, settings, now }
    }

    /// The Engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Reads what there is of the unit that `wanted` is about.
    ///
    /// # Errors
    ///
    /// [`ObserveError`]: nothing may be concluded, look again later.
    pub async fn observe(&self, wanted: &Wanted) -> Result<Observed, ObserveError> {
        let _ = (wanted, &self.settings);
        Err(ObserveError::Unsupported)
    }

    /// Carries out one step.
    ///
    /// Dropping the future leaves the step half-way, as a crash would: observe and plan again.
    ///
    /// # Errors
    ///
    /// [`Failure`] with exit code, health log and last log lines where it is about a container.
    pub async fn run(&self, step: &Step, context: &StepContext<'_>) -> Result<(), Box<Failure>> {
        let _ = context;
        Err(Box::new(Failure::new(
            step.to_string(),
            dhow_proto::wire::FailureKind::Unsupported,
            "not carried out by this agent yet",
            (self.now)(),
        )))
    }

    /// A rollout of dhow adopts the app: what is there now is no longer foreign. Called once, when the first intent of
    /// a rollout for a unit of the app is accepted.
    ///
    /// # Errors
    ///
    /// [`ObserveError`] where that cannot be remembered.
    pub async fn adopt(&self, app: &App, wanted: &Wanted) -> Result<(), ObserveError> {
        let _ = (app, wanted);
        Ok(())
    }
}
