//! Intents as they are received and read back: every rule is checked here, once.

use super::*;
use crate::model::error::{At, each, required};
use crate::model::name::check_repository;
use crate::model::secrets::Purpose;

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
            lock: optional(wire.lock, "lock")?,
            stop_stale: optional(wire.stop_stale, "stop_stale")?,
            prepare: optional(wire.prepare, "prepare")?,
            latest: optional(wire.latest, "latest")?,
            prune: optional(wire.prune, "prune")?,
        })
    }
}

impl TryFrom<wire::KamalLock> for KamalLock {
    type Error = FieldError;

    fn try_from(wire: wire::KamalLock) -> Result<Self, FieldError> {
        Ok(Self {
            holder: wire.holder,
            at_unix_s: wire.at.map_or(0, |t| t.seconds),
            version: wire.version,
            message: wire.message,
            wait: wire.wait.map(|wait| duration(Some(wait), "wait")).transpose()?,
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
