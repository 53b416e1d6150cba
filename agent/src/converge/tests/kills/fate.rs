//! Who dies, and when: every step and every call of the Engine that changes something is a point where it may strike.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use dhow_proto::breakpoint::{Asked, Wait};
use dhow_proto::model::ImageRef;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::engine::fake::{FakeEngine, Restore};
use crate::engine::{
    Answer, Credentials, Engine, EngineError, EngineEvent, EngineFacts, ExecOutput, ImageFilter,
    ImageView, LogQuery, NetworkView, NewContainer, ObservedContainer, ProcessView, PullProgress,
};

/// How long a killed Engine is away.
const AWAY: Duration = Duration::from_secs(3);
/// After this a command that waits is in the middle of it.
const MIDDLE: Duration = Duration::from_millis(500);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Agent,
    Engine(Restore),
}

/// A death at the point of this number, counted from 0.
pub(super) type Strike = (usize, Victim);

#[derive(Default)]
struct State {
    strikes: Vec<Strike>,
    met: Vec<String>,
    dead: bool,
    /// What must be true from now on.
    must_serve: Vec<&'static str>,
    violations: BTreeSet<String>,
}

/// Of one host; clones are the same.
#[derive(Clone)]
pub(super) struct Fate {
    engine: FakeEngine,
    state: Arc<Mutex<State>>,
    died: watch::Sender<u64>,
}

impl Fate {
    pub(super) fn new(engine: FakeEngine, strikes: &[Strike]) -> Self {
        let state = State { strikes: strikes.to_vec(), ..State::default() };
        Self { engine, state: Arc::new(Mutex::new(state)), died: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Every point so far.
    pub(super) fn met(&self) -> Vec<String> {
        self.lock().met.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.iter().cloned().collect()
    }

    /// From now on these services always have something that answers.
    pub(super) fn must_serve(&self, services: &[&'static str]) {
        self.lock().must_serve = services.to_vec();
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// The agent dies, wherever it is.
    pub(super) fn die(&self) {
        self.lock().dead = true;
        self.died.send_modify(|n| *n += 1);
    }

    /// The agent is started anew.
    pub(super) fn revive(&self) {
        self.lock().dead = false;
    }

    /// Ends when the agent has died.
    pub(super) async fn died(&self) {
        let mut died = self.died.subscribe();
        while !self.is_dead() {
            died.changed().await.unwrap();
        }
    }

    fn look(&self, point: &str) {
        let services = self.lock().must_serve.clone();
        for service in services {
            // The role without proxy answers nobody: it must run.
            let serves = match service.strip_suffix("-job") {
                Some(app) => {
                    let labels = [format!("service={app}"), "role=job".to_owned()];
                    self.engine.runs_any(&labels)
                }
                None => self.engine.answers(service),
            };
            if !serves {
                self.lock().violations.insert(format!("nothing serves {service}: {point}"));
            }
        }
    }

    /// A point; does not end where the agent dies at it. True where the Engine did.
    async fn meet(&self, point: String) -> bool {
        self.alive().await;
        self.look(&point);
        let victim = {
            let mut state = self.lock();
            let number = state.met.len();
            state.met.push(point);
            let victim = state.strikes.iter().find(|(at, _)| *at == number).map(|(_, v)| *v);
            state.dead |= victim == Some(Victim::Agent);
            victim
        };
        match victim {
            None => false,
            Some(Victim::Agent) => {
                self.died.send_modify(|n| *n += 1);
                std::future::pending().await
            }
            Some(Victim::Engine(restore)) => {
                self.engine.go_away();
                let engine = self.engine.clone();
                // Ends with the test's runtime at the latest.
                drop(tokio::spawn(async move {
                    tokio::time::sleep(AWAY).await;
                    engine.come_back(restore);
                }));
                true
            }
        }
    }

    /// The dead do nothing.
    async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// Points before and after steps.
impl Asked for Fate {
    fn ask<'a>(&'a self, point: &'a str) -> Wait<'a> {
        Box::pin(async move {
            self.meet(point.to_owned()).await;
        })
    }
}

/// The Engine as a mortal agent calls it.
pub(super) struct Mortal {
    pub(super) engine: FakeEngine,
    pub(super) fate: Fate,
}

impl Mortal {
    async fn change<T>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        self.fate.meet(format!("before call {what}")).await;
        tokio::pin!(call);
        let middle = tokio::time::sleep(MIDDLE);
        tokio::select! {
            biased;
            answer = &mut call => return self.answered(&what, answer).await,
            () = middle => {}
        }
        self.fate.meet(format!("inside call {what}")).await;
        let answer = call.await;
        self.answered(&what, answer).await
    }

    async fn answered<T>(
        &self,
        what: &str,
        answer: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match self.fate.meet(format!("after call {what}")).await {
            false => answer,
            // It did what was asked, and the answer was lost.
            true => Err(EngineError::Unreachable("connection reset by peer".to_owned())),
        }
    }
}

/// Calls that read.
macro_rules! read {
    ($self:ident, $call:expr) => {
        Box::pin(async move {
            $self.fate.alive().await;
            $call.await
        })
    };
}

/// Calls that change something. The model acts when it is called, so that is what must wait.
macro_rules! change {
    ($self:ident, $what:expr, $call:expr) => {
        Box::pin(async move { $self.change($what, async move { $call.await }).await })
    };
}

impl Engine for Mortal {
    fn ping(&self) -> Answer<'_, ()> {
        read!(self, self.engine.ping())
    }

    fn facts(&self) -> Answer<'_, EngineFacts> {
        read!(self, self.engine.facts())
    }

    fn networks<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<NetworkView>> {
        read!(self, self.engine.networks(name))
    }

    fn create_network<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        change!(self, "create_network".to_owned(), self.engine.create_network(name))
    }

    fn connect<'a>(&'a self, network: &'a str, container: &'a str) -> Answer<'a, ()> {
        change!(self, "connect".to_owned(), self.engine.connect(network, container))
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<ImageView>> {
        read!(self, self.engine.image(reference))
    }

    fn images<'a>(&'a self, filter: ImageFilter<'a>) -> Answer<'a, Vec<ImageView>> {
        read!(self, self.engine.images(filter))
    }

    fn pull<'a>(
        &'a self,
        image: &'a ImageRef,
        credentials: Option<&'a Credentials>,
        idle: Duration,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> Answer<'a, ()> {
        change!(self, "pull".to_owned(), self.engine.pull(image, credentials, idle, progress))
    }

    fn tag<'a>(&'a self, source: &'a str, target: &'a ImageRef) -> Answer<'a, ()> {
        change!(self, "tag".to_owned(), self.engine.tag(source, target))
    }

    fn remove_image<'a>(&'a self, reference: &'a str, force: bool) -> Answer<'a, ()> {
        change!(self, "remove_image".to_owned(), self.engine.remove_image(reference, force))
    }

    fn prune_dangling<'a>(&'a self, label: &'a str) -> Answer<'a, ()> {
        change!(self, "prune_dangling".to_owned(), self.engine.prune_dangling(label))
    }

    fn containers<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Vec<ObservedContainer>> {
        read!(self, self.engine.containers(labels))
    }

    fn container<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ObservedContainer>> {
        read!(self, self.engine.container(name))
    }

    fn create(&self, container: NewContainer) -> Answer<'_, String> {
        change!(self, "create".to_owned(), self.engine.create(container))
    }

    fn start<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        change!(self, "start".to_owned(), self.engine.start(container))
    }

    fn unpause<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        change!(self, "unpause".to_owned(), self.engine.unpause(container))
    }

    fn stop<'a>(&'a self, container: &'a str, grace: Option<Duration>) -> Answer<'a, ()> {
        change!(self, "stop".to_owned(), self.engine.stop(container, grace))
    }

    fn rename<'a>(&'a self, container: &'a str, name: &'a str) -> Answer<'a, ()> {
        change!(self, "rename".to_owned(), self.engine.rename(container, name))
    }

    fn remove<'a>(&'a self, container: &'a str) -> Answer<'a, ()> {
        change!(self, "remove".to_owned(), self.engine.remove(container))
    }

    fn logs<'a>(&'a self, container: &'a str, query: &'a LogQuery) -> Answer<'a, Vec<String>> {
        read!(self, self.engine.logs(container, query))
    }

    fn archive<'a>(
        &'a self,
        container: &'a str,
        path: &'a str,
        limit: usize,
    ) -> Answer<'a, Option<Bytes>> {
        read!(self, self.engine.archive(container, path, limit))
    }

    fn exec<'a>(
        &'a self,
        container: &'a str,
        argv: &'a [String],
        deadline: Duration,
    ) -> Answer<'a, ExecOutput> {
        let what = argv.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
        match what.as_str() {
            "kamal-proxy list" => read!(self, self.engine.exec(container, argv, deadline)),
            _ => change!(self, format!("exec {what}"), self.engine.exec(container, argv, deadline)),
        }
    }

    fn processes<'a>(&'a self, container: &'a str) -> Answer<'a, Vec<ProcessView>> {
        read!(self, self.engine.processes(container))
    }

    fn events(&self) -> BoxStream<'_, Result<EngineEvent, EngineError>> {
        self.engine.events()
    }
}
