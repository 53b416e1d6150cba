//! Which leases are alive, by monotonic time; which keys they hold is in the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kv::LeaseId;

/// The leases of one store. Times are those of `Clock::monotonic`.
#[derive(Debug, Default)]
pub(super) struct Leases {
    alive: BTreeMap<LeaseId, Living>,
}

#[derive(Debug)]
struct Living {
    ttl: Duration,
    deadline: Duration,
}

impl Leases {
    pub(super) fn start(&mut self, id: LeaseId, ttl: Duration, now: Duration) {
        self.alive.insert(id, Living { ttl, deadline: now.saturating_add(ttl) });
    }

    /// Whether the lease was alive to be kept so.
    pub(super) fn keep_alive(&mut self, id: LeaseId, now: Duration) -> bool {
        let Some(lease) = self.alive.get_mut(&id) else { return false };
        lease.deadline = now.saturating_add(lease.ttl);
        true
    }

    pub(super) fn is_alive(&self, id: LeaseId) -> bool {
        self.alive.contains_key(&id)
    }

    pub(super) fn end(&mut self, id: LeaseId) {
        self.alive.remove(&id);
    }

    /// Forgets all but those that `keep`.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(LeaseId) -> bool) {
        self.alive.retain(|id, _| keep(*id));
    }

    /// Those that lapsed, in the order of their numbers.
    pub(super) fn lapsed(&self, now: Duration) -> Vec<LeaseId> {
        let lapsed = self.alive.iter().filter(|(_, lease)| lease.deadline <= now);
        lapsed.map(|(id, _)| *id).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }
}
