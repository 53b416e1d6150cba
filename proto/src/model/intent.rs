//! Desired state of one unit on one host, parsed and checked.

use std::time::Duration;

use prost::Message as _;

use super::document::{BlobDigest, BlobRef};
use super::error::{At, FieldError, each, required};
use super::generation::Generation;
use super::name::{HostName, ImageDigest, RoleName, Version, check_repository};
use super::secrets::{Purpose, SealedSecrets};
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

/// The unit must have settled this generation or a newer one on this host.
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

    /// Blobs an agent must have to carry this out, without those it may have to fetch for sealed secrets.
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

// ── wire → model ─────────────────────────────────────────────────────────────────────────────────

fn optional<W, T>(value: Option<W>, field: &str) -> Result<Option<T>, FieldError>
where
    T: TryFrom<W>,
    FieldError: From<T::Error>,
{
    value.map(|v| T::try_from(v).map_err(FieldError::from).at(field)).transpose()
}

fn blob(value: Option<wire::BlobRef>, field: &str) -> Result<BlobRef, FieldError> {
    BlobRef::try_from(required(value, field)?).at(field)
}

fn digest(text: String, field: &str) -> Result<Option<ImageDigest>, FieldError> {
    if text.is_empty() { Ok(None) } else { ImageDigest::try_from(text).at(field).map(Some) }
}

fn duration(value: Option<prost_types::Duration>, field: &str) -> Result<Duration, FieldError> {
    Duration::try_from(required(value, field)?).map_err(|e| FieldError::new(field, e))
}

fn run(number: i32) -> Result<Run, FieldError> {
    match wire::Run::try_from(number) {
        Ok(wire::Run::Running) => Ok(Run::Running),
        Ok(wire::Run::Stopped) => Ok(Run::Stopped),
        Ok(wire::Run::Unspecified) | Err(_) => {
            Err(FieldError::new("run", format!("unknown value {number}")))
        }
    }
}

fn login(
    server: String,
    sealed: Option<wire::SealedSecrets>,
) -> Result<Option<RegistryLogin>, FieldError> {
    let Some(sealed) = optional::<_, SealedSecrets>(sealed, "registry")? else { return Ok(None) };
    if sealed.purpose != Purpose::Registry {
        return Err(FieldError::new("registry.purpose", "must be registry"));
    }
    Ok(Some(RegistryLogin { server, sealed }))
}

fn traffic(value: Option<wire::Traffic>) -> Result<Traffic, FieldError> {
    match value.and_then(|t| t.kind) {
        None | Some(wire::traffic::Kind::Live(_)) => Ok(Traffic::Live),
        Some(wire::traffic::Kind::Maintenance(m)) => Ok(Traffic::Maintenance {
            message: m.message,
            drain: duration(m.drain, "drain").at("traffic.maintenance")?,
        }),
    }
}

fn roles(names: Vec<String>) -> Result<Vec<RoleName>, FieldError> {
    each(names, "roles", RoleName::try_from)
}

impl TryFrom<wire::Intent> for Intent {
    type Error = FieldError;

    fn try_from(wire: wire::Intent) -> Result<Self, FieldError> {
        let read = |wire: wire::Intent| {
            let unit = Unit::try_from(required(wire.unit, "unit")?).at("unit")?;
            let desired = Desired::try_from(required(wire.desired, "desired")?)?;
            if !desired.fits(&unit) {
                return Err(FieldError::new("desired", format!("does not fit the unit {unit}")));
            }
            Ok(Self {
                unit,
                generation: required(wire.generation, "generation")?.into(),
                features: wire.features,
                rollout_id: Some(wire.rollout_id).filter(|id| !id.is_empty()),
                after: each(wire.after, "after", After::try_from)?,
                host: HostPart::try_from(required(wire.host, "host")?).at("host")?,
                desired,
            })
        };
        read(wire).at("intent")
    }
}

impl TryFrom<wire::After> for After {
    type Error = FieldError;

    fn try_from(wire: wire::After) -> Result<Self, FieldError> {
        Ok(Self {
            unit: Unit::try_from(required(wire.settled_unit, "settled_unit")?)
                .at("settled_unit")?,
            generation: required(wire.generation, "generation")?.into(),
        })
    }
}

impl TryFrom<wire::HostPart> for HostPart {
    type Error = FieldError;

    fn try_from(wire: wire::HostPart) -> Result<Self, FieldError> {
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        if wire.ssh_user.contains(['/', '\0']) || wire.ssh_user == ".." {
            return Err(FieldError::new("ssh_user", "is no user name"));
        }
        if wire.run_directory.contains('\0') || wire.run_directory.split('/').any(|p| p == "..") {
            return Err(FieldError::new("run_directory", "must not contain `..`"));
        }
        Ok(Self {
            config_host: HostName::try_from(wire.config_host).at("config_host")?,
            ssh_user: some(wire.ssh_user),
            run_directory: some(wire.run_directory),
        })
    }
}

impl Desired {
    fn fits(&self, unit: &Unit) -> bool {
        match self {
            Self::Proxy(_) => matches!(unit, Unit::Proxy),
            Self::App(_) => matches!(unit, Unit::App(_)),
            Self::Role(_) => matches!(unit, Unit::Role(..)),
            Self::Accessory(_) => matches!(unit, Unit::Accessory(..)),
            Self::Agent(_) => matches!(unit, Unit::Agent),
            Self::Task(_) => matches!(unit, Unit::Task { .. }),
            Self::Absent(_) | Self::Settle { .. } => true,
        }
    }
}

impl TryFrom<wire::intent::Desired> for Desired {
    type Error = FieldError;

    fn try_from(wire: wire::intent::Desired) -> Result<Self, FieldError> {
        use wire::intent::Desired as W;
        Ok(match wire {
            W::Proxy(p) => Self::Proxy(ProxyIntent::try_from(p).at("proxy")?),
            W::App(a) => Self::App(AppIntent::try_from(a).at("app")?),
            W::Role(r) => Self::Role(RoleIntent::try_from(r).at("role")?),
            W::Accessory(a) => Self::Accessory(AccessoryIntent::try_from(a).at("accessory")?),
            W::Agent(a) => Self::Agent(AgentIntent::try_from(a).at("agent")?),
            W::Task(t) => Self::Task(TaskIntent::try_from(t).at("task")?),
            W::Absent(a) => Self::Absent(match wire::AbsentMode::try_from(a.mode) {
                Ok(wire::AbsentMode::Remove) => Absent::Remove,
                Ok(wire::AbsentMode::Release) => Absent::Release,
                Ok(wire::AbsentMode::Unspecified) | Err(_) => {
                    return Err(FieldError::new(
                        "absent.mode",
                        format!("unknown value {}", a.mode),
                    ));
                }
            }),
            W::Settle(s) => Self::Settle {
                attempted: required(s.attempted, "settle.attempted")?.into(),
                otherwise: s.otherwise.map(Generation::from),
            },
        })
    }
}

impl TryFrom<wire::ProxyIntent> for ProxyIntent {
    type Error = FieldError;

    fn try_from(wire: wire::ProxyIntent) -> Result<Self, FieldError> {
        let template = optional(wire.template, "template")?;
        if wire.container != template.is_some() {
            return Err(FieldError::new("template", "goes with `container`"));
        }
        Ok(Self {
            template,
            boot: wire.boot,
            run: run(wire.run)?,
            registry: login(wire.registry_server, wire.registry)?,
        })
    }
}

impl TryFrom<wire::AppIntent> for AppIntent {
    type Error = FieldError;

    fn try_from(wire: wire::AppIntent) -> Result<Self, FieldError> {
        check_repository(&wire.repository).at("repository")?;
        if let Some(staged) = &wire.staged
            && staged.repository != wire.repository
        {
            return Err(FieldError::new("staged.repository", "differs from the app's repository"));
        }
        Ok(Self {
            repository: wire.repository,
            roles: roles(wire.roles)?,
            run: run(wire.run)?,
            staged: optional(wire.staged, "staged")?,
            lock: wire.lock.map(|l| KamalLock {
                holder: l.holder,
                at_unix_s: l.at.map_or(0, |t| t.seconds),
                version: l.version,
                message: l.message,
            }),
            stop_stale: optional(wire.stop_stale, "stop_stale")?,
            prepare: optional(wire.prepare, "prepare")?,
            latest: optional(wire.latest, "latest")?,
            prune: optional(wire.prune, "prune")?,
        })
    }
}

impl TryFrom<wire::StagedImage> for StagedImage {
    type Error = FieldError;

    fn try_from(wire: wire::StagedImage) -> Result<Self, FieldError> {
        Ok(Self {
            version: Version::try_from(wire.version).at("version")?,
            digest: digest(wire.digest, "digest")?,
            pull: wire.pull,
            registry: login(wire.registry_server, wire.registry)?,
            local_only: wire.local_only,
        })
    }
}

impl TryFrom<wire::StopStale> for StopStale {
    type Error = FieldError;

    fn try_from(wire: wire::StopStale) -> Result<Self, FieldError> {
        let drain_timeout = duration(wire.drain_timeout, "drain_timeout")?;
        Ok(Self { number: wire.number, roles: roles(wire.roles)?, drain_timeout })
    }
}

impl TryFrom<wire::Prepare> for Prepare {
    type Error = FieldError;

    fn try_from(wire: wire::Prepare) -> Result<Self, FieldError> {
        Ok(Self {
            version: Version::try_from(wire.version).at("version")?,
            roles: each(wire.roles, "roles", |r: wire::PreparedRole| {
                Ok::<_, FieldError>(PreparedRole {
                    role: RoleName::try_from(r.role).at("role")?,
                    asset_path: Some(r.asset_path).filter(|p| !p.is_empty()),
                    tls: optional(r.tls, "tls")?,
                })
            })?,
            error_pages: each(wire.error_pages, "error_pages", |f: wire::FileBlob| {
                if f.name.is_empty() || f.name.contains(['/', '\0']) || f.name.starts_with('.') {
                    return Err(FieldError::new("name", "must be a file name without directories"));
                }
                Ok(FileBlob { name: f.name, content: blob(f.content, "content")? })
            })?,
        })
    }
}

impl TryFrom<wire::LatestTag> for LatestTag {
    type Error = FieldError;

    fn try_from(wire: wire::LatestTag) -> Result<Self, FieldError> {
        let version = Version::try_from(wire.version).at("version")?;
        Ok(Self {
            version,
            digest: digest(wire.digest, "digest")?,
            when_serving: wire.when_serving,
        })
    }
}

impl TryFrom<wire::Prune> for Prune {
    type Error = FieldError;

    fn try_from(wire: wire::Prune) -> Result<Self, FieldError> {
        match wire.retain {
            0 => Err(FieldError::new("retain", "must be at least 1")),
            retain => Ok(Self { number: wire.number, retain }),
        }
    }
}

impl TryFrom<wire::RoleIntent> for RoleIntent {
    type Error = FieldError;

    fn try_from(wire: wire::RoleIntent) -> Result<Self, FieldError> {
        let variants = each(wire.variants, "variants", Variant::try_from)?;
        if variants.is_empty() {
            return Err(FieldError::new("variants", "must not be empty"));
        }
        if variants.iter().map(|v| u64::from(v.share)).sum::<u64>() != 100 {
            return Err(FieldError::new("variants", "shares must sum up to 100"));
        }
        Ok(Self {
            run: run(wire.run)?,
            traffic: traffic(wire.traffic)?,
            boot: wire.boot,
            variants,
            env: optional(wire.env, "env")?,
            primary: wire.primary,
        })
    }
}

impl TryFrom<wire::Variant> for Variant {
    type Error = FieldError;

    fn try_from(wire: wire::Variant) -> Result<Self, FieldError> {
        if wire.count == 0 {
            return Err(FieldError::new("count", "must be at least 1"));
        }
        Ok(Self {
            template: blob(wire.template, "template")?,
            count: wire.count,
            share: wire.share,
            version: Version::try_from(wire.version).at("version")?,
            digest: digest(wire.digest, "digest")?,
        })
    }
}

impl TryFrom<wire::AccessoryIntent> for AccessoryIntent {
    type Error = FieldError;

    fn try_from(wire: wire::AccessoryIntent) -> Result<Self, FieldError> {
        Ok(Self {
            run: run(wire.run)?,
            traffic: traffic(wire.traffic)?,
            boot: wire.boot,
            template: blob(wire.template, "template")?,
            env: optional(wire.env, "env")?,
            registry: optional(wire.registry, "registry")?,
            files: optional(wire.files, "files")?,
        })
    }
}

impl TryFrom<wire::AgentIntent> for AgentIntent {
    type Error = FieldError;

    fn try_from(wire: wire::AgentIntent) -> Result<Self, FieldError> {
        let heartbeat =
            wire.heartbeat_interval.map(|d| duration(Some(d), "heartbeat_interval")).transpose()?;
        Ok(Self {
            version: wire.version,
            binaries: each(wire.binaries, "binaries", |b: wire::AgentBinary| {
                Ok::<_, FieldError>((b.target_triple, blob(b.content, "content")?))
            })?,
            heartbeat,
            forbid_host_access: wire.forbid_host_access,
        })
    }
}

impl TryFrom<wire::TaskIntent> for TaskIntent {
    type Error = FieldError;

    fn try_from(wire: wire::TaskIntent) -> Result<Self, FieldError> {
        Ok(Self {
            template: blob(wire.template, "template")?,
            command: wire.command,
            env: optional(wire.env, "env")?,
            timeout: wire.timeout.map(|d| duration(Some(d), "timeout")).transpose()?,
        })
    }
}

mod to_wire;
