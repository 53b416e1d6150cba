//! What the files of the ledger hold, as values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use dhow_proto::model::error::{FieldError, required};
use dhow_proto::model::intent::Intent;
use dhow_proto::model::status::{Failure, Held, Phase, Status};
use dhow_proto::model::{App, BlobDigest, Generation, Unit};
use dhow_proto::wire;
use prost::Message as _;
use serde::{Deserialize, Serialize};

/// An accepted intent with the bytes it came in.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Parsed.
    pub intent: Arc<Intent>,
    /// Names the content.
    pub digest: BlobDigest,
    pub(super) bytes: Bytes,
}

impl Accepted {
    /// Reads an encoded intent.
    ///
    /// # Errors
    ///
    /// [`FieldError`] with the path of the field.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        Ok(Self {
            intent: Arc::new(Intent::from_bytes(bytes)?),
            digest: BlobDigest::of(bytes),
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// The intent's generation.
    pub fn generation(&self) -> Generation {
        self.intent.generation
    }
}

impl PartialEq for Accepted {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// A generation that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Never tried again.
    pub generation: Generation,
    /// Why.
    pub failure: Failure,
}

impl Failed {
    /// Stored as the status that reports it.
    pub(super) fn to_bytes(&self, unit: &Unit) -> Vec<u8> {
        let status = Status {
            unit: unit.clone(),
            generation: self.generation,
            phase: Phase::Failed(self.failure.clone()),
            serving: Vec::new(),
            staged_digest: None,
            observed_at: SystemTime::UNIX_EPOCH,
            settled: None,
            warnings: Vec::new(),
            maintenance: false,
            step_times: Vec::new(),
        };
        wire::Status::from(&status).encode_to_vec()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<(Unit, Self), FieldError> {
        let status = wire::Status::decode(bytes).map_err(|e| FieldError::new("failed", e))?;
        let status = Status::try_from(status)?;
        let Phase::Failed(failure) = status.phase else {
            return Err(FieldError::new("failed", "does not tell of a failure"));
        };
        Ok((status.unit, Self { generation: status.generation, failure }))
    }
}

/// Another deployer was at work on an app: nothing is changed until a rollout that is not in `rollouts` adopts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub held: Held,
    /// Rollouts whose intents were here when the hold began; what they still write does not adopt.
    pub rollouts: BTreeSet<String>,
}

impl Hold {
    /// True where this intent is of a rollout that this host had not heard of when the hold began. Of a host that was cut off
    /// from its controller that may be an older one: what it missed is wanted there, and hosts' clocks do not say which came
    /// first.
    pub fn adopted_by(&self, intent: &Intent) -> bool {
        intent.rollout_id.as_ref().is_some_and(|id| !self.rollouts.contains(id))
    }

    pub(super) fn to_bytes(&self, app: &App) -> Vec<u8> {
        let file = HoldFile {
            v: 1,
            app: app.clone(),
            reason: wire::HeldReason::from(&self.held).encode_to_vec(),
            rollouts: self.rollouts.clone(),
        };
        serde_json::to_vec(&file).expect("strings, lists and numbers are JSON")
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<(App, Self), String> {
        let file: HoldFile = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let reason = wire::HeldReason::decode(file.reason.as_slice()).map_err(|e| e.to_string())?;
        let held = Held::try_from(reason).map_err(|e| e.to_string())?;
        Ok((file.app, Self { held, rollouts: file.rollouts }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldFile {
    v: u32,
    app: App,
    reason: Vec<u8>,
    rollouts: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarksFile {
    v: u32,
    unit: Vec<u8>,
    marks: BTreeMap<String, String>,
}

pub(super) fn marks_to_bytes(unit: &Unit, marks: &BTreeMap<String, String>) -> Vec<u8> {
    let unit = wire::UnitRef::from(unit).encode_to_vec();
    let file = MarksFile { v: 1, unit, marks: marks.clone() };
    serde_json::to_vec(&file).expect("strings, lists and numbers are JSON")
}

pub(super) fn marks_from_bytes(bytes: &[u8]) -> Result<(Unit, BTreeMap<String, String>), String> {
    let file: MarksFile = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let unit = wire::UnitRef::decode(file.unit.as_slice()).map_err(|e| e.to_string())?;
    Ok((Unit::try_from(unit).map_err(|e| e.to_string())?, file.marks))
}

/// Reads an event, with its unit and time required.
pub(super) fn check_event(event: &wire::Event) -> Result<(), FieldError> {
    required(event.at, "event.at").map(|_| ())
}
