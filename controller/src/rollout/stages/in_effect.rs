//! Which hosts and roles a rollout is about, and in which order: those of the primary role first.

use dhow_proto::model::spec::{BootLimit, Spec};
use dhow_proto::model::{RoleName, Unit};

use super::{Change, Content, Plan};
use crate::rollout::record::HostFact;

/// Hosts and roles of a plan, in boot order.
pub(super) struct InEffect<'a> {
    pub(super) hosts: Vec<&'a HostFact>,
    pub(super) roles: Vec<&'a RoleName>,
    pub(super) primary: Option<&'a RoleName>,
}

impl<'a> InEffect<'a> {
    pub(super) fn new(spec: &'a Spec, plan: &Plan<'a>) -> Self {
        // The spec has the primary role first; with `--roles` the first one in effect takes its place.
        let roles: Vec<&RoleName> =
            spec.roles.iter().map(|r| &r.name).filter(|name| plan.roles.contains(name)).collect();
        let runs = |host: &HostFact, role: &RoleName| {
            spec.role(role).is_some_and(|r| r.host_names().any(|h| *h == host.config))
        };
        let present = plan.hosts.iter().filter(|h| !h.away);
        let mut hosts: Vec<&HostFact> =
            present.filter(|h| roles.iter().any(|r| runs(h, r))).collect();
        // With `--hosts` the primary role may run on none of them: then the first host's first role gates the others.
        let primary = roles
            .iter()
            .copied()
            .find(|r| **r == spec.primary_role && hosts.iter().any(|h| runs(h, r)))
            .or_else(|| {
                let first = hosts.first()?;
                roles.iter().copied().find(|r| runs(first, r))
            });
        hosts.sort_by_key(|h| !primary.is_some_and(|p| runs(h, p)));
        Self { hosts, roles, primary }
    }

    fn runs(&self, spec: &Spec, host: &HostFact, role: &RoleName) -> bool {
        spec.role(role).is_some_and(|r| r.host_names().any(|h| *h == host.config))
    }

    /// The host's roles among `roles`, primary first, one after another unless they may boot in parallel.
    pub(super) fn boot_host(
        &self,
        spec: &Spec,
        host: &HostFact,
        roles: &[&RoleName],
    ) -> Vec<Change> {
        let mut mine: Vec<&RoleName> =
            roles.iter().copied().filter(|r| self.runs(spec, host, r)).collect();
        mine.sort_by_key(|r| Some(*r) != self.primary);
        let mut changes: Vec<Change> = Vec::new();
        for role in mine {
            let before = changes.last().map(|c| c.unit.clone());
            changes.push(Change {
                host: host.name.clone(),
                unit: Unit::Role(spec.app.clone(), role.clone()),
                content: Content::Role(role.clone()),
                after: before.into_iter().filter(|_| !spec.boot.parallel_roles).collect(),
            });
        }
        changes
    }

    /// Slices of the hosts, at most `boot.limit` each.
    pub(super) fn groups(&self, spec: &Spec) -> Vec<Vec<&'a HostFact>> {
        let all = self.hosts.len();
        let size = match spec.boot.limit {
            None => all,
            Some(BootLimit::Count(n)) => n as usize,
            Some(BootLimit::Percent(p)) => all * p as usize / 100,
        };
        self.hosts.chunks(size.max(1)).map(<[&HostFact]>::to_vec).collect()
    }
}
