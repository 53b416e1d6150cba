//! What happened on the Engine, and which units have to look again. PURE.

use std::collections::{BTreeMap, VecDeque};

use dhow_proto::model::Unit;
use dhow_proto::model::kamal::{LABEL_SERVICE, NETWORK, PROXY_CONTAINER};

use crate::engine::EngineEvent;
use crate::proxy;

/// Services counted apart; more only wake each other's units.
pub(super) const SERVICES: usize = 1024;
/// Commands in kamal-proxy that are remembered until they end; they take minutes at most.
const COMMANDS: usize = 64;

/// Whom an event concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Every unit.
    Everything,
    /// Units of the apps with this label `service`.
    Service(String),
    /// The role with this service name in kamal-proxy.
    Route(String),
}

/// What to look at again: counts, as a `watch` keeps the newest value alone and events of other services must not hide
/// those of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wake {
    every_unit: u64,
    pub(super) services: BTreeMap<String, u64>,
    routes: BTreeMap<String, u64>,
}

impl Wake {
    /// Notes an event.
    pub(super) fn note(&mut self, concern: Concern) {
        let (counts, name) = match concern {
            Concern::Everything => return self.every_unit += 1,
            Concern::Service(name) => (&mut self.services, name),
            Concern::Route(name) => (&mut self.routes, name),
        };
        if counts.len() < SERVICES || counts.contains_key(&name) {
            *counts.entry(name).or_default() += 1;
        } else {
            self.every_unit += 1;
        }
    }

    /// Differs from what it was once anything was noted that concerns the unit.
    pub(super) fn count(&self, unit: &Unit) -> u64 {
        let services = self.services.iter().filter(|(service, _)| is_of(unit, service));
        let route = match unit {
            Unit::Role(app, role) => self.routes.get(&app.role_prefix(role)).copied(),
            Unit::Proxy | Unit::App(_) | Unit::Accessory(..) | Unit::Agent | Unit::Task { .. } => {
                None
            }
        };
        let services: u64 = services.map(|(_, count)| count).sum();
        self.every_unit + services + route.unwrap_or_default()
    }
}

fn is_of(unit: &Unit, service: &str) -> bool {
    match unit {
        Unit::Proxy | Unit::Agent => false,
        Unit::App(app) | Unit::Role(app, _) | Unit::Task { app, .. } => {
            app.service.as_str() == service
        }
        Unit::Accessory(owner, _) => service.starts_with(owner.as_str()),
    }
}

/// Commands that run in kamal-proxy and change what it routes: only their end is news, and only their beginning says
/// what they are.
#[derive(Debug, Default)]
pub(super) struct Commands(VecDeque<(String, String)>);

impl Commands {
    /// Whom an event concerns; none where it tells nothing.
    pub(super) fn concern(&mut self, event: &EngineEvent) -> Option<Concern> {
        if event.action.starts_with("exec_") {
            return self.exec(event);
        }
        // How we look for deploys under way.
        if event.action == "top" {
            return None;
        }
        if event.name == NETWORK {
            // Containers come and go in it all the time.
            return (event.action == "destroy").then_some(Concern::Everything);
        }
        if event.name == PROXY_CONTAINER {
            return Some(Concern::Everything);
        }
        event.attributes.get(LABEL_SERVICE).cloned().map(Concern::Service)
    }

    /// Most execs are our own questions; one that removes a route may be anybody's.
    fn exec(&mut self, event: &EngineEvent) -> Option<Concern> {
        if event.name != PROXY_CONTAINER {
            return None;
        }
        let id = event.attributes.get("execID")?;
        if let Some(line) = event.action.strip_prefix("exec_start: ") {
            let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if let Some(service) = proxy::is_change_of(&argv) {
                self.0.truncate(COMMANDS - 1);
                self.0.push_front((id.clone(), service.to_owned()));
            }
            return None;
        }
        if event.action != "exec_die" {
            return None;
        }
        let at = self.0.iter().position(|(known, _)| known == id)?;
        self.0.remove(at).map(|(_, service)| Concern::Route(service))
    }
}
