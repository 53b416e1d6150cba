//! What is an app's, and what of it somebody else did: another deployer's containers, lines of the audit log, lock.

use dhow_proto::model::intent::{Desired, Run, Traffic};
use dhow_proto::model::{App, kamal};

use super::files;
use crate::engine::ObservedContainer;
use crate::execute::ObserveError;
use crate::host::{self, About, AppMemory, Layout};
use crate::plan::{Foreign, Routes, Wanted};
use crate::proxy::RouteState;

/// Labels of the app; `destination=` finds only containers that have it, which is Kamal's filter as well.
pub(super) fn app_labels(app: &App) -> [String; 2] {
    [
        format!("{}={}", kamal::LABEL_SERVICE, app.service),
        format!("{}={}", kamal::LABEL_DESTINATION, app.destination_label()),
    ]
}

pub(super) fn has_app_labels(container: &ObservedContainer, app: &App) -> bool {
    container.label(kamal::LABEL_SERVICE) == app.service.as_str()
        && container.labels.get(kamal::LABEL_DESTINATION).map(String::as_str)
            == Some(app.destination_label())
        && container.labels.contains_key(kamal::LABEL_ROLE)
}

pub(super) fn adopted(
    app: &App,
    layout: &Layout,
    containers: &[ObservedContainer],
    lock: Option<String>,
) -> AppMemory {
    let length = std::fs::metadata(layout.audit_log(app)).map_or(0, |m| m.len());
    let strange = containers.iter().filter(|c| !c.labels.contains_key(kamal::LABEL_INTENT));
    AppMemory {
        audit_log: Some(layout.audit_log(app)),
        audit_from: length,
        own_lines: Vec::new(),
        adopted: strange.map(|c| c.id.clone()).collect(),
        lock,
    }
}

pub(super) fn foreign(
    app: &App,
    layout: &Layout,
    memory: &AppMemory,
    containers: &[ObservedContainer],
) -> Result<Foreign, ObserveError> {
    let log = layout.audit_log(app);
    let audit_line =
        host::foreign_line(&log, memory.audit_from, &memory.own_lines, About::Anything)
            .map_err(files(&log))?;
    let path = layout.lock(app);
    let lock = host::read_lock(&path).map_err(files(&path))?;
    let strange = |c: &&ObservedContainer| {
        !c.labels.contains_key(kamal::LABEL_INTENT) && !memory.adopted.contains(&c.id)
    };
    Ok(Foreign {
        audit_line,
        lock: lock.filter(|details| memory.lock.as_ref() != Some(details)),
        containers: containers.iter().filter(strange).map(|c| c.name.clone()).collect(),
        stopped: None,
    })
}

/// The service, where its traffic is stopped though it should be live.
pub(super) fn stopped_by_others(wanted: &Wanted, service: &str, routes: &Routes) -> Option<String> {
    let Desired::Role(role) = &wanted.intent.desired else { return None };
    let live = role.run == Run::Running && role.traffic == Traffic::Live;
    let stops = routes.get(service).is_some_and(|route| route.state != RouteState::Running);
    (live && stops).then(|| service.to_owned())
}
