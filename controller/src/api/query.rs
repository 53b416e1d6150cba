//! Questions to hosts: asked of all at once, answered as each answers.

use std::time::Duration;

use dhow_proto::model::{App, HostName};
use dhow_proto::wire;
use tokio::sync::mpsc;
use tonic::Status;
use wire::query_request::Kind as Ask;
use wire::request::Kind as Put;

use crate::gateway::Fleet;
use crate::host::Hosts;

/// Longest deadline a client may ask for; also the default.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// Most hosts of one query.
const MAX_HOSTS: usize = 20_000;
/// Answers waiting for a slow client.
const ANSWERS: usize = 32;

/// Checks a query and turns it into what hosts are asked.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the field.
pub(crate) fn parse(
    request: wire::QueryRequest,
    app: &App,
) -> Result<(Vec<HostName>, Duration, Put), Status> {
    if request.hosts.len() > MAX_HOSTS {
        return Err(Status::invalid_argument("hosts: too many"));
    }
    let hosts = dhow_proto::model::error::each(request.hosts, "hosts", HostName::try_from)
        .map_err(|e| Status::invalid_argument(e.to_string()))?;
    let deadline = request
        .deadline
        .and_then(|d| Duration::try_from(d).ok())
        .unwrap_or(MAX_DEADLINE)
        .min(MAX_DEADLINE);
    let put = match request.kind {
        // The app is the one the caller has a right on, whatever the question says.
        Some(Ask::Containers(ask)) => {
            Put::Containers(wire::ListContainers { app: Some(app.into()), ..ask })
        }
        Some(Ask::Images(ask)) => Put::Images(ask),
        Some(Ask::Logs(ask)) => Put::Logs(wire::ReadLogs { app: Some(app.into()), ..ask }),
        Some(Ask::Version(ask)) => Put::Version(wire::AskVersion { app: Some(app.into()), ..ask }),
        None => return Err(Status::invalid_argument("kind: is missing")),
    };
    Ok((hosts, deadline, put))
}

/// Asks every host; the receiver gets one answer or more a host, and ends when all are done. A client that leaves
/// drops the receiver, and the tasks end with their next answer.
pub(crate) fn ask(
    fleet: &Fleet,
    hosts: &Hosts,
    names: Vec<HostName>,
    deadline: Duration,
    put: &Put,
    id: &str,
) -> mpsc::Receiver<Result<wire::QueryResponse, Status>> {
    let (answers, receiver) = mpsc::channel(ANSWERS);
    for (index, name) in names.into_iter().enumerate() {
        let (fleet, hosts, answers, put) =
            (fleet.clone(), hosts.clone(), answers.clone(), put.clone());
        let id = format!("{id}-{index}");
        // Ends by itself: when the client leaves, or at the deadline.
        tokio::spawn(async move {
            let response = |host: &str, reply, error: String| {
                Ok(wire::QueryResponse {
                    host: host.to_owned(),
                    config_host: name.to_string(),
                    reply,
                    error,
                })
            };
            let host = match hosts.resolve(&name).await {
                Ok(Some(record)) => record.name,
                Ok(None) => {
                    let _ = answers
                        .send(response("", None, format!("host {name} is not enrolled")))
                        .await;
                    return;
                }
                Err(_) => {
                    let _ = answers
                        .send(response("", None, "the store could not be read".to_owned()))
                        .await;
                    return;
                }
            };
            let mut replies = match fleet.request(&host, id, put, deadline) {
                Ok(replies) => replies,
                Err(refused) => {
                    let _ = answers.send(response(host.as_str(), None, refused.to_string())).await;
                    return;
                }
            };
            let listen = async {
                while let Some(reply) = replies.recv().await {
                    let more = reply.more;
                    if answers
                        .send(response(host.as_str(), Some(reply), String::new()))
                        .await
                        .is_err()
                        || !more
                    {
                        return true;
                    }
                }
                false
            };
            let error = match tokio::time::timeout(deadline, listen).await {
                Ok(true) => return,
                Ok(false) => format!("host {host} went away before it answered"),
                Err(_) => format!("host {host} did not answer within {} s", deadline.as_secs()),
            };
            let _ = answers.send(response(host.as_str(), None, error)).await;
        });
    }
    receiver
}
