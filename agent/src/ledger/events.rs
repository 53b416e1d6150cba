//! Drift, repairs and other news, kept until the controller has acknowledged them.
//!
//! Always true: sequences only grow, also over restarts; at most [`QUEUE`] events wait. When more happens, the oldest go
//! and one event says how many did.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use dhow_proto::model::Unit;
use dhow_proto::wire;
use prost::Message as _;
use tokio::sync::watch;

use super::file::{frame, unframe};
use super::io::{Io, replace};
use super::record::check_event;

/// Events that may wait: a day of a host whose containers are removed by hand every few minutes.
pub const QUEUE: usize = 256;

const FILE: &str = "events";

/// The queue.
pub struct Events {
    io: Arc<dyn Io>,
    dir: PathBuf,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Clone, Default)]
struct State {
    last: u64,
    waiting: VecDeque<wire::Event>,
}

impl Events {
    /// Reads what waits. A damaged file loses its events, not the start of the agent; sequences then go on from the
    /// clock, which is beyond any that was used.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn open(dir: &Path, io: Arc<dyn Io>, now: SystemTime) -> io::Result<Self> {
        io.create_dir(dir)?;
        let state = match io.read(&dir.join(FILE)) {
            Ok(bytes) => State::from_bytes(&bytes).unwrap_or_else(|| {
                tracing::error!("the queue of events cannot be read: events may be lost");
                let elapsed = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                State { last: elapsed.as_micros() as u64, waiting: VecDeque::new() }
            }),
            Err(_) => State::default(),
        };
        let changes = watch::Sender::new(state.last);
        Ok(Self { io, dir: dir.to_owned(), state: Mutex::new(state), changes })
    }

    /// Adds an event. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// Not durable, not added.
    pub fn push(
        &self,
        at: SystemTime,
        unit: Option<&Unit>,
        kind: wire::EventKind,
        text: &str,
    ) -> io::Result<()> {
        let mut state = self.lock();
        let mut next = state.clone();
        next.add(at, unit, kind, text);
        if next.waiting.len() > QUEUE {
            // Room for the one that tells of it.
            let gone = next.waiting.len() - QUEUE + 1;
            next.waiting.drain(..gone);
            let text = format!("{gone} events were dropped: the controller was away too long");
            next.add(at, None, wire::EventKind::EventsDropped, &text);
        }
        self.store(&next)?;
        *state = next;
        self.changes.send_replace(state.last);
        Ok(())
    }

    /// The controller has everything up to this sequence.
    pub fn acknowledge(&self, sequence: u64) {
        let mut state = self.lock();
        let mut next = state.clone();
        next.waiting.retain(|e| e.sequence > sequence);
        if next.waiting.len() == state.waiting.len() {
            return;
        }
        // Not durable is harmless: the events would be sent again, and their sequences tell.
        if let Err(error) = self.store(&next) {
            tracing::warn!(%error, "could not note acknowledged events");
        }
        *state = next;
    }

    /// Events after a sequence, oldest first.
    pub fn after(&self, sequence: u64) -> Vec<wire::Event> {
        self.lock().waiting.iter().filter(|e| e.sequence > sequence).cloned().collect()
    }

    /// The newest sequence given out.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// Moves with every new event.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, state: &State) -> io::Result<()> {
        replace(&*self.io, &self.dir, FILE, &frame(&state.to_bytes()))
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl State {
    fn add(&mut self, at: SystemTime, unit: Option<&Unit>, kind: wire::EventKind, text: &str) {
        self.last += 1;
        self.waiting.push_back(wire::Event {
            sequence: self.last,
            at: Some(at.into()),
            unit: unit.map(Into::into),
            kind: kind.into(),
            text: text.to_owned(),
        });
    }

    /// The last sequence, then the events, each after its length.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.last.to_be_bytes().to_vec();
        for event in &self.waiting {
            bytes.extend(event.encode_length_delimited_to_vec());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (last, mut rest) = unframe(bytes).ok()?.split_first_chunk()?;
        let mut waiting = VecDeque::new();
        while !rest.is_empty() {
            let event = wire::Event::decode_length_delimited(&mut rest).ok()?;
            check_event(&event).ok()?;
            waiting.push_back(event);
        }
        Some(Self { last: u64::from_be_bytes(*last), waiting })
    }
}
