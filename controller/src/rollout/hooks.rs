//! PURE: the environment Kamal gives a hook.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::record::{Header, HookRecord};
use super::stages::Hook;

/// The whole `KAMAL_*` map, and `DHOW_ROLLOUT`, by which dhow called inside the hook joins this rollout.
pub fn environment(
    header: &Header,
    hook: &Hook,
    record: &HookRecord,
) -> BTreeMap<&'static str, String> {
    let list = |names: Vec<&str>| names.join(",");
    let mut env = BTreeMap::from([
        ("KAMAL_RECORDED_AT", iso8601(record.recorded_at)),
        ("KAMAL_PERFORMER", header.performer.clone()),
        ("KAMAL_VERSION", header.version.to_string()),
        ("KAMAL_SERVICE", header.app.service.to_string()),
        ("KAMAL_SERVICE_VERSION", service_version(header)),
        ("KAMAL_HOSTS", list(hook.hosts.iter().map(|h| h.as_str()).collect())),
        ("KAMAL_LOCK", hook.locked.to_string()),
        ("KAMAL_COMMAND", header.command.clone()),
        ("DHOW_ROLLOUT", header.id.to_string()),
    ]);
    if let Some(destination) = &header.app.destination {
        env.insert("KAMAL_DESTINATION", destination.to_string());
    }
    if header.roles_given {
        env.insert("KAMAL_ROLES", list(header.roles.iter().map(|r| r.as_str()).collect()));
    }
    if !header.subcommand.is_empty() {
        env.insert("KAMAL_SUBCOMMAND", header.subcommand.clone());
    }
    if hook.runtime {
        let runtime = record.recorded_at.duration_since(header.started_at).as_secs().max(0);
        env.insert("KAMAL_RUNTIME", runtime.to_string());
    }
    env
}

/// Whole seconds, as Ruby's `Time#iso8601` has them.
fn iso8601(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// `shop@0123456`: seven characters, or the whole version where it has an underscore (an uncommitted one).
fn service_version(header: &Header) -> String {
    let version = header.version.as_str();
    let short: String = match version.contains('_') {
        true => version.to_owned(),
        false => version.chars().take(7).collect(),
    };
    format!("{}@{short}", header.app.service)
}
