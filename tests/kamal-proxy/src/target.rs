//! One target: its health, the requests in flight on it, and how it is drained.
//!
//! Always true: a request holds an [`InFlight`] from the choice of its target until its last byte, so
//! that a drain sees every request that could still reach the target.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::body::ProxyBody;
use crate::log;
use crate::options::TargetOptions;

/// Idle connections kept per target.
const MAX_IDLE: usize = 100;

/// Where a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Adding,
    Healthy,
    Unhealthy,
    Draining,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Adding => "adding",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

/// A `host:port` that requests are sent to.
pub(crate) struct Target {
    /// As given; without a port it is 80.
    pub(crate) name: String,
    pub(crate) options: Arc<TargetOptions>,
    pub(crate) client: Client<HttpConnector, ProxyBody>,
    inner: Mutex<Inner>,
    ready: watch::Sender<bool>,
}

struct Inner {
    state: State,
    next: u64,
    in_flight: HashMap<u64, Arc<Tokens>>,
}

/// How a request and a drain talk to each other.
struct Tokens {
    cancel: CancellationToken,
    done: CancellationToken,
    upgraded: AtomicBool,
}

impl Target {
    /// A target without a health verdict. `Err` carries the reason why `name` cannot be one.
    pub(crate) fn new(name: &str, options: Arc<TargetOptions>) -> Result<Arc<Self>, String> {
        if !is_target(name) {
            return Err(format!("{name} :invalid host pattern"));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_title_case_headers(true)
            .build(connector);
        let inner = Mutex::new(Inner { state: State::Adding, next: 0, in_flight: HashMap::new() });
        let (ready, _) = watch::channel(false);
        Ok(Arc::new(Self { name: name.to_owned(), options, client, inner, ready }))
    }

    /// Begins a request, unless the target may get none.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<InFlight> {
        let mut inner = self.lock();
        if inner.state != State::Healthy {
            return None;
        }
        let id = inner.next;
        inner.next += 1;
        let tokens = Arc::new(Tokens {
            cancel: CancellationToken::new(),
            done: CancellationToken::new(),
            upgraded: AtomicBool::new(false),
        });
        inner.in_flight.insert(id, tokens.clone());
        Some(InFlight { target: self.clone(), id, tokens })
    }

    /// Takes the verdict of a health check, or of a restart (which believes what was saved).
    pub(crate) fn judge(&self, healthy: bool) {
        let was = {
            let mut inner = self.lock();
            let next = match (inner.state, healthy) {
                (State::Healthy, true) => return,
                (State::Adding | State::Unhealthy | State::Draining, true) => State::Healthy,
                // Before its first success a target stays what it is.
                (State::Adding | State::Unhealthy | State::Draining, false) => return,
                (State::Healthy, false) => State::Unhealthy,
            };
            std::mem::replace(&mut inner.state, next)
        };
        self.log_state(was);
        if healthy {
            self.ready.send_replace(true);
        }
    }

    /// Ends when the target was healthy once.
    pub(crate) async fn became_ready(&self) {
        // The sender lives as long as `self`, so there is always an answer.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Sends nothing more here and waits until what is in flight ends, at most `timeout`; what is left
    /// is cut then. Upgraded connections are closed at once. Afterwards the target is what it was.
    pub(crate) async fn drain(&self, timeout: Duration) {
        let deadline = tokio::time::Instant::now() + timeout;
        let (was, flights) = {
            let mut inner = self.lock();
            let was = std::mem::replace(&mut inner.state, State::Draining);
            (was, inner.in_flight.values().cloned().collect::<Vec<_>>())
        };
        if was == State::Draining {
            return;
        }
        for flight in flights.iter().filter(|flight| flight.upgraded.load(Ordering::SeqCst)) {
            flight.cancel.cancel();
        }
        for flight in &flights {
            if tokio::time::timeout_at(deadline, flight.done.cancelled()).await.is_err() {
                break;
            }
        }
        for flight in &flights {
            flight.cancel.cancel();
        }
        self.lock().state = was;
    }

    fn log_state(&self, was: State) {
        let now = self.lock().state;
        log::info(
            "Target health updated",
            json!({"target": self.name, "state": now.word(), "was": was.word()}),
        );
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way; dropping it ends the request for drains.
pub(crate) struct InFlight {
    pub(crate) target: Arc<Target>,
    id: u64,
    tokens: Arc<Tokens>,
}

impl InFlight {
    /// Fires when the request must end.
    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.tokens.cancel.clone()
    }

    /// From now on a drain closes it without waiting.
    pub(crate) fn mark_upgraded(&self) {
        self.tokens.upgraded.store(true, Ordering::SeqCst);
        // A drain that began between the choice of the target and now would wait for its timeout.
        if self.target.lock().state == State::Draining {
            self.tokens.cancel.cancel();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.target.lock().in_flight.remove(&self.id);
        self.tokens.done.cancel();
    }
}

/// `^(\w[-_.\w+]+)(:\d+)?$`, as the real proxy checks it.
fn is_target(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let host = match name.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()) => host,
        Some(_) => return false,
        None => name,
    };
    let mut chars = host.chars();
    chars.next().is_some_and(word)
        && !chars.as_str().is_empty()
        && chars.all(|c| word(c) || matches!(c, '-' | '.' | '+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_host_names_with_an_optional_port() {
        for good in ["web-1:3000", "0123456789ab:80", "10.0.0.1", "ab"] {
            assert!(is_target(good), "{good}");
        }
        for bad in ["", "a", "http://web", "web:", "web:x", "[::1]:80", "-web", "we b"] {
            assert!(!is_target(bad), "{bad}");
        }
    }
}
