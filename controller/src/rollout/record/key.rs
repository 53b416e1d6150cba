//! Where records are kept in the store.

use dhow_proto::model::{App, HostName, Unit};
use jiff::Timestamp;

use super::RolloutId;
use crate::store::Key;

fn app_part(app: &App) -> String {
    format!("{}!{}", app.service, app.destination_label())
}

/// The app's record.
pub fn app(app: &App) -> Key {
    format!("app/{}", app_part(app)).into()
}

/// The app's rollout lock.
pub fn lock(app: &App) -> Key {
    format!("lock/{}", app_part(app)).into()
}

/// A rollout's header.
pub fn rollout(id: &RolloutId) -> Key {
    format!("rollout/{id}").into()
}

/// Headers whose id begins so.
pub fn rollouts_like(prefix: &str) -> Key {
    format!("rollout/{prefix}").into()
}

/// A stage of a rollout.
pub fn stage(id: &RolloutId, index: usize) -> Key {
    format!("rollout/{id}/stage/{index:04}").into()
}

/// All stages of a rollout.
pub fn stages(id: &RolloutId) -> Key {
    format!("rollout/{id}/stage/").into()
}

/// An event of a rollout.
pub fn event(id: &RolloutId, sequence: u64) -> Key {
    format!("rollout/{id}/event/{sequence:08}").into()
}

/// All events of a rollout.
pub fn events(id: &RolloutId) -> Key {
    format!("rollout/{id}/event/").into()
}

/// The index of an app's rollouts, oldest first.
pub fn index(app: &App) -> Key {
    format!("rollouts/{}/", app_part(app)).into()
}

/// A rollout in that index.
pub fn indexed(app: &App, started_at: Timestamp, id: &RolloutId) -> Key {
    format!("rollouts/{}/{:013}-{id}", app_part(app), started_at.as_millisecond()).into()
}

/// Set while a rollout is not over: what a restarted controller looks for.
pub fn running(id: &RolloutId) -> Key {
    format!("running/{id}").into()
}

/// All rollouts that are not over.
pub fn all_running() -> Key {
    "running/".into()
}

/// Who drives a rollout; leased.
pub fn owner(id: &RolloutId) -> Key {
    format!("owner/{id}").into()
}

/// The newest wanted intent.
pub fn intent(host: &HostName, unit: &Unit) -> Key {
    format!("intent/{host}/{}", unit.key()).into()
}

/// All of a host's wanted intents.
pub fn intents(host: &HostName) -> Key {
    format!("intent/{host}/").into()
}

/// The intent that last settled.
pub fn settled(host: &HostName, unit: &Unit) -> Key {
    format!("settled/{host}/{}", unit.key()).into()
}

/// An intent whose outcome was unknown when its rollout ended.
pub fn attempted(host: &HostName, unit: &Unit) -> Key {
    format!("attempted/{host}/{}", unit.key()).into()
}

/// All that is promised to any host.
pub fn promises() -> Key {
    "promised/".into()
}

/// The host that this app has promised something to; none where the promise is another app's.
pub fn host_of_promise(key: &Key, app: &App) -> Option<HostName> {
    let (host, unit) = key.as_str()?.strip_prefix("promised/")?.split_once('/')?;
    let role = unit.strip_prefix("role!").and_then(|unit| unit.strip_prefix(&app_part(app)));
    let is_its = role.is_some_and(|rest| rest.starts_with('!'))
        || unit.strip_prefix("app!") == Some(&app_part(app));
    HostName::try_from(host).ok().filter(|_| is_its)
}

/// All that is promised to a host.
pub fn all_promised(host: &HostName) -> Key {
    format!("promised/{host}/").into()
}

/// An intent of a rollout that succeeded while the host was away, until the host said what became of it.
pub fn promised(host: &HostName, unit: &Unit) -> Key {
    format!("promised/{host}/{}", unit.key()).into()
}
