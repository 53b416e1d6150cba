//! What an agent reports of a unit.

use std::time::{Duration, SystemTime};

use super::error::{At, FieldError, each, required};
use super::generation::Generation;
use super::name::{ContainerName, ImageDigest, Version};
use super::unit::Unit;
use crate::wire;

/// State of one unit at one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The unit.
    pub unit: Unit,
    /// Generation of the intent this speaks of.
    pub generation: Generation,
    /// How far it got.
    pub phase: Phase,
    /// Containers that serve now, whichever generation they belong to.
    pub serving: Vec<Serving>,
    /// Digest the staged image resolved to (app units).
    pub staged_digest: Option<ImageDigest>,
    /// When the state was read.
    pub observed_at: SystemTime,
    /// The generation that last served.
    pub settled: Option<Generation>,
    /// Worth a line to the operator; at most 8.
    pub warnings: Vec<String>,
    /// True where kamal-proxy answers 503 on purpose.
    pub maintenance: bool,
    /// Steps carried out for this generation and how long each took; at most 32.
    pub step_times: Vec<(String, Duration)>,
}

/// How far a generation got, with what is true of that phase alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Accepted, not begun.
    Pending,
    /// A plan is being carried out.
    Converging(Option<StepProgress>),
    /// Observed state agrees with the intent.
    Settled,
    /// Will not be tried again; what settled before serves on.
    Failed(Failure),
    /// Another deployer is at work; nothing is changed.
    Held(Held),
    /// Sealed for another host key, or not sent; in a sentence.
    AwaitingSecrets(String),
    /// A condition does not hold yet; in a sentence.
    AwaitingCondition(String),
    /// No longer managed; left as it is.
    Released,
    /// Gone.
    Removed,
}

impl Phase {
    /// True where nothing more will happen by itself for this generation.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Settled
            | Self::Failed(_)
            | Self::Held(_)
            | Self::AwaitingSecrets(_)
            | Self::Released
            | Self::Removed => true,
            Self::Pending | Self::Converging(_) | Self::AwaitingCondition(_) => false,
        }
    }
}

/// The step at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepProgress {
    /// As the plan prints it.
    pub text: String,
    /// From 0.
    pub index: u32,
    /// Steps of the plan.
    pub total: u32,
    /// When it began.
    pub started_at: SystemTime,
}

/// A container that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Its name.
    pub container: ContainerName,
    /// Version from its name.
    pub version: Version,
    /// Registry digest or image id.
    pub digest: Option<ImageDigest>,
    /// Percent of traffic.
    pub share: u32,
}

/// Why nothing is repaired or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The foreign line in Kamal's audit log.
    AuditLine(String),
    /// Who holds Kamal's lock, as its details tell.
    ForeignLock(String),
    /// A container with the app's labels that the agent did not create.
    ForeignContainer(String),
    /// `dhow-agent hold`.
    Local(String),
    /// The service in kamal-proxy whose traffic somebody else stopped, as Kamal's `app maintenance` does.
    StoppedTraffic(String),
}

/// Why something failed, in the words a person needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The step, as the plan prints it.
    pub step: String,
    /// One sentence; no secrets.
    pub reason: String,
    /// For programs.
    pub kind: wire::FailureKind,
    /// Where the container exited.
    pub exit_code: Option<i32>,
    /// Newest last; at most 5.
    pub health_log: Vec<String>,
    /// At most 50 lines and 16 KiB.
    pub log_lines: Vec<String>,
    /// The container it is about.
    pub container: Option<ContainerName>,
    /// When.
    pub at: SystemTime,
}

impl Failure {
    /// A failure without a container.
    pub fn new(
        step: impl Into<String>,
        kind: wire::FailureKind,
        reason: impl Into<String>,
        at: SystemTime,
    ) -> Self {
        Self {
            step: step.into(),
            reason: reason.into(),
            kind,
            exit_code: None,
            health_log: Vec::new(),
            log_lines: Vec::new(),
            container: None,
            at,
        }
    }
}

fn time(stamp: Option<prost_types::Timestamp>, field: &str) -> Result<SystemTime, FieldError> {
    SystemTime::try_from(required(stamp, field)?).map_err(|e| FieldError::new(field, e))
}

impl TryFrom<wire::Failure> for Failure {
    type Error = FieldError;

    fn try_from(wire: wire::Failure) -> Result<Self, FieldError> {
        let container = match wire.container.as_str() {
            "" => None,
            name => Some(ContainerName::try_from(name).at("container")?),
        };
        Ok(Self {
            kind: wire.kind(),
            step: wire.step,
            reason: wire.reason,
            exit_code: wire.exit_code,
            health_log: wire.health_log,
            log_lines: wire.log_lines,
            container,
            at: time(wire.at, "at")?,
        })
    }
}

impl From<&Failure> for wire::Failure {
    fn from(failure: &Failure) -> Self {
        Self {
            step: failure.step.clone(),
            reason: failure.reason.clone(),
            kind: failure.kind.into(),
            exit_code: failure.exit_code,
            health_log: failure.health_log.clone(),
            log_lines: failure.log_lines.clone(),
            container: failure.container.as_ref().map(ToString::to_string).unwrap_or_default(),
            at: Some(failure.at.into()),
        }
    }
}

impl TryFrom<wire::HeldReason> for Held {
    type Error = FieldError;

    fn try_from(wire: wire::HeldReason) -> Result<Self, FieldError> {
        use wire::held_reason::Kind;
        Ok(match required(wire.kind, "kind")? {
            Kind::AuditLine(text) => Self::AuditLine(text),
            Kind::ForeignLock(text) => Self::ForeignLock(text),
            Kind::ForeignContainer(text) => Self::ForeignContainer(text),
            Kind::Local(text) => Self::Local(text),
            Kind::StoppedTraffic(service) => Self::StoppedTraffic(service),
        })
    }
}

impl From<&Held> for wire::HeldReason {
    fn from(held: &Held) -> Self {
        use wire::held_reason::Kind;
        let kind = match held {
            Held::AuditLine(text) => Kind::AuditLine(text.clone()),
            Held::ForeignLock(text) => Kind::ForeignLock(text.clone()),
            Held::ForeignContainer(text) => Kind::ForeignContainer(text.clone()),
            Held::Local(text) => Kind::Local(text.clone()),
            Held::StoppedTraffic(service) => Kind::StoppedTraffic(service.clone()),
        };
        Self { kind: Some(kind) }
    }
}

/// As people read it in `status`.
impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AuditLine(line) => write!(f, "another deployer wrote to the audit log: {line}"),
            Self::ForeignLock(holder) => write!(f, "another deployer holds Kamal's lock: {holder}"),
            Self::ForeignContainer(name) => {
                write!(f, "container {name} was made by another deployer")
            }
            Self::Local(reason) => write!(f, "held on the host: {reason}"),
            Self::StoppedTraffic(service) => {
                write!(f, "another deployer stopped the traffic of {service} in kamal-proxy")
            }
        }
    }
}

impl TryFrom<wire::StepProgress> for StepProgress {
    type Error = FieldError;

    fn try_from(wire: wire::StepProgress) -> Result<Self, FieldError> {
        let started_at = time(wire.started_at, "started_at")?;
        Ok(Self { text: wire.text, index: wire.index, total: wire.total, started_at })
    }
}

impl From<&StepProgress> for wire::StepProgress {
    fn from(step: &StepProgress) -> Self {
        Self {
            text: step.text.clone(),
            index: step.index,
            total: step.total,
            started_at: Some(step.started_at.into()),
        }
    }
}

impl TryFrom<wire::Status> for Status {
    type Error = FieldError;

    fn try_from(wire: wire::Status) -> Result<Self, FieldError> {
        let read = |wire: wire::Status| {
            use wire::Phase as W;
            let phase = match W::try_from(wire.phase) {
                Ok(W::Pending) => Phase::Pending,
                Ok(W::Converging) => {
                    Phase::Converging(wire.step.map(StepProgress::try_from).transpose().at("step")?)
                }
                Ok(W::Settled) => Phase::Settled,
                Ok(W::Failed) => Phase::Failed(
                    Failure::try_from(required(wire.failure, "failure")?).at("failure")?,
                ),
                Ok(W::Held) => {
                    Phase::Held(Held::try_from(required(wire.held, "held")?).at("held")?)
                }
                Ok(W::AwaitingSecrets) => Phase::AwaitingSecrets(wire.awaiting),
                Ok(W::AwaitingCondition) => Phase::AwaitingCondition(wire.awaiting),
                Ok(W::Released) => Phase::Released,
                Ok(W::Removed) => Phase::Removed,
                Ok(W::Unspecified) | Err(_) => {
                    return Err(FieldError::new("phase", format!("unknown value {}", wire.phase)));
                }
            };
            Ok(Self {
                unit: Unit::try_from(required(wire.unit, "unit")?).at("unit")?,
                generation: required(wire.generation, "generation")?.into(),
                phase,
                serving: each(wire.serving, "serving", |s: wire::Serving| {
                    Ok::<_, FieldError>(Serving {
                        container: ContainerName::try_from(s.container).at("container")?,
                        version: Version::try_from(s.version).at("version")?,
                        digest: Some(s.digest)
                            .filter(|d| !d.is_empty())
                            .map(ImageDigest::try_from)
                            .transpose()
                            .at("digest")?,
                        share: s.share,
                    })
                })?,
                staged_digest: Some(wire.staged_digest)
                    .filter(|d| !d.is_empty())
                    .map(ImageDigest::try_from)
                    .transpose()
                    .at("staged_digest")?,
                observed_at: time(wire.observed_at, "observed_at")?,
                settled: wire.settled.map(Generation::from),
                warnings: wire.warnings,
                maintenance: wire.maintenance,
                step_times: each(wire.step_times, "step_times", |s: wire::StepTime| {
                    let took = Duration::try_from(s.took.unwrap_or_default())
                        .map_err(|e| FieldError::new("took", e))?;
                    Ok::<_, FieldError>((s.text, took))
                })?,
            })
        };
        read(wire).at("status")
    }
}

impl From<&Status> for wire::Status {
    fn from(status: &Status) -> Self {
        use wire::Phase as W;
        let (phase, step, failure, held, awaiting) = match &status.phase {
            Phase::Pending => (W::Pending, None, None, None, String::new()),
            Phase::Converging(step) => {
                (W::Converging, step.as_ref().map(Into::into), None, None, String::new())
            }
            Phase::Settled => (W::Settled, None, None, None, String::new()),
            Phase::Failed(failure) => (W::Failed, None, Some(failure.into()), None, String::new()),
            Phase::Held(held) => (W::Held, None, None, Some(held.into()), String::new()),
            Phase::AwaitingSecrets(what) => (W::AwaitingSecrets, None, None, None, what.clone()),
            Phase::AwaitingCondition(what) => {
                (W::AwaitingCondition, None, None, None, what.clone())
            }
            Phase::Released => (W::Released, None, None, None, String::new()),
            Phase::Removed => (W::Removed, None, None, None, String::new()),
        };
        Self {
            unit: Some((&status.unit).into()),
            generation: Some(status.generation.into()),
            phase: phase.into(),
            step,
            failure,
            held,
            awaiting,
            serving: status
                .serving
                .iter()
                .map(|s| wire::Serving {
                    container: s.container.to_string(),
                    version: s.version.to_string(),
                    digest: s.digest.as_ref().map(ToString::to_string).unwrap_or_default(),
                    since: None,
                    share: s.share,
                })
                .collect(),
            staged_digest: status
                .staged_digest
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            observed_at: Some(status.observed_at.into()),
            settled: status.settled.map(Into::into),
            warnings: status.warnings.clone(),
            maintenance: status.maintenance,
            step_times: status
                .step_times
                .iter()
                .map(|(text, took)| wire::StepTime {
                    text: text.clone(),
                    took: prost_types::Duration::try_from(*took).ok(),
                })
                .collect(),
        }
    }
}
