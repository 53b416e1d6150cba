//! Why a rollout was not started, or not found.

use dhow_proto::model::{App, BlobDigest, FieldError, HostName, Version};
use jiff::Timestamp;

use super::fence::DriveError;
use super::record::RolloutId;
use crate::blob::BlobError;
use crate::claim::ClaimRefused;
use crate::host::HostError;
use crate::store::StoreError;

/// Who holds an app's lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{app} is being changed by {by} since {since}: {operation} of version {version}, rollout {rollout}{}",
    waited.map_or_else(|| "; wait for it with --lock-wait".to_owned(), |s| format!(" (waited {s} s)")))]
pub struct Locked {
    /// The app.
    pub app: App,
    /// The user.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// What is done.
    pub operation: String,
    /// To which version.
    pub version: Version,
    /// By which rollout.
    pub rollout: RolloutId,
    /// Seconds waited for it, where that was asked.
    pub waited: Option<u64>,
}

/// Why a rollout was not started. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A field of the request, with its path.
    #[error("the request is invalid")]
    Invalid(#[from] FieldError),
    /// The spec, with the path of the field.
    #[error("the spec is invalid")]
    Spec(#[source] FieldError),
    /// The request names another version than its spec.
    #[error("the request is for version {asked}, its spec for {found}")]
    VersionMismatch {
        /// Of the request.
        asked: Version,
        /// Of the spec.
        found: Version,
    },
    /// This kind of rollout does not exist yet.
    #[error("{operation} is not supported yet")]
    Unsupported {
        /// What was asked.
        operation: String,
    },
    /// `setup` of a config with accessories.
    #[error(
        "setup does not boot accessories yet ({}): boot them with Kamal, then use `dhow deploy`",
        accessories.join(", ")
    )]
    Accessories {
        /// Their names.
        accessories: Vec<String>,
    },
    /// A blob that should have been uploaded.
    #[error("blob {0} was not uploaded")]
    BlobMissing(BlobDigest),
    /// Hosts without enrolment, as the config spells them.
    #[error(
        "not enrolled: {}; make a token with `dhow host token HOST` and run `dhow-agent join` there",
        list(hosts)
    )]
    NotEnrolled {
        /// Which.
        hosts: Vec<HostName>,
    },
    /// Hosts without a session, as the config spells them.
    #[error(
        "offline: {}; wait for them with --wait SECONDS or leave them out with --skip-offline",
        list(hosts)
    )]
    Offline {
        /// Which.
        hosts: Vec<HostName>,
    },
    /// Hosts whose Engine does not answer, as the config spells them. They are not left to catch up: where Docker stays
    /// away for long, that would fail there with nobody watching.
    #[error(
        "Docker does not answer on {}{}; start it there, wait for it with --wait SECONDS, or leave the hosts out with --hosts",
        list(hosts),
        also_offline(offline)
    )]
    NoEngine {
        /// Which.
        hosts: Vec<HostName>,
        /// Those without a session.
        offline: Vec<HostName>,
    },
    /// Two spellings of one host.
    #[error("{first} and {second} are the same host {host}")]
    SameHost {
        /// As the config spells it.
        first: HostName,
        /// As the config spells it, too.
        second: HostName,
        /// Enrolled name.
        host: HostName,
    },
    /// Secrets that hosts need were not sealed for them.
    #[error("no {what} sealed for {}; deploy again, with the hosts' current keys", list(hosts))]
    SecretsMissing {
        /// What kind.
        what: String,
        /// Which hosts.
        hosts: Vec<HostName>,
    },
    /// Another app has it.
    #[error(transparent)]
    Claim(#[from] ClaimRefused),
    /// Another rollout of the app is at work.
    #[error(transparent)]
    Locked(Box<Locked>),
    /// The id names another rollout.
    #[error("rollout id {0} is taken")]
    IdTaken(RolloutId),
    /// The outer rollout is unknown or another app's.
    #[error("there is no outer rollout {0} of this app")]
    NoParent(String),
    /// Enrolments could not be read.
    #[error("the enrolled hosts could not be read")]
    Hosts(#[from] HostError),
    /// The blobs.
    #[error("a blob could not be read or written")]
    Blob(#[from] BlobError),
    /// The store.
    #[error("the store could not be read or written")]
    Store(#[from] StoreError),
    /// What is stored of rollouts could not be read.
    #[error("a stored rollout could not be read")]
    Stored(#[source] DriveError),
    /// The system gives no random bytes.
    #[error("no random bytes")]
    Random,
}

fn also_offline(hosts: &[HostName]) -> String {
    if hosts.is_empty() { String::new() } else { format!(", and offline: {}", list(hosts)) }
}

fn list(hosts: &[HostName]) -> String {
    hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

impl From<DriveError> for StartError {
    fn from(error: DriveError) -> Self {
        match error {
            DriveError::Store(error) => Self::Store(error),
            DriveError::Blob(error) => Self::Blob(error),
            DriveError::Field(_) | DriveError::Lost | DriveError::Conflict => Self::Stored(error),
        }
    }
}

/// Why a rollout could not be shown or joined.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// No such rollout.
    #[error("there is no rollout {0}")]
    NotFound(String),
    /// Several rollouts' ids begin so.
    #[error("several rollouts begin with {0}")]
    Ambiguous(String),
    /// The client's hooks are not those the rollout began with.
    #[error("hooks differ from those the rollout began with: {}", hooks.join(", "))]
    HooksDiffer {
        /// Their names.
        hooks: Vec<String>,
    },
    /// It is at work, but not in this process: another replica drives it, or this one is about to take it over.
    #[error("the rollout is driven by another controller, or about to be resumed; try again")]
    Elsewhere,
    /// The system gives no random bytes.
    #[error("no random bytes")]
    Random,
    /// The store, or what is in it.
    #[error("the rollouts could not be read")]
    Read(#[from] DriveError),
}

impl From<StoreError> for RolloutError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}
