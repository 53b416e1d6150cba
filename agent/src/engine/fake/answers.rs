//! What the model answers to the calls of [`Engine`].

use std::time::Duration;

use bytes::Bytes;
use dhow_proto::model::ImageRef;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::broadcast;

use super::{FakeEngine, model, proxy};
use crate::engine::{
    Answer, ContainerState, Credentials, Engine, EngineError, EngineEvent, EngineFacts, ExecOutput,
    ImageFilter, ImageView, LogQuery, NetworkView, NewContainer, ObservedContainer, ProcessView,
    PullProgress, familiar,
};

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
