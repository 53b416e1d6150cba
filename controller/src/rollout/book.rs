//! The written side of a rollout at work: header, stage and events change together or not at all.
//!
//! Always true: clients are told only what is stored; an event's number is given once; nothing is written that the
//! fence does not let through.

use std::sync::Arc;

use dhow_proto::model::spec::Spec;
use dhow_proto::model::{Document as _, FieldError};
use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;
use prost::Message as _;

use super::fence::{DriveError, Fence, Write};
use super::hub::Hub;
use super::record::{Header, RolloutId, StageRecord, from_json, key, to_json};
use super::secrets::Bundles;
use super::stages::{Plan, Stage, stages};
use crate::blob::Blobs;
use crate::clock::Clock;
use crate::store::{Key, Op, Store};

/// Stored events of one rollout. A fleet of a thousand hosts that all fail fits; what else is told of single hosts is dropped
/// then. Stages and hooks, of which there are few, are not: a client acts on them.
const MAX_EVENTS: u64 = 2_000;

/// A rollout at work.
pub(crate) struct Book {
    fence: Arc<Fence>,
    clock: Arc<dyn Clock>,
    hub: Arc<Hub>,
    /// As stored.
    pub(crate) header: Header,
    /// Of the header.
    pub(crate) spec: Spec,
    /// Of the header.
    pub(crate) bundles: Bundles,
    /// Of the header: the same after every restart.
    pub(crate) stages: Vec<Stage>,
    next_event: u64,
}

/// What changes together.
#[derive(Clone, Default)]
pub(crate) struct Entry {
    /// Indices and records of stages.
    pub(crate) stages: Vec<(usize, StageRecord)>,
    /// Told to clients once stored.
    pub(crate) events: Vec<Kind>,
    /// Whatever else belongs to it.
    pub(crate) writes: Vec<Write>,
}

impl Entry {
    /// With an event.
    pub(crate) fn event(kind: Kind) -> Self {
        Self { events: vec![kind], ..Self::default() }
    }
}

/// A line for people.
pub(crate) fn note(text: impl Into<String>) -> Kind {
    Kind::Note(wire::Note { text: text.into() })
}

/// Reads a header.
///
/// # Errors
///
/// [`DriveError::Store`], [`DriveError::Field`].
pub(crate) async fn read_header(
    store: &dyn Store,
    id: &RolloutId,
) -> Result<Option<Header>, DriveError> {
    let entry = store.get(key::rollout(id)).await?;
    Ok(entry.map(|e| from_json(&e)).transpose()?)
}

/// Reads the stored events of a rollout, in order.
///
/// # Errors
///
/// [`DriveError::Store`], [`DriveError::Field`].
pub(crate) async fn read_events(
    store: &dyn Store,
    id: &RolloutId,
) -> Result<Vec<wire::RolloutEvent>, DriveError> {
    let entries = store.read_all(key::events(id)).await?.entries;
    let read = |e: &crate::store::Entry| {
        wire::RolloutEvent::decode(e.value.clone())
            .map_err(|error| FieldError::new(e.key.to_string(), error).into())
    };
    entries.iter().map(read).collect()
}

/// The stages of a stored rollout.
pub(crate) fn stages_of(header: &Header, spec: &Spec) -> Vec<Stage> {
    let hooks = header.hook_names();
    stages(spec, &plan_of(header, &hooks))
}

/// What of a stored rollout shapes its stages.
pub(crate) fn plan_of<'a>(
    header: &'a Header,
    hooks: &'a std::collections::BTreeSet<String>,
) -> Plan<'a> {
    Plan {
        operation: header.operation,
        hosts: &header.hosts,
        roles: &header.roles,
        hooks,
        joined: header.joined.is_some(),
    }
}

impl Book {
    /// Opens a stored rollout where it was left. None where there is no such rollout.
    ///
    /// # Errors
    ///
    /// [`DriveError`].
    pub(crate) async fn open(
        fence: Arc<Fence>,
        id: &RolloutId,
        blobs: &Blobs,
        clock: Arc<dyn Clock>,
        hub: Arc<Hub>,
    ) -> Result<Option<Self>, DriveError> {
        let Some(header) = read_header(fence.store(), id).await? else { return Ok(None) };
        let spec = Spec::from_bytes(&blobs.load(header.spec.digest).await?)?;
        let bundles = match header.bundles {
            Some(blob) => Bundles::from_bytes(&blobs.load(blob.digest).await?)?,
            None => Bundles::default(),
        };
        let events = read_events(fence.store(), id).await?;
        let next_event = events.last().map_or(1, |e| e.sequence + 1);
        hub.load(events);
        let stages = stages_of(&header, &spec);
        Ok(Some(Self { fence, clock, hub, header, spec, bundles, stages, next_event }))
    }

    /// Where writes go through.
    pub(crate) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Where clients are.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The time.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// The record of a stage, once it began.
    ///
    /// # Errors
    ///
    /// [`DriveError::Store`], [`DriveError::Field`].
    pub(crate) async fn stage(&self, index: usize) -> Result<Option<StageRecord>, DriveError> {
        let entry = self.fence.store().get(key::stage(&self.header.id, index)).await?;
        Ok(entry.map(|e| from_json(&e)).transpose()?)
    }

    /// Stores a header with what belongs to it; then it is the rollout's, and clients are told.
    ///
    /// # Errors
    ///
    /// [`DriveError`]; nothing changed then.
    pub(crate) async fn write(&mut self, header: Header, entry: Entry) -> Result<(), DriveError> {
        let (mut writes, events) = self.writes(&header, entry);
        if !writes.is_empty() {
            // Failures of many hosts carry logs. Where that is too much for one transaction, the header comes last: what
            // stands before it is then told again under other numbers, never lost.
            let header_key = key::rollout(&header.id);
            writes.sort_by_key(|(_, op)| (!is_event(op), is_put_of(op, &header_key)));
            self.fence.commit_chunked(writes).await?;
        }
        self.header = header;
        self.next_event += events.len() as u64;
        self.hub.publish(events);
        Ok(())
    }

    /// Whether all of it is written at once or not at all.
    pub(crate) fn is_one_transaction(&self, header: &Header, entry: &Entry) -> bool {
        Fence::is_one_transaction(&self.writes(header, entry.clone()).0)
    }

    /// What an entry writes, and the events in it.
    fn writes(&self, header: &Header, entry: Entry) -> (Vec<Write>, Vec<wire::RolloutEvent>) {
        let id = &header.id;
        let mut writes = entry.writes;
        if *header != self.header {
            writes.push((None, Op::put(key::rollout(id), to_json(header))));
        }
        for (index, record) in &entry.stages {
            writes.push((None, Op::put(key::stage(id, *index), to_json(record))));
        }
        let mut events = Vec::new();
        for kind in entry.events {
            let is_news = matches!(kind, Kind::Note(_) | Kind::HostFailed(_));
            if is_news && self.next_event + events.len() as u64 > MAX_EVENTS {
                tracing::warn!(rollout.id = %id, "too many events: one is not stored");
                continue;
            }
            let sequence = self.next_event + events.len() as u64;
            let at = Some(timestamp(self.clock.now()));
            let rollout_id = id.to_string();
            let event = wire::RolloutEvent { sequence, at, rollout_id, kind: Some(kind) };
            writes.push((None, Op::put(key::event(id, sequence), event.encode_to_vec())));
            events.push(event);
        }
        (writes, events)
    }
}

fn is_event(op: &Op) -> bool {
    match op {
        Op::Put { key, .. } => key.as_str().is_some_and(|k| k.contains("/event/")),
        Op::Delete { .. } | Op::DeletePrefix { .. } | Op::Get { .. } => false,
    }
}

fn is_put_of(op: &Op, wanted: &Key) -> bool {
    match op {
        Op::Put { key, .. } => key == wanted,
        Op::Delete { .. } | Op::DeletePrefix { .. } | Op::Get { .. } => false,
    }
}

/// For the wire.
pub(crate) fn timestamp(at: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}
