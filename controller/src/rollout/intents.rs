//! PURE: what a change of a stage says in full: content, facts, secrets and what settled before become an intent.
//!
//! In: a [`Change`], the rollout, its spec. Out: an [`Intent`] without its generation's place in the store. Always true:
//! the same rollout writes the same intent for the same change, so that writing it again changes nothing.

use std::time::Duration;

use dhow_proto::model::intent::{
    AppIntent, Desired, FileBlob, HostPart, KamalLock, LatestTag, Prepare, PreparedRole,
    ProxyIntent, Prune, RegistryLogin, RoleIntent, Run, StagedImage, StopStale, Traffic, Variant,
};
use dhow_proto::model::kamal::LOCK_MESSAGE;
use dhow_proto::model::secrets::Purpose;
use dhow_proto::model::spec::{RoleSpec, Spec, TemplateSpec};
use dhow_proto::model::{BlobRef, Document as _, FieldError, HostName, RoleName, Unit};

use super::record::{Header, HostFact, Operation};
use super::secrets::Bundles;
use super::stages::{AppPart, Change, Content, prepares};

/// What intents are made from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The rollout.
    pub header: &'a Header,
    /// Its spec.
    pub spec: &'a Spec,
    /// Its secrets.
    pub bundles: &'a Bundles,
}

/// What else a change builds on.
#[derive(Clone, Copy, Default)]
pub struct Before<'a> {
    /// What last settled for the unit.
    pub settled: Option<&'a Desired>,
    /// What was promised before that, or tried, with an outcome that nobody knows.
    pub attempted: Option<&'a Desired>,
    /// The host's proxy as all its apps want it; none where none has a proxied role there.
    pub proxy: Option<BlobRef>,
}

/// What a unit should be.
///
/// # Errors
///
/// [`FieldError`] where the spec does not have what the change names; validation at the start excludes it.
pub fn desired<'a>(
    source: Source<'_>,
    change: &Change,
    before: Before<'a>,
) -> Result<Desired, FieldError> {
    let host = fact(source.header, &change.host)?;
    match &change.content {
        Content::Proxy { .. } => {
            let old = match before.settled {
                Some(Desired::Proxy(old)) => Some(old),
                Some(_) | None => None,
            };
            Ok(Desired::Proxy(ProxyIntent {
                template: before.proxy,
                boot: old.map_or(0, |o| o.boot),
                run: old.map_or(Run::Running, |o| o.run),
                registry: proxy_login(source, host),
            }))
        }
        Content::App(part) => {
            let app_of = |desired: Option<&'a Desired>| match desired {
                Some(Desired::App(app)) => Some(app),
                Some(_) | None => None,
            };
            let (old, attempted) = (app_of(before.settled), app_of(before.attempted));
            Ok(Desired::App(app(source, host, *part, old, attempted)))
        }
        Content::Role(role) => Ok(Desired::Role(role_intent(source, host, role)?)),
    }
}

/// Features an agent needs for a unit of this kind.
pub fn features(unit: &Unit) -> Vec<String> {
    let feature = match unit {
        Unit::Proxy => "proxy",
        Unit::App(_) => "app",
        Unit::Role(..) => "role",
        Unit::Accessory(..) => "accessory",
        Unit::Agent => "agent",
        Unit::Task { .. } => "task",
    };
    vec![feature.to_owned()]
}

/// What differs between hosts.
pub fn host_part(spec: &Spec, host: &HostFact) -> HostPart {
    HostPart {
        config_host: host.config.clone(),
        ssh_user: Some(spec.ssh_user.clone()).filter(|u| !u.is_empty()),
        run_directory: spec.run_directory.clone(),
    }
}

/// An enrolled host's place in the rollout.
///
/// # Errors
///
/// [`FieldError`] for a host that is not in effect.
pub fn fact<'a>(header: &'a Header, host: &HostName) -> Result<&'a HostFact, FieldError> {
    let found = header.hosts.iter().find(|h| h.name == *host);
    found.ok_or_else(|| FieldError::new("hosts", format!("{host} is not in effect")))
}

/// The template a role has on a host, with its index.
pub fn placed<'a>(role: &'a RoleSpec, config_host: &HostName) -> Option<(usize, &'a TemplateSpec)> {
    let index = role.hosts.iter().find(|h| h.host == *config_host)?.template;
    Some((index, role.templates.get(index)?))
}

fn login(source: Source<'_>, host: &HostFact) -> Option<RegistryLogin> {
    if !source.spec.registry.login {
        return None;
    }
    let unit = Unit::App(source.spec.app.clone());
    let sealed = source.bundles.sealed(Purpose::Registry, &unit, 0, &host.name)?;
    Some(RegistryLogin { server: source.spec.registry.server.clone(), sealed })
}

/// The proxy's image may come from the app's own registry.
fn proxy_login(source: Source<'_>, host: &HostFact) -> Option<RegistryLogin> {
    let server = &source.spec.registry.server;
    let own =
        !server.is_empty() && source.spec.proxy.image.repository.starts_with(&format!("{server}/"));
    if own { login(source, host) } else { None }
}

fn app(
    source: Source<'_>,
    host: &HostFact,
    part: AppPart,
    old: Option<&AppIntent>,
    attempted: Option<&AppIntent>,
) -> AppIntent {
    let Source { header, spec, .. } = source;
    let here: Vec<&RoleSpec> = spec.roles_on(&host.config).collect();
    let boot = header.facts.boot;
    let local_only = header.operation == Operation::Rollback;
    // A host that missed the deploy of what is now rolled back to has still to pull it.
    let missed = [old, attempted]
        .into_iter()
        .flatten()
        .filter(|before| host.away && local_only && before.repository == spec.image.repository)
        .filter_map(|before| before.staged.clone())
        .find(|staged| staged.version == spec.version);
    let staged = || {
        missed.clone().unwrap_or_else(|| StagedImage {
            version: spec.version.clone(),
            digest: header.facts.digest.clone(),
            // A rollback pulls nothing, so its number must not look like a new one.
            pull: if local_only { 0 } else { boot },
            registry: if local_only { None } else { login(source, host) },
            local_only,
        })
    };
    let stop_stale = || StopStale {
        number: boot,
        roles: here
            .iter()
            .map(|r| r.name.clone())
            .filter(|name| header.roles.contains(name))
            .collect(),
        drain_timeout: Duration::from_secs(
            here.iter()
                .filter_map(|r| placed(r, &host.config))
                .map(|(_, t)| t.template.timeouts.drain_s)
                .max()
                .unwrap_or_default(),
        ),
    };
    let latest = || LatestTag {
        version: spec.version.clone(),
        digest: header.facts.digest.clone(),
        when_serving: part.when_serving,
    };
    let prune =
        || dhow_proto::model::intent::Prune { number: boot, retain: spec.retain_containers };
    let kept = |set: bool| old.filter(|_| !set);
    AppIntent {
        repository: spec.image.repository.clone(),
        roles: here.iter().map(|r| r.name.clone()).collect(),
        run: run(header),
        staged: part.staged.then(staged).or_else(|| kept(part.staged)?.staged.clone()),
        lock: lock(header, host, part),
        stop_stale: part.stale.then(stop_stale).or_else(|| kept(part.stale)?.stop_stale.clone()),
        prepare: (part.prepared && prepares(spec))
            .then(|| prepare(source, host, &here))
            .or_else(|| kept(part.prepared)?.prepare.clone()),
        latest: part.tagged.then(latest).or_else(|| kept(part.tagged)?.latest.clone()),
        prune: part.pruned.then(prune).or_else(|| -> Option<Prune> { kept(part.pruned)?.prune }),
    }
}

fn lock(header: &Header, host: &HostFact, part: AppPart) -> Option<KamalLock> {
    if part.locked {
        return Some(KamalLock {
            holder: header.performer_name.clone(),
            at_unix_s: header.started_at.as_second(),
            version: header.version.to_string(),
            message: LOCK_MESSAGE.to_owned(),
            wait: header.lock_wait_s.map(Duration::from_secs),
        });
    }
    // The outer rollout's lock must survive the inner one.
    let outer = header.joined.as_ref()?.kamal.as_ref().filter(|k| k.host == host.name)?;
    Some(KamalLock {
        holder: outer.holder.clone(),
        at_unix_s: outer.at_unix_s,
        version: outer.version.clone(),
        message: LOCK_MESSAGE.to_owned(),
        wait: None,
    })
}

/// True for Kamal's lock as this rollout takes it.
pub fn is_lock_of(header: &Header, lock: &KamalLock) -> bool {
    lock.holder == header.performer_name
        && lock.at_unix_s == header.started_at.as_second()
        && lock.version == header.version.as_str()
}

fn prepare(source: Source<'_>, host: &HostFact, roles: &[&RoleSpec]) -> Prepare {
    let Source { header, spec, bundles } = source;
    let role = |r: &&RoleSpec| {
        let (_, template) = placed(r, &host.config)?;
        // Kamal bridges assets only for roles behind the proxy.
        let asset_path =
            template.template.asset_path.clone().filter(|_| template.template.proxy.is_some());
        let unit = Unit::Role(spec.app.clone(), r.name.clone());
        let tls =
            r.tls_secrets.as_ref().and_then(|_| bundles.sealed(Purpose::Tls, &unit, 0, &host.name));
        let wanted = asset_path.is_some() || tls.is_some();
        (wanted && header.roles.contains(&r.name)).then(|| PreparedRole {
            role: r.name.clone(),
            asset_path,
            tls,
        })
    };
    let pages = spec.error_pages.iter().flatten();
    Prepare {
        version: spec.version.clone(),
        roles: roles.iter().filter_map(role).collect(),
        error_pages: pages.map(|p| FileBlob { name: p.name.clone(), content: p.content }).collect(),
    }
}

fn run(header: &Header) -> Run {
    if header.facts.stopped { Run::Stopped } else { Run::Running }
}

fn role_intent(
    source: Source<'_>,
    host: &HostFact,
    name: &RoleName,
) -> Result<RoleIntent, FieldError> {
    let Source { header, spec, bundles } = source;
    let placed = spec.role(name).and_then(|r| placed(r, &host.config));
    let (index, template) = placed.ok_or_else(|| {
        FieldError::new("roles", format!("{name} does not run on {}", host.config))
    })?;
    let unit = Unit::Role(spec.app.clone(), name.clone());
    Ok(RoleIntent {
        run: run(header),
        traffic: match &header.facts.maintenance {
            None => Traffic::Live,
            Some(m) => Traffic::Maintenance {
                message: m.message.clone(),
                drain: Duration::from_secs(m.drain_s),
            },
        },
        boot: header.facts.boot,
        variants: vec![Variant {
            template: template.template.blob(),
            count: 1,
            share: 100,
            version: spec.version.clone(),
            digest: header.facts.digest.clone(),
        }],
        env: bundles.sealed(Purpose::Env, &unit, index, &host.name),
        primary: *name == spec.primary_role,
    })
}

/// The app's shared part with nothing wanted: what an unfinished rollout leaves where nothing ever settled, so that
/// Kamal's lock goes and nothing is done later.
pub fn idle(spec: &Spec, host: &HostFact) -> AppIntent {
    AppIntent {
        repository: spec.image.repository.clone(),
        roles: spec.roles_on(&host.config).map(|r| r.name.clone()).collect(),
        run: Run::Running,
        staged: None,
        lock: None,
        stop_stale: None,
        prepare: None,
        latest: None,
        prune: None,
    }
}
