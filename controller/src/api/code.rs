//! Errors of the rooms as gRPC statuses: one exhaustive match each, here and nowhere else.

use tonic::Status;

use crate::blob::BlobError;
use crate::ca::{IssueError, TokenError};
use crate::host::HostError;
use crate::rollout::{RolloutError, StartError};
use crate::store::StoreError;

/// A time as protobuf has it.
pub(crate) fn stamp(at: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// An error that is ours: logged with its chain, told without it.
pub(crate) fn internal(what: &str, error: &dyn std::error::Error) -> Status {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    tracing::error!(error = %chain, "{what}");
    Status::internal(format!("{what}; see the controller's log"))
}

pub(crate) fn store(error: &StoreError) -> Status {
    if error.is_retryable() {
        tracing::warn!(%error, "the store is not available");
        return Status::unavailable("the store is not available; try again");
    }
    internal("the store failed", error)
}

pub(crate) fn token(error: &TokenError) -> Status {
    match error {
        TokenError::Malformed
        | TokenError::WrongKind { .. }
        | TokenError::Unknown
        | TokenError::Used { .. }
        | TokenError::Expired { .. } => Status::unauthenticated(error.to_string()),
        TokenError::BadValidity => Status::invalid_argument(error.to_string()),
        TokenError::Damaged(_) | TokenError::Random(_) => {
            internal("the token could not be used", error)
        }
        TokenError::Store(source) => store(source),
    }
}

pub(crate) fn issue(error: &IssueError) -> Status {
    match error {
        IssueError::MalformedRequest
        | IssueError::UnsupportedKey
        | IssueError::BadServerName(_) => Status::invalid_argument(error.to_string()),
        IssueError::Sign(_) | IssueError::Random(_) => {
            internal("no certificate could be issued", error)
        }
        IssueError::Store(source) => store(source),
    }
}

pub(crate) fn host(error: &HostError) -> Status {
    match error {
        HostError::Enrolled(_) | HostError::AliasTaken { .. } => {
            Status::already_exists(error.to_string())
        }
        HostError::Unknown(_) => Status::not_found(error.to_string()),
        HostError::Raced(_) => Status::aborted(error.to_string()),
        HostError::Malformed(_) => internal("the record of a host is malformed", error),
        HostError::Store(source) => store(source),
    }
}

pub(crate) fn blob(error: &BlobError) -> Status {
    match error {
        BlobError::Missing(_) => Status::not_found(error.to_string()),
        BlobError::TooLarge | BlobError::WrongDigest { .. } => {
            Status::invalid_argument(error.to_string())
        }
        BlobError::BeyondEnd { .. } => Status::out_of_range(error.to_string()),
        BlobError::Damaged(_) => Status::data_loss(error.to_string()),
        BlobError::Io(_) => internal("a blob could not be read or written", error),
    }
}

/// A message with its sources: what a person needs to act, such as the path of a field.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(crate) fn start(error: &StartError) -> Status {
    match error {
        StartError::Invalid(_) | StartError::Spec(_) | StartError::VersionMismatch { .. } => {
            Status::invalid_argument(told(error))
        }
        StartError::Unsupported { .. } => Status::unimplemented(told(error)),
        StartError::Accessories { .. }
        | StartError::BlobMissing(_)
        | StartError::NotEnrolled { .. }
        | StartError::Offline { .. }
        | StartError::NoEngine { .. }
        | StartError::SameHost { .. }
        | StartError::SecretsMissing { .. }
        | StartError::Claim(_)
        | StartError::Locked { .. }
        | StartError::NoParent(_) => Status::failed_precondition(told(error)),
        StartError::IdTaken(_) => Status::already_exists(told(error)),
        StartError::Hosts(source) => host(source),
        StartError::Blob(source) => blob(source),
        StartError::Store(source) => store(source),
        StartError::Stored(_) | StartError::Random => {
            internal("the rollout could not be started", error)
        }
    }
}

pub(crate) fn rollout(error: &RolloutError) -> Status {
    match error {
        RolloutError::NotFound(_) => Status::not_found(told(error)),
        RolloutError::Ambiguous(_) => Status::invalid_argument(told(error)),
        RolloutError::HooksDiffer { .. } => Status::failed_precondition(told(error)),
        RolloutError::Elsewhere => Status::unavailable(told(error)),
        RolloutError::Random | RolloutError::Read(_) => {
            internal("the rollouts could not be read", error)
        }
    }
}
