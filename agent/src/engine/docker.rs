//! The real Engine, through bollard.
//!
//! In: calls of the [`Engine`] trait. Out: bollard's answers, translated at once. Always true: no bollard type leaves
//! this room; every call has a deadline of its own; streams end when nothing was heard for their idle time; bodies that
//! hold environment values do not go through bollard, which logs what it sends.
//!
//! bollard 0.21 drops the API version from its URLs, so each call is the daemon's newest; `negotiate_version` is called
//! all the same, once per connection, for the day this is mended, and its answer decides what may be used.

mod call;
mod image;
mod inside;
mod processes;
mod raw;
mod translate;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::models::{NetworkConnectRequest, NetworkCreateRequest};
use bollard::query_parameters;
use bytes::Bytes;
use dhow_proto::model::ImageRef;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;

use super::{
    Answer, Credentials, Engine, EngineError, EngineEvent, EngineFacts, ExecOutput, ImageFilter,
    ImageView, LogQuery, NetworkView, NewContainer, ObservedContainer, ProcessView, PullProgress,
};
use call::{QUICK, SLOW, bounded, filters, or_absent, or_unchanged};
use translate::failed;

/// Docker's own socket.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// What a stop may take beyond its grace.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// Docker's grace where nobody says another.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// bollard's own time-out until an answer's headers; ours are all shorter but a long drain's stop.
const TRANSPORT_SECONDS: u64 = 3600;
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
        self.inspect_image(reference).boxed()
    }

    fn images<'a>(&'a self, filter: ImageFilter<'a>) -> Answer<'a, Vec<ImageView>> {
        self.list_images(filter).boxed()
    }

    fn pull<'a>(
        &'a self,
        image: &'a ImageRef,
        credentials: Option<&'a Credentials>,
        idle: Duration,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> Answer<'a, ()> {
        self.pull_image(image, credentials, idle, progress).boxed()
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

    fn logs<'a>(&'a self, container: &'a str, query: &'a LogQuery) -> Answer<'a, Vec<String>> {
        self.tail_logs(container, query).boxed()
    }

    fn archive<'a>(
        &'a self,
        container: &'a str,
        path: &'a str,
        limit: usize,
    ) -> Answer<'a, Option<Bytes>> {
        self.read_archive(container, path, limit).boxed()
    }

    fn exec<'a>(
        &'a self,
        container: &'a str,
        argv: &'a [String],
        deadline: Duration,
    ) -> Answer<'a, ExecOutput> {
        self.run_exec(container, argv, deadline).boxed()
    }

    fn processes<'a>(&'a self, container: &'a str) -> Answer<'a, Vec<ProcessView>> {
        self.list_processes(container).boxed()
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
