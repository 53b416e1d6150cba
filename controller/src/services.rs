//! The gRPC services of this controller, put together from its rooms.

use dhow_proto::wire::enrolment_service_server::EnrolmentServiceServer;
use dhow_proto::wire::fleet_service_server::FleetServiceServer;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::api::EnrolmentApi;
use crate::api::audit::Audit;
use crate::gateway::{self, Fleet, FleetGateway};
use crate::server::Rooms;
use crate::supervise::{BoxError, Supervisor};

/// Builds every service and starts the tasks behind them.
///
/// # Errors
///
/// Whatever a room needs at start and does not get.
pub async fn services(rooms: &Rooms, supervisor: &mut Supervisor) -> Result<Routes, BoxError> {
    let fleet = Fleet::new();
    let audit = Audit::new(rooms.store.clone(), rooms.clock.clone());
    let sessions = TaskTracker::new();
    let gateway = FleetGateway::new(
        gateway::Rooms {
            store: rooms.store.clone(),
            fleet: fleet.clone(),
            clock: rooms.clock.clone(),
            addresses: rooms.addresses.clone(),
            ca_set: rooms.ca.ca_set().der().into_iter().map(Into::into).collect(),
        },
        rooms.blobs.clone(),
        rooms.revocations.clone(),
        sessions.clone(),
        supervisor.shutdown().clone(),
    );
    let enrolment = EnrolmentApi {
        store: rooms.store.clone(),
        ca: rooms.ca.clone(),
        tokens: rooms.tokens.clone(),
        revocations: rooms.revocations.clone(),
        clock: rooms.clock.clone(),
        audit,
        addresses: rooms.addresses.clone(),
    };
    let store = rooms.store.clone();
    supervisor.spawn("dispatch", move |shutdown| async move {
        gateway::dispatch_intents(store, fleet, shutdown).await
    });
    supervisor.spawn("sessions", move |shutdown| async move {
        shutdown.cancelled().await;
        sessions.close();
        sessions.wait().await;
        Ok::<(), BoxError>(())
    });
    let mut routes = Routes::builder();
    routes
        .add_service(FleetServiceServer::new(gateway))
        .add_service(EnrolmentServiceServer::new(enrolment));
    Ok(routes.routes())
}
