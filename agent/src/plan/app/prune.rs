//! What is pruned: per role and destination, and never what serves or what any tag called latest means.

use std::collections::BTreeSet;

use dhow_proto::model::kamal;

use super::{View, by_role};
use crate::engine::{ContainerState, ObservedContainer, familiar};

/// Stopped containers beyond the newest `retain` of each role.
pub(super) fn containers<'a>(view: &View<'a>, retain: u32) -> Vec<&'a ObservedContainer> {
    let retain = usize::try_from(retain).unwrap_or(usize::MAX);
    let mut gone = Vec::new();
    let latest = view.latest_id();
    for containers in by_role(view).into_values() {
        // With a crash of the Engine everything may have stopped: what is about to be started again is no old container.
        let current = match containers.iter().any(|c| c.state.is_up()) {
            true => None,
            false => containers.iter().find(|c| Some(c.image_id.as_str()) == latest),
        };
        let current = current.map(|c| c.id.clone());
        let old = containers.into_iter().filter(|c| Some(&c.id) != current.as_ref());
        let stopped = old.filter(|c| {
            matches!(
                c.state,
                ContainerState::Created | ContainerState::Exited | ContainerState::Dead
            )
        });
        gone.extend(stopped.skip(retain));
    }
    gone
}

/// References that neither a remaining container of the service nor a wanted tag needs.
pub(super) fn images(view: &View<'_>, gone: &BTreeSet<&str>) -> Vec<String> {
    let repository = familiar(&view.intent.repository);
    let remaining: Vec<&ObservedContainer> =
        view.observed.containers.iter().filter(|c| !gone.contains(c.id.as_str())).collect();
    let used_references: BTreeSet<&str> = remaining.iter().map(|c| familiar(&c.image)).collect();
    let used_images: BTreeSet<&str> = remaining.iter().map(|c| c.image_id.as_str()).collect();
    let staged = view.intent.staged.as_ref().map(|s| s.version.as_str());
    let wanted = view.intent.latest.as_ref().map(|l| l.version.as_str());
    let mut references = Vec::new();
    for image in &view.observed.images {
        let service = image.labels.get(kamal::LABEL_SERVICE).map(String::as_str);
        if service != Some(view.app.service.as_str()) || used_images.contains(image.id.as_str()) {
            continue;
        }
        for reference in &image.tags {
            let Some((repo, tag)) = reference.rsplit_once(':') else { continue };
            // Another destination's latest is another app's current version.
            let latest = tag == "latest" || tag.starts_with("latest-");
            let kept = latest || Some(tag) == staged || Some(tag) == wanted;
            if familiar(repo) == repository
                && !kept
                && !used_references.contains(familiar(reference))
            {
                references.push(reference.clone());
            }
        }
    }
    references
}
