//! One session: from Hello to the end of its stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::model::Unit;
use dhow_proto::model::status::{Phase, Status};
use dhow_proto::wire;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;
use wire::fleet_service_client::FleetServiceClient;
use wire::session_request::Message as Up;
use wire::session_response::Message as Down;

use super::connect::Rooms;
use super::dispatch::{CatchUp, take_intent};
use super::requests::Requests;

/// Messages on their way to the wire; what waits behind them is bounded by [`MAX_PENDING`].
const OUTBOX: usize = 32;

/// Wants, refusals and answers that wait for the outbox. Beyond that the session is not worth keeping.
const MAX_PENDING: usize = 8192;

/// New answers and events are taken up only while fewer messages wait, so that a slow controller slows them.
const PENDING_LOW: usize = 64;

/// Longest wait for the controller to take up the stream, and to make room in the outbox.
const STALLED: Duration = Duration::from_secs(15);

/// How far a unit got is told this long after it was heard of at the latest: steps that take less are not worth a
/// message each. What came of them is told at once.
const PROGRESS: Duration = Duration::from_millis(100);

/// Where Welcome names no interval.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Statuses of a heartbeat stay below this, as messages are small.
const HEARTBEAT_BYTES: usize = 32 * 1024;

/// Messages the controller may send: 64 KiB by the protocol, and some.
const MAX_MESSAGE: usize = 256 * 1024;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error("the agent stops")]
    Shutdown,
    #[error("the controller closed the stream")]
    Closed,
    #[error("the controller said goodbye: {0}")]
    Goodbye(String),
    #[error("this host's certificate was revoked: {0}")]
    Revoked(String),
    #[error("the stream broke")]
    Broken(#[source] Box<tonic::Status>),
    #[error("the controller takes nothing for {STALLED:?}")]
    Stalled,
}

/// What outlives a session.
pub(super) struct Lasting {
    pub(super) requests: Requests,
    pub(super) replies: mpsc::Receiver<wire::Reply>,
    /// Units reported as not named by the controller, once each.
    pub(super) reported: BTreeSet<Unit>,
}

/// What a session learnt that others must act on.
#[derive(Debug)]
pub(super) enum News {
    /// Addresses and CA set of the first page; renew at once where the controller asks for it.
    Welcome { addresses: Vec<String>, ca_set: Vec<Vec<u8>>, renew: bool },
}

/// Runs a session until its stream ends.
pub(super) async fn run(
    rooms: &Rooms,
    hello: wire::Hello,
    channel: Channel,
    lasting: &mut Lasting,
    news: &mpsc::Sender<News>,
    shutdown: &CancellationToken,
) -> SessionEnd {
    let (outbox, outgoing) = mpsc::channel(OUTBOX);
    let events_sent = rooms.events.after(0).first().map_or(hello.last_event, |e| e.sequence - 1);
    // There is room: the channel is new.
    let _ = outbox.try_send(wire::SessionRequest { message: Some(Up::Hello(hello)) });
    let mut client = FleetServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let opened = tokio::select! {
        () = shutdown.cancelled() => return SessionEnd::Shutdown,
        opened = tokio::time::timeout(STALLED, client.session(ReceiverStream::new(outgoing))) => opened,
    };
    let inbound = match opened {
        Err(_) => return SessionEnd::Stalled,
        Ok(Err(status)) => return SessionEnd::Broken(Box::new(status)),
        Ok(Ok(response)) => response.into_inner(),
    };
    let session = Session {
        rooms,
        lasting,
        news,
        catch_up: CatchUp::default(),
        pending: VecDeque::new(),
        sent: BTreeMap::new(),
        events_sent,
        welcomed: false,
        rotation: 0,
        progress_due: None,
    };
    session.talk(inbound, outbox, shutdown).await
}

/// False where only the time differs at which it was looked at: that goes with the next heartbeat.
fn is_news(sent: &Status, status: &Status) -> bool {
    *status != Status { observed_at: status.observed_at, ..sent.clone() }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct Session<'a> {
    rooms: &'a Rooms,
    lasting: &'a mut Lasting,
    news: &'a mpsc::Sender<News>,
    catch_up: CatchUp,
    pending: VecDeque<Up>,
    /// What this controller was told of each unit.
    sent: BTreeMap<Unit, Arc<Status>>,
    events_sent: u64,
    welcomed: bool,
    rotation: usize,
    /// When progress that was held back is told.
    progress_due: Option<Instant>,
}

impl Session<'_> {
    async fn talk(
        mut self,
        mut inbound: Streaming<wire::SessionResponse>,
        outbox: mpsc::Sender<wire::SessionRequest>,
        shutdown: &CancellationToken,
    ) -> SessionEnd {
        let mut board = self.rooms.board.changes();
        let mut events = self.rooms.events.changes();
        board.mark_changed();
        events.mark_changed();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = Instant::now();
        loop {
            let calm = self.welcomed && self.pending.len() < PENDING_LOW;
            if self.pending.is_empty() {
                progress = Instant::now();
            }
            tokio::select! {
                () = shutdown.cancelled() => return SessionEnd::Shutdown,
                // Cancel-safe: a message that was not taken stays in the stream.
                message = inbound.message() => match message {
                    Ok(Some(message)) => if let Some(end) = self.take(message, &mut heartbeat) { return end },
                    Ok(None) => return SessionEnd::Closed,
                    Err(status) => return SessionEnd::Broken(Box::new(status)),
                },
                // Cancel-safe: an unused permit is given back.
                permit = outbox.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => {
                        permit.send(wire::SessionRequest { message: self.pending.pop_front() });
                        progress = Instant::now();
                    }
                    Err(_) => return SessionEnd::Closed,
                },
                () = tokio::time::sleep_until(progress + STALLED), if !self.pending.is_empty() => return SessionEnd::Stalled,
                // The four below only say "look again": what was not seen stays unseen.
                _ = board.changed(), if calm => self.report_statuses(),
                () = until(self.progress_due), if calm => {
                    self.progress_due = None;
                    self.report_all();
                }
                _ = events.changed(), if calm => self.report_events(),
                _ = heartbeat.tick(), if calm => self.beat(),
                // Cancel-safe: an answer not taken stays in the queue.
                Some(reply) = self.lasting.replies.recv(), if calm => self.pending.push_back(Up::Reply(reply)),
            }
            if self.pending.len() > MAX_PENDING {
                return SessionEnd::Stalled;
            }
        }
    }

    fn take(
        &mut self,
        message: wire::SessionResponse,
        heartbeat: &mut tokio::time::Interval,
    ) -> Option<SessionEnd> {
        match message.message {
            // A kind of message that a newer controller knows.
            None => {}
            Some(Down::Welcome(welcome)) => self.welcome(welcome, heartbeat),
            Some(Down::Intent(intent)) => {
                self.pending.extend(take_intent(&self.rooms.ledger, intent));
            }
            Some(Down::Request(request)) => {
                self.pending.extend(self.lasting.requests.take(request).map(Up::Reply));
            }
            Some(Down::Cancel(cancel)) => self.lasting.requests.cancel(&cancel.id),
            Some(Down::EventAck(ack)) => self.rooms.events.acknowledge(ack.sequence),
            Some(Down::Tunnel(offer)) => {
                tracing::warn!(tunnel.id = %offer.tunnel_id, "a tunnel was offered; this agent has none yet");
            }
            Some(Down::Goodbye(goodbye)) if goodbye.revoked => {
                return Some(SessionEnd::Revoked(goodbye.reason));
            }
            Some(Down::Goodbye(goodbye)) => return Some(SessionEnd::Goodbye(goodbye.reason)),
        }
        None
    }

    fn welcome(&mut self, welcome: wire::Welcome, heartbeat: &mut tokio::time::Interval) {
        let interval = welcome.heartbeat_interval.and_then(|d| Duration::try_from(d).ok());
        // Bounds: neither a busy loop nor the silence after which the controller gives the host up.
        if let Some(interval) = interval
            .map(|i| i.clamp(Duration::from_secs(1), Duration::from_secs(10)))
            .filter(|i| *i != heartbeat.period())
        {
            *heartbeat = tokio::time::interval(interval);
            heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        if welcome.page == 0 {
            let news = News::Welcome {
                addresses: welcome.controller_addresses,
                ca_set: welcome.ca_set.iter().map(|ca| ca.to_vec()).collect(),
                renew: welcome.renew,
            };
            // Full: an older one is still being worked on and the next session brings it again.
            let _ = self.news.try_send(news);
        }
        self.pending.extend(self.catch_up.page(&self.rooms.ledger, welcome.units));
        if welcome.last {
            self.welcomed = true;
            self.report_unnamed();
            tracing::info!(wants = self.pending.len(), "session established");
        }
    }

    fn report_unnamed(&mut self) {
        for unit in self.catch_up.unnamed(&self.rooms.ledger) {
            if !self.lasting.reported.insert(unit.clone()) {
                continue;
            }
            let text = format!(
                "{unit} is on this host but not known to the controller; it is left as it is"
            );
            tracing::warn!(%unit, "the controller does not know this unit; it is left alone");
            let at = self.rooms.clock.now();
            let kind = wire::EventKind::Unmanaged;
            if let Err(error) = self.rooms.events.push(at, Some(&unit), kind, &text) {
                tracing::error!(%error, "could not keep an event");
            }
        }
    }

    /// Tells what is new, but for progress: that waits for a moment, in which more of it may come.
    fn report_statuses(&mut self) {
        for status in self.untold() {
            if matches!(status.phase, Phase::Converging(Some(_))) {
                self.progress_due.get_or_insert_with(|| Instant::now() + PROGRESS);
            } else {
                self.report(status);
            }
        }
    }

    fn report_all(&mut self) {
        for status in self.untold() {
            self.report(status);
        }
    }

    fn untold(&self) -> Vec<Arc<Status>> {
        let mut all = self.rooms.board.all();
        all.retain(|status| self.sent.get(&status.unit).is_none_or(|sent| is_news(sent, status)));
        all
    }

    fn report(&mut self, status: Arc<Status>) {
        self.pending.push_back(Up::Status((&*status).into()));
        self.sent.insert(status.unit.clone(), status);
    }

    fn report_events(&mut self) {
        for event in self.rooms.events.after(self.events_sent) {
            self.events_sent = event.sequence;
            self.pending.push_back(Up::Event(event));
        }
    }

    /// Carries as many statuses as fit, going round, so that one that was lost is made good.
    fn beat(&mut self) {
        let all = self.rooms.board.all();
        let mut statuses = Vec::new();
        let mut bytes = 0;
        for n in 0..all.len() {
            let mut status = wire::Status::from(&*all[(self.rotation + n) % all.len()]);
            // The longest part, and told once: the controller keeps them with their generation.
            status.step_times.clear();
            bytes += status.encoded_len();
            if bytes > HEARTBEAT_BYTES && !statuses.is_empty() {
                break;
            }
            statuses.push(status);
        }
        self.rotation = self.rotation.wrapping_add(statuses.len()) % all.len().max(1);
        self.pending.push_back(Up::Heartbeat(wire::Heartbeat {
            at: Some(self.rooms.clock.now().into()),
            statuses,
            engine_reachable: self.rooms.board.engine_reachable(),
        }));
    }
}
