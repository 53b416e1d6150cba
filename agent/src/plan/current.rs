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

    /// True where [`Self::of`] gives the same whatever kamal-proxy routes to and whatever the latest tag means: at most one
    /// container is up, and it runs.
    pub fn is_plain(containers: &[ObservedContainer]) -> bool {
        let mut up = containers.iter().filter(|c| c.state.is_up());
        up.next().is_none_or(is_running) && up.next().is_none()
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

fn is_running(container: &ObservedContainer) -> bool {
    matches!(container.state, ContainerState::Running | ContainerState::Restarting)
}

/// Kamal's current version (`ps --latest` twice): states running and restarting alone.
fn current<'a>(
    containers: &'a [ObservedContainer],
    latest_image_id: Option<&str>,
) -> Option<&'a ObservedContainer> {
    let mut running = containers.iter().filter(|c| is_running(c));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::proxy::{Route, RouteState};

    const STATES: [ContainerState; 7] = [
        ContainerState::Created,
        ContainerState::Running,
        ContainerState::Restarting,
        ContainerState::Paused,
        ContainerState::Exited,
        ContainerState::Dead,
        ContainerState::Removing,
    ];

    fn container(digit: char, state: ContainerState) -> ObservedContainer {
        ObservedContainer {
            id: digit.to_string().repeat(64),
            name: format!("shop-web-v{digit}"),
            image: format!("shop:v{digit}"),
            image_id: format!("sha256:{digit}"),
            labels: BTreeMap::new(),
            state,
            exit_code: None,
            error: String::new(),
            health: None,
            restarts: 0,
            created_at: SystemTime::UNIX_EPOCH,
            started_at: None,
            networks: Vec::new(),
            mounts: Vec::new(),
            hostname: String::new(),
            address: String::new(),
            pid: None,
            out_of_memory: false,
        }
    }

    fn routes(to: &[&ObservedContainer]) -> Routes {
        let targets = to.iter().map(|c| format!("{}:80", c.short_id())).collect();
        let state = RouteState::Running;
        let (hosts, paths) = (Vec::new(), Vec::new());
        let route = Route { hosts, paths, targets, state, tls: false };
        Routes::Known(BTreeMap::from([("shop-web".to_owned(), route)]))
    }

    #[test]
    fn where_it_is_plain_neither_routes_nor_the_tag_change_what_is_live() {
        let mut plain = 0;
        for (one, two) in STATES.iter().flat_map(|a| STATES.iter().map(move |b| (*a, *b))) {
            let all = [container('2', one), container('1', two)];
            let known = [
                Routes::Unknown,
                routes(&[]),
                routes(&[&all[0]]),
                routes(&[&all[1]]),
                routes(&[&all[0], &all[1]]),
            ];
            let mut live: Vec<Vec<&str>> = Vec::new();
            for routes in &known {
                for latest in [None, Some("sha256:1"), Some("sha256:2")] {
                    let found = Live::of("shop-web", &all, latest, routes);
                    live.push(found.iter().map(|c| c.name.as_str()).collect());
                }
            }
            live.dedup();
            assert_eq!(Live::is_plain(&all), live.len() == 1, "{one:?} {two:?}: {live:?}");
            plain += usize::from(live.len() == 1);
        }
        // None of the two up, or one of them that runs.
        assert_eq!(plain, 4 * 4 + 2 * 2 * 4);
    }
}
