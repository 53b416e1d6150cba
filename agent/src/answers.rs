//! Answers what people ask of this host: containers, images, logs, versions. Reads only.
//!
//! In: a question. Out: one reply or more, each within the size of a message; what does not fit is left out and said.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dhow_proto::model::kamal::{LABEL_DESTINATION, LABEL_ROLE, LABEL_SERVICE, PROXY_CONTAINER};
use dhow_proto::model::{App, RoleName};
use dhow_proto::wire;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use wire::reply::Kind as Answer;
use wire::request::Kind as Question;

use crate::engine::{Engine, EngineError, ImageFilter, ImageView, LogQuery, ObservedContainer};
use crate::plan::{Live, Routes, version_of};
use crate::proxy;
use crate::session::Host;

/// Bytes of log lines in one answer, whatever is asked.
const MAX_LOG_BYTES: usize = 1024 * 1024;
/// Lines of one answer, whatever is asked.
const MAX_LOG_LINES: usize = 100_000;
/// Bytes of log lines in one message.
const PAGE_BYTES: usize = 32 * 1024;
/// Containers or images in one answer.
const MAX_ROWS: usize = 500;
/// How long the Engine may take to say that it is there: shorter than the controller waits for that.
const PING: Duration = Duration::from_millis(2500);
/// How long `kamal-proxy list` may take.
const PROXY: Duration = Duration::from_secs(10);

/// Answers by asking the Engine.
pub struct Answers {
    engine: Arc<dyn Engine>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("{0}")]
    Engine(#[from] EngineError),
    #[error("the question is malformed: {0}")]
    Malformed(String),
    #[error("this agent does not know the question; upgrade it")]
    Unknown,
}

impl Answers {
    /// Over this Engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    /// That the agent is there, and whether the Engine is.
    async fn pong(&self) -> Answer {
        let answers = tokio::time::timeout(PING, self.engine.ping()).await;
        Answer::Pong(wire::Pong { engine_unreachable: !matches!(answers, Ok(Ok(()))) })
    }

    async fn containers(&self, app: &App) -> Result<Vec<ObservedContainer>, NoAnswer> {
        let labels = [
            format!("{LABEL_SERVICE}={}", app.service),
            format!("{LABEL_DESTINATION}={}", app.destination_label()),
        ];
        Ok(self.engine.containers(&labels).await?)
    }

    /// What kamal-proxy routes to; unknown where it cannot be asked.
    async fn routes(&self) -> Routes {
        let listed = self.engine.exec(PROXY_CONTAINER, &proxy::list(), PROXY).await;
        match listed {
            Ok(output) if output.exit_code == 0 => {
                proxy::parse_list(&output.stdout).map_or(Routes::Unknown, Routes::Known)
            }
            _ => Routes::Unknown,
        }
    }

    async fn image(&self, reference: Option<String>) -> Result<Option<ImageView>, NoAnswer> {
        match reference {
            Some(reference) => Ok(self.engine.image(&reference).await?),
            None => Ok(None),
        }
    }

    /// The app's containers by role: all of the role's, and which of them serve.
    async fn roles(&self, app: &App, wanted: &[String]) -> Result<Vec<RoleContainers>, NoAnswer> {
        let containers = self.containers(app).await?;
        let repository = containers.iter().find_map(|c| c.image.rsplit_once(':'));
        let latest = repository.map(|(repository, _)| format!("{repository}:{}", app.latest_tag()));
        let mut roles: Vec<RoleContainers> = Vec::new();
        for container in containers {
            let Ok(role) = RoleName::try_from(container.label(LABEL_ROLE)) else { continue };
            if !wanted.is_empty() && !wanted.iter().any(|w| w == role.as_str()) {
                continue;
            }
            match roles.iter_mut().find(|r| r.role == role) {
                Some(found) => found.all.push(container),
                None => roles.push(RoleContainers { role, all: vec![container], live: Vec::new() }),
            }
        }
        // A process in kamal-proxy's container costs more than all the rest, and mostly only one could serve.
        let (routes, latest) = match roles.iter().all(|r| Live::is_plain(&r.all)) {
            true => (Routes::Unknown, None),
            false => tokio::try_join!(async { Ok(self.routes().await) }, self.image(latest))?,
        };
        for role in &mut roles {
            let service = app.role_prefix(&role.role);
            let live =
                Live::of(&service, &role.all, latest.as_ref().map(|i| i.id.as_str()), &routes);
            role.live = live.iter().map(|c| c.id.clone()).collect();
        }
        // In the order asked, else by name.
        let place = |role: &RoleName| wanted.iter().position(|w| w == role.as_str());
        roles.sort_by(|a, b| place(&a.role).cmp(&place(&b.role)).then_with(|| a.role.cmp(&b.role)));
        Ok(roles)
    }

    async fn list_containers(&self, ask: wire::ListContainers) -> Result<Vec<Answer>, NoAnswer> {
        let app = app(ask.app)?;
        let mut containers = Vec::new();
        for role in self.roles(&app, &ask.roles).await? {
            for c in role.all.iter().filter(|c| !ask.running_only || c.state.is_up()).take(MAX_ROWS)
            {
                let version = version_of(&app.role_prefix(&role.role), &c.name);
                containers.push(wire::ContainerSummary {
                    id: c.short_id().to_owned(),
                    name: c.name.clone(),
                    image: c.image.clone(),
                    role: role.role.to_string(),
                    version: version.map(|v| v.to_string()).unwrap_or_default(),
                    state: c.state.as_str().to_owned(),
                    status: status_text(c),
                    created_at: Some(c.created_at.into()),
                    routed: role.live.contains(&c.id),
                    command: String::new(),
                    ports: String::new(),
                });
            }
        }
        Ok(vec![Answer::Containers(wire::ContainerList { containers })])
    }

    async fn list_images(&self, ask: wire::ListImages) -> Result<Vec<Answer>, NoAnswer> {
        let repository = ask.repository;
        dhow_proto::model::name::check_repository(&repository)
            .map_err(|e| NoAnswer::Malformed(e.to_string()))?;
        let found = self.engine.images(ImageFilter::Repository(&repository)).await?;
        let mut images = Vec::new();
        for image in found.iter().take(MAX_ROWS) {
            let digest = image.digest_in(&repository).unwrap_or_default();
            for tag in &image.tags {
                let Some((repo, tag)) = tag.rsplit_once(':') else { continue };
                images.push(wire::ImageSummary {
                    id: image.id.clone(),
                    repository: repo.to_owned(),
                    tag: tag.to_owned(),
                    digest: digest.to_owned(),
                    size: image.size,
                    created_at: image.created_at.map(Into::into),
                });
            }
        }
        Ok(vec![Answer::Images(wire::ImageList { images })])
    }

    async fn versions(&self, ask: wire::AskVersion) -> Result<Vec<Answer>, NoAnswer> {
        let app = app(ask.app)?;
        let found = self.roles(&app, &ask.roles).await?;
        let version = |role: &RoleContainers| {
            let live = role.all.iter().find(|c| role.live.contains(&c.id))?;
            version_of(&app.role_prefix(&role.role), &live.name).map(|v| v.to_string())
        };
        let mut versions: Vec<wire::RoleVersion> = found
            .iter()
            .map(|r| wire::RoleVersion {
                role: r.role.to_string(),
                version: version(r).unwrap_or_default(),
            })
            .collect();
        if versions.is_empty() {
            versions.push(wire::RoleVersion::default());
        }
        Ok(vec![Answer::Versions(wire::VersionList { versions })])
    }

    async fn logs(&self, ask: wire::ReadLogs) -> Result<Vec<Answer>, NoAnswer> {
        let app = app(ask.app)?;
        let cap = match ask.max_bytes as usize {
            0 => MAX_LOG_BYTES,
            asked => asked.min(MAX_LOG_BYTES),
        };
        let query = LogQuery {
            lines: if ask.tail == 0 {
                MAX_LOG_LINES
            } else {
                (ask.tail as usize).min(MAX_LOG_LINES)
            },
            bytes: cap,
            since: ask.since.and_then(|t| SystemTime::try_from(t).ok()),
            timestamps: ask.timestamps,
        };
        let mut pages = Vec::new();
        for role in self.roles(&app, &ask.roles).await? {
            let chosen = |c: &&ObservedContainer| match ask.container.as_str() {
                "" => role.live.contains(&c.id),
                asked => c.name == asked || c.id.starts_with(asked),
            };
            for container in role.all.iter().filter(chosen) {
                let lines = self.engine.logs(&container.id, &query).await?;
                let bytes: usize = lines.iter().map(|l| l.len() + 1).sum();
                let truncated = bytes + 1024 > cap || lines.len() == MAX_LOG_LINES;
                pages.extend(paged(&role.role, &container.name, lines, truncated));
            }
        }
        if pages.is_empty() {
            pages.push(wire::LogLines::default());
        }
        Ok(pages.into_iter().map(Answer::Logs).collect())
    }
}

/// A role's containers, newest first, and the ids of those that serve.
struct RoleContainers {
    role: RoleName,
    all: Vec<ObservedContainer>,
    live: Vec<String>,
}

fn app(app: Option<wire::AppRef>) -> Result<App, NoAnswer> {
    let app = app.ok_or_else(|| NoAnswer::Malformed("app: is missing".to_owned()))?;
    App::try_from(app).map_err(|e| NoAnswer::Malformed(e.under("app").to_string()))
}

/// Docker's word for the state, with health, exit code and restarts where they matter.
fn status_text(container: &ObservedContainer) -> String {
    let mut text = container.state.as_str().to_owned();
    if let Some(health) = &container.health {
        text = format!("{text} ({})", health.status.as_str());
    }
    if let Some(code) = container.exit_code
        && !container.state.is_up()
    {
        text = format!("{text} ({code})");
    }
    if container.restarts > 0 {
        text = format!("{text}, {} restarts", container.restarts);
    }
    text
}

/// Lines in pages that fit a message.
fn paged(
    role: &RoleName,
    container: &str,
    lines: Vec<String>,
    truncated: bool,
) -> Vec<wire::LogLines> {
    let page = || wire::LogLines {
        container: container.to_owned(),
        role: role.to_string(),
        lines: Vec::new(),
        truncated,
    };
    let mut pages = vec![page()];
    let mut size = 0;
    for line in lines {
        // One line is never larger than a page: the rest of it is left out.
        let line: String = if line.len() > PAGE_BYTES {
            line.chars().take(PAGE_BYTES / 4).collect()
        } else {
            line
        };
        if size + line.len() > PAGE_BYTES {
            pages.push(page());
            size = 0;
        }
        size += line.len() + 1;
        if let Some(last) = pages.last_mut() {
            last.lines.push(line);
        }
    }
    pages
}

impl Host for Answers {
    fn engine_info(&self) -> BoxFuture<'_, Option<wire::EngineInfo>> {
        async {
            let facts = self.engine.facts().await.ok()?;
            Some(wire::EngineInfo {
                version: facts.version,
                api_version: facts.api_version,
                os: facts.os,
                architecture: facts.architecture,
                storage_driver: facts.storage_driver,
                registry_mirror: facts.registry_mirror,
            })
        }
        .boxed()
    }

    fn answer(
        &self,
        request: wire::Request,
        replies: mpsc::Sender<wire::Reply>,
    ) -> BoxFuture<'_, ()> {
        async move {
            let id = request.id;
            let answers = match request.kind {
                Some(Question::Containers(ask)) => self.list_containers(ask).await,
                Some(Question::Images(ask)) => self.list_images(ask).await,
                Some(Question::Logs(ask)) => self.logs(ask).await,
                Some(Question::Version(ask)) => self.versions(ask).await,
                Some(Question::Ping(_)) => Ok(vec![self.pong().await]),
                Some(Question::Exec(_)) | None => Err(NoAnswer::Unknown),
            };
            let answers = answers.unwrap_or_else(|error| {
                vec![Answer::Error(wire::RequestError { reason: error.to_string() })]
            });
            let last = answers.len().saturating_sub(1);
            for (index, kind) in answers.into_iter().enumerate() {
                let reply =
                    wire::Reply { request_id: id.clone(), more: index < last, kind: Some(kind) };
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{FakeEngine, Restore};

    #[tokio::test]
    async fn a_ping_tells_of_the_agent_and_of_the_engine() {
        let engine = FakeEngine::new();
        let answers = Answers::new(Arc::new(engine.clone()));
        let ask = async || {
            let (sender, mut replies) = mpsc::channel(1);
            let kind = Some(Question::Ping(wire::Ping {}));
            let request = wire::Request { id: "1".to_owned(), kind, ..Default::default() };
            answers.answer(request, sender).await;
            replies.recv().await.unwrap().kind
        };
        assert_eq!(ask().await, Some(Answer::Pong(wire::Pong { engine_unreachable: false })));
        engine.go_away();
        assert_eq!(ask().await, Some(Answer::Pong(wire::Pong { engine_unreachable: true })));
        engine.come_back(Restore::Live);
        assert_eq!(ask().await, Some(Answer::Pong(wire::Pong { engine_unreachable: false })));
    }
}
