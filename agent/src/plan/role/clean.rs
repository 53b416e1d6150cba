//! Deletes files of versions that nothing uses any more, after a switch.

use std::collections::BTreeSet;

use dhow_proto::model::{RoleName, Version};

use super::Role;
use crate::plan::Step;
use crate::plan::observed::ObservedRole;

pub(super) fn steps(role: &Role<'_>, observed: &ObservedRole) -> Vec<Step> {
    let mut steps = Vec::new();
    let version = role.version();
    if role.template.asset_path.is_some() {
        let kept = format!("{}-{version}", role.name);
        let names: Vec<String> =
            assets_of(role.name, observed).filter(|n| *n != kept).map(str::to_owned).collect();
        if !names.is_empty() {
            steps.push(Step::CleanAssets { names });
        }
    }
    if role.proxied().is_some_and(|p| p.error_pages) {
        // kamal-proxy reads the directory again when it restarts: another role's version stays.
        let mut keep: BTreeSet<&str> = observed.referenced.iter().map(Version::as_str).collect();
        keep.insert(version.as_str());
        let there = observed.files.error_pages.iter();
        let names: Vec<String> = there.filter(|v| !keep.contains(v.as_str())).cloned().collect();
        if !names.is_empty() {
            steps.push(Step::CleanErrorPages { names });
        }
    }
    steps
}

/// Directories of this role; `web-api-1` is of `web-api` where there is such a role.
fn assets_of<'a>(role: &'a RoleName, observed: &'a ObservedRole) -> impl Iterator<Item = &'a str> {
    let of = |role: &RoleName, name: &str| {
        name.strip_prefix(role.as_str()).is_some_and(|rest| rest.starts_with('-'))
    };
    observed.files.asset_volumes.iter().map(String::as_str).filter(move |name| {
        let longer = |other: &RoleName| other.as_str().len() > role.as_str().len();
        of(role, name) && !observed.roles.iter().any(|other| longer(other) && of(other, name))
    })
}
