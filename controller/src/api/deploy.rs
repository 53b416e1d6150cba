//! The stream of a rollout: starts or attaches, then passes events, hook requests and reports between client and
//! driver. A client that leaves changes nothing for the rollout.

use dhow_proto::model::App;
use dhow_proto::model::error::{At as _, FieldError};
use dhow_proto::wire;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use wire::deploy_request::Message as Up;

use super::audit::Audit;
use super::authorise::Granted;
use super::code;
use crate::rollout::{ClientReport, Rollouts};

/// Messages waiting for a slow client; its own stream waits then, nobody else.
const OUTBOX: usize = 32;

type Outbox<T> = mpsc::Receiver<Result<T, Status>>;

fn about(app: Option<wire::AppRef>) -> Result<App, Status> {
    let app =
        app.ok_or_else(|| FieldError::missing("app")).and_then(|a| App::try_from(a).at("app"));
    app.map_err(|e| Status::invalid_argument(e.to_string()))
}

/// Serves one client of a rollout.
///
/// # Errors
///
/// What keeps the rollout from starting or the client from attaching; nothing was changed then.
pub(crate) async fn serve(
    rollouts: &Rollouts,
    audit: &Audit,
    granted: Granted,
    mut inbound: Streaming<wire::DeployRequest>,
) -> Result<Outbox<wire::DeployResponse>, Status> {
    let first = inbound.message().await?.and_then(|m| m.message);
    let (id, hooks, after) = match first {
        Some(Up::Start(start)) => {
            let app = about(start.app.clone())?;
            granted.on(&app)?;
            let hooks = start.hooks.clone();
            let what = format!("{} {} {}", start.command, app, start.version);
            let started = rollouts.start(granted.user.name.as_str(), start).await;
            let result = started.as_ref().map(|_| ()).map_err(ToString::to_string);
            audit
                .record(granted.user.name.as_str(), &granted.remote, Some(&app), what, result)
                .await;
            (started.map_err(|e| code::start(&e))?, hooks, 0)
        }
        Some(Up::Attach(attach)) => {
            let found = rollouts.get(&attach.rollout_id).await.map_err(|e| code::rollout(&e))?;
            let summary = found.rollout.unwrap_or_default();
            granted.on(&about(summary.app)?)?;
            (summary.id, attach.hooks, attach.after_sequence)
        }
        _ => {
            return Err(Status::invalid_argument(
                "the first message must start a rollout or attach to one",
            ));
        }
    };
    let mut attachment =
        rollouts.attach(&id, &hooks, after).await.map_err(|e| code::rollout(&e))?;
    let (outbox, outgoing) = mpsc::channel(OUTBOX);
    // Ends with the rollout or the client, whichever is first.
    tokio::spawn(async move {
        let accepted = wire::RolloutAccepted { rollout_id: id };
        let message = wire::deploy_response::Message::Accepted(accepted);
        if outbox.send(Ok(wire::DeployResponse { message: Some(message) })).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                // Cancel-safe: both are receives that lose nothing when dropped before they are ready.
                response = attachment.responses.recv() => {
                    let Some(response) = response else { return };
                    if outbox.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                message = inbound.message() => {
                    let Ok(Some(message)) = message else {
                        // The client is gone, or says no more; without it nobody reads either.
                        return;
                    };
                    let report = match message.message {
                        Some(Up::HookStarted(started)) => ClientReport::HookStarted(started),
                        Some(Up::HookOutput(output)) => ClientReport::HookOutput(output),
                        Some(Up::HookFinished(finished)) => ClientReport::HookFinished(finished),
                        Some(Up::Cancel(cancel)) => ClientReport::Cancel(cancel.reason),
                        Some(Up::Start(_) | Up::Attach(_)) | None => continue,
                    };
                    if attachment.reports.send(report).await.is_err() {
                        continue;
                    }
                }
            }
        }
    });
    Ok(outgoing)
}

/// Events of a rollout, without taking part in it.
///
/// # Errors
///
/// The rollout is not known, or the store could not be read.
pub(crate) async fn watch(
    rollouts: &Rollouts,
    id: &str,
    after: u64,
) -> Result<Outbox<wire::WatchRolloutResponse>, Status> {
    let mut events = rollouts.watch(id, after).await.map_err(|e| code::rollout(&e))?;
    let (outbox, outgoing) = mpsc::channel(OUTBOX);
    // Ends with the rollout or the client.
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if outbox.send(Ok(wire::WatchRolloutResponse { event: Some(event) })).await.is_err() {
                return;
            }
        }
    });
    Ok(outgoing)
}
