//! Carries an operation on an app across its hosts, stage by stage.
//!
//! In: starts, hook reports and cancellations from people; what hosts report. Out: intents in the store, events and hook
//! requests to clients. Always true: one rollout per app at a time; what a rollout decided is stored before it acts on
//! it; only the holder of its ownership key writes; a rollout that ends without success leaves every host with an
//! intent that nothing will retry.

mod book;
mod driver;
mod error;
mod fallback;
mod fence;
pub mod gate;
pub mod hooks;
mod hub;
pub mod intents;
mod named;
mod query;
pub mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod seams;
pub mod secrets;
pub mod stages;
mod start;
#[cfg(test)]
mod tests;

pub use error::{Locked, RolloutError, StartError};
pub use fence::{DriveError, OwnerRecord};
pub use hub::{Attachment, ClientReport};
pub use named::named_blobs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::wire;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::blob::Blobs;
use crate::clock::Clock;
use crate::host::Hosts;
use crate::store::{Store, StoreError};
use crate::supervise::Tasks;
use book::Book;
use driver::Driver;
use fence::Fence;
use hub::Hub;
use record::{RolloutId, key};
use seams::Watched;

/// Time before a driver that could not reach the store begins again from what is stored.
const RETRY: Duration = Duration::from_millis(500);

/// How often a replica looks for rollouts whose driver died; a lapsed ownership is seen at the next look.
const LOOK: Duration = Duration::from_secs(2);

/// Events of a finished rollout on their way to one client.
const REPLAY: usize = 64;

/// What rollouts are settled by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this replica: the same after a restart, another for each one that shares the store.
    pub replica: String,
    /// How long a hook waits for a client that went away, where the rollout does not say.
    pub await_client: Duration,
    /// Where a test stops drivers.
    pub breakpoints: Breakpoints,
}

/// What rollouts work with.
pub struct Rooms {
    /// Where they are stored.
    pub store: Arc<dyn Store>,
    /// Specs, secrets, templates.
    pub blobs: Blobs,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What hosts say.
    pub fleet: Arc<dyn Watched>,
    /// Where drivers run.
    pub tasks: Tasks,
}

/// Handle to the rollouts; cheap to clone.
#[derive(Clone)]
pub struct Rollouts {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    hosts: Hosts,
    settings: Settings,
    me: OwnerRecord,
    /// Rollouts at work in this process.
    hubs: Mutex<HashMap<RolloutId, Arc<Hub>>>,
}

impl Rollouts {
    /// Over these rooms. Nothing runs before [`Self::resume_all`] or [`Self::start`].
    ///
    /// # Errors
    ///
    /// [`RolloutError::Random`] where the system gives no random bytes.
    pub fn new(rooms: Rooms, settings: Settings) -> Result<Self, RolloutError> {
        let me = OwnerRecord::new(settings.replica.clone(), start::random_id()?);
        let hosts = Hosts::new(Arc::clone(&rooms.store));
        let inner = Inner { rooms, hosts, settings, me, hubs: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<RolloutId, Arc<Hub>>> {
        // The map is whole between any two of its operations.
        self.inner.hubs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn hub(&self, id: &RolloutId) -> Option<Arc<Hub>> {
        self.hubs().get(id).cloned()
    }

    /// Takes over every rollout that is not over and has no driver: at the start of a controller.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn resume_all(&self) -> Result<(), StoreError> {
        let running = self.inner.rooms.store.read_all(key::all_running()).await?;
        for entry in running.entries {
            let id = entry.key.as_str().and_then(|k| k.strip_prefix("running/"));
            let Some(id) = id.and_then(|id| RolloutId::try_from(id.to_owned()).ok()) else {
                tracing::error!(key = %entry.key, "key of a running rollout is malformed");
                continue;
            };
            self.spawn(id);
        }
        Ok(())
    }

    /// Keeps taking over what other replicas, or failures, leave behind. A task for as long as the controller runs.
    ///
    /// # Errors
    ///
    /// [`StoreError::Closed`]; other errors are waited out.
    pub async fn watch_over(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        loop {
            match self.resume_all().await {
                Ok(()) => {}
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                Err(error) => {
                    tracing::warn!(error = %error, "could not look for rollouts to resume");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                // Drop-safe: only a wait.
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Starts a driver, unless one is at work in this process.
    fn spawn(&self, id: RolloutId) {
        let hub = Arc::new(Hub::default());
        {
            let mut hubs = self.hubs();
            if hubs.contains_key(&id) {
                return;
            }
            hubs.insert(id.clone(), Arc::clone(&hub));
        }
        let rollouts = self.clone();
        self.inner.rooms.tasks.spawn("rollout", async move {
            let shutdown = rollouts.inner.rooms.tasks.shutdown().clone();
            let leaves = Leaves { rollouts: rollouts.clone(), id: id.clone() };
            tokio::select! {
                // Drop-safe: a driver can be stopped anywhere; the next one continues from what is stored.
                () = shutdown.cancelled() => {}
                result = rollouts.drive(&id, &hub) => match result {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(rollout.id = %id, error = &error as &dyn std::error::Error,
                            "driver stopped; another one will go on");
                    }
                },
            }
            drop(leaves);
        });
    }

    async fn drive(&self, id: &RolloutId, hub: &Arc<Hub>) -> Result<(), DriveError> {
        let rooms = &self.inner.rooms;
        let store = Arc::clone(&rooms.store);
        let Some(fence) = Fence::take(store, id, &self.inner.me).await? else { return Ok(()) };
        let fence = Arc::new(fence);
        let result = tokio::select! {
            result = self.drive_owned(id, hub, &fence) => result,
            // Drop-safe, as above.
            () = fence.keep() => Err(DriveError::Lost),
        };
        fence.release().await;
        result
    }

    async fn drive_owned(
        &self,
        id: &RolloutId,
        hub: &Arc<Hub>,
        fence: &Arc<Fence>,
    ) -> Result<(), DriveError> {
        let rooms = &self.inner.rooms;
        loop {
            let (fence, clock) = (Arc::clone(fence), Arc::clone(&rooms.clock));
            let book = Book::open(fence, id, &rooms.blobs, clock, Arc::clone(hub)).await;
            let result = match book {
                Ok(None) => return Ok(()),
                Ok(Some(book)) => {
                    let mut driver = Driver::new(
                        book,
                        Arc::clone(&rooms.fleet),
                        rooms.blobs.clone(),
                        self.inner.settings.breakpoints.clone(),
                    );
                    match driver.drive().await {
                        // Trying again would end the same way: the rollout ends, with the reason.
                        Err(DriveError::Blob(_) | DriveError::Field(_)) if !driver.is_over() => {
                            let reason = "the controller cannot read what it stored".to_owned();
                            driver.abandon(reason).await
                        }
                        Err(DriveError::Store(error))
                            if error.is_refusal() && !driver.is_over() =>
                        {
                            let reason =
                                format!("the controller cannot store what it decided: {error}");
                            driver.abandon(reason).await
                        }
                        other => other,
                    }
                }
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_retryable() => {
                    tracing::warn!(rollout.id = %id, error = &error as &dyn std::error::Error,
                        "driver begins again from what is stored");
                    tokio::time::sleep(RETRY).await;
                }
                other => return other,
            }
        }
    }

    /// Joins a rollout: events after a sequence are told again, hooks are run by whoever offers the same ones. A client
    /// waits for the `HookProgress` that says started before it runs a hook it announced.
    ///
    /// # Errors
    ///
    /// [`RolloutError::NotFound`], [`RolloutError::HooksDiffer`], [`RolloutError::Elsewhere`].
    pub async fn attach(
        &self,
        id: &str,
        hooks: &[wire::HookFile],
        after_sequence: u64,
    ) -> Result<Attachment, RolloutError> {
        let header = self.find(id).await?;
        let differing: Vec<String> = header
            .hooks
            .iter()
            .filter(|offered| {
                !hooks
                    .iter()
                    .any(|h| h.name == offered.name && hex::encode(&h.digest) == offered.digest)
            })
            .map(|h| h.name.clone())
            .collect();
        if !differing.is_empty() && !header.state.is_over() {
            return Err(RolloutError::HooksDiffer { hooks: differing });
        }
        self.join(&header, after_sequence, true).await
    }

    /// Follows a rollout's events after a sequence; ends with the rollout.
    ///
    /// # Errors
    ///
    /// [`RolloutError::NotFound`], [`RolloutError::Elsewhere`].
    pub async fn watch(
        &self,
        id: &str,
        after_sequence: u64,
    ) -> Result<mpsc::Receiver<wire::RolloutEvent>, RolloutError> {
        let header = self.find(id).await?;
        let mut attached = self.join(&header, after_sequence, false).await?;
        let (sender, receiver) = mpsc::channel(REPLAY);
        self.inner.rooms.tasks.spawn("rollout watch", async move {
            while let Some(response) = attached.responses.recv().await {
                let Some(wire::deploy_response::Message::Event(event)) = response.message else {
                    continue;
                };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    async fn join(
        &self,
        header: &record::Header,
        after_sequence: u64,
        runs_hooks: bool,
    ) -> Result<Attachment, RolloutError> {
        let tasks = &self.inner.rooms.tasks;
        if let Some(hub) = self.hub(&header.id) {
            let shutdown = tasks.shutdown().clone();
            let (attachment, stream) = hub.attach(after_sequence, runs_hooks, shutdown);
            tasks.spawn("rollout client", stream);
            return Ok(attachment);
        }
        // Read again: it may have ended since.
        let header = self.find(header.id.as_str()).await?;
        if !header.state.is_over() {
            return Err(RolloutError::Elsewhere);
        }
        let events = book::read_events(&*self.inner.rooms.store, &header.id).await?;
        let hub = Arc::new(Hub::default());
        hub.load(events);
        hub.finish(driver::finished(&header));
        let (attachment, stream) = hub.attach(after_sequence, false, tasks.shutdown().clone());
        tasks.spawn("rollout client", stream);
        Ok(attachment)
    }
}

/// Takes a rollout off the list of those at work when its driver is gone, however it went.
struct Leaves {
    rollouts: Rollouts,
    id: RolloutId,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        if let Some(hub) = self.rollouts.hubs().remove(&self.id) {
            hub.abandon();
        }
    }
}
