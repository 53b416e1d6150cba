//! What is stored of apps and rollouts: JSON records with a format number, and their keys.

pub mod key;

use std::collections::BTreeSet;
use std::time::Duration;

use dhow_proto::model::{App, BlobRef, FieldError, HostName, ImageDigest, RoleName, Version};
use dhow_proto::wire;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::Entry;

/// Format of every record in this room.
pub const FORMAT: u32 = 1;

/// Names a rollout. Chosen by the client, so that a repeated start is the same rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RolloutId(String);

impl RolloutId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RolloutId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RolloutId {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        let word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if word && (8..=64).contains(&text.len()) {
            return Ok(Self(text));
        }
        Err(FieldError::new("rollout_id", "has 8 to 64 letters, digits and hyphens"))
    }
}

impl From<RolloutId> for String {
    fn from(id: RolloutId) -> Self {
        id.0
    }
}

/// What a rollout does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `dhow setup`.
    Setup,
    /// `dhow deploy`.
    Deploy,
    /// `dhow redeploy`.
    Redeploy,
    /// `dhow rollback`.
    Rollback,
}

impl Operation {
    /// Also prunes: what Kamal's `redeploy` and `rollback` leave out.
    pub fn boots_proxy(self) -> bool {
        match self {
            Self::Setup | Self::Deploy => true,
            Self::Redeploy | Self::Rollback => false,
        }
    }

    /// Stale containers are stopped before the boot.
    pub fn stops_stale(self) -> bool {
        match self {
            Self::Setup | Self::Deploy | Self::Redeploy => true,
            Self::Rollback => false,
        }
    }

    /// As typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Deploy => "deploy",
            Self::Redeploy => "redeploy",
            Self::Rollback => "rollback",
        }
    }
}

impl From<Operation> for wire::Operation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Setup => Self::Setup,
            Operation::Deploy => Self::Deploy,
            Operation::Redeploy => Self::Redeploy,
            Operation::Rollback => Self::Rollback,
        }
    }
}

/// What happens to hosts that did switch when another one failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// They keep the new version, as with Kamal.
    #[default]
    Stop,
    /// They go back.
    Rollback,
}

/// A host in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFact {
    /// Enrolled name.
    pub name: HostName,
    /// As the config spells it.
    pub config: HostName,
    /// Offline at the start with `--skip-offline`: gets its intents once the rollout succeeded.
    pub away: bool,
    /// The first registry mirror of its Engine; empty where it has none, or is away.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mirror: String,
}

/// A hook the client offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookOffer {
    /// `pre-deploy`.
    pub name: String,
    /// Of the file, hexadecimal: another client may go on only with the same hooks.
    pub digest: String,
}

/// 503 on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRecord {
    /// Shown on the page.
    pub message: String,
    /// Seconds for requests in flight.
    pub drain_s: u64,
}

/// What a rollout inherits from those before, and what it learned. Fixed once the next write mentions it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Boot number: one more than any rollout of the app before.
    pub boot: u64,
    /// The pinned image digest, once a host reported it.
    pub digest: Option<ImageDigest>,
    /// The app is stopped and stays so.
    pub stopped: bool,
    /// The app is in maintenance and stays so.
    pub maintenance: Option<MaintenanceRecord>,
}

/// How a rollout ended or is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsuccess {
    /// Something failed.
    Failed,
    /// A person asked for it.
    Cancelled,
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// Carrying out [`Header::stage`].
    Running,
    /// At a hook, and no client is there to run it.
    AwaitingClient {
        /// Name of the hook.
        hook: String,
    },
    /// Putting hosts into a consistent state after a failure.
    Ending {
        /// What it ends as.
        as_: Unsuccess,
        /// Why.
        reason: String,
    },
    /// Over: every host in effect and online serves the version.
    Succeeded,
    /// Over.
    Ended {
        /// What it ended as.
        as_: Unsuccess,
        /// Why.
        reason: String,
    },
}

impl State {
    /// True once nothing more happens.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Succeeded | Self::Ended { .. } => true,
            Self::Running | Self::AwaitingClient { .. } | Self::Ending { .. } => false,
        }
    }

    /// Why it did not or will not succeed.
    pub fn reason(&self) -> &str {
        match self {
            Self::Ending { reason, .. } | Self::Ended { reason, .. } => reason,
            Self::Running | Self::AwaitingClient { .. } | Self::Succeeded => "",
        }
    }
}

/// A rollout: what was asked, what is known, how far it got. `rollout/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub v: u32,
    /// Its name.
    pub id: RolloutId,
    /// The app.
    pub app: App,
    /// What is done.
    pub operation: Operation,
    /// To this version.
    pub version: Version,
    /// The `Spec` document.
    pub spec: BlobRef,
    /// Sealed secrets.
    pub bundles: Option<BlobRef>,
    /// Hosts in effect, primary host in effect first.
    pub hosts: Vec<HostFact>,
    /// Roles in effect.
    pub roles: Vec<RoleName>,
    /// `--roles` was given.
    pub roles_given: bool,
    /// After a failure.
    pub policy: FailurePolicy,
    /// Seconds to wait for a client at a hook.
    pub await_client_s: u64,
    /// Hooks offered.
    pub hooks: Vec<HookOffer>,
    /// `KAMAL_PERFORMER`.
    pub performer: String,
    /// Holder of the lock.
    pub performer_name: String,
    /// `KAMAL_COMMAND`.
    pub command: String,
    /// `KAMAL_SUBCOMMAND`.
    pub subcommand: String,
    /// The rollout whose hook started this one.
    pub parent: Option<RolloutId>,
    /// That one's lock covers this one, and on this host it holds Kamal's lock.
    pub joined: Option<Joined>,
    /// Seconds that a lock of real Kamal is waited for; none: not at all.
    #[serde(default)]
    pub lock_wait_s: Option<u64>,
    /// User whose certificate asked for it.
    pub started_by: String,
    /// When it was stored.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// What is known.
    pub facts: Facts,
    /// Index of the stage at work.
    pub stage: usize,
    /// Recorded as the app's state: from here on nothing is undone.
    pub committed: bool,
    /// Where it is.
    pub state: State,
}

/// A rollout inside another one's lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// Whose lock it is.
    pub lock: RolloutId,
    /// Kamal's lock as the outer rollout holds it; none where it does not (yet).
    pub kamal: Option<KamalLockRecord>,
}

/// Kamal's lock on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KamalLockRecord {
    /// Where.
    pub host: HostName,
    /// As its details say.
    pub holder: String,
    /// Seconds since 1970.
    pub at_unix_s: i64,
    /// Version being deployed.
    pub version: String,
}

impl Header {
    /// Names of the hooks offered.
    pub fn hook_names(&self) -> BTreeSet<String> {
        self.hooks.iter().map(|h| h.name.clone()).collect()
    }

    /// How long a hook waits for a client.
    pub fn await_client(&self) -> Duration {
        Duration::from_secs(self.await_client_s)
    }
}

/// How far a hook got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HookRun {
    /// Not known to have started.
    Requested,
    /// A client said so. It is never asked for again.
    Started,
    /// That client went away: the outcome is unknown until a client tells it.
    Unknown,
    /// It ended.
    Finished {
        /// Exit status.
        exit_code: i32,
        /// Why it could not be run at all.
        error: String,
    },
}

/// A hook of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookRecord {
    /// Names this run: `<rollout>-<stage>`.
    pub id: String,
    /// `pre-deploy`.
    pub name: String,
    /// How far it got.
    pub run: HookRun,
    /// Until when a client is awaited; none while one is there.
    pub await_until: Option<Timestamp>,
    /// `KAMAL_RECORDED_AT`.
    pub recorded_at: Timestamp,
}

/// How a stage went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// At work.
    Running,
    /// Its gate opened.
    Done,
    /// It failed.
    Failed,
}

/// A stage that began. `rollout/<id>/stage/<nnnn>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecord {
    /// [`FORMAT`].
    pub v: u32,
    /// As people read it.
    pub name: String,
    /// How it went.
    pub state: StageState,
    /// Hosts it is about.
    pub hosts: Vec<HostName>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// A pause ends then: a restart does not begin it anew.
    pub until: Option<Timestamp>,
    /// Its hook.
    pub hook: Option<HookRecord>,
}

/// An app's state as the last successful rollout left it. `app/<service>!<destination>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRecord {
    /// [`FORMAT`].
    pub v: u32,
    /// The app.
    pub app: App,
    /// Version that last succeeded.
    pub version: Option<Version>,
    /// Its image digest.
    pub digest: Option<ImageDigest>,
    /// Highest boot number given out.
    pub boot: u64,
    /// Stopped on purpose; inherited.
    pub stopped: bool,
    /// In maintenance; inherited.
    pub maintenance: Option<MaintenanceRecord>,
    /// Hosts that were ever given an intent of it, with the config's spelling.
    pub hosts: Vec<(HostName, HostName)>,
}

impl AppRecord {
    /// Of an app that was never rolled out.
    pub fn new(app: App) -> Self {
        Self {
            v: FORMAT,
            app,
            version: None,
            digest: None,
            boot: 0,
            stopped: false,
            maintenance: None,
            hosts: Vec::new(),
        }
    }
}

/// An app's rollout lock. `lock/<service>!<destination>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockRecord {
    /// [`FORMAT`].
    pub v: u32,
    /// Who holds it.
    pub rollout_id: RolloutId,
    /// The user.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// What is done.
    pub operation: Operation,
    /// To this version.
    pub version: Version,
}

/// Bytes of a record.
pub fn to_json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records hold only strings, numbers, lists and maps")
}

/// Reads a record.
///
/// # Errors
///
/// [`FieldError`] with the record's key as path.
pub fn from_json<T: DeserializeOwned>(entry: &Entry) -> Result<T, FieldError> {
    serde_json::from_slice(&entry.value).map_err(|e| FieldError::new(entry.key.to_string(), e))
}
