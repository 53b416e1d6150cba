//! Plans the removal of a unit.

use dhow_proto::wire::FailureKind;

use super::observed::{LockView, Observed, ObservedApp, ObservedProxy, ObservedRole, Routes};
use super::serving::role_of;
use super::step::{ContainerRef, Step};
use super::wanted::Wanted;
use super::{Impossible, Plan, unsupported};
use crate::engine::ContainerState;

pub(super) fn plan(wanted: &Wanted, observed: &Observed) -> Plan {
    match observed {
        Observed::Role(observed) => role(wanted, observed),
        Observed::App(observed) => app(observed),
        Observed::Proxy(observed) => proxy(observed),
    }
}

fn role(wanted: &Wanted, observed: &ObservedRole) -> Plan {
    let Some((app, role)) = role_of(&wanted.intent.unit) else {
        return unsupported(&wanted.intent.unit);
    };
    let service = app.role_prefix(role);
    // A route that is left behind would send requests nowhere once the proxy runs again.
    if observed.proxy.routes == Routes::Unknown && observed.proxy.container.is_some() {
        let reason = "kamal-proxy does not run, so the route of the role cannot be removed";
        return Plan::Waiting(Impossible::new(FailureKind::ProxyMissing, reason));
    }
    let mut steps = Vec::new();
    if observed.proxy.routes.get(&service).is_some() {
        steps.push(Step::RemoveRoute { service });
    }
    let audit = |text: &str| Step::Audit { role: Some(role.clone()), text: text.to_owned() };
    if observed.containers.iter().any(|c| c.state.is_up()) {
        steps.push(audit("Stopped app"));
    }
    for c in observed.containers.iter().filter(|c| c.state.is_up()) {
        steps.push(Step::Stop { container: ContainerRef::observed(c), grace: None });
    }
    if !observed.containers.is_empty() {
        steps.push(audit("Removed all app containers"));
    }
    for c in observed.containers.iter().filter(|c| c.state != ContainerState::Removing) {
        steps.push(Step::Remove { container: ContainerRef::observed(c) });
    }
    if observed.env_file.is_some() {
        steps.push(Step::RemoveEnv { role: role.clone() });
    }
    Plan::Steps(steps)
}

fn app(observed: &ObservedApp) -> Plan {
    let mut steps = Vec::new();
    match &observed.lock {
        LockView::Ours(_) => steps.push(Step::ReleaseLock),
        LockView::Free | LockView::Foreign(_) => {}
    }
    if observed.files.directory {
        steps.push(Step::RemoveAppFiles);
    }
    Plan::Steps(steps)
}

fn proxy(observed: &ObservedProxy) -> Plan {
    let Some(c) = &observed.proxy.container else { return Plan::Steps(Vec::new()) };
    match &observed.proxy.routes {
        Routes::Known(routes) if !routes.is_empty() => {
            let names: Vec<&str> = routes.keys().map(String::as_str).take(5).collect();
            let reason = format!("kamal-proxy still routes {}", names.join(", "));
            return Plan::impossible(FailureKind::Other, reason);
        }
        Routes::Known(_) | Routes::Unknown => {}
    }
    let container = ContainerRef::observed(c);
    let mut steps = Vec::new();
    if c.state.is_up() {
        steps.push(Step::StopProxy { container: container.clone() });
    }
    steps.push(Step::Remove { container });
    Plan::Steps(steps)
}
