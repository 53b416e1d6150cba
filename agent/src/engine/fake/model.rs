//! What the model Engine keeps.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dhow_proto::model::{BlobDigest, ImageRef, kamal};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::proxy::Deploy;
use crate::engine::{
    ContainerState, Credentials, EngineError, EngineEvent, Health, HealthStatus, ImageView,
    MountView, NetworkView, NewContainer, ObservedContainer, familiar,
};
use crate::proxy::{Route, RouteState};

/// Between an exit and the restart that the policy asks for.
const BACKOFF: Duration = Duration::from_millis(100);

/// How a container of an image behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers at once.
    #[default]
    Well,
    /// Answers after this time.
    HealthyAfter(Duration),
    /// Runs and never answers.
    Unhealthy,
    /// Exits this long after each start with this status; answers from one second after the start on.
    Exits(Duration, i32),
    /// Cannot be started; the Engine's words.
    StartRefused(String),
}

/// An image of the model.
#[derive(Clone, Debug, Default)]
pub struct FakeImage {
    /// As the Engine shows it.
    pub view: ImageView,
    /// How its containers behave.
    pub behaviour: Behaviour,
    /// True with a HEALTHCHECK.
    pub healthcheck: bool,
    /// Directories as tar.
    pub files: BTreeMap<String, Bytes>,
}

impl FakeImage {
    /// An image of a service; id and registry digest follow from reference and `content`.
    pub fn new(reference: &str, service: Option<&str>, content: &str) -> Self {
        let digest = |kind: &str| {
            format!("sha256:{}", BlobDigest::of(format!("{kind} {content}").as_bytes()))
        };
        let repository = reference.rsplit_once(':').map_or(reference, |(r, _)| r);
        let labels = service.map(|s| (kamal::LABEL_SERVICE.to_owned(), s.to_owned()));
        Self {
            view: ImageView {
                id: digest("id"),
                tags: vec![reference.to_owned()],
                digests: vec![format!("{repository}@{}", digest("digest"))],
                labels: labels.into_iter().collect(),
                size: 1_000_000 + content.len() as u64,
                created_at: None,
            },
            ..Self::default()
        }
    }

    /// The same with a behaviour.
    #[must_use]
    pub fn behaving(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// The same with a HEALTHCHECK.
    #[must_use]
    pub fn with_healthcheck(mut self) -> Self {
        self.healthcheck = true;
        self
    }
}

#[derive(Clone, Debug)]
pub(super) struct FakeContainer {
    pub(super) view: ObservedContainer,
    pub(super) body: Value,
    pub(super) behaviour: Behaviour,
    pub(super) healthcheck: bool,
    pub(super) log: Vec<String>,
}

impl FakeContainer {
    pub(super) fn runs(&self) -> bool {
        self.view.state == ContainerState::Running
    }

    /// True where a request would be answered.
    pub(super) fn serves(&self, now: SystemTime) -> bool {
        self.runs()
            && match &self.behaviour {
                Behaviour::Well => true,
                Behaviour::Exits(..) => self.uptime(now) >= Duration::from_secs(1),
                Behaviour::HealthyAfter(after) => self.uptime(now) >= *after,
                Behaviour::Unhealthy | Behaviour::StartRefused(_) => false,
            }
    }

    fn uptime(&self, now: SystemTime) -> Duration {
        self.view.started_at.and_then(|s| now.duration_since(s).ok()).unwrap_or_default()
    }

    pub(super) fn has_labels(&self, labels: &[String]) -> bool {
        labels.iter().all(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            self.view.labels.get(key).is_some_and(|v| v == value)
        })
    }

    pub(super) fn shown(&self, now: SystemTime) -> ObservedContainer {
        let mut view = self.view.clone();
        view.health = self.healthcheck.then(|| {
            let status = match (&self.behaviour, self.runs()) {
                (_, true) if self.serves(now) => HealthStatus::Healthy,
                (Behaviour::Unhealthy, true) if self.uptime(now) > Duration::from_secs(3) => {
                    HealthStatus::Unhealthy
                }
                (_, true) => HealthStatus::Starting,
                // As Docker shows a stopped container with a HEALTHCHECK.
                (_, false) => HealthStatus::Unhealthy,
            };
            Health { status, log: vec![format!("exit 1: {}", status.as_str())] }
        });
        view
    }

    fn restarts_by_itself(&self) -> bool {
        match self.body["HostConfig"]["RestartPolicy"]["Name"].as_str() {
            Some("always" | "unless-stopped" | "on-failure") => true,
            Some(_) | None => false,
        }
    }

    /// Lives on until `now`; an event for each exit.
    fn pass(&mut self, now: SystemTime, events: &mut Vec<EngineEvent>) {
        while let (Behaviour::Exits(after, code), ContainerState::Running, Some(started)) =
            (&self.behaviour, self.view.state, self.view.started_at)
        {
            let end = started + *after;
            if end > now {
                return;
            }
            self.view.exit_code = Some(*code);
            self.log.push(format!("exit {code}"));
            let mut died = event("die", &self.view);
            died.attributes.insert("exitCode".to_owned(), code.to_string());
            events.push(died);
            if self.restarts_by_itself() {
                self.view.restarts += 1;
                self.view.started_at = Some(end + BACKOFF);
                self.log.push("start".to_owned());
            } else {
                self.view.state = ContainerState::Exited;
            }
        }
    }
}

pub(super) fn event(action: &str, container: &ObservedContainer) -> EngineEvent {
    let mut attributes = container.labels.clone();
    attributes.insert("name".to_owned(), container.name.clone());
    EngineEvent {
        action: action.to_owned(),
        id: container.id.clone(),
        name: container.name.clone(),
        attributes,
    }
}

pub(super) fn name_taken(name: &str) -> EngineError {
    EngineError::Conflict(format!("The container name \"/{name}\" is already in use"))
}

pub(super) fn plain_route(target: &str) -> Route {
    Route {
        hosts: vec!["*".to_owned()],
        paths: vec!["/".to_owned()],
        targets: vec![target.to_owned()],
        state: RouteState::Running,
        tls: false,
    }
}

/// Everything.
#[derive(Default)]
pub(super) struct State {
    pub(super) networks: Vec<NetworkView>,
    pub(super) images: Vec<FakeImage>,
    pub(super) registry: Vec<(FakeImage, Option<(String, String)>)>,
    /// In the order of their creation.
    pub(super) containers: Vec<FakeContainer>,
    /// kamal-proxy's table; lives in a volume.
    pub(super) routes: BTreeMap<String, Route>,
    /// `kamal-proxy deploy`s by number, also those whose caller is gone.
    pub(super) deploys: BTreeMap<u64, Deploy>,
    pub(super) failures: Vec<(String, EngineError)>,
    pub(super) calls: Vec<String>,
    counter: u64,
}

impl State {
    pub(super) fn pass(&mut self, now: SystemTime) -> Vec<EngineEvent> {
        let mut events = Vec::new();
        for c in &mut self.containers {
            c.pass(now, &mut events);
        }
        super::proxy::pass(self, now);
        events
    }

    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn new_id(&mut self) -> String {
        let number = self.number();
        BlobDigest::of(format!("object {number}").as_bytes()).to_string()
    }

    pub(super) fn find(&self, key: &str) -> Option<&FakeContainer> {
        self.containers
            .iter()
            .find(|c| c.view.name == key || c.view.id == key || c.view.short_id() == key)
    }

    pub(super) fn find_mut(&mut self, key: &str) -> Option<&mut FakeContainer> {
        self.containers
            .iter_mut()
            .find(|c| c.view.name == key || c.view.id == key || c.view.short_id() == key)
    }

    pub(super) fn views(&self) -> Vec<ObservedContainer> {
        let last = self.containers.iter().map(|c| c.view.created_at).max();
        let now = last.unwrap_or(SystemTime::UNIX_EPOCH) + Duration::from_secs(3600);
        self.containers.iter().rev().map(|c| c.shown(now)).collect()
    }

    pub(super) fn image(&self, reference: &str) -> Option<&FakeImage> {
        self.images.iter().find(|i| {
            i.view.id == reference || i.view.tags.iter().any(|t| familiar(t) == familiar(reference))
        })
    }

    pub(super) fn add_image(&mut self, image: FakeImage) {
        for tag in &image.view.tags {
            self.untag(tag);
        }
        match self.images.iter_mut().find(|i| i.view.id == image.view.id) {
            Some(there) => {
                there.view.tags.extend(image.view.tags);
                there.behaviour = image.behaviour;
            }
            None => self.images.push(image),
        }
    }

    fn untag(&mut self, reference: &str) {
        for image in &mut self.images {
            image.view.tags.retain(|t| familiar(t) != familiar(reference));
        }
    }

    pub(super) fn pull(
        &mut self,
        image: &ImageRef,
        credentials: Option<&Credentials>,
    ) -> Result<(), EngineError> {
        let reference = image.to_string();
        let found = self.registry.iter().rfind(|(i, _)| i.view.tags.contains(&reference));
        let Some((image, login)) = found.cloned() else {
            return Err(EngineError::ImageMissing(format!("manifest for {reference} not found")));
        };
        let given = credentials.map(|c| (c.username.expose_secret(), c.password.expose_secret()));
        if let Some((user, password)) = &login
            && given != Some((user.as_str(), password.as_str()))
        {
            return Err(EngineError::RegistryDenied("unauthorized".to_owned()));
        }
        self.add_image(image);
        Ok(())
    }

    pub(super) fn tag(&mut self, source: &str, target: &str) -> Result<(), EngineError> {
        let id = match self.image(source) {
            Some(image) => image.view.id.clone(),
            None => return Err(EngineError::NotFound(format!("No such image: {source}"))),
        };
        self.untag(target);
        for image in self.images.iter_mut().filter(|i| i.view.id == id) {
            image.view.tags.push(target.to_owned());
        }
        Ok(())
    }

    pub(super) fn remove_image(&mut self, reference: &str, force: bool) -> Result<(), EngineError> {
        let Some(image) = self.image(reference) else { return Ok(()) };
        let (id, last) = (image.view.id.clone(), image.view.tags.len() <= 1);
        let used = self.containers.iter().any(|c| c.view.image_id == id);
        if used && last && !force {
            return Err(EngineError::Conflict(format!("{reference} must be forced: in use")));
        }
        self.untag(reference);
        if last && !used {
            self.images.retain(|i| i.view.id != id);
        }
        Ok(())
    }

    pub(super) fn prune_dangling(&mut self, label: &str) {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let used: Vec<String> = self.containers.iter().map(|c| c.view.image_id.clone()).collect();
        self.images.retain(|i| {
            let labelled = i.view.labels.get(key).is_some_and(|v| v == value);
            !(i.view.tags.is_empty() && labelled && !used.contains(&i.view.id))
        });
    }

    pub(super) fn create(
        &mut self,
        container: NewContainer,
        now: SystemTime,
    ) -> Result<String, EngineError> {
        let NewContainer { name, platform: _, body } = container;
        let body = body.json().clone();
        let reference = body["Image"].as_str().unwrap_or_default().to_owned();
        let Some(image) = self.image(&reference).cloned() else {
            return Err(EngineError::NotFound(format!("No such image: {reference}")));
        };
        if self.containers.iter().any(|c| c.view.name == name) {
            return Err(name_taken(&name));
        }
        let mut labels = image.view.labels.clone();
        for (key, value) in body["Labels"].as_object().into_iter().flatten() {
            labels.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
        }
        let id = self.new_id();
        let network = body["HostConfig"]["NetworkMode"].as_str().unwrap_or("bridge").to_owned();
        let binds = body["HostConfig"]["Binds"].as_array().into_iter().flatten();
        let mounts = binds.filter_map(|bind| {
            let mut parts = bind.as_str()?.split(':');
            let (source, destination) = (parts.next()?.to_owned(), parts.next()?.to_owned());
            Some(MountView { source, destination })
        });
        let view = ObservedContainer {
            id: id.clone(),
            name,
            image: reference,
            image_id: image.view.id.clone(),
            labels,
            state: ContainerState::Created,
            exit_code: None,
            error: String::new(),
            health: None,
            restarts: 0,
            // Distinct, so that the newest is the newest.
            created_at: now + Duration::from_nanos(self.counter),
            started_at: None,
            networks: vec![network],
            mounts: mounts.collect(),
            hostname: body["Hostname"].as_str().unwrap_or_default().to_owned(),
            address: String::new(),
            pid: None,
            out_of_memory: false,
        };
        self.containers.push(FakeContainer {
            view,
            body,
            behaviour: image.behaviour,
            healthcheck: image.healthcheck,
            log: Vec::new(),
        });
        Ok(id)
    }

    pub(super) fn start(&mut self, container: &str, now: SystemTime) -> Result<(), EngineError> {
        let Some(c) = self.find(container) else {
            return Err(EngineError::NotFound(format!("No such container: {container}")));
        };
        if c.view.state.is_up() {
            return Ok(());
        }
        let refused = |message: String| EngineError::Refused { status: 500, message };
        if let Behaviour::StartRefused(message) = c.behaviour.clone() {
            if let Some(c) = self.find_mut(container) {
                c.view.exit_code = Some(128);
                c.view.error.clone_from(&message);
            }
            return Err(refused(message));
        }
        for network in &c.view.networks {
            if network != "bridge" && !self.networks.iter().any(|n| n.name == *network) {
                return Err(EngineError::NotFound(format!("network {network} not found")));
            }
        }
        let ports = published(c);
        let id = c.view.id.clone();
        let taken = |port: &&String| {
            let other = |o: &&FakeContainer| o.view.id != id && o.view.state.is_up();
            self.containers.iter().filter(other).any(|o| published(o).contains(port))
        };
        if let Some(port) = ports.iter().find(taken) {
            let message = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
            return Err(refused(message));
        }
        if let Some(c) = self.find_mut(container) {
            c.view.state = ContainerState::Running;
            c.view.started_at = Some(now);
            c.view.restarts = 0;
            c.log.push("start".to_owned());
        }
        Ok(())
    }
}

fn published(container: &FakeContainer) -> Vec<String> {
    let bindings = container.body["HostConfig"]["PortBindings"].as_object();
    let lists = bindings.into_iter().flatten().filter_map(|(_, list)| list.as_array());
    lists.flatten().filter_map(|b| Some(b["HostPort"].as_str()?.to_owned())).collect()
}
