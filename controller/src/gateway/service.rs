//! `FleetService`: the thin edge of the gateway.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use dhow_proto::model::{BlobDigest, HostName};
use dhow_proto::wire;
use dhow_proto::wire::fleet_service_server::FleetService;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::session::{self, Rooms, check_hello};
use super::{OUTBOX, SILENCE, fetch};
use crate::api::caller;
use crate::blob::Blobs;
use crate::ca::{Peer, Revocations};
use crate::host::Hosts;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of a blob in one message.
const CHUNK: usize = 32 * 1024;

/// Serves agents. Every session's task is tracked and ends with the shutdown token.
#[derive(Clone)]
pub struct FleetGateway {
    rooms: Rooms,
    hosts: Hosts,
    blobs: Blobs,
    revocations: Arc<Revocations>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl FleetGateway {
    /// A gateway over these rooms. `tasks` is awaited by whoever shuts down.
    pub fn new(
        rooms: Rooms,
        blobs: Blobs,
        revocations: Arc<Revocations>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let hosts = Hosts::new(rooms.store.clone());
        Self { rooms, hosts, blobs, revocations, tasks, shutdown }
    }

    /// The host of a call's certificate, if it may speak at all.
    async fn host<T>(&self, request: &Request<T>) -> Result<(HostName, Peer), Status> {
        let (host, caller) = caller::host(request)?;
        if let Err(revoked) = self.revocations.check(&caller.peer) {
            tracing::warn!(host.name = %host, remote = %caller.remote, reason = %revoked, "a revoked host was refused");
            return Err(Status::permission_denied(revoked.to_string()));
        }
        let record = self.hosts.get(&host).await.map_err(|error| {
            tracing::error!(host.name = %host, %error, "the record of a host could not be read");
            Status::unavailable("the store could not be read; try again")
        })?;
        match record {
            Some(record) if !record.revoked => Ok((host, caller.peer)),
            Some(_) => {
                tracing::warn!(host.name = %host, remote = %caller.remote, "a revoked host was refused");
                Err(Status::permission_denied(format!("host {host} is revoked")))
            }
            None => {
                tracing::warn!(host.name = %host, remote = %caller.remote, "a host without a record was refused");
                Err(Status::permission_denied(format!("host {host} is not enrolled here")))
            }
        }
    }
}

/// Returns once the certificate is revoked.
async fn revoked(revocations: &Revocations, peer: &Peer) {
    let mut changes = revocations.changes();
    while revocations.check(peer).is_ok() {
        if changes.changed().await.is_err() {
            // Nothing more can be revoked here.
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl FleetService for FleetGateway {
    type SessionStream = BoxStream<wire::SessionResponse>;
    type FetchStream = BoxStream<wire::FetchResponse>;
    type TunnelStream = BoxStream<wire::TunnelResponse>;

    async fn session(
        &self,
        request: Request<Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (host, peer) = self.host(&request).await?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(SILENCE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello in time"))??
            .and_then(|m| m.message);
        let Some(wire::session_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message of a session must be a hello"));
        };
        let protocol = check_hello(&hello, &host)?;
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let (rooms, shutdown, revocations) =
            (self.rooms.clone(), self.shutdown.clone(), self.revocations.clone());
        self.tasks.spawn(async move {
            tracing::info!(host.name = %host, agent = %hello.agent_version, "session begins");
            let fleet = rooms.fleet.clone();
            let session = session::run(rooms, host.clone(), hello, protocol, inbound, outbox);
            tokio::select! {
                end = session => {
                    let source = std::error::Error::source(&end).map(ToString::to_string);
                    tracing::info!(host.name = %host, reason = %end, source, "session ended");
                }
                // Dropping a session mid-message loses nothing: the agent reconnects and says all again.
                () = revoked(&revocations, &peer) => {
                    tracing::warn!(host.name = %host, "the host was revoked: its session ends");
                    fleet.disconnect(&host, "the host was revoked", true);
                }
                () = shutdown.cancelled() => fleet.disconnect(&host, "the controller stops", false),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing).map(Ok))))
    }

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let (host, _) = self.host(&request).await?;
        let wire::FetchRequest { digest, offset } = request.into_inner();
        let digest = BlobDigest::try_from(digest.as_ref())
            .map_err(|e| Status::invalid_argument(e.under("digest").to_string()))?;
        let allowed = fetch::may_read(&self.rooms.store, &host, digest)
            .await
            .map_err(|_| Status::unavailable("the store could not be read; try again"))?;
        // The same answer for "not yours" and "not there": a digest must not be a way to ask.
        let missing = || {
            Status::not_found(format!("no intent of {host} names blob {digest}, or it is not here"))
        };
        if !allowed {
            tracing::warn!(host.name = %host, blob = %digest, "a host asked for a blob that is not its own");
            return Err(missing());
        }
        let bytes = self.blobs.load(digest).await.map_err(|error| {
            tracing::error!(blob = %digest, %error, "a blob could not be read");
            missing()
        })?;
        let total = bytes.len() as u64;
        let from = usize::try_from(offset).ok().filter(|o| *o <= bytes.len());
        let rest: Bytes =
            bytes.slice(from.ok_or_else(|| Status::out_of_range("offset is past the end"))?..);
        // At least one message, so that an empty blob says its size too.
        let count = rest.len().div_ceil(CHUNK).max(1);
        let chunks = (0..count).map(move |i| {
            let data = rest.slice(i * CHUNK..rest.len().min((i + 1) * CHUNK));
            Ok(wire::FetchResponse { data, total })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn tunnel(
        &self,
        request: Request<Streaming<wire::TunnelRequest>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let (host, _) = self.host(&request).await?;
        // No request opens tunnels yet, so no id can be known.
        Err(Status::not_found(format!("no tunnel was offered to {host} under this id")))
    }
}
