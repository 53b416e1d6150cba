//! bollard's models as our own types. PURE but for reading a stream.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models;
use dhow_proto::model::kamal;
use futures_util::{Stream, TryStreamExt as _};

use super::super::{
    ContainerState, EngineError, EngineEvent, EngineFacts, Health, HealthStatus, ImageView,
    MountView, ObservedContainer, ProcessView, PullProgress,
};

/// Health probes kept, and bytes of each.
const PROBES: usize = 5;
const PROBE_BYTES: usize = 1024;

/// An error of bollard in our words.
pub(super) fn failed(error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => refused(status_code, message),
        Error::DockerStreamError { error } => EngineError::Refused { status: 500, message: error },
        Error::RequestTimeoutError => EngineError::Unreachable("no answer in time".to_owned()),
        Error::IOError { err } => EngineError::Unreachable(err.to_string()),
        Error::SocketNotFoundError(path) => {
            EngineError::Unreachable(format!("{path} is not there"))
        }
        error @ (Error::HyperResponseError { .. }
        | Error::HyperLegacyError { .. }
        | Error::HttpClientError { .. }) => EngineError::Unreachable(chain(&error)),
        // Deserialisation and the rest: the text may hold a piece of an answer, so only its kind is told.
        Error::JsonDataError { message, .. } => EngineError::Unexpected(message),
        other => EngineError::Unexpected(format!("{:?}", std::mem::discriminant(&other))),
    }
}

/// A status of the Engine with its words.
pub(super) fn refused(status: u16, message: String) -> EngineError {
    let message: String = message.trim().chars().take(800).collect();
    match status {
        404 => EngineError::NotFound(message),
        409 => EngineError::Conflict(message),
        _ if message.contains("no space left on device") => EngineError::DiskFull(message),
        _ => EngineError::Refused { status, message },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An error of a pull: the Engine puts the registry's words into a 404 or 500.
pub(super) fn pull_failed(error: Error) -> EngineError {
    match failed(error) {
        EngineError::NotFound(message) | EngineError::Refused { message, .. } => {
            EngineError::from_pull(message)
        }
        other => other,
    }
}

pub(super) fn facts(info: models::SystemInfo, api_version: String) -> EngineFacts {
    let mirrors = info.registry_config.and_then(|r| r.mirrors).unwrap_or_default();
    EngineFacts {
        version: info.server_version.unwrap_or_default(),
        api_version,
        os: info.os_type.unwrap_or_default(),
        architecture: info.architecture.unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        registry_mirror: mirrors.into_iter().next().unwrap_or_default(),
    }
}

fn sorted(labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    labels.unwrap_or_default().into_iter().collect()
}

/// `<none>` stands for what is not there.
fn named(references: Vec<String>) -> Vec<String> {
    references.into_iter().filter(|r| !r.contains("<none>")).collect()
}

pub(super) fn image(image: models::ImageInspect) -> ImageView {
    ImageView {
        id: image.id.unwrap_or_default(),
        tags: named(image.repo_tags.unwrap_or_default()),
        digests: named(image.repo_digests.unwrap_or_default()),
        labels: sorted(image.config.and_then(|c| c.labels)),
        size: size(image.size.unwrap_or_default()),
        created_at: image.created.as_deref().and_then(|text| time(Some(text))),
    }
}

fn size(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}

pub(super) fn listed_image(image: models::ImageSummary) -> ImageView {
    ImageView {
        id: image.id,
        tags: named(image.repo_tags),
        digests: named(image.repo_digests),
        labels: image.labels.into_iter().collect(),
        size: size(image.size),
        created_at: u64::try_from(image.created)
            .ok()
            .map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s)),
    }
}

fn time(text: Option<&str>) -> Option<SystemTime> {
    let at: jiff::Timestamp = text?.parse().ok()?;
    // Docker's zero time, year 1, means never.
    (at.as_second() > 0).then(|| SystemTime::try_from(at).ok()).flatten()
}

fn state(state: &models::ContainerState) -> ContainerState {
    use models::ContainerStateStatusEnum as S;
    match state.status {
        Some(S::CREATED) => ContainerState::Created,
        Some(S::RUNNING) => ContainerState::Running,
        Some(S::PAUSED) => ContainerState::Paused,
        Some(S::RESTARTING) => ContainerState::Restarting,
        Some(S::REMOVING) => ContainerState::Removing,
        Some(S::EXITED) => ContainerState::Exited,
        Some(S::DEAD) => ContainerState::Dead,
        // A word that bollard does not know: what runs is what matters.
        _ if state.running == Some(true) => ContainerState::Running,
        _ => ContainerState::Exited,
    }
}

fn health(health: models::Health) -> Option<Health> {
    use models::HealthStatusEnum as S;
    let status = match health.status? {
        S::STARTING => HealthStatus::Starting,
        S::HEALTHY => HealthStatus::Healthy,
        S::UNHEALTHY => HealthStatus::Unhealthy,
        S::NONE | S::EMPTY => return None,
    };
    let log = health.log.unwrap_or_default();
    let newest = log.into_iter().rev().take(PROBES).map(|probe| {
        let output: String =
            probe.output.unwrap_or_default().trim().chars().take(PROBE_BYTES).collect();
        format!("exit {}: {output}", probe.exit_code.unwrap_or_default())
    });
    let mut log: Vec<String> = newest.collect();
    log.reverse();
    Some(Health { status, log })
}

/// A container as inspected.
///
/// # Errors
///
/// [`EngineError::Unexpected`] where id, name or state is missing.
pub(super) fn container(
    c: models::ContainerInspectResponse,
) -> Result<ObservedContainer, EngineError> {
    let missing = |what: &str| EngineError::Unexpected(format!("a container without {what}"));
    let config = c.config.unwrap_or_default();
    let status = c.state.ok_or_else(|| missing("state"))?;
    let state = state(&status);
    let ran = state != ContainerState::Created;
    let ended = ran && state != ContainerState::Running && state != ContainerState::Paused;
    let exit_code = status.exit_code.and_then(|code| i32::try_from(code).ok());
    let mounts = c.mounts.unwrap_or_default().into_iter().map(|m| MountView {
        // A volume's host path is Docker's business; its name is ours.
        source: m.name.or(m.source).unwrap_or_default(),
        destination: m.destination.unwrap_or_default(),
    });
    let endpoints: BTreeMap<String, models::EndpointSettings> =
        c.network_settings.and_then(|n| n.networks).unwrap_or_default().into_iter().collect();
    let address = |endpoint: &models::EndpointSettings| {
        endpoint.ip_address.clone().filter(|address| !address.is_empty())
    };
    let address = endpoints
        .get(kamal::NETWORK)
        .and_then(address)
        .or_else(|| endpoints.values().find_map(address));
    Ok(ObservedContainer {
        id: c.id.ok_or_else(|| missing("id"))?,
        name: c.name.ok_or_else(|| missing("name"))?.trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: c.image.unwrap_or_default(),
        labels: sorted(config.labels),
        state,
        // A start that failed leaves `created` with an exit code of its own.
        exit_code: exit_code.filter(|code| ended || *code != 0),
        error: status.error.unwrap_or_default(),
        health: status.health.and_then(health),
        restarts: c.restart_count.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
        created_at: time(c.created.as_deref()).unwrap_or(SystemTime::UNIX_EPOCH),
        started_at: time(status.started_at.as_deref()),
        networks: endpoints.into_keys().collect(),
        mounts: mounts.collect(),
        hostname: config.hostname.unwrap_or_default(),
        address: address.unwrap_or_default(),
        pid: status.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        out_of_memory: status.oom_killed.unwrap_or_default(),
    })
}

pub(super) fn exec_process(exec: models::ExecInspectResponse) -> Option<ProcessView> {
    if exec.running != Some(true) {
        return None;
    }
    let process = exec.process_config?;
    let argv =
        process.entrypoint.into_iter().chain(process.arguments.unwrap_or_default()).collect();
    Some(ProcessView { argv })
}

/// Command lines of `docker top`: the column CMD or COMMAND. Words with blanks in them come apart, which is enough to
/// know a `kamal-proxy deploy SERVICE`.
pub(super) fn processes(top: models::ContainerTopResponse) -> Vec<ProcessView> {
    let titles = top.titles.unwrap_or_default();
    let Some(column) = titles.iter().position(|t| t == "CMD" || t == "COMMAND") else {
        return Vec::new();
    };
    let rows = top.processes.unwrap_or_default().into_iter();
    rows.filter_map(|row| row.into_iter().nth(column))
        .map(|line| ProcessView { argv: line.split_whitespace().map(str::to_owned).collect() })
        .collect()
}

pub(super) fn event(event: models::EventMessage) -> Option<EngineEvent> {
    let actor = event.actor?;
    let attributes = sorted(actor.attributes);
    Some(EngineEvent {
        action: event.action?,
        id: actor.id?,
        name: attributes.get("name").cloned().unwrap_or_default(),
        attributes,
    })
}

/// How far a pull got, from what the Engine says of its layers.
#[derive(Default)]
pub(super) struct Pull {
    layers: HashMap<String, (bool, u64, u64)>,
}

impl Pull {
    /// Takes a message in; the picture so far where it was about a layer.
    pub(super) fn hear(&mut self, message: models::CreateImageInfo) -> Option<PullProgress> {
        let status = message.status?;
        // The first line names the tag, not a layer.
        let layer = message.id.filter(|_| !status.starts_with("Pulling from"))?;
        let entry = self.layers.entry(layer).or_default();
        entry.0 |= matches!(status.as_str(), "Pull complete" | "Already exists");
        if let Some(detail) = message.progress_detail
            && status == "Downloading"
        {
            entry.1 = detail.current.and_then(|n| u64::try_from(n).ok()).unwrap_or(entry.1);
            entry.2 = detail.total.and_then(|n| u64::try_from(n).ok()).unwrap_or(entry.2);
        }
        Some(PullProgress {
            layers_done: self.layers.values().filter(|l| l.0).count() as u32,
            layers: self.layers.len() as u32,
            bytes: self.layers.values().map(|l| l.1).sum(),
            total: self.layers.values().map(|l| l.2).sum(),
        })
    }
}

/// Appends up to a cap; what is beyond is dropped.
pub(super) fn append(buffer: &mut Vec<u8>, piece: &[u8], cap: usize) {
    let room = cap.saturating_sub(buffer.len());
    buffer.extend_from_slice(&piece[..piece.len().min(room)]);
}

/// The last bytes of a log stream, from a line's beginning on.
///
/// # Errors
///
/// As the stream.
pub(super) async fn tail(
    stream: impl Stream<Item = Result<LogOutput, Error>>,
    bytes: usize,
) -> Result<String, Error> {
    let mut stream = std::pin::pin!(stream);
    let mut text: Vec<u8> = Vec::new();
    let mut cut = false;
    while let Some(piece) = stream.try_next().await? {
        text.extend_from_slice(&piece.into_bytes());
        // Twice the cap before cutting, so that not every piece moves the whole buffer.
        if text.len() > bytes.saturating_mul(2) {
            text.drain(..text.len() - bytes);
            cut = true;
        }
    }
    if text.len() > bytes {
        text.drain(..text.len() - bytes);
        cut = true;
    }
    if cut && let Some(end) = text.iter().position(|b| *b == b'\n') {
        text.drain(..=end);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_top_gives_the_command_lines() {
        let top = models::ContainerTopResponse {
            titles: Some(["UID", "PID", "CMD"].map(String::from).to_vec()),
            processes: Some(vec![
                ["1000", "7", "kamal-proxy deploy shop-web --target=a:80"]
                    .map(String::from)
                    .to_vec(),
            ]),
        };
        assert_eq!(processes(top)[0].argv[..3], ["kamal-proxy", "deploy", "shop-web"]);
    }

    #[test]
    fn dockers_zero_time_is_never() {
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
        assert!(time(Some("2026-11-24T00:00:00.123456789Z")).is_some());
    }

    #[tokio::test]
    async fn a_long_log_is_cut_at_a_line() {
        let piece = |text: &'static str| Ok(LogOutput::StdOut { message: text.into() });
        let stream = futures_util::stream::iter([
            piece("first line\n"),
            piece("second line\n"),
            piece("third\n"),
        ]);
        assert_eq!(tail(stream, 12).await.unwrap(), "third\n");
    }
}
