//! A model of a Docker Engine with a kamal-proxy in it, for tests.
//!
//! In: calls of [`Engine`]. Out: what an Engine would answer. It "runs" containers as their images' behaviours say, keeps
//! images, tags and networks, interprets kamal-proxy's command line, and can be told to fail any next call.
//! Always true: no randomness and no clock but tokio's or the one it is given, so that a test with paused time is
//! deterministic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use dhow_proto::model::kamal;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::{ContainerState, EngineError, EngineEvent, ObservedContainer};
use crate::proxy::Route;

mod answers;
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
