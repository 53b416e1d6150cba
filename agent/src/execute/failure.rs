//! Failures in the words a person needs.

use dhow_proto::model::ContainerName;
use dhow_proto::model::status::Failure;
use dhow_proto::wire::FailureKind;

use super::watch::Ended;
use super::{Step, Worker};
use crate::engine::{EngineError, LogQuery, ObservedContainer};

/// As [`Failure`] promises.
const LOG_LINES: usize = 50;
const LOG_BYTES: usize = 16 * 1024;

impl Worker {
    pub(super) fn failure(
        &self,
        step: &Step,
        kind: FailureKind,
        reason: impl Into<String>,
    ) -> Box<Failure> {
        let reason: String = reason.into().chars().take(1000).collect();
        Box::new(Failure::new(step.to_string(), kind, reason, (self.now)()))
    }

    pub(super) fn engine_failure(&self, step: &Step, error: &EngineError) -> Box<Failure> {
        self.failure(step, error.kind(), error.to_string())
    }

    pub(super) fn file_failure(&self, step: &Step, error: &std::io::Error) -> Box<Failure> {
        let full = matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        let kind = if full { FailureKind::DiskFull } else { FailureKind::Other };
        self.failure(step, kind, format!("could not write the app's files: {error}"))
    }

    pub(super) async fn must_exist(
        &self,
        step: &Step,
        key: &str,
    ) -> Result<ObservedContainer, Box<Failure>> {
        let found = self.engine.container(key).await;
        found.map_err(|e| self.engine_failure(step, &e))?.ok_or_else(|| {
            self.failure(step, FailureKind::Other, format!("container {key} is gone"))
        })
    }

    pub(super) async fn ended_failure(
        &self,
        step: &Step,
        view: &ObservedContainer,
        ended: Ended,
    ) -> Box<Failure> {
        // Asked anew: what was seen may be from before its end.
        let out_of_memory = match self.engine.container(&view.id).await {
            Ok(Some(now)) => now.out_of_memory,
            Ok(None) | Err(_) => view.out_of_memory,
        };
        let reason = match ended.exit_code {
            Some(code) => {
                let why = exit_words(code, out_of_memory);
                format!("container {} exited with status {code}{why}", view.name)
            }
            None => format!("container {} no longer runs", view.name),
        };
        let mut failure = self.failure(step, FailureKind::Exited, reason);
        failure.exit_code = ended.exit_code;
        self.with_evidence(failure, &view.id).await
    }

    /// Adds exit code, health log and the last log lines. What cannot be had is left out: the reason is known.
    pub(super) async fn with_evidence(&self, mut failure: Box<Failure>, id: &str) -> Box<Failure> {
        if let Ok(Some(view)) = self.engine.container(id).await {
            failure.container = ContainerName::try_from(view.name.as_str()).ok();
            failure.exit_code = failure.exit_code.or(view.exit_code);
            failure.health_log = view.health.map(|h| h.log).unwrap_or_default();
            failure.health_log.truncate(5);
        }
        if let Ok(lines) = self.engine.logs(id, &LogQuery::newest(LOG_LINES, LOG_BYTES)).await {
            failure.log_lines = lines;
        }
        failure
    }
}

/// What an exit status means where it is a convention and not the app's own (Docker's and the shells').
fn exit_words(code: i32, out_of_memory: bool) -> &'static str {
    match code {
        _ if out_of_memory => ": the kernel ended it, it had no memory left",
        0 => ": its command ended, though it should go on running",
        126 => ": its command cannot be executed",
        127 => ": its command was not found",
        134 => ": it aborted",
        137 => ": it was killed (SIGKILL)",
        139 => ": a segmentation fault",
        143 => ": it was told to stop (SIGTERM)",
        _ => "",
    }
}

/// What Docker's words about a start come down to.
pub(super) fn start_kind(message: &str) -> FailureKind {
    let text = message.to_lowercase();
    if text.contains("port is already allocated") || text.contains("address already in use") {
        FailureKind::PortTaken
    } else if text.contains("no space left") {
        FailureKind::DiskFull
    } else {
        FailureKind::StartRefused
    }
}
