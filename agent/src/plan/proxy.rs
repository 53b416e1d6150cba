//! Plans the proxy unit: network and kamal-proxy's container.

use std::time::Duration;

use dhow_proto::model::intent::{Desired, ProxyIntent, Run};
use dhow_proto::model::{ImageRef, kamal};
use dhow_proto::wire::FailureKind;

use super::observed::{ObservedProxy, Routes};
use super::step::{ContainerRef, Mark, Step};
use super::wanted::{Bundle, Mode, Wanted};
use super::{Impossible, Plan};
use crate::engine::{ContainerState, ObservedContainer};
use crate::proxy::ProxyBoot;

pub(super) fn plan(wanted: &Wanted, intent: &ProxyIntent, observed: &ObservedProxy) -> Plan {
    if matches!(wanted.mode, Mode::Abandon { .. }) {
        return Plan::Steps(Vec::new());
    }
    match steps(wanted, intent, observed) {
        Ok(steps) => Plan::Steps(steps),
        Err(plan) => plan,
    }
}

fn steps(
    wanted: &Wanted,
    intent: &ProxyIntent,
    observed: &ObservedProxy,
) -> Result<Vec<Step>, Plan> {
    let mut steps = Vec::new();
    match observed.networks {
        0 => steps.push(Step::CreateNetwork),
        1 => {}
        n => {
            let reason = format!(
                "there are {n} networks called {}; Docker cannot tell them apart: remove the unused ones",
                kamal::NETWORK
            );
            return Err(Plan::impossible(FailureKind::Other, reason));
        }
    }
    let Some(template) = wanted.proxy_template() else { return Ok(steps) };
    let container = observed.proxy.container.as_ref();
    if intent.run == Run::Stopped {
        if let Some(c) = container.filter(|c| c.state.is_up()) {
            steps.push(Step::StopProxy { container: ContainerRef::observed(c) });
        }
        return Ok(steps);
    }
    let boot = ProxyBoot::decide(template, &observed.boot_files)
        .map_err(|e| Plan::impossible(FailureKind::Unsupported, e.to_string()))?;
    if !observed.directory {
        steps.push(Step::CreateProxyDirectory);
    }
    let done = observed.marks.proxy_boot;
    let reboot = container.is_some() && done.is_some_and(|done| done < intent.boot);
    match container {
        Some(c) if reboot || c.state == ContainerState::Dead => {
            steps.extend(pull(wanted, observed, &boot)?);
            if c.state.is_up() {
                steps.push(Step::StopProxy { container: ContainerRef::observed(c) });
            }
            steps.push(Step::Remove { container: ContainerRef::observed(c) });
            boot_steps(boot, &mut steps);
        }
        Some(c) => keep(c, wanted, observed, &mut steps)?,
        None => {
            steps.extend(pull(wanted, observed, &boot)?);
            boot_steps(boot, &mut steps);
        }
    }
    if done != Some(intent.boot) {
        // Without a memory of it (adopted from Kamal) the running one counts as booted.
        steps.push(Step::Remember(Mark::ProxyBoot(intent.boot)));
    }
    Ok(steps)
}

/// An existing container is never reconciled: new options take effect on a reboot.
fn keep(
    container: &ObservedContainer,
    wanted: &Wanted,
    observed: &ObservedProxy,
    steps: &mut Vec<Step>,
) -> Result<(), Plan> {
    let version = container.image.rsplit_once(':').map_or("", |(_, tag)| tag);
    if is_older(version, kamal::PROXY_VERSION) {
        let reason = format!(
            "kamal-proxy version {version} is too old, run 'dhow proxy reboot' to update it to at least {}",
            kamal::PROXY_VERSION
        );
        return Err(Plan::impossible(FailureKind::Unsupported, reason));
    }
    let target = ContainerRef::observed(container);
    if container.state.is_up() && !container.networks.iter().any(|n| n == kamal::NETWORK) {
        let network = kamal::NETWORK.to_owned();
        steps.push(Step::Connect { container: target.clone(), network });
    }
    match container.state {
        ContainerState::Created | ContainerState::Exited => {
            // Also where it is connected: it may be to a network that is no more, and cannot be started then.
            let network = kamal::NETWORK.to_owned();
            steps.push(Step::Connect { container: target.clone(), network });
            steps.push(Step::Start { container: target });
            steps.push(Step::AwaitProxy);
        }
        ContainerState::Paused => {
            steps.push(Step::Unpause { container: target });
            steps.push(Step::AwaitProxy);
        }
        ContainerState::Running | ContainerState::Restarting => {
            if observed.proxy.routes == Routes::Unknown && asks_proxy(wanted, observed) {
                steps.push(Step::AwaitProxy);
            }
        }
        ContainerState::Removing | ContainerState::Dead => {
            let reason = "kamal-proxy's container is being removed";
            return Err(Plan::Waiting(Impossible::new(FailureKind::Other, reason)));
        }
    }
    Ok(())
}

fn pull(wanted: &Wanted, observed: &ObservedProxy, boot: &ProxyBoot) -> Result<Option<Step>, Plan> {
    if observed.image {
        return Ok(None);
    }
    match &wanted.secrets.registry {
        Bundle::Locked(why) => Err(Plan::AwaitingSecrets(why.clone())),
        Bundle::None | Bundle::Opened => Ok(Some(Step::Pull { image: boot.image.clone() })),
    }
}

fn boot_steps(boot: ProxyBoot, steps: &mut Vec<Step>) {
    steps.push(Step::CreateProxy(Box::new(boot)));
    steps.push(Step::Start {
        container: ContainerRef { name: kamal::PROXY_CONTAINER.to_owned(), id: None },
    });
    steps.push(Step::AwaitProxy);
}

/// A proxy that runs for longer has opened its socket (contract: tens of milliseconds).
const ANSWERS_AFTER: Duration = Duration::from_secs(10);

/// True where the plan depends on whether the proxy answers and what it routes: where it is to go, and where it was
/// just started. Later its answer is the roles' concern, which ask for the table anyway.
pub(crate) fn asks_proxy(wanted: &Wanted, observed: &ObservedProxy) -> bool {
    if matches!(wanted.intent.desired, Desired::Absent(_)) {
        return true;
    }
    let Some(container) = &observed.proxy.container else { return false };
    let ran = container.started_at.and_then(|at| observed.at.duration_since(at).ok());
    container.state != ContainerState::Running
        || observed.marks.proxy_boot.is_none()
        || ran.is_none_or(|ran| ran < ANSWERS_AFTER)
}

/// Compares `v0.9.2`-shaped tags. A tag of another shape (a digest, `latest`, a custom build) is somebody's decision.
fn is_older(version: &str, minimum: &str) -> bool {
    match (numbers(version), numbers(minimum)) {
        (Some(version), Some(minimum)) => version < minimum,
        (None, _) | (_, None) => false,
    }
}

fn numbers(tag: &str) -> Option<Vec<u64>> {
    let plain = tag.strip_prefix('v').unwrap_or(tag);
    let plain = plain.split('-').next().unwrap_or(plain);
    plain.split('.').map(|n| n.parse().ok()).collect()
}

/// The image a proxy would be booted from now.
pub(crate) fn boot_image(wanted: &Wanted, files: &crate::proxy::BootFiles) -> Option<ImageRef> {
    let template = wanted.proxy_template()?;
    ProxyBoot::decide(template, files).ok().map(|boot| boot.image)
}
