//! Deadlines of calls, and answers that mean success all the same.

use std::collections::HashMap;
use std::time::Duration;

use super::translate::failed;
use crate::engine::EngineError;

/// Deadline of a call that reads or does something quick.
pub(super) const QUICK: Duration = Duration::from_secs(30);
/// Deadline of a call that may touch many files: create, remove, rename on a busy disk.
pub(super) const SLOW: Duration = Duration::from_secs(120);

/// A call with its deadline.
pub(super) async fn bounded<T>(
    what: &str,
    after: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(after, call).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(EngineError::TimedOut { what: what.to_owned(), after }),
    }
}

/// Absent is success.
pub(super) fn or_absent(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// "Not modified" (304) means that it was so already.
pub(super) fn or_unchanged(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Refused { status: 304, .. }) => Ok(()),
        other => other,
    }
}

pub(super) fn filters(key: &str, values: Vec<String>) -> Option<HashMap<String, Vec<String>>> {
    Some(HashMap::from([(key.to_owned(), values)]))
}
