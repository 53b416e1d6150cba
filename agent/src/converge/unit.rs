//! The loop of one unit: passes, and what to wait for between them.

use std::collections::BTreeSet;
use std::time::Duration;

use dhow_proto::model::status::{Failure, Held};
use dhow_proto::model::{App, BlobDigest, Generation, Unit};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pass::Next;
use super::{Rooms, Wake};

/// Time between looks where nothing is known to have changed: catches drift that no event announced.
pub(super) const RESYNC: Duration = Duration::from_secs(60);
/// Events come in bursts (a container's end is four of them, a deploy some dozens): one look is for all of a burst, once
/// nothing was heard for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end is looked at all the same.
const BURST: Duration = Duration::from_secs(1);
/// First and longest wait after something that may come right by itself.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(20);

/// What a ledger must show anew for a unit to be looked at again. What settled is not among it: only the loop itself says
/// so, after it has looked.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    wanted: Option<BlobDigest>,
    held: bool,
    after: Vec<Option<Generation>>,
}

/// Events of the unit in quick succession.
#[derive(Clone, Copy)]
struct Burst {
    began: Instant,
    /// How many there were of all time.
    heard: u64,
}

/// One unit's loop.
pub(super) struct UnitLoop {
    pub(super) rooms: Rooms,
    pub(super) unit: Unit,
    pub(super) shutdown: CancellationToken,
    /// Since when a new generation waits for something outside the unit.
    pub(super) waiting_since: Option<(Generation, Instant)>,
    /// Since when a generation waits for what it comes after.
    pub(super) behind_since: Option<(Generation, Instant)>,
    /// A failure that the ledger could not take yet: the generation is not tried again meanwhile.
    pub(super) unrecorded: Option<(Generation, Failure)>,
    /// The generation of a rollout that was looked at last: what is foreign at its first look is adopted.
    pub(super) looked_at: Option<Generation>,
    /// The first step of the drift that was told of, so that it is told once.
    pub(super) told: Option<String>,
    /// A generation failed, and what it had changed is not taken back yet: that is no drift.
    pub(super) goes_back: bool,
    wake: watch::Receiver<Wake>,
    /// What had been heard of the unit when it was looked at last.
    woken: u64,
    failures: u32,
}

impl UnitLoop {
    pub(super) fn new(
        rooms: Rooms,
        unit: Unit,
        wake: watch::Receiver<Wake>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            rooms,
            unit,
            shutdown,
            waiting_since: None,
            behind_since: None,
            unrecorded: None,
            looked_at: None,
            told: None,
            goes_back: false,
            wake,
            woken: 0,
            failures: 0,
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self) {
        let mut changes = self.rooms.ledger.changes();
        let mut online = self.rooms.source.online();
        loop {
            changes.mark_unchanged();
            let seen = self.seen();
            self.note_woken();
            let next = self.pass().await;
            if self.shutdown.is_cancelled() {
                return;
            }
            let wait = match next {
                Next::Again => continue,
                Next::Idle => {
                    self.failures = 0;
                    RESYNC
                }
                Next::Retry | Next::Wait => {
                    self.failures = (self.failures + 1).min(10);
                    (RETRY * 2u32.saturating_pow(self.failures - 1)).min(RETRY_MAX)
                }
            };
            let resync = Instant::now() + wait;
            let mut deadline = resync;
            let mut burst: Option<Burst> = None;
            // Something may have happened since the last look of the pass.
            self.wake.mark_changed();
            loop {
                tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    // Cancel-safe: an unseen change stays unseen.
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        if self.seen() != seen {
                            break;
                        }
                    }
                    changed = self.wake.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.wake.mark_unchanged();
                        let concerned = self.was_woken();
                        // Events of our own failed attempt must not cut its back-off short.
                        match next {
                            Next::Wait if concerned => break,
                            Next::Idle if concerned => {
                                let heard = self.heard();
                                if burst.is_none_or(|b| b.heard != heard) {
                                    let now = Instant::now();
                                    let began = burst.map_or(now, |b| b.began);
                                    burst = Some(Burst { began, heard });
                                    deadline = resync.min(began + BURST).min(now + QUIET);
                                }
                            }
                            Next::Again | Next::Idle | Next::Retry | Next::Wait => {}
                        }
                    }
                    // Blobs may be had again.
                    changed = online.changed(), if wait < RESYNC => {
                        if changed.is_err() || *online.borrow_and_update() {
                            break;
                        }
                    }
                    () = tokio::time::sleep_until(deadline) => break,
                }
            }
        }
    }

    /// Notes what was heard of the unit: what is looked at from now on shows it.
    pub(super) fn note_woken(&mut self) {
        self.woken = self.wake.borrow_and_update().count(&self.unit);
    }

    fn heard(&self) -> u64 {
        self.wake.borrow().count(&self.unit)
    }

    /// True where something was heard of the unit since it was looked at.
    pub(super) fn was_woken(&self) -> bool {
        self.heard() != self.woken
    }

    /// The proxy belongs to no app: it is left alone while every app of the host is on hold.
    pub(super) fn proxy_held(&self) -> Option<Held> {
        if self.unit != Unit::Proxy {
            return None;
        }
        let ledger = &self.rooms.ledger;
        let apps: BTreeSet<App> =
            ledger.units().iter().filter_map(|unit| unit.app().cloned()).collect();
        let mut last = None;
        for app in apps {
            last = Some(ledger.held(&app)?.held);
        }
        last
    }

    fn seen(&self) -> Seen {
        let ledger = &self.rooms.ledger;
        let known = ledger.known(&self.unit);
        let after = known.wanted.iter().flat_map(|w| &w.intent.after);
        Seen {
            after: after.map(|a| ledger.known(&a.unit).settled.map(|s| s.generation())).collect(),
            wanted: known.wanted.map(|w| w.digest),
            held: match self.unit.app() {
                Some(app) => ledger.held(app).is_some(),
                None => self.proxy_held().is_some(),
            },
        }
    }
}
