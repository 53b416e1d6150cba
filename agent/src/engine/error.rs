//! Why the Engine did not do what was asked.

use std::time::Duration;

use dhow_proto::wire::FailureKind;

/// Why a call failed. Messages are Docker's own, which name objects but never environment values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No such container, image or network.
    #[error("{0}")]
    NotFound(String),
    /// The state or a name stands in the way (409).
    #[error("{0}")]
    Conflict(String),
    /// The Engine refused, with its status.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Docker's words.
        message: String,
    },
    /// The registry has no such image.
    #[error("{0}")]
    ImageMissing(String),
    /// The registry refused the login.
    #[error("the registry refused access: {0}")]
    RegistryDenied(String),
    /// The registry could not be reached.
    #[error("the registry could not be reached: {0}")]
    RegistryUnreachable(String),
    /// No space left.
    #[error("no space left on the host: {0}")]
    DiskFull(String),
    /// The Engine does not answer.
    #[error("the Docker Engine could not be reached: {0}")]
    Unreachable(String),
    /// No answer by the deadline.
    #[error("no answer from the Docker Engine for {what} within {after:?}")]
    TimedOut {
        /// The call.
        what: String,
        /// Its deadline.
        after: Duration,
    },
    /// It was begun, its end was not seen.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// The answer was not what the API promises.
    #[error("unexpected answer from the Docker Engine: {0}")]
    Unexpected(String),
}

impl EngineError {
    /// For programs that read a failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::ImageMissing(_) => FailureKind::ImageMissing,
            Self::RegistryDenied(_) => FailureKind::RegistryDenied,
            Self::RegistryUnreachable(_) => FailureKind::RegistryUnreachable,
            Self::DiskFull(_) => FailureKind::DiskFull,
            Self::Unreachable(_) => FailureKind::EngineUnreachable,
            Self::TimedOut { .. } => FailureKind::TimedOut,
            Self::NotFound(_)
            | Self::Conflict(_)
            | Self::Refused { .. }
            | Self::OutcomeUnknown(_)
            | Self::Unexpected(_) => FailureKind::Other,
        }
    }

    /// Reads the kind of trouble from Docker's words, which is all a pull leaves.
    pub fn from_pull(message: String) -> Self {
        let text = message.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
        if has(&["no space left"]) {
            Self::DiskFull(message)
        } else if has(&["manifest unknown", "not found", "does not exist"])
            && !has(&["may require", "no such host"])
        {
            Self::ImageMissing(message)
        } else if has(&["unauthorized", "denied", "no basic auth", "authentication required"]) {
            Self::RegistryDenied(message)
        } else if has(&[
            "no such host",
            "connection refused",
            "i/o timeout",
            "timeout",
            "no route",
            "unreachable",
            "tls:",
            "x509",
            "http response to https",
            "eof",
        ]) {
            Self::RegistryUnreachable(message)
        } else {
            Self::Refused { status: 500, message }
        }
    }
}
