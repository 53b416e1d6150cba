//! What a rollout needs of the fleet, in its own words: presence, statuses, one question.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use dhow_proto::model::status::Status;
use dhow_proto::model::{App, Generation, HostName, Unit};
use dhow_proto::wire;
use tokio::sync::watch;

use crate::gateway::{Fleet, RequestRefused};

/// Longest wait for a host's list of containers: it only asks the Engine.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for a host's word that it is there; its agent gives the Engine 2.5 s of that. A person waits for it in vain
/// for no longer than five seconds in all.
const PING: Duration = Duration::from_millis(3500);

/// What a call that waits returns.
pub type Waits<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a host says when it is asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is.
    Here,
    /// Its agent is, but Docker does not answer there.
    NoEngine,
    /// Nothing.
    None,
}

/// Where a rollout looks. The gateway's picture in a controller, a script in tests.
pub trait Watched: Send + Sync + 'static {
    /// Features of the host's agent; none where it has no session.
    fn online(&self, host: &HostName) -> Option<Vec<String>>;
    /// First registry mirror of the host's Engine; none where it has none or no session.
    fn mirror(&self, host: &HostName) -> Option<String>;
    /// When the host was last heard of, since this controller started.
    fn last_seen(&self, host: &HostName) -> Option<SystemTime>;
    /// What the host last said of a unit.
    fn status(&self, host: &HostName, unit: &Unit) -> Option<Status>;
    /// What the host last said of all its units.
    fn statuses(&self, host: &HostName) -> Vec<Status>;
    /// The newest intent the host refused, and why.
    fn refusal(&self, host: &HostName, unit: &Unit) -> Option<(Generation, String)>;
    /// Changes with all of these: wait on it, then look again.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Whether the host can be worked with right now. Presence tells of one that fell silent only after seconds.
    fn asked<'a>(&'a self, host: &'a HostName) -> Waits<'a, Word> {
        Box::pin(async move { self.online(host).map_or(Word::None, |_| Word::Here) })
    }
    /// Containers of an app, running or not; an error is a sentence.
    fn containers<'a>(
        &'a self,
        host: &'a HostName,
        app: &'a App,
    ) -> Waits<'a, Result<Vec<wire::ContainerSummary>, String>>;
}

impl Watched for Fleet {
    fn online(&self, host: &HostName) -> Option<Vec<String>> {
        Some(Fleet::online(self, host)?.features)
    }

    fn mirror(&self, host: &HostName) -> Option<String> {
        Some(Fleet::online(self, host)?.engine?.registry_mirror).filter(|m| !m.is_empty())
    }

    fn last_seen(&self, host: &HostName) -> Option<SystemTime> {
        Fleet::last_seen(self, host)
    }

    fn status(&self, host: &HostName, unit: &Unit) -> Option<Status> {
        Fleet::status(self, host, unit)
    }

    fn statuses(&self, host: &HostName) -> Vec<Status> {
        Fleet::statuses(self, host)
    }

    fn refusal(&self, host: &HostName, unit: &Unit) -> Option<(Generation, String)> {
        Fleet::refusal(self, host, unit)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Fleet::changes(self)
    }

    fn asked<'a>(&'a self, host: &'a HostName) -> Waits<'a, Word> {
        Box::pin(async move {
            let Ok(id) = super::start::random_id() else { return Word::None };
            let ping = wire::request::Kind::Ping(wire::Ping {});
            match self.request(host, id, ping, PING) {
                // An agent that does not know the question says so, which is an answer too.
                Ok(mut replies) => {
                    let reply = tokio::time::timeout(PING, replies.recv()).await.ok().flatten();
                    match reply.map(|reply| reply.kind) {
                        Some(Some(wire::reply::Kind::Pong(pong))) if pong.engine_unreachable => {
                            Word::NoEngine
                        }
                        Some(_) => Word::Here,
                        None => Word::None,
                    }
                }
                Err(RequestRefused::Busy(_)) => Word::Here,
                Err(RequestRefused::Offline(_)) => Word::None,
            }
        })
    }

    fn containers<'a>(
        &'a self,
        host: &'a HostName,
        app: &'a App,
    ) -> Waits<'a, Result<Vec<wire::ContainerSummary>, String>> {
        Box::pin(async move {
            let list = wire::ListContainers { app: Some(app.into()), ..Default::default() };
            let kind = wire::request::Kind::Containers(list);
            let id = super::start::random_id().map_err(|e| e.to_string())?;
            let mut replies = self.request(host, id, kind, ANSWER).map_err(|e| e.to_string())?;
            let mut containers = Vec::new();
            let all = async {
                loop {
                    let reply = replies.recv().await.ok_or("the host went away")?;
                    match reply.kind {
                        Some(wire::reply::Kind::Containers(list)) => {
                            containers.extend(list.containers);
                        }
                        Some(wire::reply::Kind::Error(error)) => return Err(error.reason),
                        Some(_) | None => return Err("the host gave another answer".to_owned()),
                    }
                    if !reply.more {
                        return Ok(());
                    }
                }
            };
            let waited = tokio::time::timeout(ANSWER, all).await;
            waited.map_err(|_| format!("no answer within {} s", ANSWER.as_secs()))??;
            Ok(containers)
        })
    }
}
