//! The smallest thing an agent converges on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::app::App;
use super::error::{At, FieldError, required};
use super::name::{AccessoryName, RoleName, ServiceName};
use crate::wire;

/// One desired state each; ordered so that listings read well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Unit {
    /// kamal-proxy and the `kamal` network: one per host.
    Proxy,
    /// What the app's roles share on a host.
    App(App),
    /// One role of an app.
    Role(App, RoleName),
    /// An accessory; owned by the service, as destinations share it.
    Accessory(ServiceName, AccessoryName),
    /// The agent itself.
    Agent,
    /// A one-off task with its run id (reserved).
    Task {
        /// The app it belongs to.
        app: App,
        /// The task's name.
        name: String,
        /// Tells runs of the same task apart.
        run_id: String,
    },
}

impl Unit {
    /// The app this unit belongs to, if it belongs to one alone.
    pub fn app(&self) -> Option<&App> {
        match self {
            Self::App(app) | Self::Role(app, _) | Self::Task { app, .. } => Some(app),
            Self::Proxy | Self::Accessory(..) | Self::Agent => None,
        }
    }

    /// A key that sorts and is safe in file names and store keys: `role!shop!staging!web`. No part can hold `!`.
    pub fn key(&self) -> String {
        let app = |a: &App| format!("{}!{}", a.service, a.destination_label());
        match self {
            Self::Proxy => "proxy".to_owned(),
            Self::App(a) => format!("app!{}", app(a)),
            Self::Role(a, role) => format!("role!{}!{role}", app(a)),
            Self::Accessory(service, name) => format!("accessory!{service}!{name}"),
            Self::Agent => "agent".to_owned(),
            Self::Task { app: a, name, run_id } => format!("task!{}!{name}!{run_id}", app(a)),
        }
    }
}

/// As people read it: `role shop/web`, `app shop@staging`, `proxy`.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy => f.write_str("proxy"),
            Self::App(app) => write!(f, "app {app}"),
            Self::Role(app, role) => write!(f, "role {app}/{role}"),
            Self::Accessory(service, name) => write!(f, "accessory {service}/{name}"),
            Self::Agent => f.write_str("agent"),
            Self::Task { app, name, run_id } => write!(f, "task {app}/{name}#{run_id}"),
        }
    }
}

impl TryFrom<wire::UnitRef> for Unit {
    type Error = FieldError;

    fn try_from(wire: wire::UnitRef) -> Result<Self, FieldError> {
        use wire::unit_ref::Kind;
        let app = |app: Option<wire::AppRef>| {
            required(app, "app").and_then(|a| App::try_from(a).at("app"))
        };
        Ok(match required(wire.kind, "kind")? {
            Kind::Proxy(_) => Self::Proxy,
            Kind::App(a) => Self::App(App::try_from(a).at("app")?),
            Kind::Role(role) => Self::Role(
                app(role.app).at("role")?,
                RoleName::try_from(role.role).at("role.role")?,
            ),
            Kind::Accessory(accessory) => Self::Accessory(
                ServiceName::try_from(accessory.service).at("accessory.service")?,
                AccessoryName::try_from(accessory.name).at("accessory.name")?,
            ),
            Kind::Agent(_) => Self::Agent,
            Kind::Task(task) => {
                for (field, text) in [("task.name", &task.name), ("task.run_id", &task.run_id)] {
                    // Same rule as a role's name: both end up in keys and container names.
                    RoleName::try_from(text.as_str()).at(field)?;
                }
                Self::Task { app: app(task.app).at("task")?, name: task.name, run_id: task.run_id }
            }
        })
    }
}

impl From<&Unit> for wire::UnitRef {
    fn from(unit: &Unit) -> Self {
        use wire::unit_ref::Kind;
        let kind = match unit {
            Unit::Proxy => Kind::Proxy(wire::ProxyUnit {}),
            Unit::App(app) => Kind::App(app.into()),
            Unit::Role(app, role) => {
                Kind::Role(wire::RoleUnit { app: Some(app.into()), role: role.to_string() })
            }
            Unit::Accessory(service, name) => Kind::Accessory(wire::AccessoryUnit {
                service: service.to_string(),
                name: name.to_string(),
            }),
            Unit::Agent => Kind::Agent(wire::AgentUnit {}),
            Unit::Task { app, name, run_id } => Kind::Task(wire::TaskUnit {
                app: Some(app.into()),
                name: name.clone(),
                run_id: run_id.clone(),
            }),
        };
        Self { kind: Some(kind) }
    }
}
