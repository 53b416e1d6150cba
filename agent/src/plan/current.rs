//! Which container serves: what kamal-proxy routes to, else Kamal's own rule.

use super::observed::{ObservedRole, Routes};
use super::wanted::Wanted;
use crate::engine::{ContainerState, ObservedContainer};

/// Containers of a role that serve now, in the order observed.
///
/// Whatever kamal-proxy routes to is live, whatever the tags say. A role without a route has at most one: Kamal's
/// current version, the newest running container of the image tagged latest, else the newest running one.
#[derive(Clone, Debug, PartialEq)]
pub struct Live<'a>(Vec<&'a ObservedContainer>);

impl<'a> Live<'a> {
    /// Of the containers of one role (newest created first), by its kamal-proxy service name.
    pub fn of(
        service: &str,
        containers: &'a [ObservedContainer],
        latest_image_id: Option<&str>,
        routes: &Routes,
    ) -> Self {
        let routed: Vec<&ObservedContainer> = routes.get(service).map_or(Vec::new(), |route| {
            containers.iter().filter(|c| c.state.is_up() && route.reaches(c.short_id())).collect()
        });
        if routed.is_empty() {
            Self(current(containers, latest_image_id).into_iter().collect())
        } else {
            Self(routed)
        }
    }

    /// They, in the order observed.
    pub fn iter(&self) -> impl Iterator<Item = &'a ObservedContainer> + '_ {
        self.0.iter().copied()
    }

    /// True for one of them.
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|c| c.id == id)
    }
}

/// Kamal's current version (`ps --latest` twice): states running and restarting alone.
fn current<'a>(
    containers: &'a [ObservedContainer],
    latest_image_id: Option<&str>,
) -> Option<&'a ObservedContainer> {
    let mut running = containers
        .iter()
        .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Restarting));
    let newest = running.clone().next();
    running.find(|c| Some(c.image_id.as_str()) == latest_image_id).or(newest)
}

/// The live containers of a role unit.
pub fn live<'a>(wanted: &Wanted, observed: &'a ObservedRole) -> Live<'a> {
    let Some((app, role)) = super::serving::role_of(&wanted.intent.unit) else {
        return Live(Vec::new());
    };
    let latest = super::serving::latest_image(app, observed);
    Live::of(&app.role_prefix(role), &observed.containers, latest, &observed.proxy.routes)
}
