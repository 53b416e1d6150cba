//! An app and the names derived from it (`host-effects` of Kamal: names, labels, paths).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{At, FieldError};
use super::name::{ContainerName, Destination, RoleName, ServiceName, Version};
use crate::wire;

/// A service and its destination: the unit of locking, rollout, permission and history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Kamal's `service`.
    pub service: ServiceName,
    /// `-d staging`; none for the plain app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
}

impl App {
    /// `SVC[-DEST]`: names of directories, locks and audit logs.
    pub fn slug(&self) -> String {
        match &self.destination {
            Some(destination) => format!("{}-{destination}", self.service),
            None => self.service.to_string(),
        }
    }

    /// `SVC-ROLE[-DEST]`: prefix of the role's containers and its name as a kamal-proxy service.
    pub fn role_prefix(&self, role: &RoleName) -> String {
        match &self.destination {
            Some(destination) => format!("{}-{role}-{destination}", self.service),
            None => format!("{}-{role}", self.service),
        }
    }

    /// `SVC-ROLE[-DEST]-VER`.
    pub fn container_name(&self, role: &RoleName, version: &Version) -> ContainerName {
        ContainerName::try_from(format!("{}-{version}", self.role_prefix(role)))
            .expect("service, role and version have only characters a container name may have")
    }

    /// `latest` or `latest-DEST`.
    pub fn latest_tag(&self) -> String {
        match &self.destination {
            Some(destination) => format!("latest-{destination}"),
            None => "latest".to_owned(),
        }
    }

    /// Value of the `destination` label: empty without one, but the label is always there, or Kamal
    /// does not see the container.
    pub fn destination_label(&self) -> &str {
        self.destination.as_ref().map_or("", |d| d.as_str())
    }
}

/// `shop` or `shop@staging`: unlike the slug, never ambiguous.
impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Some(destination) => write!(f, "{}@{destination}", self.service),
            None => write!(f, "{}", self.service),
        }
    }
}

impl TryFrom<wire::AppRef> for App {
    type Error = FieldError;

    fn try_from(wire: wire::AppRef) -> Result<Self, FieldError> {
        let service = ServiceName::try_from(wire.service).at("service")?;
        let destination = match wire.destination.as_str() {
            "" => None,
            _ => Some(Destination::try_from(wire.destination).at("destination")?),
        };
        Ok(Self { service, destination })
    }
}

impl From<&App> for wire::AppRef {
    fn from(app: &App) -> Self {
        Self { service: app.service.to_string(), destination: app.destination_label().to_owned() }
    }
}
