//! A model of a Docker Engine with a kamal-proxy in it, for tests.
//!
//! In: calls of [`Engine`]. Out: what an Engine would answer. It "runs" containers as their images' behaviours say, keeps
//! images, tags and networks, interprets kamal-proxy's command line, and can be told to fail any next call.
//! Always true: no randomness and no clock but tokio's or the one it is given, so that a test with paused time is
//! deterministic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dhow_proto::model::{ImageRef, kamal};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::{
    Answer, ContainerState, Credentials, Engine, EngineError, EngineEvent, EngineFacts, ExecOutput,
    ImageFilter, ImageView, LogQuery, NetworkView, NewContainer, ObservedContainer, ProcessView,
    PullProgress, familiar,
};
use crate::proxy::Route;

mod model;
mod proxy;

use model::State;
pub use model::{Behaviour, FakeImage};

/// Events that a slow reader may be behind; it then looks by its own period.
const EVENTS: usize = 256;

/// A model Engine; clones are the same one.
#[derive(Clone)]
pub struct FakeEngine {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<EngineEvent>,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Whether it is there; connections end with every change.
    here: watch::Sender<bool>,
}

/// What becomes of containers whose Engine was killed, once it is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// They ran on (`live-restore`).
    Live,
    /// Docker 20.10 without it: all are stopped and stay so, whatever their restart policy says.
    Stopped,
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeEngine {
    /// An Engine without anything. Needs a tokio runtime, for its clock.
    pub fn new() -> Self {
        let begin = Instant::now();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Self::with_clock(Arc::new(move || start + begin.elapsed()))
    }

    /// An Engine that lives by this clock, whatever runtime calls it: it outlives an agent that is simulated to crash.
    pub fn with_clock(clock: Arc<dyn Fn() -> SystemTime + Send + Sync>) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        Self { state: Arc::default(), events, clock, here: watch::Sender::new(true) }
    }

    /// The model's time: tokio's from a fixed start, unless it was given another.
    pub fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// The state with everything that happened by now.
    fn lock(&self) -> MutexGuard<'_, State> {
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for event in state.pass(now) {
            // Nobody listens: nothing is lost.
            let _ = self.events.send(event);
        }
        state
    }

    /// It is killed: calls fail, connections end, containers and what runs in them go on.
    pub fn go_away(&self) {
        self.here.send_replace(false);
    }

    /// It is back.
    pub fn come_back(&self, restore: Restore) {
        if restore == Restore::Stopped {
            let mut state = self.lock();
            for deploy in state.deploys.values_mut() {
                deploy.ended.get_or_insert_with(|| Err("unexpected EOF".to_owned()));
            }
            for c in state.containers.iter_mut().filter(|c| c.view.state.is_up()) {
                c.view.state = ContainerState::Exited;
                c.view.exit_code = Some(255);
            }
        }
        self.here.send_replace(true);
    }

    fn away() -> EngineError {
        EngineError::Unreachable("connection refused".to_owned())
    }

    /// Begins a call: fails it where a test asked for that.
    fn call(&self, name: &str) -> Result<MutexGuard<'_, State>, EngineError> {
        if !*self.here.borrow() {
            return Err(Self::away());
        }
        let mut state = self.lock();
        state.calls.push(name.to_owned());
        match state.failures.iter().position(|(call, _)| call == name || call == "*") {
            Some(at) => Err(state.failures.remove(at).1),
            None => Ok(state),
        }
    }

    fn say(&self, action: &str, container: &ObservedContainer) {
        let _ = self.events.send(model::event(action, container));
    }

    /// Puts an image on the host.
    pub fn add_image(&self, image: FakeImage) {
        self.lock().add_image(image);
    }

    /// Takes an image off the host whatever uses it.
    pub fn vanish_image(&self, reference: &str) {
        let mut state = self.lock();
        if let Some(id) = state.image(reference).map(|i| i.view.id.clone()) {
            state.images.retain(|i| i.view.id != id);
        }
    }

    /// Puts an image into the registry; with a login, only that may pull it.
    pub fn publish(&self, image: FakeImage, login: Option<(&str, &str)>) {
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        self.lock().registry.push((image, login));
    }

    /// Fails the next call of this name (`pull`, `start`, `exec`, …; `*`: any).
    pub fn fail_next(&self, call: &str, error: EngineError) {
        self.lock().failures.push((call.to_owned(), error));
    }

    /// Changes how a container behaves from its next start on, or at once where it serves.
    pub fn behave(&self, container: &str, behaviour: Behaviour) {
        if let Some(c) = self.lock().find_mut(container) {
            c.behaviour = behaviour;
        }
    }

    /// Does to a container what no call of ours does: `pause`, `kill`, `die`, a state by force.
    pub fn force_state(&self, container: &str, to: ContainerState) {
        let now = self.now();
        let mut state = self.lock();
        if let Some(c) = state.find_mut(container) {
            c.view.state = to;
            if to == ContainerState::Running && c.view.started_at.is_none() {
                c.view.started_at = Some(now);
            }
        }
    }

    /// Deletes a container whatever it does.
    pub fn vanish(&self, container: &str) {
        let mut state = self.lock();
        if let Some(id) = state.find(container).map(|c| c.view.id.clone()) {
            state.containers.retain(|c| c.view.id != id);
        }
    }

    /// Deletes a network from under its containers.
    pub fn vanish_network(&self, name: &str) {
        let mut state = self.lock();
        state.networks.retain(|n| n.name != name);
        for c in &mut state.containers {
            c.view.networks.retain(|n| n != name);
        }
    }

    /// Points a service's route somewhere, past kamal-proxy.
    pub fn force_route(&self, service: &str, target: &str) {
        self.lock().routes.insert(service.to_owned(), model::plain_route(target));
    }

    /// `kamal-proxy stop`, by somebody else.
    pub fn stop_route(&self, service: &str) {
        if let Some(route) = self.lock().routes.get_mut(service) {
            route.state = crate::proxy::RouteState::Stopped;
        }
    }

    /// Every container, newest created first.
    pub fn all(&self) -> Vec<ObservedContainer> {
        self.lock().views()
    }

    /// Environment a container was created with.
    pub fn env_of(&self, container: &str) -> Vec<String> {
        let state = self.lock();
        let list = state.find(container).map(|c| c.body["Env"].clone()).unwrap_or_default();
        serde_json::from_value(list).unwrap_or_default()
    }

    /// The body a container was created with.
    pub fn body_of(&self, container: &str) -> Option<serde_json::Value> {
        self.lock().find(container).map(|c| c.body.clone())
    }

    /// Names of the calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// True where a request to the service would be answered now.
    pub fn answers(&self, service: &str) -> bool {
        let now = self.now();
        let state = self.lock();
        let up = state.find(kamal::PROXY_CONTAINER).is_some_and(|p| p.runs());
        up && state.routes.get(service).is_some_and(|route| {
            let live = route.state == crate::proxy::RouteState::Running;
            live && state
                .containers
                .iter()
                .any(|c| route.reaches(c.view.short_id()) && c.serves(now))
        })
    }

    /// kamal-proxy's table.
    pub fn routes(&self) -> BTreeMap<String, Route> {
        self.lock().routes.clone()
    }

    /// True where a container with these labels runs.
    pub fn runs_any(&self, labels: &[String]) -> bool {
        let state = self.lock();
        state.containers.iter().any(|c| c.runs() && c.has_labels(labels))
    }
}

fn done<T: Send + 'static>(result: Result<T, EngineError>) -> Answer<'static, T> {
    Box::pin(async move { result })
}

fn gone(container: &str) -> EngineError {
    EngineError::NotFound(format!("No such container: {container}"))
}

impl Engine for FakeEngine {
    fn ping(&self) -> Answer<'_, ()> {
        done(self.call("ping").map(|_| ()))
    }

    fn facts(&self) -> Answer<'_, EngineFacts> {
        done(self.call("facts").map(|_| EngineFacts {
            version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            storage_driver: "overlay2".to_owned(),
            registry_mirror: String::new(),
        }))
    }

    fn networks<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<NetworkView>> {
        done(
            self.call("networks")
                .map(|state| state.networks.iter().filter(|n| n.name == name).cloned().collect()),
        )
    }

    fn create_network<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        done(self.call("create_network").map(|mut state| {
            if !state.networks.iter().any(|n| n.name == name) {
                let id = state.new_id();
                state.networks.push(NetworkView { id, name: name.to_owned() });
            }
        }))
    }

    fn connect<'a>(&'a self, network: &'a str, container: &'a str) -> Answer<'a, ()> {
        done(self.call("connect").and_then(|mut state| {
            if !state.networks.iter().any(|n| n.name == network) {
                return Err(EngineError::NotFound(format!("network {network} not found")));
            }
            let c = state.find_mut(container).ok_or_else(|| gone(container))?;
            if !c.view.networks.iter().any(|n| n == network) {
                c.view.networks.push(network.to_owned());
            }
            Ok(())
        }))
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<ImageView>> {
        done(self.call("image").map(|state| state.image(reference).map(|i| i.view.clone())))
    }

    fn images<'a>(&'a self, filter: ImageFilter<'a>) -> Answer<'a, Vec<ImageView>> {
        done(self.call("images").map(|state| {
            let wanted = |view: &ImageView| match filter {
                ImageFilter::Label(label) => {
                    let (key, value) = label.split_once('=').unwrap_or((label, ""));
                    view.labels.get(key).is_some_and(|v| v == value)
                }
                ImageFilter::Repository(repository) => view.tags.iter().any(|t| {
                    t.rsplit_once(':').is_some_and(|(r, _)| familiar(r) == familiar(repository))
                }),
            };
            state.images.iter().map(|i| &i.view).filter(|v| wanted(v)).cloned().collect()
        }))
    }

    fn pull<'a>(
        &'a self,
        image: &'a ImageRef,
        credentials: Option<&'a Credentials>,
        _idle: Duration,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> Answer<'a, ()> {
        let pulled = self.call("pull").and_then(|mut state| state.pull(image, credentials));
        progress(PullProgress { layers_done: 1, layers: 1, bytes: 1 << 20, total: 1 << 20 });
        done(pulled)
    }

    fn tag<'a>(&'a self, source: &'a str, target: &'a ImageRef) -> Answer<'a, ()> {
        done(self.call("tag").and_then(|mut state| state.tag(source, &target.to_string())))
    }

    fn remove_image<'a>(&'a self, reference: &'a str, force: bool) -> Answer<'a, ()> {
        done(self.call("remove_image").and_then(|mut state| state.remove_image(reference, force)))
    }

    fn prune_dangling<'a>(&'a self, label: &'a str) -> Answer<'a, ()> {
        done(self.call("prune_dangling").map(|mut state| state.prune_dangling(label)))
    }

    fn containers<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Vec<ObservedContainer>> {
        done(self.call("containers").map(|state| {
            let found = |id: &str| state.find(id).is_some_and(|c| c.has_labels(labels));
            state.views().into_iter().filter(|v| found(&v.id)).collect()
        }))
    }

    fn container<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ObservedContainer>> {
        let now = self.now();
        done(self.call("container").map(|state| state.find(name).map(|c| c.shown(now))))
    }

    fn create(&self, container: NewContainer) -> Answer<'_, String> {
        let now = self.now();
        done(self.call("create").and_then(|mut state| state.create(container, now)))
    }

    fn start<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        let now = self.now();
        let started = self.call("start").and_then(|mut state| {
            state.start(container, now)?;
            Ok(state.find(container).map(|c| c.view.clone()))
        });
        if let Ok(Some(view)) = &started {
            self.say("start", view);
        }
        done(started.map(|_| ()))
    }

    fn unpause<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        done(self.call("unpause").and_then(|mut state| {
            let c = state.find_mut(container).ok_or_else(|| gone(container))?;
            if c.view.state == ContainerState::Paused {
                c.view.state = ContainerState::Running;
            }
            Ok(())
        }))
    }

    fn stop<'a>(&'a self, container: &'a str, _grace: Option<Duration>) -> Answer<'a, ()> {
        let stopped = self.call("stop").map(|mut state| {
            let c = state.find_mut(container)?;
            if !c.view.state.is_up() {
                return None;
            }
            c.view.state = ContainerState::Exited;
            c.view.exit_code = Some(0);
            Some(c.view.clone())
        });
        if let Ok(Some(view)) = &stopped {
            self.say("die", view);
        }
        done(stopped.map(|_| ()))
    }

    fn rename<'a>(&'a self, container: &'a str, name: &'a str) -> Answer<'a, ()> {
        done(self.call("rename").and_then(|mut state| {
            if state.containers.iter().any(|c| c.view.name == name) {
                return Err(model::name_taken(name));
            }
            let c = state.find_mut(container).ok_or_else(|| gone(container))?;
            c.view.name = name.to_owned();
            Ok(())
        }))
    }

    fn remove<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        done(self.call("remove").and_then(|mut state| {
            let Some(c) = state.find(container) else { return Ok(()) };
            if c.view.state.is_up() {
                let reason = format!("You cannot remove a running container {container}");
                return Err(EngineError::Conflict(reason));
            }
            let id = c.view.id.clone();
            state.containers.retain(|c| c.view.id != id);
            Ok(())
        }))
    }

    fn logs<'a>(&'a self, container: &'a str, query: &'a LogQuery) -> Answer<'a, Vec<String>> {
        done(self.call("logs").and_then(|state| {
            let c = state.find(container).ok_or_else(|| gone(container))?;
            let newest = c.log.len().saturating_sub(query.lines);
            Ok(c.log[newest..].to_vec())
        }))
    }

    fn archive<'a>(
        &'a self,
        container: &'a str,
        path: &'a str,
        limit: usize,
    ) -> Answer<'a, Option<Bytes>> {
        done(self.call("archive").and_then(|state| {
            let c = state.find(container).ok_or_else(|| gone(container))?;
            let image = state.images.iter().find(|i| i.view.id == c.view.image_id);
            let tar = image.and_then(|i| i.files.get(path.trim_end_matches("/."))).cloned();
            match tar {
                Some(tar) if tar.len() > limit => {
                    Err(EngineError::Unexpected("too large".to_owned()))
                }
                other => Ok(other),
            }
        }))
    }

    fn exec<'a>(
        &'a self,
        container: &'a str,
        argv: &'a [String],
        deadline: Duration,
    ) -> Answer<'a, ExecOutput> {
        let begun = self.call("exec").and_then(|state| {
            let c = state.find(container).ok_or_else(|| gone(container))?;
            if !c.runs() {
                return Err(EngineError::Conflict(format!("container {container} is not running")));
            }
            Ok(())
        });
        match begun {
            Err(e) => done(Err(e)),
            Ok(()) => {
                let run = proxy::run(self.clone(), argv.to_vec(), deadline);
                let mut here = self.here.subscribe();
                Box::pin(async move {
                    tokio::select! {
                        biased;
                        ended = run => ended,
                        _ = here.changed() => {
                            Err(EngineError::OutcomeUnknown("the connection was lost".to_owned()))
                        }
                    }
                })
            }
        }
    }

    fn processes<'a>(&'a self, container: &'a str) -> Answer<'a, Vec<ProcessView>> {
        done(self.call("processes").and_then(|state| {
            state.find(container).ok_or_else(|| gone(container))?;
            let running = state.deploys.values().filter(|d| d.ended.is_none());
            Ok(running.map(|d| ProcessView { argv: d.argv.clone() }).collect())
        }))
    }

    fn events(&self) -> BoxStream<'_, Result<EngineEvent, EngineError>> {
        if !*self.here.borrow() {
            return stream::once(async { Err(Self::away()) }).boxed();
        }
        let open = (self.events.subscribe(), self.here.subscribe());
        stream::unfold(open, |(mut receiver, mut here)| async move {
            loop {
                let event = tokio::select! {
                    event = receiver.recv() => event,
                    _ = here.changed() => return None,
                };
                match event {
                    Ok(event) => return Some((Ok(event), (receiver, here))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }
}
