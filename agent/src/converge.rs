//! The loop of every unit: observe, plan, execute, report.
//!
//! In: accepted intents of the ledger, events of the Engine, time. Out: statuses on the board, drift events.
//! Always true: two passes of one unit never overlap; a newer generation supersedes between steps, never inside one; a
//! generation that failed is recorded before anything else is done, and never tried again; while an app is on hold
//! nothing of it is changed.

mod news;
mod pass;
mod resolve;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::model::{HostName, Unit};
use dhow_proto::seal::HostKey;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::execute::Worker;
use crate::ledger::{Events, Ledger};
use crate::notify::Watchdog;
use crate::session::{BlobSource, Board};
use news::{Commands, Concern, Wake};

/// Time between looks at the Engine while its events cannot be had.
const EVENTS_AGAIN: Duration = Duration::from_millis(500);
/// Time in which the stream of events is open for certain, so that what happened before it was is looked at.
const EVENTS_OPEN: Duration = Duration::from_millis(500);
/// Pause before a loop that broke is started anew.
const BROKEN: Duration = Duration::from_secs(2);

/// What the loops work with.
#[derive(Clone)]
pub struct Rooms {
    /// Wanted and settled intents.
    pub ledger: Arc<Ledger>,
    /// Drift and repair, for the controller.
    pub events: Arc<Events>,
    /// Statuses.
    pub board: Board,
    /// Observes and acts.
    pub worker: Arc<Worker>,
    /// Templates, files and ciphertexts.
    pub source: Arc<dyn BlobSource>,
    /// Name of this host, part of what sealed keys are bound to.
    pub host: HostName,
    /// Opens sealed keys.
    pub host_key: Arc<HostKey>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
}

/// Runs a loop for every unit of the ledger until `shutdown`, and tells `watchdog` that it does.
pub async fn run(rooms: Rooms, watchdog: Watchdog, shutdown: CancellationToken) {
    let (wake, _) = watch::channel(Wake::default());
    let mut changes = rooms.ledger.changes();
    let mut loops: JoinSet<Unit> = JoinSet::new();
    let mut running: BTreeMap<Unit, tokio::task::Id> = BTreeMap::new();
    let mut broken: BTreeSet<Unit> = BTreeSet::new();
    let listen = listen(&rooms, &wake);
    tokio::pin!(listen);
    // Apart from the loop below, so that much work does not put it off.
    let mut due = Box::pin(watchdog.due());
    loop {
        for unit in rooms.ledger.units() {
            if running.contains_key(&unit) {
                continue;
            }
            let one = unit::UnitLoop::new(
                rooms.clone(),
                unit.clone(),
                wake.subscribe(),
                shutdown.clone(),
            );
            let (name, stop) = (unit.clone(), shutdown.clone());
            // One that broke must not break again and again without a pause.
            let pause = if broken.remove(&unit) { BROKEN } else { Duration::ZERO };
            let task = loops.spawn(async move {
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
                    one.run().await;
                }
                name
            });
            running.insert(unit, task.id());
        }
        tokio::select! {
            // Loops end at the next boundary between steps.
            () = shutdown.cancelled() => break,
            // Cancel-safe: an unseen change stays unseen.
            changed = changes.changed() => if changed.is_err() { break },
            Some(ended) = loops.join_next() => match ended {
                Ok(unit) => { running.remove(&unit); }
                Err(error) => {
                    tracing::error!(%error, "the loop of a unit broke; it is started anew");
                    let its = |(_, id): &(&Unit, &tokio::task::Id)| **id == error.id();
                    if let Some(unit) = running.iter().find(its).map(|(unit, _)| unit.clone()) {
                        running.remove(&unit);
                        broken.insert(unit);
                    }
                }
            },
            () = &mut listen => break,
            () = &mut due => {
                watchdog.ping();
                due.set(watchdog.due());
            }
        }
    }
    while loops.join_next().await.is_some() {}
}

/// Passes events of the Engine on, for ever.
async fn listen(rooms: &Rooms, wake: &watch::Sender<Wake>) {
    loop {
        let mut events = rooms.worker.engine().events();
        let mut commands = Commands::default();
        let open = tokio::time::sleep(EVENTS_OPEN);
        tokio::pin!(open);
        let mut opened = false;
        loop {
            let event = tokio::select! {
                // Cancel-safe: a stream keeps what it has not given out.
                event = events.next() => event,
                () = &mut open, if !opened => {
                    opened = true;
                    wake.send_modify(|w| w.note(Concern::Everything));
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => {
                    rooms.board.set_engine_reachable(true);
                    if let Some(concern) = commands.concern(&event) {
                        wake.send_modify(|w| w.note(concern));
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "events of the Engine broke off");
                    break;
                }
                None => break,
            }
        }
        rooms.board.note_engine_break();
        // Events were missed: everything is looked at again, now and once they are heard again.
        wake.send_modify(|w| w.note(Concern::Everything));
        loop {
            tokio::time::sleep(EVENTS_AGAIN).await;
            let answers = rooms.worker.engine().ping().await.is_ok();
            rooms.board.set_engine_reachable(answers);
            if answers {
                break;
            }
        }
    }
}
