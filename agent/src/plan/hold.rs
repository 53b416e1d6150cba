//! Another deployer is respected.

use dhow_proto::model::status::Held;

use super::observed::Foreign;

/// Why nothing may be changed by itself, if so. A new rollout adopts what is there
/// ([`crate::execute::Worker::adopt`]) before it plans, so that only a foreign lock holds it.
pub fn hold(foreign: &Foreign) -> Option<Held> {
    if let Some(details) = &foreign.lock {
        return Some(Held::ForeignLock(holder(details)));
    }
    if let Some(line) = &foreign.audit_line {
        return Some(Held::AuditLine(line.clone()));
    }
    if let Some(name) = foreign.containers.first() {
        return Some(Held::ForeignContainer(name.clone()));
    }
    foreign.stopped.clone().map(Held::StoppedTraffic)
}

/// The details of a lock on one bounded line.
pub(super) fn holder(details: &str) -> String {
    let line = details.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>();
    let text: String = line.join("; ").chars().take(300).collect();
    if text.is_empty() { "unknown".to_owned() } else { text }
}
