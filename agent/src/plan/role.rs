//! Plans a role: the old container serves until the new one does.

use std::time::Duration;

use dhow_proto::model::intent::{RoleIntent, Run, Traffic, Variant};
use dhow_proto::model::template::{ProxyTarget, RoleTemplate};
use dhow_proto::model::{App, BlobDigest, ContainerName, ImageRef, RoleName, Version, kamal};
use dhow_proto::wire::FailureKind;

use super::observed::{AppFiles, ObservedRole, ProxyView, Routes, Switch};
use super::serving::{intent_digest, role_of, version_of};
use super::step::{ContainerRef, Step};
use super::wanted::{Bundle, Mode, Wanted};
use super::{Impossible, Plan, unsupported};
use crate::engine::{ContainerState, HealthStatus, ObservedContainer};
use crate::proxy::RouteState;

mod clean;

/// What is wanted, with the names that follow from it.
struct Role<'a> {
    app: &'a App,
    name: &'a RoleName,
    service: String,
    intent: &'a RoleIntent,
    variant: &'a Variant,
    template: &'a RoleTemplate,
    digest: BlobDigest,
    container: ContainerName,
    image: &'a ImageRef,
}

impl<'a> Role<'a> {
    /// None for forms that are not carried out yet: several variants or containers.
    fn read(wanted: &'a Wanted, intent: &'a RoleIntent) -> Option<Self> {
        let (app, name) = role_of(&wanted.intent.unit)?;
        let mut variants = wanted.variants();
        let (variant, template) = variants.next()?;
        if variants.next().is_some() || variant.count != 1 {
            return None;
        }
        Some(Self {
            app,
            name,
            service: app.role_prefix(name),
            intent,
            variant,
            template,
            digest: intent_digest(&wanted.intent.host, intent.boot, variant),
            container: app.container_name(name, &variant.version),
            image: &template.container.image,
        })
    }

    fn proxied(&self) -> Option<&'a ProxyTarget> {
        self.template.proxy.as_ref()
    }

    /// Kamal's stop rule: the role's own, else Docker's for proxied roles (requests have drained), else the drain time.
    fn grace(&self) -> Option<Duration> {
        let timeouts = &self.template.timeouts;
        match (timeouts.stop_s, self.proxied()) {
            (Some(s), _) => Some(Duration::from_secs(s)),
            (None, Some(_)) => None,
            (None, None) => Some(Duration::from_secs(timeouts.drain_s)),
        }
    }

    fn deploy_and_drain(&self) -> Duration {
        Duration::from_secs(self.template.timeouts.deploy_s + self.template.timeouts.drain_s)
    }

    fn await_deploys(&self) -> Step {
        Step::AwaitDeploys { service: self.service.clone(), within: self.deploy_and_drain() }
    }

    fn is_wanted(&self, container: &ObservedContainer) -> bool {
        container.label(kamal::LABEL_INTENT) == self.digest.to_string()
    }

    fn audit(&self, text: String) -> Step {
        Step::Audit { role: Some(self.name.clone()), text }
    }
}

pub(super) fn plan(wanted: &Wanted, intent: &RoleIntent, observed: &ObservedRole) -> Plan {
    let Some(role) = Role::read(wanted, intent) else { return unsupported(&wanted.intent.unit) };
    if let Some(why) = blind(&role, wanted, observed) {
        return why;
    }
    match (&wanted.mode, intent.run) {
        (Mode::Abandon { settled }, _) => {
            let spared = settled.as_ref().is_some_and(|s| s.contains(&role.digest));
            Plan::Steps(if spared {
                Vec::new()
            } else {
                abandon(&role, settled.is_some(), observed)
            })
        }
        (Mode::Converge, Run::Stopped) => Plan::Steps(stopped(&role, observed)),
        (Mode::Converge, Run::Running) => running(&role, wanted, observed).unwrap_or_else(|p| p),
    }
}

/// See [`super::has_come_to_serve`].
pub(super) fn has_come_to_serve(
    wanted: &Wanted,
    intent: &RoleIntent,
    observed: &ObservedRole,
) -> Result<bool, Impossible> {
    let Some(role) = Role::read(wanted, intent) else { return Ok(false) };
    match blind(&role, wanted, observed) {
        None => {}
        Some(Plan::Waiting(why)) => return Err(why),
        Some(_) => return Ok(false),
    }
    let Some(container) = candidate(&role, observed).filter(|c| c.state.is_up()) else {
        return Ok(false);
    };
    if role.proxied().is_some() {
        let route = observed.proxy.routes.get(&role.service);
        let routed = route.is_some_and(|r| r.reaches(container.short_id()));
        if !routed && observed.proxy.deploying.contains(&role.service) {
            let reason = format!("kamal-proxy is still switching {}", role.service);
            return Err(Impossible::new(FailureKind::Other, reason));
        }
        return Ok(routed);
    }
    let health = container.health.as_ref().map(|h| h.status);
    let may_yet =
        container.state == ContainerState::Running && health != Some(HealthStatus::Unhealthy);
    if is_ready(&role, container, observed) || !may_yet {
        return Ok(may_yet);
    }
    let reason = format!("{} has not run for long enough to tell whether it works", container.name);
    Err(Impossible::new(FailureKind::Other, reason))
}

/// See [`super::is_alone`].
pub(super) fn is_alone(wanted: &Wanted, intent: &RoleIntent, observed: &ObservedRole) -> bool {
    Role::read(wanted, intent).is_some_and(|role| {
        let mut up = observed.containers.iter().filter(|c| c.state.is_up());
        up.all(|c| role.is_wanted(c))
    })
}

/// What is live cannot be known without kamal-proxy's table, so nothing is touched.
fn blind(role: &Role<'_>, wanted: &Wanted, observed: &ObservedRole) -> Option<Plan> {
    let ProxyView { container, routes, .. } = &observed.proxy;
    role.proxied()?;
    let missing = |reason: &str| Impossible::new(FailureKind::ProxyMissing, reason);
    match (routes, container) {
        (Routes::Known(_), _) => None,
        (Routes::Unknown, Some(c)) if c.state == ContainerState::Running => {
            Some(Plan::Waiting(missing("kamal-proxy does not answer yet")))
        }
        (Routes::Unknown, _)
            if role.intent.run == Run::Stopped || matches!(wanted.mode, Mode::Abandon { .. }) =>
        {
            None
        }
        // One that is there and stopped is started by its own unit: after a crash of the Engine, say.
        (Routes::Unknown, Some(_)) => Some(Plan::Waiting(missing("kamal-proxy does not run"))),
        (Routes::Unknown, None) if wanted.settled => {
            Some(Plan::Waiting(missing("kamal-proxy does not run")))
        }
        (Routes::Unknown, None) => {
            Some(Plan::Impossible(missing("kamal-proxy does not run on this host")))
        }
    }
}

fn running(role: &Role<'_>, wanted: &Wanted, observed: &ObservedRole) -> Result<Plan, Plan> {
    let candidate = candidate(role, observed);
    let mut steps = Vec::new();
    // A deploy begun before (by an agent that crashed, or for a generation that failed) may still
    // switch: the last healthy one wins. What is live is known only when it has ended.
    let deploying = observed.proxy.deploying.contains(&role.service);

    let up = candidate.filter(|c| c.state.is_up());
    let target = match (up, candidate) {
        (Some(c), _) => {
            if c.state == ContainerState::Paused {
                steps.push(Step::Unpause { container: ContainerRef::observed(c) });
            }
            // The network went and came back: kamal-proxy finds a container by name, in the network alone.
            let options = &role.template.container.options;
            let networks = std::iter::once(&role.template.container.network);
            for network in networks.chain(&options.networks) {
                if !c.networks.contains(network) {
                    let (container, network) = (ContainerRef::observed(c), network.clone());
                    steps.push(Step::Connect { container, network });
                }
            }
            ContainerRef::observed(c)
        }
        (None, Some(c)) => start_again(role, c, observed, &mut steps),
        (None, None) => create(role, wanted, observed, &mut steps)?,
    };
    let fresh = up.is_none_or(|c| c.state == ContainerState::Paused);
    let route = observed.proxy.routes.get(&role.service);
    if let Some(proxy) = role.proxied() {
        let port = proxy.app_port;
        let routed = up.is_some_and(|c| {
            route.is_some_and(|r| r.targets == [format!("{}:{port}", c.short_id())])
        });
        if routed && deploying {
            steps.push(role.await_deploys());
            return Ok(Plan::Steps(steps));
        }
        if !routed {
            if deploying {
                steps.push(role.await_deploys());
            }
            let service = role.service.clone();
            steps.push(Step::Route { service, container: target.clone(), port });
        }
        steps.extend(traffic(role, route.map(|r| r.state)));
        if others(observed, candidate).next().is_some() && routed {
            steps.extend(drain(role, observed));
        }
    } else {
        let proven = up.is_some_and(|c| wanted.settled || is_ready(role, c, observed));
        if fresh || !proven {
            let within = Duration::from_secs(role.template.timeouts.deploy_s);
            steps.push(Step::AwaitReady { container: target.clone(), within });
        }
        if route.is_some() {
            // The role left the proxy; what it routes to is about to stop.
            steps.push(Step::RemoveRoute { service: role.service.clone() });
        }
    }
    for old in others(observed, candidate) {
        let mut container = ContainerRef::observed(old);
        if let Some(to) = renamed_to(&steps, old) {
            container = container.renamed(&to);
        }
        steps.push(Step::Stop { container, grace: role.grace() });
    }
    // Only as the end of a switch, whoever stopped the old container (a plan that was cut short, say): a rollout prepares
    // files for a version that is not wanted yet.
    if !wanted.settled {
        steps.extend(clean::steps(role, observed));
    }
    Ok(Plan::Steps(steps))
}

/// The container of the wanted digest; of several (a rename half-way), the one that serves most.
fn candidate<'a>(role: &Role<'_>, observed: &'a ObservedRole) -> Option<&'a ObservedContainer> {
    let route = observed.proxy.routes.get(&role.service);
    observed
        .containers
        .iter()
        .filter(|c| role.is_wanted(c))
        .filter(|c| !matches!(c.state, ContainerState::Dead | ContainerState::Removing))
        .min_by_key(|c| {
            let routed = route.is_some_and(|r| r.reaches(c.short_id()));
            (!routed, !c.state.is_up(), c.name != role.container.as_str())
        })
}

/// Containers that run beside the wanted one.
fn others<'a>(
    observed: &'a ObservedRole,
    candidate: Option<&ObservedContainer>,
) -> impl Iterator<Item = &'a ObservedContainer> {
    let id = candidate.map(|c| c.id.clone());
    observed.containers.iter().filter(move |c| c.state.is_up() && Some(&c.id) != id.as_ref())
}

fn renamed_to(steps: &[Step], container: &ObservedContainer) -> Option<String> {
    steps.iter().find_map(|step| match step {
        Step::Rename { container: c, to } if c.id.as_ref() == Some(&container.id) => {
            Some(to.clone())
        }
        _ => None,
    })
}

/// Created or stopped before, by a crash half-way or by hand.
fn start_again(
    role: &Role<'_>,
    container: &ObservedContainer,
    observed: &ObservedRole,
    steps: &mut Vec<Step>,
) -> ContainerRef {
    let target = ContainerRef::observed(container);
    // Docker's meaning of a missing bind source is an empty directory, which would hide the assets.
    steps.extend(assets(role, observed));
    // Also where it is connected: it may be to a network of that name that is no more, and cannot be started then.
    let network = role.template.container.network.clone();
    steps.push(Step::Connect { container: target.clone(), network });
    for network in &role.template.container.options.networks {
        if !container.networks.contains(network) {
            steps.push(Step::Connect { container: target.clone(), network: network.clone() });
        }
    }
    steps.push(role.audit(format!("Started app version {}", role.variant.version)));
    steps.push(Step::Start { container: target.clone() });
    target
}

fn create(
    role: &Role<'_>,
    wanted: &Wanted,
    observed: &ObservedRole,
    steps: &mut Vec<Step>,
) -> Result<ContainerRef, Plan> {
    check_image(role, observed)?;
    if let Bundle::Locked(why) = &wanted.secrets.env {
        return Err(Plan::AwaitingSecrets(why.clone()));
    }
    let version = &role.variant.version;
    let named = |c: &&ObservedContainer| c.name == role.container.as_str();
    if let Some(clash) = observed.containers.iter().chain(&observed.squatter).find(named) {
        let container = ContainerRef::observed(clash);
        match clash.state {
            ContainerState::Removing => {
                let reason = format!("{} is being removed", clash.name);
                return Err(Plan::Waiting(Impossible::new(FailureKind::Other, reason)));
            }
            ContainerState::Dead => steps.push(Step::Remove { container }),
            ContainerState::Created
            | ContainerState::Running
            | ContainerState::Restarting
            | ContainerState::Paused
            | ContainerState::Exited => {
                // From the id, not from chance: the same plan twice has the same name.
                let hex = BlobDigest::of(clash.id.as_bytes()).short(16);
                let to = format!("{}_replaced_{hex}", clash.name);
                steps.push(
                    role.audit(format!("Renaming container {version} to {version}_replaced_{hex}")),
                );
                steps.push(Step::Rename { container, to });
            }
        }
    }
    steps.extend(assets(role, observed));
    steps.push(role.audit(format!("Booted app version {version}")));
    steps.push(Step::WriteEnv { role: role.name.clone() });
    steps.push(Step::Create {
        container: role.container.clone(),
        image: role.image.clone(),
        intent: role.digest,
    });
    let target = ContainerRef::new(&role.container);
    for network in &role.template.container.options.networks {
        steps.push(Step::Connect { container: target.clone(), network: network.clone() });
    }
    steps.push(Step::Start { container: target.clone() });
    Ok(target)
}

/// The image must be there, be the pinned one and be the service's own.
fn check_image(role: &Role<'_>, observed: &ObservedRole) -> Result<(), Plan> {
    let image = role.image;
    let Some(view) = observed.images.get(&image.to_string()) else {
        let reason = format!("image {image} is not on this host");
        return Err(Plan::impossible(FailureKind::ImageMissing, reason));
    };
    if let Some(pinned) = &role.variant.digest
        && !view.is(&image.repository, pinned.as_str())
    {
        let found = view.digest_in(&image.repository).unwrap_or(&view.id);
        let reason = format!("image {image} is {found} on this host, the rollout pinned {pinned}");
        return Err(Plan::impossible(FailureKind::DigestMismatch, reason));
    }
    if view.labels.get(kamal::LABEL_SERVICE).map(String::as_str) != Some(role.app.service.as_str())
    {
        let reason = format!("Image {image} is missing the 'service' label");
        return Err(Plan::impossible(FailureKind::LabelMissing, reason));
    }
    Ok(())
}

/// Assets of the version, where the app unit has not laid them out or they were deleted.
fn assets(role: &Role<'_>, observed: &ObservedRole) -> Option<Step> {
    let path = role.template.asset_path.as_ref()?;
    let AppFiles { asset_volumes, .. } = &observed.files;
    let version = &role.variant.version;
    if asset_volumes.contains(&format!("{}-{version}", role.name)) {
        return None;
    }
    let live = observed.containers.iter().find(|c| {
        let route = observed.proxy.routes.get(&role.service);
        c.state.is_up() && route.is_some_and(|r| r.reaches(c.short_id()))
    });
    let old = live.and_then(|c| version_of(&role.service, &c.name)).filter(|old| old != version);
    Some(Step::BridgeAssets {
        role: role.name.clone(),
        version: version.clone(),
        old,
        image: role.image.clone(),
        path: asset_source(path).to_owned(),
    })
}

/// `PATH[:mount options]` without the options.
pub(super) fn asset_source(path: &str) -> &str {
    path.split(':').next().unwrap_or(path)
}

/// Maintenance survives a deploy, so both directions compare with what is.
fn traffic(role: &Role<'_>, state: Option<RouteState>) -> Option<Step> {
    let service = role.service.clone();
    match (&role.intent.traffic, state) {
        (Traffic::Live, Some(RouteState::Paused | RouteState::Stopped)) => {
            Some(Step::ResumeTraffic { service })
        }
        (Traffic::Live, None | Some(RouteState::Running))
        | (Traffic::Maintenance { .. }, Some(RouteState::Stopped)) => None,
        (Traffic::Maintenance { message, drain }, None | Some(_)) => {
            Some(Step::StopTraffic { service, message: message.clone(), drain: *drain })
        }
    }
}

/// A switch whose return was not seen counts as drained the drain time after it was first seen.
fn drain(role: &Role<'_>, observed: &ObservedRole) -> Option<Step> {
    let drain = Duration::from_secs(role.template.timeouts.drain_s);
    let targets = &observed.proxy.routes.get(&role.service)?.targets;
    let left = match &observed.switch {
        Some(Switch::Returned { targets: seen }) if seen == targets => return None,
        Some(Switch::Seen { targets: seen, since }) if seen == targets => {
            // A clock that went back waits again, never less.
            let passed = observed.at.duration_since(*since).unwrap_or_default();
            drain.saturating_sub(passed)
        }
        Some(_) | None => drain,
    };
    (!left.is_zero()).then(|| Step::AwaitDrain { service: role.service.clone(), left })
}

/// True where a role without proxy has proved itself: healthy, or running for as long as the second look asks.
fn is_ready(role: &Role<'_>, container: &ObservedContainer, observed: &ObservedRole) -> bool {
    if container.state != ContainerState::Running {
        return false;
    }
    match (&container.health, container.started_at) {
        (Some(health), _) => health.status == HealthStatus::Healthy,
        (None, Some(started)) => {
            let delay = Duration::from_secs(role.template.timeouts.readiness_delay_s);
            observed.at.duration_since(started).is_ok_and(|up| up >= delay)
        }
        (None, None) => false,
    }
}

fn stopped(role: &Role<'_>, observed: &ObservedRole) -> Vec<Step> {
    let mut steps = Vec::new();
    if observed.proxy.routes.get(&role.service).is_some() {
        steps.push(Step::RemoveRoute { service: role.service.clone() });
    }
    let mut up = others(observed, None).peekable();
    if up.peek().is_some() {
        steps.push(role.audit("Stopped app".to_owned()));
    }
    steps.extend(
        up.map(|c| Step::Stop { container: ContainerRef::observed(c), grace: role.grace() }),
    );
    steps
}

/// Stops what a failed generation started. What serves is left to its successor: where a generation settled before and
/// nothing else runs, that one's plan stops this container once its own serves. Where none did, what earlier attempts left
/// half-way goes as well, as far as it is known not to serve.
fn abandon(role: &Role<'_>, settled: bool, observed: &ObservedRole) -> Vec<Step> {
    // kamal-proxy finishes a deploy whose caller is gone: it may yet switch to what would be stopped here.
    if observed.proxy.deploying.contains(&role.service) {
        return vec![role.await_deploys()];
    }
    let route = observed.proxy.routes.get(&role.service);
    let alone = !observed
        .containers
        .iter()
        .any(|c| c.state == ContainerState::Running && !role.is_wanted(c));
    if settled && alone {
        return Vec::new();
    }
    let knows = role.proxied().is_some() && matches!(observed.proxy.routes, Routes::Known(_));
    let left =
        |c: &ObservedContainer| knows && !settled && c.labels.contains_key(kamal::LABEL_INTENT);
    observed
        .containers
        .iter()
        .filter(|c| c.state.is_up() && (role.is_wanted(c) || left(c)))
        .filter(|c| !route.is_some_and(|r| r.reaches(c.short_id())))
        .map(|c| Step::Stop { container: ContainerRef::observed(c), grace: role.grace() })
        .collect()
}

impl Role<'_> {
    fn version(&self) -> &Version {
        &self.variant.version
    }
}
