//! What a test can change and see while the app runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::settings::Settings;

/// Health checks beyond this many are counted no more; a test that needs more looks too late.
const MAX_CHECKS: usize = 10_000;

/// How `/up` answers now.
#[derive(Clone, Debug)]
pub(crate) struct Up {
    pub(crate) status: u16,
    pub(crate) delay: Duration,
    pub(crate) location: Option<String>,
    pub(crate) healthy_from: Instant,
}

/// Shared by all connections.
#[derive(Debug)]
pub(crate) struct Control {
    started: Instant,
    up: Mutex<Up>,
    checks: Mutex<Vec<Value>>,
    open: AtomicUsize,
    total: AtomicUsize,
    sockets: AtomicUsize,
}

impl Control {
    pub(crate) fn new(settings: &Settings) -> Self {
        let started = Instant::now();
        Self {
            started,
            up: Mutex::new(Up {
                status: settings.up_status,
                delay: settings.up_delay,
                location: settings.up_location.clone(),
                healthy_from: started + settings.healthy_after,
            }),
            checks: Mutex::default(),
            open: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
        }
    }

    pub(crate) fn up(&self) -> Up {
        locked(&self.up).clone()
    }

    pub(crate) fn change_up(&self, change: impl FnOnce(&mut Up)) {
        change(&mut locked(&self.up));
    }

    /// Notes a health check that began at `at` and was answered with `status`.
    pub(crate) fn note_check(&self, at: Instant, user_agent: &str, host: &str, status: u16) {
        let mut checks = locked(&self.checks);
        if checks.len() < MAX_CHECKS {
            let at_ms = at.duration_since(self.started).as_millis() as u64;
            checks.push(
                json!({"at_ms": at_ms, "user_agent": user_agent, "host": host, "status": status}),
            );
        }
    }

    pub(crate) fn checks(&self) -> Value {
        Value::Array(locked(&self.checks).clone())
    }

    pub(crate) fn requests(&self) -> Value {
        json!({
            "open": self.open.load(Ordering::SeqCst),
            "total": self.total.load(Ordering::SeqCst),
            "sockets": self.sockets.load(Ordering::SeqCst),
            "now_ms": self.started.elapsed().as_millis() as u64,
        })
    }

    /// Counts a request as open until the guard goes.
    pub(crate) fn begin(self: &Arc<Self>) -> Open {
        self.total.fetch_add(1, Ordering::SeqCst);
        Open::count(self.clone(), |control| &control.open)
    }

    /// Counts a WebSocket as open until the guard goes.
    pub(crate) fn begin_socket(self: &Arc<Self>) -> Open {
        Open::count(self.clone(), |control| &control.sockets)
    }
}

/// Something counted while it lives.
pub(crate) struct Open {
    control: Arc<Control>,
    counter: fn(&Control) -> &AtomicUsize,
}

impl Open {
    fn count(control: Arc<Control>, counter: fn(&Control) -> &AtomicUsize) -> Self {
        counter(&control).fetch_add(1, Ordering::SeqCst);
        Self { control, counter }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.counter)(&self.control).fetch_sub(1, Ordering::SeqCst);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
