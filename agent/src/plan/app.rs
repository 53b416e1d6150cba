//! Plans what an app's roles share on a host.

use std::collections::{BTreeMap, BTreeSet};

use dhow_proto::model::intent::{
    AppIntent, Desired, LatestTag, Prepare, Prune, StagedImage, StopStale,
};
use dhow_proto::model::status::Held;
use dhow_proto::model::{App, BlobDigest, ImageRef, RoleName, Unit, Version, kamal};
use dhow_proto::wire::FailureKind;

use super::current::Live;
use super::hold::holder;
use super::observed::{LockView, ObservedApp, Routes};
use super::role::asset_source;
use super::serving::version_of;
use super::step::{ContainerRef, Mark, Step};
use super::wanted::{Bundle, Mode, Wanted};
use super::{Impossible, Plan, unsupported};
use crate::engine::{ContainerState, ObservedContainer};

mod prune;

/// An app on a host, as observed.
struct View<'a> {
    app: &'a App,
    intent: &'a AppIntent,
    observed: &'a ObservedApp,
}

impl<'a> View<'a> {
    fn image(&self, tag: &str) -> ImageRef {
        ImageRef { repository: self.intent.repository.clone(), tag: tag.to_owned() }
    }

    /// Containers of this app, newest created first.
    fn ours(&self) -> impl Iterator<Item = &'a ObservedContainer> + '_ {
        self.observed.containers.iter().filter(|c| self.is_ours(c))
    }

    /// Containers of a role of this app, newest created first.
    fn of_role(&self, role: &str) -> Vec<ObservedContainer> {
        self.ours().filter(|c| c.label(kamal::LABEL_ROLE) == role).cloned().collect()
    }

    /// True for containers with the app's labels; Kamal's own filter, so the destination label must be there.
    fn is_ours(&self, container: &ObservedContainer) -> bool {
        container.label(kamal::LABEL_SERVICE) == self.app.service.as_str()
            && container.labels.get(kamal::LABEL_DESTINATION).map(String::as_str)
                == Some(self.app.destination_label())
            && container.labels.contains_key(kamal::LABEL_ROLE)
    }

    fn latest_id(&self) -> Option<&'a str> {
        let reference = self.image(&self.app.latest_tag()).to_string();
        self.observed.image(&reference).map(|i| i.id.as_str())
    }

    /// Versions of a role that serve.
    fn live_versions(&self, role: &RoleName) -> BTreeSet<Version> {
        let prefix = self.app.role_prefix(role);
        let containers = self.of_role(role.as_str());
        let live = Live::of(&prefix, &containers, self.latest_id(), &self.observed.proxy.routes);
        live.iter().filter_map(|c| version_of(&prefix, &c.name)).collect()
    }
}

pub(super) fn plan(wanted: &Wanted, intent: &AppIntent, observed: &ObservedApp) -> Plan {
    let Unit::App(app) = &wanted.intent.unit else { return unsupported(&wanted.intent.unit) };
    if matches!(wanted.mode, Mode::Abandon { .. }) {
        return Plan::Steps(Vec::new());
    }
    let view = View { app, intent, observed };
    match steps(&view, wanted) {
        Ok(steps) => Plan::Steps(steps),
        Err(plan) => plan,
    }
}

fn steps(view: &View<'_>, wanted: &Wanted) -> Result<Vec<Step>, Plan> {
    let mut steps = Vec::new();
    // First: where a later step fails, the lock must not stay.
    steps.extend(lock(view)?);
    if !view.observed.files.directory {
        steps.push(Step::CreateAppDirectory);
    }
    if let Some(staged) = &view.intent.staged {
        stage(view, wanted, staged, &mut steps)?;
    }
    if let Some(stale) = &view.intent.stop_stale {
        stop_stale(view, stale, &mut steps)?;
    }
    if let Some(wanted_files) = &view.intent.prepare {
        prepare(view, wanted, wanted_files, &mut steps)?;
    }
    if let Some(tag) = &view.intent.latest {
        latest(view, tag, &mut steps)?;
    }
    if let Some(prune) = &view.intent.prune {
        self::prune(view, prune, &mut steps)?;
    }
    Ok(steps)
}

/// True where the plan depends on what kamal-proxy routes.
pub(crate) fn asks_routes(wanted: &Wanted, observed: &ObservedApp) -> bool {
    let (Unit::App(app), Desired::App(intent)) = (&wanted.intent.unit, &wanted.intent.desired)
    else {
        return false;
    };
    let view = View { app, intent, observed };
    let stale = intent
        .stop_stale
        .as_ref()
        .is_some_and(|stale| is_due(&view, stale) && suspects(&view, stale).next().is_some());
    let tags = intent.latest.as_ref().is_some_and(|tag| tag.when_serving && !is_tagged(&view, tag));
    let assets = intent.prepare.as_ref().is_some_and(|files| {
        files.roles.iter().any(|role| {
            let volume = format!("{}-{}", role.role, files.version);
            role.asset_path.is_some()
                && (is_prepared_anew(&view, files)
                    || !observed.files.asset_volumes.contains(&volume))
        })
    });
    stale || tags || assets
}

fn lock(view: &View<'_>) -> Result<Option<Step>, Plan> {
    match (&view.intent.lock, &view.observed.lock) {
        (Some(lock), LockView::Foreign(details)) => {
            let held = Held::ForeignLock(holder(details));
            Err(match lock.wait {
                Some(_) => Plan::Waiting(Impossible::new(FailureKind::Locked, held.to_string())),
                None => Plan::Held(held),
            })
        }
        (Some(_), LockView::Free) => Ok(Some(Step::TakeLock)),
        (None, LockView::Ours(_)) => Ok(Some(Step::ReleaseLock)),
        (Some(_), LockView::Ours(_)) | (None, LockView::Free | LockView::Foreign(_)) => Ok(None),
    }
}

fn stage(
    view: &View<'_>,
    wanted: &Wanted,
    staged: &StagedImage,
    steps: &mut Vec<Step>,
) -> Result<(), Plan> {
    let image = view.image(staged.version.as_str());
    let found = view.observed.image(&image.to_string());
    let pinned = found.is_some_and(|i| {
        staged.digest.as_ref().is_none_or(|d| i.is(&image.repository, d.as_str()))
    });
    let digest = staged.digest.clone();
    if staged.local_only {
        if found.is_none() {
            let reason = format!("image {image} is not on this host, and a rollback does not pull");
            return Err(Plan::impossible(FailureKind::ImageMissing, reason));
        }
        if !pinned {
            steps.push(Step::VerifyImage { image, digest });
        }
        return Ok(());
    }
    let due = view.observed.marks.pulled.is_none_or(|n| n < staged.pull);
    if !due && pinned {
        return Ok(());
    }
    if let Bundle::Locked(why) = &wanted.secrets.registry {
        return Err(Plan::AwaitingSecrets(why.clone()));
    }
    steps.push(audit(format!("Pulled image with version {}", staged.version)));
    steps.push(Step::Pull { image: image.clone() });
    steps.push(Step::VerifyImage { image, digest });
    if due {
        steps.push(Step::Remember(Mark::Pulled(staged.pull)));
    }
    Ok(())
}

/// Containers of dhow's own are left to their role, which stops what it replaced.
fn stop_stale(view: &View<'_>, stale: &StopStale, steps: &mut Vec<Step>) -> Result<(), Plan> {
    if !is_due(view, stale) {
        return Ok(());
    }
    if suspects(view, stale).next().is_some() {
        know_routes(view)?;
    }
    for (role, c) in suspects(view, stale) {
        let prefix = view.app.role_prefix(role);
        let containers = view.of_role(role.as_str());
        let live = Live::of(&prefix, &containers, view.latest_id(), &view.observed.proxy.routes);
        if !live.has(&c.id) {
            let proxied = view.observed.proxy.routes.get(&prefix).is_some();
            let grace = (!proxied).then_some(stale.drain_timeout);
            steps.push(Step::Stop { container: ContainerRef::observed(c), grace });
        }
    }
    steps.push(Step::Remember(Mark::Stale(stale.number)));
    Ok(())
}

fn is_due(view: &View<'_>, stale: &StopStale) -> bool {
    view.observed.marks.stale.is_none_or(|n| n < stale.number)
}

/// Containers that run and are none of dhow's: stale unless they are live.
fn suspects<'a>(
    view: &View<'a>,
    stale: &'a StopStale,
) -> impl Iterator<Item = (&'a RoleName, &'a ObservedContainer)> {
    let ours: Vec<&ObservedContainer> = view.ours().collect();
    stale.roles.iter().flat_map(move |role| {
        let of_role =
            ours.clone().into_iter().filter(|c| c.label(kamal::LABEL_ROLE) == role.as_str());
        of_role
            .filter(|c| c.state.is_up() && !c.labels.contains_key(kamal::LABEL_INTENT))
            .map(move |c| (role, c))
    })
}

/// Without the table of a proxy that runs, what is live is not known.
fn know_routes(view: &View<'_>) -> Result<(), Plan> {
    let proxy = &view.observed.proxy;
    let runs = proxy.container.as_ref().is_some_and(|c| c.state == ContainerState::Running);
    if runs && proxy.routes == Routes::Unknown {
        let reason = "kamal-proxy does not answer yet";
        return Err(Plan::Waiting(Impossible::new(FailureKind::ProxyMissing, reason)));
    }
    Ok(())
}

fn prepare(
    view: &View<'_>,
    wanted: &Wanted,
    files: &Prepare,
    steps: &mut Vec<Step>,
) -> Result<(), Plan> {
    let there = &view.observed.files;
    let version = &files.version;
    let again = is_prepared_anew(view, files);
    let pages = !files.error_pages.is_empty();
    // As in `latest`.
    let gone = is_former(view, version)
        && view.observed.image(&view.image(version.as_str()).to_string()).is_none();
    if pages && (again || !there.error_pages.contains(version.as_str())) {
        steps.push(Step::WriteErrorPages { version: version.clone() });
    }
    for role in &files.roles {
        let volume = format!("{}-{version}", role.role);
        if let Some(path) = &role.asset_path
            && (again || !there.asset_volumes.contains(&volume))
            && !gone
        {
            // Assets are in the image; a stage that stages nothing relies on what is there.
            let image = view.image(version.as_str());
            let old = view.live_versions(&role.role).into_iter().find(|v| v != version);
            let path = asset_source(path).to_owned();
            let (role, version) = (role.role.clone(), version.clone());
            steps.push(Step::BridgeAssets { role, version, old, image, path });
        }
        if role.tls.is_some() && (again || !there.certificates.contains(role.role.as_str())) {
            if let Some(Bundle::Locked(why)) = wanted.secrets.tls.get(&role.role) {
                return Err(Plan::AwaitingSecrets(why.clone()));
            }
            steps.push(Step::WriteCertificate { role: role.role.clone() });
        }
    }
    if again {
        steps.push(Step::Remember(Mark::Prepared(prepared_key(view.intent, files))));
    }
    Ok(())
}

/// True where something else was laid out last.
fn is_prepared_anew(view: &View<'_>, files: &Prepare) -> bool {
    view.observed.marks.prepared != Some(prepared_key(view.intent, files))
}

/// Names everything that is laid out.
fn prepared_key(intent: &AppIntent, files: &Prepare) -> BlobDigest {
    let mut text = format!("{}\n{}\n", intent.repository, files.version);
    for role in &files.roles {
        let tls = role.tls.as_ref().map(|t| t.ciphertext.digest.to_string()).unwrap_or_default();
        let assets = role.asset_path.as_deref().unwrap_or_default();
        text.push_str(&format!("role {} {assets} {tls}\n", role.role));
    }
    for page in &files.error_pages {
        text.push_str(&format!("page {} {}\n", page.name, page.content.digest));
    }
    BlobDigest::of(text.as_bytes())
}

fn latest(view: &View<'_>, tag: &LatestTag, steps: &mut Vec<Step>) -> Result<(), Plan> {
    let image = view.image(tag.version.as_str());
    if view.observed.image(&image.to_string()).is_none() {
        // Staged by this same plan, or a host where the version never came.
        if steps.iter().any(|s| matches!(s, Step::Pull { image: i } if *i == image))
            && !tag.when_serving
        {
            steps.extend(tag_steps(view, image));
            return Ok(());
        }
        // A rollout says again what settled before it. Whoever took that image away took its tag as well.
        if tag.when_serving || is_former(view, &tag.version) {
            return Ok(());
        }
        let reason = format!("image {image} is not on this host");
        return Err(Plan::impossible(FailureKind::ImageMissing, reason));
    }
    if is_tagged(view, tag) {
        return Ok(());
    }
    if tag.when_serving {
        know_routes(view)?;
        let serves =
            |role: &RoleName| view.live_versions(role).iter().eq(std::iter::once(&tag.version));
        if view.intent.roles.is_empty() || !view.intent.roles.iter().all(serves) {
            return Ok(());
        }
    }
    steps.extend(tag_steps(view, image));
    Ok(())
}

/// True where the latest tag means the version already.
fn is_tagged(view: &View<'_>, tag: &LatestTag) -> bool {
    let image = view.observed.image(&view.image(tag.version.as_str()).to_string());
    image.is_some_and(|found| view.latest_id() == Some(found.id.as_str()))
}

/// True for a version that an earlier rollout was about.
fn is_former(view: &View<'_>, version: &Version) -> bool {
    view.intent.staged.as_ref().is_some_and(|staged| staged.version != *version)
}

fn tag_steps(view: &View<'_>, image: ImageRef) -> [Step; 2] {
    let to = view.image(&view.app.latest_tag());
    [audit(format!("Tagging {image} as the latest image")), Step::Tag { image, to }]
}

fn prune(view: &View<'_>, prune: &Prune, steps: &mut Vec<Step>) -> Result<(), Plan> {
    if view.observed.marks.pruned.is_some_and(|n| n >= prune.number) {
        return Ok(());
    }
    // Only what does not run, so what kamal-proxy routes to need not be known.
    steps.push(audit("Pruned containers".to_owned()));
    let gone = prune::containers(view, prune.retain);
    steps.extend(gone.iter().map(|c| Step::Remove { container: ContainerRef::observed(c) }));
    steps.push(audit("Pruned images".to_owned()));
    steps.push(Step::PruneDangling);
    let ids: BTreeSet<&str> = gone.iter().map(|c| c.id.as_str()).collect();
    for reference in prune::images(view, &ids) {
        steps.push(Step::RemoveImage { reference });
    }
    steps.push(Step::Remember(Mark::Pruned(prune.number)));
    Ok(())
}

fn audit(text: String) -> Step {
    Step::Audit { role: None, text }
}

/// Containers by role, in the order observed.
fn by_role<'a>(view: &View<'a>) -> BTreeMap<&'a str, Vec<&'a ObservedContainer>> {
    let mut roles: BTreeMap<&str, Vec<&ObservedContainer>> = BTreeMap::new();
    for c in view.observed.containers.iter().filter(|c| view.is_ours(c)) {
        roles.entry(c.label(kamal::LABEL_ROLE)).or_default().push(c);
    }
    roles
}
