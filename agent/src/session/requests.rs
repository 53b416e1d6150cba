//! Answers one-off questions. A request is never run twice: its id is remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dhow_proto::wire;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Questions answered at once; more wait, until their deadline.
const AT_ONCE: usize = 16;

/// Questions at work or waiting; more are refused.
const MAX_OPEN: usize = 128;

/// Ids remembered: far more than a controller asks between two reconnects.
const REMEMBERED: usize = 4096;

/// Where a request names no deadline, and the longest that is granted.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the session asks of the host it is on.
pub trait Host: Send + Sync + 'static {
    /// Version and platform of the Docker Engine; none where it does not answer.
    fn engine_info(&self) -> BoxFuture<'_, Option<wire::EngineInfo>>;

    /// Answers a question with one reply or more, `more` set on all but the last. Reads only. May be dropped at any time.
    fn answer(
        &self,
        request: wire::Request,
        replies: mpsc::Sender<wire::Reply>,
    ) -> BoxFuture<'_, ()>;
}

/// The questions of all sessions of this process.
pub(super) struct Requests {
    host: Arc<dyn Host>,
    replies: mpsc::Sender<wire::Reply>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    seen: Seen,
    open: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// True the first time.
    fn add(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl Requests {
    pub(super) fn new(
        host: Arc<dyn Host>,
        replies: mpsc::Sender<wire::Reply>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            host,
            replies,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: TaskTracker::new(),
            shutdown,
            seen: Seen::default(),
            open: Arc::default(),
        }
    }

    /// Begins to answer; a refusal is what is to be sent at once.
    pub(super) fn take(&mut self, request: wire::Request) -> Option<wire::Reply> {
        let id = request.id.clone();
        if !self.seen.add(&id) {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id);
            // At work still: the answer comes. Else it was given to a session that is over.
            return (!open).then(|| refusal(&id, "it was run before; ask anew with another id"));
        }
        let cancel = self.shutdown.child_token();
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.len() >= MAX_OPEN {
                return Some(refusal(&id, "too many questions are open on this host"));
            }
            open.insert(id.clone(), cancel.clone());
        }
        self.tasks.spawn(run(Open {
            request,
            cancel,
            host: self.host.clone(),
            replies: self.replies.clone(),
            permits: self.permits.clone(),
            open: self.open.clone(),
        }));
        None
    }

    /// Nobody waits for this answer any more.
    pub(super) fn cancel(&self, id: &str) {
        if let Some(cancel) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            cancel.cancel();
        }
    }

    /// Waits for the answers at work; they have been asked to end.
    pub(super) async fn end(self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

struct Open {
    request: wire::Request,
    cancel: CancellationToken,
    host: Arc<dyn Host>,
    replies: mpsc::Sender<wire::Reply>,
    permits: Arc<Semaphore>,
    open: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

async fn run(open: Open) {
    let id = open.request.id.clone();
    let asked = open.request.deadline.and_then(|d| Duration::try_from(d).ok());
    let deadline = asked.unwrap_or(DEADLINE).min(DEADLINE);
    // Never behind other questions that wait for their turn: it asks whether this agent is there.
    let is_ping = matches!(open.request.kind, Some(wire::request::Kind::Ping(_)));
    let answer = async {
        let permit = if is_ping { None } else { Some(open.permits.acquire().await) };
        if let Some(Err(_)) = permit {
            return;
        }
        open.host.answer(open.request, open.replies.clone()).await;
    };
    tokio::select! {
        // Answering only reads, so that dropping it half-way changes nothing.
        () = open.cancel.cancelled() => {}
        ended = tokio::time::timeout(deadline, answer) => if ended.is_err() {
            let late = refusal(&id, "the host did not answer in time");
            // A full queue: nobody reads, so nobody misses it.
            let _ = open.replies.try_send(late);
        },
    }
    open.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
}

/// The last reply of a request that cannot be answered.
pub(crate) fn refusal(id: &str, reason: &str) -> wire::Reply {
    wire::Reply {
        request_id: id.to_owned(),
        more: false,
        kind: Some(wire::reply::Kind::Error(wire::RequestError { reason: reason.to_owned() })),
    }
}
