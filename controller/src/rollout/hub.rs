//! Where the clients of a running rollout meet its driver.
//!
//! In: events and hook requests from the driver, reports from clients. Out: each client's stream, at its own pace.
//! Always true: a slow client slows only itself; a hook that a client reported started is sent to nobody again; what
//! clients report is kept as a level, so that the driver can miss every signal but the last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use dhow_proto::wire;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Messages on their way to one client: enough for a stage of a usual fleet; a fuller one waits here, not in memory.
const EVENTS: usize = 64;

/// Reports on their way from one client; hook output comes in pieces.
const REPORTS: usize = 32;

/// What a client of a running rollout says.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientReport {
    /// It is about to run a hook. It waits for the `HookProgress` that says started before it does.
    HookStarted(wire::HookStarted),
    /// What the hook printed; the client shows it itself.
    HookOutput(wire::HookOutput),
    /// The hook ended.
    HookFinished(wire::HookFinished),
    /// A person wants the rollout to stop, and why.
    Cancel(String),
}

/// A client's end of a rollout. Dropping it detaches the client; the rollout goes on.
#[derive(Debug)]
pub struct Attachment {
    /// What the client is told, ending with `finished` where the rollout is over.
    pub responses: mpsc::Receiver<wire::DeployResponse>,
    /// What the client says.
    pub reports: mpsc::Sender<ClientReport>,
}

type Client = u64;

/// A hook as clients see it.
#[derive(Clone, Debug)]
struct Asked {
    request: wire::HookRequest,
    /// Who was sent the request.
    sent_to: Option<Client>,
    /// Who reported that it started.
    started_by: Option<Client>,
    /// True once the driver knows that it started: it is sent to nobody any more.
    closed: bool,
    finished: Option<(i32, String)>,
}

/// What the driver reads of a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookView {
    /// A client is there.
    pub(crate) client: bool,
    /// A client said it started.
    pub(crate) started: bool,
    /// That client is still there.
    pub(crate) runner: bool,
    /// Exit status, and why it could not be run.
    pub(crate) finished: Option<(i32, String)>,
}

#[derive(Default)]
struct State {
    events: Vec<wire::RolloutEvent>,
    progress: BTreeMap<(String, Vec<u8>), (u64, wire::HostProgress)>,
    changes: u64,
    clients: BTreeSet<Client>,
    last_client: Client,
    hook: Option<Asked>,
    /// Outcomes of hooks that were not asked for (yet): a client may come back before a resumed driver is there.
    early: BTreeMap<String, (i32, String)>,
    cancel: Option<String>,
    waiting_for: Vec<String>,
    finished: Option<wire::RolloutFinished>,
    /// Its driver is gone: nothing more will happen here.
    abandoned: bool,
}

/// One per rollout at work in this process.
#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let result = with(&mut self.lock());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    /// Changes with everything here: wait on it, then look again.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Sets what was stored before this process took over.
    pub(crate) fn load(&self, events: Vec<wire::RolloutEvent>) {
        self.change(|s| s.events = events);
    }

    /// Adds stored events.
    pub(crate) fn publish(&self, events: Vec<wire::RolloutEvent>) {
        if !events.is_empty() {
            self.change(|s| s.events.extend(events));
        }
    }

    /// True where a host's failure of a unit was told already.
    pub(crate) fn has_failed(&self, failed: &wire::HostFailed) -> bool {
        self.lock().events.iter().any(|e| match &e.kind {
            Some(wire::rollout_event::Kind::HostFailed(told)) => {
                told.host == failed.host && told.unit == failed.unit
            }
            _ => false,
        })
    }

    /// Sets where a host's unit is; only the newest is kept.
    pub(crate) fn progress(&self, progress: wire::HostProgress) {
        let unit = prost::Message::encode_to_vec(&progress.unit.clone().unwrap_or_default());
        let at = (progress.host.clone(), unit);
        let mut state = self.lock();
        if state.progress.get(&at).is_some_and(|(_, known)| *known == progress) {
            return;
        }
        state.changes += 1;
        let number = state.changes;
        state.progress.insert(at, (number, progress));
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Sets what is waited for, a sentence each.
    pub(crate) fn waiting_for(&self, what: Vec<String>) {
        self.lock().waiting_for = what;
    }

    /// What is waited for.
    pub(crate) fn waits(&self) -> Vec<String> {
        self.lock().waiting_for.clone()
    }

    /// Asks clients to run a hook; `open` is false where it is known to have started.
    pub(crate) fn ask(&self, request: wire::HookRequest, open: bool) {
        self.change(|s| {
            let asked =
                Asked { request, sent_to: None, started_by: None, closed: !open, finished: None };
            s.hook = Some(asked);
        });
    }

    /// Sends the hook to nobody any more.
    pub(crate) fn close_hook(&self) {
        self.change(|s| {
            if let Some(hook) = &mut s.hook {
                hook.closed = true;
            }
        });
    }

    /// Forgets the hook.
    pub(crate) fn forget_hook(&self) {
        self.change(|s| s.hook = None);
    }

    /// What is known of the hook.
    pub(crate) fn hook(&self) -> HookView {
        let state = self.lock();
        let client = !state.clients.is_empty();
        let Some(hook) = &state.hook else { return HookView { client, ..HookView::default() } };
        HookView {
            client,
            started: hook.started_by.is_some(),
            runner: hook.started_by.is_some_and(|c| state.clients.contains(&c)),
            finished: hook.finished.clone(),
        }
    }

    /// Why a person wants the rollout to stop.
    pub(crate) fn cancelled(&self) -> Option<String> {
        self.lock().cancel.clone()
    }

    /// Asks to stop.
    pub(crate) fn cancel(&self, reason: String) {
        self.change(|s| _ = s.cancel.get_or_insert(reason));
    }

    /// The rollout is over: every client is told, then left.
    pub(crate) fn finish(&self, finished: wire::RolloutFinished) {
        self.change(|s| s.finished = Some(finished));
    }

    /// The driver is gone, however it went: every client is left, and comes back to the next one's hub.
    pub(crate) fn abandon(&self) {
        self.change(|s| s.abandoned = true);
    }

    fn report(&self, client: Client, report: ClientReport) {
        self.change(|s| {
            let hook = s.hook.as_mut();
            match report {
                ClientReport::HookStarted(report) => {
                    let is_asked = |h: &&mut Asked| {
                        h.request.hook_id == report.hook_id && !h.closed && h.started_by.is_none()
                    };
                    if let Some(hook) = hook.filter(is_asked) {
                        hook.started_by = Some(client);
                    }
                }
                ClientReport::HookOutput(_) => {}
                ClientReport::HookFinished(report) => {
                    let outcome = (report.exit_code, report.error);
                    match hook.filter(|h| h.request.hook_id == report.hook_id) {
                        Some(hook) => _ = hook.finished.get_or_insert(outcome),
                        None if s.early.len() < REPORTS => {
                            s.early.insert(report.hook_id, outcome);
                        }
                        None => {}
                    }
                }
                ClientReport::Cancel(reason) => _ = s.cancel.get_or_insert(reason),
            }
        });
    }

    /// Takes a client in. The future carries its stream and must be run by a task; it ends with the client, the
    /// rollout or `shutdown`.
    pub(crate) fn attach(
        self: &Arc<Self>,
        after_sequence: u64,
        runs_hooks: bool,
        shutdown: CancellationToken,
    ) -> (Attachment, impl Future<Output = ()> + Send + use<>) {
        let (events, to_client) = mpsc::channel(EVENTS);
        let (from_client, reports) = mpsc::channel(REPORTS);
        let client = match runs_hooks {
            false => None,
            true => Some(self.change(|s| {
                s.last_client += 1;
                s.clients.insert(s.last_client);
                s.last_client
            })),
        };
        let seat = Seat { hub: Arc::clone(self), client };
        let stream = Stream { seat, events, reports, sequence: after_sequence, progress: 0 };
        (Attachment { responses: to_client, reports: from_client }, stream.run(shutdown))
    }
}

/// A client's place in the hub; given up when dropped.
struct Seat {
    hub: Arc<Hub>,
    client: Option<Client>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        self.hub.change(|s| {
            s.clients.remove(&client);
            if let Some(hook) = &mut s.hook
                && hook.sent_to == Some(client)
                && hook.started_by.is_none()
            {
                // Not known to have started: the next client may run it.
                hook.sent_to = None;
            }
        });
    }
}

struct Stream {
    seat: Seat,
    events: mpsc::Sender<wire::DeployResponse>,
    reports: mpsc::Receiver<ClientReport>,
    sequence: u64,
    progress: u64,
}

impl Stream {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut changes = self.seat.hub.changes();
        let mut reporting = true;
        loop {
            changes.mark_unchanged();
            let (batch, finished) = self.batch();
            for message in batch {
                let message = wire::DeployResponse { message: Some(message) };
                // Reports are taken also while the client does not read, or both would wait for each other.
                let sent = self.events.send(message);
                tokio::pin!(sent);
                loop {
                    tokio::select! {
                        // Not cancelled: the pinned send goes on in the next round.
                        result = &mut sent => match result { Ok(()) => break, Err(_) => return },
                        () = shutdown.cancelled() => return,
                        // Cancel-safe: a report not taken stays in the channel.
                        report = self.reports.recv(), if reporting => {
                            reporting = take(&self.seat, report);
                        }
                    }
                }
            }
            if finished {
                return;
            }
            tokio::select! {
                // Cancel-safe: an unseen change stays unseen.
                changed = changes.changed() => if changed.is_err() { return },
                report = self.reports.recv(), if reporting => reporting = take(&self.seat, report),
                () = self.events.closed() => return,
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// What the client was not told yet, and whether that is all there will ever be.
    fn batch(&mut self) -> (Vec<wire::deploy_response::Message>, bool) {
        use wire::deploy_response::Message;
        let mut state = self.seat.hub.lock();
        let mut batch: Vec<Message> = Vec::new();
        let news = state.events.iter().filter(|e| e.sequence > self.sequence);
        batch.extend(news.cloned().map(Message::Event));
        self.sequence =
            state.events.last().map_or(self.sequence, |e| e.sequence.max(self.sequence));
        let mut progress: Vec<&(u64, wire::HostProgress)> =
            state.progress.values().filter(|(number, _)| *number > self.progress).collect();
        progress.sort_by_key(|(number, _)| *number);
        batch.extend(progress.iter().map(|(_, p)| {
            Message::Event(wire::RolloutEvent {
                // Not stored, so it has no number: a client that comes back asks from the last stored one.
                sequence: 0,
                at: None,
                rollout_id: String::new(),
                kind: Some(wire::rollout_event::Kind::HostProgress(p.clone())),
            })
        }));
        self.progress = state.changes;
        if let (Some(client), Some(hook)) = (self.seat.client, &mut state.hook)
            && hook.sent_to.is_none()
            && hook.started_by.is_none()
            && !hook.closed
        {
            hook.sent_to = Some(client);
            batch.push(Message::Hook(hook.request.clone()));
        }
        let finished = state.finished.clone();
        let over = finished.is_some() || state.abandoned;
        batch.extend(finished.map(Message::Finished));
        (batch, over)
    }
}

/// Passes a report on; false once the client sends no more.
fn take(seat: &Seat, report: Option<ClientReport>) -> bool {
    match (report, seat.client) {
        (Some(report), Some(client)) => seat.hub.report(client, report),
        (Some(ClientReport::Cancel(reason)), None) => seat.hub.cancel(reason),
        (Some(_), None) => {}
        (None, _) => return false,
    }
    true
}
