//! What a status tells of the observed state.

use std::collections::BTreeSet;

use dhow_proto::model::intent::{Desired, HostPart, Variant};
use dhow_proto::model::status::Serving;
use dhow_proto::model::{App, BlobDigest, ContainerName, ImageDigest, RoleName, Unit, Version};
use serde::Serialize;

use super::observed::{Observed, ObservedRole};
use super::wanted::Wanted;
use crate::engine::ObservedContainer;
use crate::proxy::RouteState;

/// Containers that serve now, whichever generation they belong to; empty for units other than roles.
pub fn serving(wanted: &Wanted, observed: &Observed) -> Vec<Serving> {
    let (Observed::Role(observed), Some((app, role))) = (observed, role_of(&wanted.intent.unit))
    else {
        return Vec::new();
    };
    let live = super::current::live(wanted, observed);
    let mut found: Vec<Serving> = live.iter().filter_map(|c| one(app, role, c, observed)).collect();
    let count = u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
    for one in &mut found {
        one.share = 100 / count;
    }
    found
}

fn one(
    app: &App,
    role: &RoleName,
    container: &ObservedContainer,
    observed: &ObservedRole,
) -> Option<Serving> {
    let digest = observed
        .images
        .values()
        .find(|i| i.id == container.image_id)
        .and_then(|image| {
            let repository = container.image.rsplit_once(':').map_or("", |(repo, _)| repo);
            image.digest_in(repository)
        })
        .unwrap_or(&container.image_id);
    Some(Serving {
        container: ContainerName::try_from(container.name.as_str()).ok()?,
        version: version_of(&app.role_prefix(role), &container.name)?,
        digest: ImageDigest::try_from(digest).ok(),
        share: 100,
    })
}

/// Version in a container's name: what follows the prefix, without `_replaced_…`.
pub(crate) fn version_of(prefix: &str, name: &str) -> Option<Version> {
    let version = name.strip_prefix(prefix)?.strip_prefix('-')?;
    let version = version.split_once("_replaced_").map_or(version, |(v, _)| v);
    Version::try_from(version).ok()
}

/// True where kamal-proxy answers 503 for the role on purpose.
pub fn is_maintenance(wanted: &Wanted, observed: &Observed) -> bool {
    let (Observed::Role(observed), Some((app, role))) = (observed, role_of(&wanted.intent.unit))
    else {
        return false;
    };
    observed
        .proxy
        .routes
        .get(&app.role_prefix(role))
        .is_some_and(|route| route.state == RouteState::Stopped)
}

/// Digest the staged image of an app unit resolved to: the registry's, else the image's id.
pub fn staged_digest(wanted: &Wanted, observed: &Observed) -> Option<ImageDigest> {
    let (Desired::App(app), Observed::App(observed)) = (&wanted.intent.desired, observed) else {
        return None;
    };
    let staged = app.staged.as_ref()?;
    let reference = format!("{}:{}", app.repository, staged.version);
    let image = observed.image(&reference)?;
    let digest = image.digest_in(&app.repository).unwrap_or(&image.id);
    ImageDigest::try_from(digest).ok()
}

pub(super) fn role_of(unit: &Unit) -> Option<(&App, &RoleName)> {
    match unit {
        Unit::Role(app, role) => Some((app, role)),
        Unit::Proxy | Unit::App(_) | Unit::Accessory(..) | Unit::Agent | Unit::Task { .. } => None,
    }
}

/// Id of the image tagged latest, in whichever repository the role's containers come from.
pub(super) fn latest_image<'a>(app: &App, observed: &'a ObservedRole) -> Option<&'a str> {
    let tag = format!(":{}", app.latest_tag());
    observed.images.iter().find(|(name, _)| name.ends_with(&tag)).map(|(_, i)| i.id.as_str())
}

/// What the label `dhow.intent` is the digest of: all that shapes a container, and nothing else.
#[derive(Serialize)]
struct Shape<'a> {
    template: BlobDigest,
    config_host: &'a str,
    ssh_user: Option<&'a str>,
    run_directory: Option<&'a str>,
    image: Option<&'a str>,
    boot: u64,
}

/// Value of the label `dhow.intent` for a variant.
pub(crate) fn intent_digest(host: &HostPart, boot: u64, variant: &Variant) -> BlobDigest {
    let shape = Shape {
        template: variant.template.digest,
        config_host: host.config_host.as_str(),
        ssh_user: host.ssh_user.as_deref(),
        run_directory: host.run_directory.as_deref(),
        image: variant.digest.as_ref().map(ImageDigest::as_str),
        boot,
    };
    BlobDigest::of(&serde_json::to_vec(&shape).expect("strings and numbers are JSON"))
}

/// The labels of every variant of a role's intent.
pub(super) fn intent_digests(wanted: &Wanted) -> BTreeSet<BlobDigest> {
    let boot = match &wanted.intent.desired {
        Desired::Role(role) => role.boot,
        _ => return BTreeSet::new(),
    };
    wanted.variants().map(|(v, _)| intent_digest(&wanted.intent.host, boot, v)).collect()
}

/// Value of the label `dhow.intent` that a role's intent asks for.
#[cfg(test)]
pub(crate) fn intent_label(wanted: &Wanted) -> String {
    intent_digests(wanted).first().map(ToString::to_string).unwrap_or_default()
}
