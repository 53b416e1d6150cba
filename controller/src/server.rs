//! Puts the rooms of a controller together and serves them.
//!
//! In: settings. Out: a bound address, and a supervisor that runs until it is told to stop. Always
//! true: everything is opened and checked before the first connection is accepted, so that who can
//! connect finds a controller that works.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::breakpoint::Breakpoints;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::blob::{BlobError, Blobs};
use crate::ca::{Ca, CaError, Revocations, Tokens, WrapError, WrapSecret};
use crate::clock::Clock;
use crate::rollout;
use crate::settings::Settings;
use crate::store::sqlite::{OpenError, Sqlite};
use crate::store::{Range, Revision, Store, StoreError};
use crate::supervise::{BoxError, SuperviseError, Supervisor};
use crate::transport::{self, Listener, Tls, TlsError};

/// Where `init` keeps the names of the server's certificate: a JSON list.
pub(crate) const NAMES_KEY: &str = "controller/names";

/// How often to drop what nobody needs any more.
const HOUSEKEEPING: Duration = Duration::from_secs(5 * 60);

/// Why a controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store's file could not be opened.
    #[error("could not open the store")]
    Open(#[from] OpenError),
    /// The store failed.
    #[error("could not read the store")]
    Store(#[from] StoreError),
    /// The secret that opens the CA's key is not to be had.
    #[error("could not read the secret of the certificate authority")]
    Secret(#[from] WrapError),
    /// No usable authority.
    #[error("could not open the certificate authority")]
    Authority(#[from] CaError),
    /// `init` never ran here.
    #[error("{state_dir} holds no controller: run `dhow-controller init` first")]
    NotInitialised {
        /// Where it was looked for.
        state_dir: String,
    },
    /// The blobs could not be opened.
    #[error("could not open the blobs")]
    Blobs(#[from] BlobError),
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls(#[from] TlsError),
    /// A room refused to start.
    #[error("could not start the services")]
    Services(#[source] BoxError),
    /// The address is taken or not ours.
    #[error("could not listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What every service is made of; a cheap handle.
#[derive(Clone)]
pub struct Rooms {
    /// What was set.
    pub settings: Arc<Settings>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What must not be forgotten.
    pub store: Arc<dyn Store>,
    /// Certificates.
    pub ca: Arc<Ca>,
    /// One-time tokens.
    pub tokens: Tokens,
    /// Certificates taken back.
    pub revocations: Arc<Revocations>,
    /// Large bytes.
    pub blobs: Blobs,
    /// `HOST:PORT` under which agents and people may reach a controller.
    pub addresses: Vec<String>,
    /// Where a test may stop a rollout.
    pub breakpoints: Breakpoints,
}

/// A controller that serves.
#[derive(Debug)]
pub struct Running {
    /// The address it is bound to.
    pub address: SocketAddr,
    supervisor: Supervisor,
}

impl Running {
    /// Serves until `stop` completes, then closes everything.
    ///
    /// # Errors
    ///
    /// [`SuperviseError`] of the task that ended before.
    pub async fn until(self, stop: impl Future<Output = ()>) -> Result<(), SuperviseError> {
        self.supervisor.run(stop).await
    }

    /// Cancel it to stop the controller.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        self.supervisor.shutdown()
    }
}

/// Opens everything, asks `services` for the gRPC services, and serves them.
///
/// # Errors
///
/// [`StartError`].
pub async fn start(
    settings: Settings,
    clock: Arc<dyn Clock>,
    services: impl AsyncFnOnce(&Rooms, &mut Supervisor) -> Result<Routes, BoxError>,
) -> Result<Running, StartError> {
    let mut supervisor = Supervisor::new();
    if !settings.store_file().exists() {
        let state_dir = settings.state_dir.display().to_string();
        return Err(StartError::NotInitialised { state_dir });
    }
    let sqlite = Arc::new(Sqlite::open(&settings.store_file(), Arc::clone(&clock))?);
    let store: Arc<dyn Store> = sqlite.clone();
    let ca = open_authority(&settings, &store, &clock).await?;
    let names = server_names(&settings, &*store).await?;
    let revocations = Arc::new(Revocations::load(Arc::clone(&store)).await?);
    let tls = Arc::new(Tls::new(&ca, &names, Arc::clone(&revocations), Arc::clone(&clock))?);
    let listen = settings.listen;
    let listener = Listener::bind(listen, Arc::clone(&tls))
        .and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) =
        listener.map_err(|source| StartError::Listen { address: listen, source })?;
    let rooms = Rooms {
        addresses: addresses(&settings, &names, address.port()),
        tokens: Tokens::new(Arc::clone(&store), Arc::clone(&clock), &ca),
        blobs: Blobs::open(&settings.blob_dir())?,
        breakpoints: Breakpoints::at(settings.breakpoints.clone()),
        settings: Arc::new(settings),
        clock,
        store,
        ca,
        revocations,
    };
    let routes = services(&rooms, &mut supervisor).await.map_err(StartError::Services)?;
    supervise_store(&mut supervisor, sqlite);
    supervise_housekeeping(&mut supervisor, &rooms);
    supervise_certificates(&mut supervisor, &rooms, tls, names);
    serve(&mut supervisor, listener, routes);
    Ok(Running { address, supervisor })
}

async fn open_authority(
    settings: &Settings,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Ca>, StartError> {
    if store.get("ca".into()).await?.is_none() {
        let state_dir = settings.state_dir.display().to_string();
        return Err(StartError::NotInitialised { state_dir });
    }
    let secret = WrapSecret::from_file(&settings.ca_passphrase_file)?;
    let (store, clock) = (Arc::clone(store), Arc::clone(clock));
    Ok(Arc::new(Ca::open(store, clock, &secret, settings.validity).await?))
}

/// The names set, else those `init` stored.
async fn server_names(settings: &Settings, store: &dyn Store) -> Result<Vec<String>, StartError> {
    if !settings.names.is_empty() {
        return Ok(settings.names.clone());
    }
    let stored = store.get(NAMES_KEY.into()).await?;
    let names = stored.and_then(|entry| serde_json::from_slice(&entry.value).ok());
    names.ok_or_else(|| {
        StoreError::Unavailable { reason: format!("{NAMES_KEY} is missing or damaged") }.into()
    })
}

fn addresses(settings: &Settings, names: &[String], port: u16) -> Vec<String> {
    if !settings.addresses.is_empty() {
        return settings.addresses.clone();
    }
    let address = |name: &String| match name.parse() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{name}:{port}"),
    };
    names.iter().map(address).collect()
}

fn serve(supervisor: &mut Supervisor, listener: Listener, routes: Routes) {
    let (accept, incoming) = listener.start(supervisor.shutdown().clone());
    supervisor.spawn("accept", |_| async move {
        accept.await;
        Ok::<(), Infallible>(())
    });
    supervisor.spawn("serve", |shutdown| async move {
        let server = transport::server().add_routes(routes);
        server.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await
    });
}

fn supervise_store(supervisor: &mut Supervisor, sqlite: Arc<Sqlite>) {
    supervisor.spawn("store", |shutdown| async move {
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            // Only looks; the store has logged why.
            () = sqlite.stopped() => Err(StoreError::Closed),
        }
    });
}

fn supervise_certificates(
    supervisor: &mut Supervisor,
    rooms: &Rooms,
    tls: Arc<Tls>,
    names: Vec<String>,
) {
    let revocations = Arc::clone(&rooms.revocations);
    supervisor.spawn("revocations", |shutdown| async move { revocations.follow(&shutdown).await });
    let (ca, interval) = (Arc::clone(&rooms.ca), rooms.settings.validity.server / 3);
    supervisor.spawn("server-certificate", |shutdown| async move {
        while !ends_within(&shutdown, interval).await {
            // The old certificate serves for twice as long again, so one failure is no end.
            match tls.renew(&ca, &names) {
                Ok(()) => tracing::info!("renewed the server's certificate"),
                Err(error) => tracing::error!(%error, "could not renew the server's certificate"),
            }
        }
        Ok::<(), Infallible>(())
    });
}

fn supervise_housekeeping(supervisor: &mut Supervisor, rooms: &Rooms) {
    let rooms = rooms.clone();
    supervisor.spawn("housekeeping", |shutdown| async move {
        while !ends_within(&shutdown, HOUSEKEEPING).await {
            // What is left over today goes next time.
            if let Err(error) = keep_house(&rooms).await {
                tracing::warn!(%error, "could not clean up");
            }
        }
        Ok::<(), Infallible>(())
    });
}

async fn keep_house(rooms: &Rooms) -> Result<(), BoxError> {
    let tokens = rooms.tokens.sweep().await?;
    let revoked = rooms.revocations.sweep(rooms.clock.now()).await?;
    if tokens + revoked > 0 {
        tracing::info!(tokens, revoked, "forgot expired tokens and revocations");
    }
    let Revision(now) = rooms.store.range(Range::prefix("controller/").limit(1)).await?.revision;
    let oldest = now.saturating_sub(rooms.settings.history_revisions);
    rooms.store.compact(Revision(oldest)).await?;
    let named = rollout::named_blobs(&*rooms.store, &rooms.blobs).await?;
    let forgotten = rooms.blobs.gc(named, rooms.settings.blob_grace).await?;
    if forgotten > 0 {
        tracing::info!(blobs = forgotten, "deleted blobs that nothing names");
    }
    Ok(())
}

/// Waits for `pause`; whether the controller stops meanwhile.
async fn ends_within(shutdown: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, shutdown.cancelled()).await.is_ok()
}
