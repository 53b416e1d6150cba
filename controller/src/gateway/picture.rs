//! What the controller knows of its hosts right now: in memory only, rebuilt from the agents after a restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use dhow_proto::model::status::Status;
use dhow_proto::model::{Generation, HostName, Unit};
use dhow_proto::wire;
use tokio::sync::{mpsc, watch};

/// A host with a live session.
#[derive(Clone, Debug)]
pub struct Online {
    /// Since when.
    pub since: SystemTime,
    /// Version of its agent.
    pub agent_version: String,
    /// What its agent understands.
    pub features: Vec<String>,
    /// Its Engine.
    pub engine: Option<wire::EngineInfo>,
    /// Changes with every boot.
    pub boot_id: String,
    /// Key it can open secrets with.
    pub host_key_id: Vec<u8>,
}

/// Why a request could not be put to a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefused {
    /// No session.
    #[error("host {0} is offline")]
    Offline(HostName),
    /// Its outbox is full.
    #[error("host {0} does not keep up with what it is sent")]
    Busy(HostName),
}

/// Replies waiting to be read by one caller: a list, or log pages of 64 KiB within the 1 MiB cap.
const REPLIES: usize = 32;

#[derive(Default)]
struct Host {
    session: Option<Session>,
    last_seen: Option<SystemTime>,
    statuses: BTreeMap<Unit, Status>,
    refusals: BTreeMap<Unit, (Generation, String)>,
}

struct Session {
    number: u64,
    online: Online,
    outbox: mpsc::Sender<wire::SessionResponse>,
    requests: HashMap<String, mpsc::Sender<wire::Reply>>,
}

#[derive(Default)]
struct Picture {
    hosts: BTreeMap<HostName, Host>,
    sessions: u64,
}

/// Handle to the picture; cheap to clone. The lock is held for map operations only, never across an await.
#[derive(Clone)]
pub struct Fleet {
    picture: Arc<Mutex<Picture>>,
    changed: watch::Sender<u64>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

impl Fleet {
    /// Nobody is there yet.
    pub fn new() -> Self {
        Self { picture: Arc::default(), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Picture> {
        // Every critical section leaves the maps whole, so a panic elsewhere does not spoil them.
        self.picture.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Changes with every change of presence or status: wait on it, then read again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The host's session, if it has one.
    pub fn online(&self, host: &HostName) -> Option<Online> {
        Some(self.lock().hosts.get(host)?.session.as_ref()?.online.clone())
    }

    /// When the host was last heard of, since this controller started.
    pub fn last_seen(&self, host: &HostName) -> Option<SystemTime> {
        self.lock().hosts.get(host)?.last_seen
    }

    /// What the host last said of a unit.
    pub fn status(&self, host: &HostName, unit: &Unit) -> Option<Status> {
        self.lock().hosts.get(host)?.statuses.get(unit).cloned()
    }

    /// What the host last said of all its units.
    pub fn statuses(&self, host: &HostName) -> Vec<Status> {
        self.lock()
            .hosts
            .get(host)
            .map(|h| h.statuses.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The newest intent of a unit that the agent refused, and why.
    pub fn refusal(&self, host: &HostName, unit: &Unit) -> Option<(Generation, String)> {
        self.lock().hosts.get(host)?.refusals.get(unit).cloned()
    }

    /// Hosts with a session.
    pub fn online_hosts(&self) -> Vec<HostName> {
        self.lock()
            .hosts
            .iter()
            .filter(|(_, h)| h.session.is_some())
            .map(|(n, _)| n.clone())
            .collect()
    }

    /// Puts a question to a host. Replies end when the receiver says so or the session goes.
    ///
    /// # Errors
    ///
    /// [`RequestRefused`]; nothing was sent then.
    pub fn request(
        &self,
        host: &HostName,
        id: String,
        kind: wire::request::Kind,
        deadline: Duration,
    ) -> Result<mpsc::Receiver<wire::Reply>, RequestRefused> {
        let offline = || RequestRefused::Offline(host.clone());
        let mut picture = self.lock();
        let session =
            picture.hosts.get_mut(host).and_then(|h| h.session.as_mut()).ok_or_else(offline)?;
        let (sender, receiver) = mpsc::channel(REPLIES);
        session.requests.retain(|_, caller| !caller.is_closed());
        let request = wire::Request {
            id: id.clone(),
            deadline: prost_types::Duration::try_from(deadline).ok(),
            kind: Some(kind),
        };
        let message = wire::session_response::Message::Request(request);
        session
            .outbox
            .try_send(wire::SessionResponse { message: Some(message) })
            .map_err(|_| RequestRefused::Busy(host.clone()))?;
        session.requests.insert(id, sender);
        Ok(receiver)
    }

    /// Sends a message to a host that is online; a full outbox ends the session, and the agent resyncs.
    pub(crate) fn send(&self, host: &HostName, message: wire::session_response::Message) {
        let mut picture = self.lock();
        let Some(entry) = picture.hosts.get_mut(host) else { return };
        let Some(session) = &entry.session else { return };
        let full =
            session.outbox.try_send(wire::SessionResponse { message: Some(message) }).is_err();
        if full {
            tracing::warn!(host.name = %host, "agent does not keep up: session dropped, it will resync");
            entry.session = None;
            drop(picture);
            self.bump();
        }
    }

    /// Ends a host's session with a word of farewell.
    pub fn disconnect(&self, host: &HostName, reason: &str, revoked: bool) {
        let goodbye = wire::Goodbye { reason: reason.to_owned(), revoked };
        self.send(host, wire::session_response::Message::Goodbye(goodbye));
        if let Some(entry) = self.lock().hosts.get_mut(host) {
            entry.session = None;
        }
        self.bump();
    }

    /// Takes a session in; an older one of the same host ends. Returns the session's number.
    pub(crate) fn arrive(
        &self,
        host: &HostName,
        online: Online,
        outbox: mpsc::Sender<wire::SessionResponse>,
    ) -> u64 {
        let mut picture = self.lock();
        picture.sessions += 1;
        let number = picture.sessions;
        let entry = picture.hosts.entry(host.clone()).or_default();
        entry.last_seen = Some(online.since);
        entry.session = Some(Session { number, online, outbox, requests: HashMap::new() });
        drop(picture);
        self.bump();
        number
    }

    /// Lets a session go, unless a newer one took its place.
    pub(crate) fn leave(&self, host: &HostName, number: u64) {
        if let Some(entry) = self.lock().hosts.get_mut(host)
            && entry.session.as_ref().is_some_and(|s| s.number == number)
        {
            entry.session = None;
        }
        self.bump();
    }

    /// True while this session is the host's.
    pub(crate) fn is_current(&self, host: &HostName, number: u64) -> bool {
        self.lock()
            .hosts
            .get(host)
            .and_then(|h| h.session.as_ref())
            .is_some_and(|s| s.number == number)
    }

    /// Notes that the host was heard of.
    pub(crate) fn seen(&self, host: &HostName, at: SystemTime) {
        if let Some(entry) = self.lock().hosts.get_mut(host) {
            entry.last_seen = Some(at);
        }
    }

    /// Takes a status in. One of an older generation than known is a late message and says nothing new.
    pub(crate) fn report(&self, host: &HostName, mut status: Status) {
        let mut picture = self.lock();
        let entry = picture.hosts.entry(host.clone()).or_default();
        let known = entry.statuses.get(&status.unit);
        if known.is_some_and(|known| known.generation > status.generation) {
            return;
        }
        // Told once: a heartbeat leaves them out.
        if let Some(known) = known.filter(|known| known.generation == status.generation)
            && status.step_times.is_empty()
        {
            status.step_times = known.step_times.clone();
        }
        let unit = status.unit.clone();
        if entry.statuses.get(&unit) == Some(&status) {
            return;
        }
        entry.statuses.insert(unit, status);
        drop(picture);
        self.bump();
    }

    pub(crate) fn refuse(
        &self,
        host: &HostName,
        unit: Unit,
        generation: Generation,
        reason: String,
    ) {
        self.lock()
            .hosts
            .entry(host.clone())
            .or_default()
            .refusals
            .insert(unit, (generation, reason));
        self.bump();
    }

    /// Hands a reply to whoever asked; a caller that left or does not keep up loses it.
    pub(crate) fn reply(&self, host: &HostName, reply: wire::Reply) {
        let mut picture = self.lock();
        let Some(session) = picture.hosts.get_mut(host).and_then(|h| h.session.as_mut()) else {
            return;
        };
        let id = reply.request_id.clone();
        let last = !reply.more;
        let lost = session.requests.get(&id).is_none_or(|caller| caller.try_send(reply).is_err());
        if last || lost {
            session.requests.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use dhow_proto::model::status::Phase;

    use super::*;

    fn host() -> HostName {
        HostName::try_from("h1").unwrap()
    }

    fn online() -> Online {
        Online {
            since: SystemTime::UNIX_EPOCH,
            agent_version: String::new(),
            features: Vec::new(),
            engine: None,
            boot_id: String::new(),
            host_key_id: Vec::new(),
        }
    }

    fn status(number: u64) -> Status {
        Status {
            unit: Unit::Proxy,
            generation: Generation { epoch: 0, number },
            phase: Phase::Pending,
            serving: Vec::new(),
            staged_digest: None,
            observed_at: SystemTime::UNIX_EPOCH,
            settled: None,
            warnings: Vec::new(),
            maintenance: false,
            step_times: Vec::new(),
        }
    }

    #[test]
    fn a_late_status_of_an_older_generation_says_nothing() {
        let fleet = Fleet::new();
        fleet.report(&host(), status(2));
        fleet.report(&host(), status(1));
        assert_eq!(fleet.status(&host(), &Unit::Proxy).unwrap().generation.number, 2);
    }

    #[test]
    fn step_times_stay_with_their_generation_though_heartbeats_leave_them_out() {
        let fleet = Fleet::new();
        let times = vec![("start".to_owned(), Duration::from_millis(3))];
        fleet.report(&host(), Status { step_times: times.clone(), ..status(2) });
        fleet.report(&host(), status(2));
        assert_eq!(fleet.status(&host(), &Unit::Proxy).unwrap().step_times, times);
        fleet.report(&host(), status(3));
        assert_eq!(fleet.status(&host(), &Unit::Proxy).unwrap().step_times, []);
    }

    #[test]
    fn the_newest_session_of_a_host_replaces_the_old_one() {
        let fleet = Fleet::new();
        let (old, mut old_outbox) = mpsc::channel(1);
        let first = fleet.arrive(&host(), online(), old);
        let (new, _new_outbox) = mpsc::channel(1);
        let second = fleet.arrive(&host(), online(), new);
        assert!(!fleet.is_current(&host(), first));
        assert!(old_outbox.try_recv().is_err(), "its sender is gone");
        fleet.leave(&host(), first);
        assert!(fleet.is_current(&host(), second));
    }

    #[test]
    fn a_slow_agent_loses_its_session_and_nobody_waits() {
        let fleet = Fleet::new();
        let (outbox, _unread) = mpsc::channel(1);
        fleet.arrive(&host(), online(), outbox);
        for _ in 0..2 {
            fleet.send(
                &host(),
                wire::session_response::Message::EventAck(wire::EventAck::default()),
            );
        }
        assert!(fleet.online(&host()).is_none());
    }
}
