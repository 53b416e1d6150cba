//! What the Engine shows, in our words. No environment values: they would be secrets.

use std::collections::BTreeMap;
use std::time::SystemTime;

use secrecy::SecretString;

use super::body::ContainerBody;

/// Version and platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// `20.10.24`.
    pub version: String,
    /// Negotiated: `1.41`.
    pub api_version: String,
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `overlay2`.
    pub storage_driver: String,
    /// First mirror; empty: none.
    pub registry_mirror: String,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageView {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// `REPO:TAG` each.
    pub tags: Vec<String>,
    /// `REPO@sha256:…` each; empty for images that were never pulled or pushed.
    pub digests: Vec<String>,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// Bytes of its layers on this host's disk, those shared with other images included.
    pub size: u64,
    /// When it was built, where that is known.
    pub created_at: Option<SystemTime>,
}

impl ImageView {
    /// The registry digest it has in a repository.
    pub fn digest_in(&self, repository: &str) -> Option<&str> {
        self.digests
            .iter()
            .filter_map(|d| d.split_once('@'))
            .find(|(repo, _)| same_repository(repo, repository))
            .map(|(_, digest)| digest)
    }

    /// True where it is the one with this registry digest or id.
    pub fn is(&self, repository: &str, digest: &str) -> bool {
        self.id == digest || self.digest_in(repository) == Some(digest)
    }
}

/// Docker drops its own registry's name: `docker.io/library/redis` is listed as `redis`.
fn same_repository(a: &str, b: &str) -> bool {
    familiar(a) == familiar(b)
}

/// A repository as Docker lists it.
pub(crate) fn familiar(repository: &str) -> &str {
    let rest = repository
        .strip_prefix("docker.io/")
        .or_else(|| repository.strip_prefix("index.docker.io/"))
        .unwrap_or(repository);
    rest.strip_prefix("library/").unwrap_or(rest)
}

/// State of a container, Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Runs.
    Running,
    /// Between two runs.
    Restarting,
    /// Frozen.
    Paused,
    /// Stopped.
    Exited,
    /// Could not be removed.
    Dead,
    /// Being removed.
    Removing,
}

impl ContainerState {
    /// `docker ps` lists it.
    pub fn is_up(self) -> bool {
        match self {
            Self::Running | Self::Restarting | Self::Paused => true,
            Self::Created | Self::Exited | Self::Dead | Self::Removing => false,
        }
    }

    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Dead => "dead",
            Self::Removing => "removing",
        }
    }
}

/// Verdict of a HEALTHCHECK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// No verdict yet.
    Starting,
    /// Passed.
    Healthy,
    /// Failed often enough.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Health of a container with a HEALTHCHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Exit code and output of the newest probes, newest last; at most 5, each at most 1 KiB.
    pub log: Vec<String>,
}

/// A container as the Engine shows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedContainer {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// `Config.Image`: what it was created from.
    pub image: String,
    /// `sha256:…`.
    pub image_id: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// State.
    pub state: ContainerState,
    /// Of the last run; none where it never ended.
    pub exit_code: Option<i32>,
    /// The Engine's error of the last start; empty: none.
    pub error: String,
    /// None without a HEALTHCHECK.
    pub health: Option<Health>,
    /// Runs after the first that the restart policy began.
    pub restarts: u32,
    /// When it was created.
    pub created_at: SystemTime,
    /// When it last began to run.
    pub started_at: Option<SystemTime>,
    /// Names of its networks.
    pub networks: Vec<String>,
    /// Its mounts.
    pub mounts: Vec<MountView>,
    /// Its hostname.
    pub hostname: String,
    /// Its address in the network `kamal`, else in any; empty: none.
    pub address: String,
    /// Its first process, in the Engine's own process ids; none while it does not run.
    pub pid: Option<u32>,
    /// True where the kernel ended it for want of memory.
    pub out_of_memory: bool,
}

impl ObservedContainer {
    /// The 12 digits that DNS and kamal-proxy know it by.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// A label, empty where there is none.
    pub fn label(&self, key: &str) -> &str {
        self.labels.get(key).map_or("", String::as_str)
    }
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountView {
    /// Host path, or volume name.
    pub source: String,
    /// Path inside.
    pub destination: String,
}

/// A container to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct NewContainer {
    /// Its name.
    pub name: String,
    /// `platform=`; none: the Engine's.
    pub platform: Option<String>,
    /// The rest.
    pub body: ContainerBody,
}

/// Login of a registry. `Debug` hides it.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name.
    pub username: SecretString,
    /// Password or token.
    pub password: SecretString,
    /// Registry server; empty: Docker Hub.
    pub server: String,
}

/// How far a pull got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers that are there.
    pub layers_done: u32,
    /// Layers known.
    pub layers: u32,
    /// Bytes downloaded.
    pub bytes: u64,
    /// Bytes known.
    pub total: u64,
}

/// End of a command in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code.
    pub exit_code: i32,
    /// At most 256 KiB.
    pub stdout: String,
    /// At most 64 KiB.
    pub stderr: String,
}

/// Something that runs in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessView {
    /// Its command line as words.
    pub argv: Vec<String>,
}

/// Something happened to a container or a network: look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// Docker's word: `start`, `die`, `health_status: healthy`, ….
    pub action: String,
    /// Id of the container or network.
    pub id: String,
    /// Its name.
    pub name: String,
    /// A container's labels, and Docker's attributes.
    pub attributes: BTreeMap<String, String>,
}
