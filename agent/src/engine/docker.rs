//! The real Engine, through bollard.
//!
//! In: calls of the [`Engine`] trait. Out: bollard's answers, translated at once. Always true: no bollard type leaves
//! this room; every call has a deadline of its own; streams end when nothing was heard for their idle time; bodies that
//! hold environment values do not go through bollard, which logs what it sends.
//!
//! bollard 0.21 drops the API version from its URLs, so each call is the daemon's newest; `negotiate_version` is called
//! all the same, once per connection, for the day this is mended, and its answer decides what may be used.

mod processes;
mod raw;
mod translate;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{NetworkConnectRequest, NetworkCreateRequest};
use bollard::query_parameters;
use bytes::Bytes;
use dhow_proto::model::ImageRef;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use super::{
    Answer, Credentials, Engine, EngineError, EngineEvent, EngineFacts, ExecOutput, ImageFilter,
    ImageView, LogQuery, NetworkView, NewContainer, ObservedContainer, ProcessView, PullProgress,
};
use translate::{Pull, failed, tail};

/// Docker's own socket.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// Deadline of a call that reads or does something quick.
const QUICK: Duration = Duration::from_secs(30);
/// Deadline of a call that may touch many files: create, remove, rename on a busy disk.
const SLOW: Duration = Duration::from_secs(120);
/// What a stop may take beyond its grace.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// Docker's grace where nobody says another.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// bollard's own time-out until an answer's headers; ours are all shorter but a long drain's stop.
const TRANSPORT_SECONDS: u64 = 3600;
/// Time between the end of a command's streams and the Engine's notice of its end.
const EXIT_NOTICED: Duration = Duration::from_secs(2);
/// Caps of what an exec may print.
const STDOUT_CAP: usize = 256 * 1024;
const STDERR_CAP: usize = 64 * 1024;
/// Inspections in flight at once.
const INSPECTIONS: usize = 8;

/// A Docker Engine on this host. Connects with its first call, so that an agent starts before its Engine does.
pub struct Docker {
    host: String,
    client: OnceCell<bollard::Docker>,
}

impl Docker {
    /// The Engine at `unix:///…`; none: Docker's own socket.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unexpected`] where the address is no Unix socket: the agent drives the Engine of its own host.
    pub fn connect(host: Option<&str>) -> Result<Self, EngineError> {
        let host = host.unwrap_or(SOCKET);
        if !host.starts_with("unix:///") {
            return Err(EngineError::Unexpected(format!("{host} is no `unix:///…` address")));
        }
        Ok(Self { host: host.to_owned(), client: OnceCell::new() })
    }

    async fn client(&self) -> Result<&bollard::Docker, EngineError> {
        let connect = || async {
            let version = bollard::API_DEFAULT_VERSION;
            let client = bollard::Docker::connect_with_unix(&self.host, TRANSPORT_SECONDS, version)
                .map_err(failed)?;
            bounded("version", QUICK, client.negotiate_version()).await
        };
        self.client.get_or_try_init(connect).await
    }
}

impl Docker {
    async fn tail_logs(
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
}

/// A call with its deadline.
async fn bounded<T>(
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
fn or_absent(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// "Not modified" (304) means that it was so already.
fn or_unchanged(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Refused { status: 304, .. }) => Ok(()),
        other => other,
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

fn filters(key: &str, values: Vec<String>) -> Option<HashMap<String, Vec<String>>> {
    Some(HashMap::from([(key.to_owned(), values)]))
}

impl Engine for Docker {
    fn ping(&self) -> Answer<'_, ()> {
        async { bounded("ping", QUICK, self.client().await?.ping()).await.map(drop) }.boxed()
    }

    fn facts(&self) -> Answer<'_, EngineFacts> {
        async {
            let client = self.client().await?;
            let info = bounded("info", QUICK, client.info()).await?;
            let version = client.client_version();
            Ok(translate::facts(
                info,
                format!("{}.{}", version.major_version, version.minor_version),
            ))
        }
        .boxed()
    }

    fn networks<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<NetworkView>> {
        async move {
            let options = query_parameters::ListNetworksOptions {
                filters: filters("name", vec![name.to_owned()]),
            };
            let found =
                bounded("networks", QUICK, self.client().await?.list_networks(Some(options)))
                    .await?;
            // The filter matches parts of names.
            let exact = found.into_iter().filter(|n| n.name.as_deref() == Some(name));
            Ok(exact
                .map(|n| NetworkView { id: n.id.unwrap_or_default(), name: name.to_owned() })
                .collect())
        }
        .boxed()
    }

    fn create_network<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        async move {
            // Before API 1.44 the Engine makes a second network of the same name, and bollard cannot send
            // `CheckDuplicate`: so look first.
            if !self.networks(name).await?.is_empty() {
                return Ok(());
            }
            let request = NetworkCreateRequest {
                name: name.to_owned(),
                driver: Some("bridge".to_owned()),
                ..Default::default()
            };
            match bounded("create network", SLOW, self.client().await?.create_network(request))
                .await
            {
                Ok(_) | Err(EngineError::Conflict(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn connect<'a>(&'a self, network: &'a str, container: &'a str) -> Answer<'a, ()> {
        async move {
            let request =
                NetworkConnectRequest { container: container.to_owned(), endpoint_config: None };
            let result =
                bounded("connect", QUICK, self.client().await?.connect_network(network, request))
                    .await;
            match result {
                // "endpoint with name … already exists in network …"
                Err(EngineError::Refused { message, .. } | EngineError::Conflict(message))
                    if message.contains("already exists") =>
                {
                    Ok(())
                }
                other => other,
            }
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<ImageView>> {
        async move {
            match bounded("inspect image", QUICK, self.client().await?.inspect_image(reference))
                .await
            {
                Ok(image) => Ok(Some(translate::image(image))),
                Err(EngineError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn images<'a>(&'a self, filter: ImageFilter<'a>) -> Answer<'a, Vec<ImageView>> {
        async move {
            let filters = match filter {
                ImageFilter::Label(label) => filters("label", vec![label.to_owned()]),
                ImageFilter::Repository(repository) => {
                    filters("reference", vec![repository.to_owned()])
                }
            };
            let options = query_parameters::ListImagesOptions { filters, ..Default::default() };
            let images =
                bounded("images", QUICK, self.client().await?.list_images(Some(options))).await?;
            Ok(images.into_iter().map(translate::listed_image).collect())
        }
        .boxed()
    }

    fn pull<'a>(
        &'a self,
        image: &'a ImageRef,
        credentials: Option<&'a Credentials>,
        idle: Duration,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> Answer<'a, ()> {
        async move {
            let options = query_parameters::CreateImageOptions {
                from_image: Some(image.repository.clone()),
                // Without a tag the Engine pulls every tag there is.
                tag: Some(image.tag.clone()),
                ..Default::default()
            };
            let credentials = credentials.map(|c| bollard::auth::DockerCredentials {
                username: Some(c.username.expose_secret().to_owned()),
                password: Some(c.password.expose_secret().to_owned()),
                serveraddress: Some(c.server.clone()).filter(|s| !s.is_empty()),
                ..Default::default()
            });
            let mut stream =
                self.client().await?.create_image(Some(options), None, credentials).boxed();
            let mut pull = Pull::default();
            loop {
                let heard = tokio::time::timeout(idle, stream.try_next()).await;
                let message = heard.map_err(|_| EngineError::TimedOut {
                    what: format!("pull of {image}"),
                    after: idle,
                })?;
                match message {
                    Ok(None) => return Ok(()),
                    Ok(Some(message)) => {
                        // Errors can arrive inside a successful answer.
                        if let Some(error) = message.error_detail {
                            return Err(EngineError::from_pull(error.message.unwrap_or_default()));
                        }
                        if let Some(so_far) = pull.hear(message) {
                            progress(so_far);
                        }
                    }
                    Err(error) => return Err(translate::pull_failed(error)),
                }
            }
        }
        .boxed()
    }

    fn tag<'a>(&'a self, source: &'a str, target: &'a ImageRef) -> Answer<'a, ()> {
        async move {
            let options = query_parameters::TagImageOptions {
                repo: Some(target.repository.clone()),
                tag: Some(target.tag.clone()),
            };
            bounded("tag", QUICK, self.client().await?.tag_image(source, Some(options))).await
        }
        .boxed()
    }

    fn remove_image<'a>(&'a self, reference: &'a str, force: bool) -> Answer<'a, ()> {
        async move {
            let options = query_parameters::RemoveImageOptions { force, ..Default::default() };
            let call = self.client().await?.remove_image(reference, Some(options), None);
            or_absent(bounded("remove image", SLOW, call).await.map(drop))
        }
        .boxed()
    }

    fn prune_dangling<'a>(&'a self, label: &'a str) -> Answer<'a, ()> {
        async move {
            let filters = HashMap::from([
                ("dangling".to_owned(), vec!["true".to_owned()]),
                ("label".to_owned(), vec![label.to_owned()]),
            ]);
            let options = query_parameters::PruneImagesOptions { filters: Some(filters) };
            bounded("prune images", SLOW, self.client().await?.prune_images(Some(options)))
                .await
                .map(drop)
        }
        .boxed()
    }

    fn containers<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Vec<ObservedContainer>> {
        async move {
            let options = query_parameters::ListContainersOptions {
                all: true,
                filters: filters("label", labels.to_vec()),
                ..Default::default()
            };
            let listed =
                bounded("containers", QUICK, self.client().await?.list_containers(Some(options)))
                    .await?;
            let ids: Vec<String> = listed.into_iter().filter_map(|c| c.id).collect();
            let inspected = stream::iter(ids).map(|id| async move { self.container(&id).await });
            // One that went away in between is gone.
            let mut found: Vec<ObservedContainer> = inspected
                .buffered(INSPECTIONS)
                .try_filter_map(|c| async move { Ok(c) })
                .try_collect()
                .await?;
            found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
            Ok(found)
        }
        .boxed()
    }

    fn container<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ObservedContainer>> {
        async move {
            match bounded("inspect", QUICK, self.client().await?.inspect_container(name, None))
                .await
            {
                Ok(container) => translate::container(container).map(Some),
                Err(EngineError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn create(&self, container: NewContainer) -> Answer<'_, String> {
        async move {
            let socket = self.host.strip_prefix("unix://").unwrap_or(&self.host);
            raw::create(Path::new(socket), &container, SLOW).await
        }
        .boxed()
    }

    fn start<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        async move {
            or_unchanged(
                bounded("start", SLOW, self.client().await?.start_container(container, None)).await,
            )
        }
        .boxed()
    }

    fn unpause<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        async move {
            match bounded("unpause", QUICK, self.client().await?.unpause_container(container)).await
            {
                Err(EngineError::Refused { message, .. } | EngineError::Conflict(message))
                    if message.contains("not paused") =>
                {
                    Ok(())
                }
                other => other,
            }
        }
        .boxed()
    }

    fn stop<'a>(&'a self, container: &'a str, grace: Option<Duration>) -> Answer<'a, ()> {
        async move {
            // No `t` where none is wanted: 0 would kill at once, and the container may have its own grace.
            let seconds = grace.map(|g| i32::try_from(g.as_secs()).unwrap_or(i32::MAX));
            let options =
                query_parameters::StopContainerOptions { t: seconds, ..Default::default() };
            let deadline = grace.unwrap_or(DEFAULT_GRACE.max(SLOW)) + STOP_MARGIN;
            let call = self.client().await?.stop_container(container, Some(options));
            or_absent(or_unchanged(bounded("stop", deadline, call).await))
        }
        .boxed()
    }

    fn rename<'a>(&'a self, container: &'a str, name: &'a str) -> Answer<'a, ()> {
        async move {
            let options = query_parameters::RenameContainerOptions { name: name.to_owned() };
            bounded("rename", SLOW, self.client().await?.rename_container(container, options)).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        async move {
            let options =
                query_parameters::RemoveContainerOptions { v: true, ..Default::default() };
            let call = self.client().await?.remove_container(container, Some(options));
            or_absent(bounded("remove", SLOW, call).await)
        }
        .boxed()
    }

    fn logs<'a>(
        &'a self,
        container: &'a str,
        lines: usize,
        bytes: usize,
    ) -> Answer<'a, Vec<String>> {
        let query = LogQuery { lines, bytes, since: None, timestamps: false };
        async move { self.tail_logs(container, &query).await }.boxed()
    }

    fn read_logs<'a>(&'a self, container: &'a str, query: &'a LogQuery) -> Answer<'a, Vec<String>> {
        self.tail_logs(container, query).boxed()
    }

    fn archive<'a>(
        &'a self,
        container: &'a str,
        path: &'a str,
        limit: usize,
    ) -> Answer<'a, Option<Bytes>> {
        async move {
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
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        container: &'a str,
        argv: &'a [String],
        deadline: Duration,
    ) -> Answer<'a, ExecOutput> {
        async move {
            let client = self.client().await?;
            let config = CreateExecOptions {
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                cmd: Some(argv.to_vec()),
                ..Default::default()
            };
            let exec =
                bounded("create exec", QUICK, client.create_exec(container, config)).await?.id;
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
        .boxed()
    }

    fn processes<'a>(&'a self, container: &'a str) -> Answer<'a, Vec<ProcessView>> {
        async move {
            let client = self.client().await?;
            let found =
                bounded("inspect", QUICK, client.inspect_container(container, None)).await?;
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
        .boxed()
    }

    fn events(&self) -> BoxStream<'_, Result<EngineEvent, EngineError>> {
        let open = async {
            let client = self.client().await?;
            let options = query_parameters::EventsOptions {
                filters: filters("type", vec!["container".to_owned(), "network".to_owned()]),
                ..Default::default()
            };
            Ok::<_, EngineError>(client.events(Some(options)).map_err(failed))
        };
        stream::once(open)
            .try_flatten()
            .try_filter_map(|e| async move { Ok(translate::event(e)) })
            .boxed()
    }
}
