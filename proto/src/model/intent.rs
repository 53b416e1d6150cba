//! Desired state of one unit on one host, parsed and checked.

use std::time::Duration;

use prost::Message as _;

use super::document::{BlobDigest, BlobRef};
use super::error::FieldError;
use super::generation::Generation;
use super::name::{HostName, ImageDigest, RoleName, Version};
use super::secrets::SealedSecrets;
use super::unit::Unit;
use crate::wire;

/// Desired state of one unit on one host, so specific that the agent has nothing left to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The unit.
    pub unit: Unit,
    /// Orders the unit's intents.
    pub generation: Generation,
    /// Features an agent needs.
    pub features: Vec<String>,
    /// The rollout that wrote it.
    pub rollout_id: Option<String>,
    /// Conditions on this host, all of which must hold first.
    pub after: Vec<After>,
    /// What differs between hosts.
    pub host: HostPart,
    /// What is wanted.
    pub desired: Desired,
}

/// The unit must have settled this generation on this host, or a newer one of the same [version](Intent::version).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The unit waited for.
    pub unit: Unit,
    /// At least this.
    pub generation: Generation,
}

/// What differs between hosts that share a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPart {
    /// As the config spells it: `KAMAL_HOST` and the hostname's stem.
    pub config_host: HostName,
    /// User whose home paths are relative to; none: the agent's `--home`.
    pub ssh_user: Option<String>,
    /// None: `.kamal`.
    pub run_directory: Option<String>,
}

/// What is wanted of the unit; its variant fits the unit's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired {
    /// Of [`Unit::Proxy`].
    Proxy(ProxyIntent),
    /// Of [`Unit::App`].
    App(AppIntent),
    /// Of [`Unit::Role`].
    Role(RoleIntent),
    /// Of [`Unit::Accessory`].
    Accessory(AccessoryIntent),
    /// Of [`Unit::Agent`].
    Agent(AgentIntent),
    /// Of [`Unit::Task`].
    Task(TaskIntent),
    /// Of any unit: it should not be here.
    Absent(Absent),
    /// Of any unit: the agent decides from what serves.
    Settle {
        /// The generation whose outcome is unknown.
        attempted: Generation,
        /// The one that settled before; none: release.
        otherwise: Option<Generation>,
    },
}

/// Running or stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// Containers run.
    #[default]
    Running,
    /// Containers are stopped and not routed.
    Stopped,
}

/// Live or in maintenance; inherited from rollout to rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// Requests are served.
    #[default]
    Live,
    /// kamal-proxy answers 503.
    Maintenance {
        /// Shown on the page.
        message: String,
        /// Time for requests in flight.
        drain: Duration,
    },
}

/// kamal-proxy and the `kamal` network of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyIntent {
    /// The `ProxyTemplate` document; none on hosts without proxied roles: network only.
    pub template: Option<BlobRef>,
    /// A new number reboots the proxy.
    pub boot: u64,
    /// Running or stopped.
    pub run: Run,
    /// Login for the proxy's image.
    pub registry: Option<RegistryLogin>,
}

/// Server and sealed credentials of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryLogin {
    /// Empty: Docker Hub.
    pub server: String,
    /// `username` and `password`.
    pub sealed: SealedSecrets,
}

/// What the app's roles share on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct AppIntent {
    /// Repository with server, no tag.
    pub repository: String,
    /// Roles of this app on this host, primary first.
    pub roles: Vec<RoleName>,
    /// Running or stopped (all roles follow their own intents; this keeps the latest tag from being set).
    pub run: Run,
    /// Image wanted on the host.
    pub staged: Option<StagedImage>,
    /// Kamal's lock is held while set.
    pub lock: Option<KamalLock>,
    /// Stale containers are stopped once per number.
    pub stop_stale: Option<StopStale>,
    /// Files wanted before any container starts.
    pub prepare: Option<Prepare>,
    /// Meaning of the latest tag.
    pub latest: Option<LatestTag>,
    /// Stopped containers and unused images are pruned once per number.
    pub prune: Option<Prune>,
}

/// An image wanted on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedImage {
    /// Tag.
    pub version: Version,
    /// Pinned digest; none on the first primary host, which reports it.
    pub digest: Option<ImageDigest>,
    /// A new number pulls again.
    pub pull: u64,
    /// Sealed credentials.
    pub registry: Option<RegistryLogin>,
    /// Must be there already (rollback).
    pub local_only: bool,
}

/// Kamal's lock directory and what its details say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KamalLock {
    /// `git user.name` of who deploys.
    pub holder: String,
    /// Seconds since 1970 (UTC).
    pub at_unix_s: i64,
    /// Version being deployed.
    pub version: String,
    /// Contains `Automatic deploy lock` when a rollout took it.
    pub message: String,
    /// How long somebody else's lock is waited for; none: not at all.
    pub wait: Option<Duration>,
}

/// Stop running containers that are neither current nor routed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopStale {
    /// A new number looks again.
    pub number: u64,
    /// Roles looked at.
    pub roles: Vec<RoleName>,
    /// Grace for roles without proxy.
    pub drain_timeout: Duration,
}

/// Files wanted before any container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// Version they belong to.
    pub version: Version,
    /// Roles with assets or certificates.
    pub roles: Vec<PreparedRole>,
    /// Error pages.
    pub error_pages: Vec<FileBlob>,
}

/// A role's assets and certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedRole {
    /// The role.
    pub role: RoleName,
    /// `PATH[:mount options]`.
    pub asset_path: Option<String>,
    /// `certificate_pem` and `private_key_pem`.
    pub tls: Option<SealedSecrets>,
}

/// A file by name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileBlob {
    /// Without directories.
    pub name: String,
    /// Content.
    pub content: BlobRef,
}

/// Wanted meaning of `REPO:latest[-DEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestTag {
    /// Version it means.
    pub version: Version,
    /// Pinned digest; none for local images.
    pub digest: Option<ImageDigest>,
    /// Only once every role of the app on this host serves the version.
    pub when_serving: bool,
}

/// Prune once per number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prune {
    /// A new number prunes again.
    pub number: u64,
    /// Stopped containers kept per role; at least 1.
    pub retain: u32,
}

/// One role of an app on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleIntent {
    /// Running or stopped.
    pub run: Run,
    /// Live or in maintenance.
    pub traffic: Traffic,
    /// A new number boots anew, also the same version.
    pub boot: u64,
    /// At least one; shares sum up to 100.
    pub variants: Vec<Variant>,
    /// Sealed environment; none where the role has no secrets.
    pub env: Option<SealedSecrets>,
    /// True for the app's primary role.
    pub primary: bool,
}

/// A template with its count of containers and share of traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The `RoleTemplate` document.
    pub template: BlobRef,
    /// Containers; at least 1.
    pub count: u32,
    /// Percent.
    pub share: u32,
    /// Version of the app.
    pub version: Version,
    /// Pinned digest; none: the host's local image.
    pub digest: Option<ImageDigest>,
}

/// An accessory on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessoryIntent {
    /// Running or stopped.
    pub run: Run,
    /// Live or in maintenance.
    pub traffic: Traffic,
    /// A new number boots anew.
    pub boot: u64,
    /// The `AccessoryTemplate` document.
    pub template: BlobRef,
    /// Sealed environment.
    pub env: Option<SealedSecrets>,
    /// Sealed login.
    pub registry: Option<SealedSecrets>,
    /// Files rendered with secrets.
    pub files: Option<SealedSecrets>,
}

/// The agent's own settings and binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIntent {
    /// Version wanted; empty: as it is.
    pub version: String,
    /// Binaries by target triple.
    pub binaries: Vec<(String, BlobRef)>,
    /// Time between heartbeats.
    pub heartbeat: Option<Duration>,
    /// Refuse host binds, privileged mode, host namespaces and devices.
    pub forbid_host_access: bool,
}

/// A one-off task (reserved).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskIntent {
    /// Template of its container.
    pub template: BlobRef,
    /// Arguments.
    pub command: Vec<String>,
    /// Sealed environment.
    pub env: Option<SealedSecrets>,
    /// Longest run.
    pub timeout: Option<Duration>,
}

/// How a unit leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Containers and files go.
    Remove,
    /// Everything stays; dhow stops managing it.
    Release,
}

impl Intent {
    /// The bytes that are stored and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::Intent::from(self).encode_to_vec()
    }

    /// Reads stored or received bytes.
    ///
    /// # Errors
    ///
    /// [`FieldError`] with the path of the field.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        wire::Intent::decode(bytes).map_err(|e| FieldError::new("intent", e))?.try_into()
    }

    /// Names the content: the same number with another digest is refused loudly.
    pub fn digest(&self) -> BlobDigest {
        BlobDigest::of(&self.to_bytes())
    }

    /// The app version it is about: a role's, and the one whose image an app wants.
    pub fn version(&self) -> Option<&Version> {
        match &self.desired {
            Desired::Role(role) => role.variants.first().map(|v| &v.version),
            Desired::App(app) => app.staged.as_ref().map(|s| &s.version),
            Desired::Proxy(_)
            | Desired::Accessory(_)
            | Desired::Agent(_)
            | Desired::Task(_)
            | Desired::Absent(_)
            | Desired::Settle { .. } => None,
        }
    }

    /// Blobs an agent must have to carry this out: templates, files, and sealed secrets.
    pub fn blobs(&self) -> Vec<BlobRef> {
        let mut blobs: Vec<BlobRef> = self.sealed().iter().map(|s| s.ciphertext).collect();
        match &self.desired {
            Desired::Proxy(p) => blobs.extend(p.template),
            Desired::App(a) => {
                blobs.extend(a.prepare.iter().flat_map(|p| p.error_pages.iter().map(|f| f.content)))
            }
            Desired::Role(r) => blobs.extend(r.variants.iter().map(|v| v.template)),
            Desired::Accessory(a) => blobs.push(a.template),
            Desired::Agent(a) => blobs.extend(a.binaries.iter().map(|(_, b)| *b)),
            Desired::Task(t) => blobs.push(t.template),
            Desired::Absent(_) | Desired::Settle { .. } => {}
        }
        blobs
    }

    /// Every sealed bundle this intent names.
    pub fn sealed(&self) -> Vec<&SealedSecrets> {
        match &self.desired {
            Desired::Proxy(p) => p.registry.iter().map(|r| &r.sealed).collect(),
            Desired::App(a) => {
                let registry =
                    a.staged.iter().filter_map(|s| s.registry.as_ref()).map(|r| &r.sealed);
                let tls =
                    a.prepare.iter().flat_map(|p| p.roles.iter().filter_map(|r| r.tls.as_ref()));
                registry.chain(tls).collect()
            }
            Desired::Role(r) => r.env.iter().collect(),
            Desired::Accessory(a) => {
                [&a.env, &a.registry, &a.files].into_iter().flatten().collect()
            }
            Desired::Task(t) => t.env.iter().collect(),
            Desired::Agent(_) | Desired::Absent(_) | Desired::Settle { .. } => Vec::new(),
        }
    }
}

mod from_wire;
mod to_wire;
