//! The gRPC services of this controller, put together from its rooms.

use std::sync::Arc;

use dhow_proto::wire::control_service_server::ControlServiceServer;
use dhow_proto::wire::enrolment_service_server::EnrolmentServiceServer;
use dhow_proto::wire::fleet_service_server::FleetServiceServer;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::api::audit::Audit;
use crate::api::authorise::Authoriser;
use crate::api::{ControlApi, EnrolmentApi};
use crate::gateway::{self, Fleet, FleetGateway};
use crate::host::Hosts;
use crate::rollout::{self, Rollouts};
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
        audit: audit.clone(),
        addresses: rooms.addresses.clone(),
    };
    let rollouts = Rollouts::new(
        rollout::Rooms {
            store: rooms.store.clone(),
            blobs: rooms.blobs.clone(),
            clock: rooms.clock.clone(),
            fleet: Arc::new(fleet.clone()),
            tasks: supervisor.tasks(),
        },
        // One replica on an embedded store.
        rollout::Settings {
            replica: "local".to_owned(),
            await_client: rooms.settings.client_wait,
            breakpoints: rooms.breakpoints.clone(),
        },
    )?;
    let control = ControlApi {
        authoriser: Authoriser::new(rooms.store.clone(), rooms.revocations.clone()),
        audit: audit.clone(),
        hosts: Hosts::new(rooms.store.clone()),
        fleet: fleet.clone(),
        blobs: rooms.blobs.clone(),
        tokens: rooms.tokens.clone(),
        revocations: rooms.revocations.clone(),
        rollouts: rollouts.clone(),
        requests: Arc::default(),
    };
    supervisor
        .spawn("rollouts", move |shutdown| async move { rollouts.watch_over(shutdown).await });
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
        .add_service(EnrolmentServiceServer::new(enrolment))
        .add_service(ControlServiceServer::new(control));
    Ok(routes.routes())
}
