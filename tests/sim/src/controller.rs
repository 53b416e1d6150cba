//! A controller process: every room of the real one but SQLite, on the simulated network.

use std::sync::Arc;

use anyhow::Context as _;
use dhow_controller::blob::{Blobs, Place};
use dhow_controller::ca::{Ca, Revocations, Tokens, WrapSecret};
use dhow_controller::clock::Clock;
use dhow_controller::server::Rooms;
use dhow_controller::services::services;
use dhow_controller::settings::{Layer, Settings};
use dhow_controller::store::Store;
use dhow_controller::supervise::{BoxError, Supervisor};
use dhow_controller::transport::{self, Listener, Tls};

use crate::gate::Gate;
use crate::net::{PORT, Port};
use crate::shuffle::Shuffle;
use crate::world::{CONTROLLERS, World};

/// Runs until it is killed.
pub(crate) async fn run(world: Arc<World>, index: usize) -> anyhow::Result<()> {
    if !world.is_active(index) {
        return std::future::pending().await;
    }
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let gate = world.gates[index].subscribe();
    let store: Arc<dyn Store> = Arc::new(Gate::new(Arc::clone(&world.store), gate));
    let state_dir = world.dir.path().join("controller");
    let layer = Layer { state_dir: Some(state_dir.clone()), ..Layer::default() };
    let settings = Settings::load_with(layer, None, |_| None)?;
    let secret = WrapSecret::from_file(&world.dir.path().join("wrap"))?;
    let ca = Ca::open(Arc::clone(&store), Arc::clone(&clock), &secret, settings.validity).await?;
    let ca = Arc::new(ca);
    let revocations = Arc::new(Revocations::load(Arc::clone(&store)).await?);
    let names = CONTROLLERS.map(str::to_owned);
    let tls = Tls::new(&ca, &names, Arc::clone(&revocations), Arc::clone(&clock))?;
    let rooms = Rooms {
        settings: Arc::new(settings),
        clock: Arc::clone(&clock),
        tokens: Tokens::new(Arc::clone(&store), clock, &ca),
        store,
        ca,
        revocations,
        blobs: Blobs::open_working(&state_dir.join("blobs"), Place::Caller)?,
        breakpoints: world.breakpoints(),
        addresses: names.iter().map(|name| format!("{name}:{PORT}")).collect(),
    };
    let mut supervisor = Supervisor::new();
    let routes = services(&rooms, &mut supervisor)
        .await
        .map_err(|error| anyhow::anyhow!("could not start the services: {error}"))?;
    let port = Port::bind().await.context("could not listen")?;
    let listener = Listener::over(port, Arc::new(tls));
    let (accept, incoming) = listener.start(supervisor.shutdown().clone());
    supervisor.spawn("accept", |_| async move {
        accept.await;
        Ok::<(), BoxError>(())
    });
    let mut numbers = world.scenario.numbers.clone();
    let shuffle = Shuffle::new(world.scenario.odds, numbers.fork());
    supervisor.spawn("serve", |shutdown| async move {
        let server = transport::server().layer(shuffle).add_routes(routes);
        server.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await
    });
    supervisor.run(std::future::pending()).await.context("the controller ended")
}
