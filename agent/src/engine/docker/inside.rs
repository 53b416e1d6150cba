//! Inside a container: commands, processes, logs, files.

use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::Docker;
use super::call::{QUICK, SLOW, bounded};
use super::processes;
use super::translate::{self, failed, tail};
use crate::engine::{EngineError, ExecOutput, LogQuery, ProcessView};

/// Time between the end of a command's streams and the Engine's notice of its end.
const EXIT_NOTICED: Duration = Duration::from_secs(2);
/// Caps of what an exec may print.
const STDOUT_CAP: usize = 256 * 1024;
const STDERR_CAP: usize = 64 * 1024;

impl Docker {
    pub(super) async fn tail_logs(
        &self,
        container: &str,
        query: &LogQuery,
    ) -> Result<Vec<String>, EngineError> {
        let since = query.since.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let options = query_parameters::LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: query.timestamps,
            since: since.map_or(0, |at| i32::try_from(at.as_secs()).unwrap_or(i32::MAX)),
            tail: query.lines.to_string(),
            ..Default::default()
        };
        let stream = self.client().await?.logs(container, Some(options));
        let text = bounded("logs", QUICK, tail(stream, query.bytes)).await?;
        let all: Vec<String> = text.lines().map(str::to_owned).collect();
        Ok(all[all.len().saturating_sub(query.lines)..].to_vec())
    }

    pub(super) async fn read_archive(
        &self,
        container: &str,
        path: &str,
        limit: usize,
    ) -> Result<Option<Bytes>, EngineError> {
        let options = query_parameters::DownloadFromContainerOptions { path: path.to_owned() };
        let mut stream =
            self.client().await?.download_from_container(container, Some(options)).boxed();
        let mut archive = Vec::new();
        loop {
            match bounded("archive", SLOW, stream.try_next()).await {
                Ok(Some(piece)) if archive.len() + piece.len() > limit => {
                    let message = format!("{path} of {container} is larger than {limit} bytes");
                    return Err(EngineError::Refused { status: 413, message });
                }
                Ok(Some(piece)) => archive.extend_from_slice(&piece),
                Ok(None) => return Ok(Some(archive.into())),
                Err(EngineError::NotFound(_)) if archive.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn run_exec(
        &self,
        container: &str,
        argv: &[String],
        deadline: Duration,
    ) -> Result<ExecOutput, EngineError> {
        let client = self.client().await?;
        let config = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            ..Default::default()
        };
        let exec = bounded("create exec", QUICK, client.create_exec(container, config)).await?.id;
        // From here on the command may have begun.
        let unknown = |error: EngineError| EngineError::OutcomeUnknown(error.to_string());
        let options = StartExecOptions { detach: false, ..Default::default() };
        let run = async {
            let mut text = (Vec::new(), Vec::new());
            let started = client.start_exec(&exec, Some(options)).await?;
            if let StartExecResults::Attached { mut output, .. } = started {
                while let Some(piece) = output.try_next().await? {
                    match piece {
                        LogOutput::StdErr { message } => {
                            translate::append(&mut text.1, &message, STDERR_CAP)
                        }
                        LogOutput::StdOut { message } | LogOutput::Console { message } => {
                            translate::append(&mut text.0, &message, STDOUT_CAP);
                        }
                        LogOutput::StdIn { .. } => {}
                    }
                }
            }
            Ok(text)
        };
        let started = tokio::time::timeout(deadline, run).await;
        let (stdout, stderr) = match started {
            Ok(Ok(text)) => text,
            // Refused before it ran: the container stopped in between.
            Ok(Err(error)) => {
                return Err(match failed(error) {
                    refused @ (EngineError::NotFound(_) | EngineError::Conflict(_)) => refused,
                    other => unknown(other),
                });
            }
            Err(_) => {
                let what = argv.first().cloned().unwrap_or_default();
                return Err(unknown(EngineError::TimedOut { what, after: deadline }));
            }
        };
        let exit_code = exit_code(client, &exec).await?;
        Ok(ExecOutput {
            exit_code: i32::try_from(exit_code).unwrap_or(i32::MAX),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    pub(super) async fn list_processes(
        &self,
        container: &str,
    ) -> Result<Vec<ProcessView>, EngineError> {
        let client = self.client().await?;
        let found = bounded("inspect", QUICK, client.inspect_container(container, None)).await?;
        let mut processes = Vec::new();
        for id in found.exec_ids.unwrap_or_default() {
            // An exec that ended in between is gone.
            if let Ok(exec) = bounded("inspect exec", QUICK, client.inspect_exec(&id)).await {
                processes.extend(translate::exec_process(exec));
            }
        }
        // Exec ids are lost when the Engine restarts; the processes are not.
        let first = found.state.and_then(|state| state.pid).unwrap_or_default();
        let id = found.id.unwrap_or_default();
        if let Some(seen) = processes::of_container(Path::new("/proc"), first, &id) {
            processes.extend(seen);
            return Ok(processes);
        }
        match bounded("top", QUICK, client.top_processes(container, None)).await {
            Ok(top) => processes.extend(translate::processes(top)),
            // Not running: nothing runs in it.
            Err(EngineError::Conflict(_)) => {}
            // Or there is no `ps` on the host: then the execs have to do.
            Err(EngineError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(processes)
    }
}

/// Of a command whose streams have ended; the Engine notices its end a moment later.
async fn exit_code(client: &bollard::Docker, exec: &str) -> Result<i64, EngineError> {
    let until = tokio::time::Instant::now() + EXIT_NOTICED;
    loop {
        let ended = bounded("inspect exec", QUICK, client.inspect_exec(exec))
            .await
            .map_err(|error| EngineError::OutcomeUnknown(error.to_string()))?;
        match (ended.running, ended.exit_code) {
            (Some(false), Some(exit_code)) => return Ok(exit_code),
            _ if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // The stream ended before the command did: its connection broke.
            _ => {
                return Err(EngineError::OutcomeUnknown(
                    "the connection ended before the command did".to_owned(),
                ));
            }
        }
    }
}
