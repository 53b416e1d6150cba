use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dhow_proto::model::status::{Phase, Status, StepProgress};
use dhow_proto::model::{BlobRef, Unit};
use dhow_proto::wire;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::session_request::Message as Up;
use wire::session_response::Message as Down;

use super::controller::{Controller, Peer, TestCa};
use crate::clock::{Clock as _, SystemClock};
use crate::ledger::{Blobs, Disk, Events, Ledger};
use crate::session::{
    BlobSource as _, Board, Connector, FetchError, Fetcher, Host, Rooms, SessionSettings, Stored,
};
use crate::testing::{Draft, PATIENCE, generation, role, role_intent};

/// Answers every question with one version and counts them.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Host for Counting {
    fn engine_info(&self) -> BoxFuture<'_, Option<wire::EngineInfo>> {
        Box::pin(async { None })
    }

    fn answer(
        &self,
        request: wire::Request,
        replies: mpsc::Sender<wire::Reply>,
    ) -> BoxFuture<'_, ()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let kind = wire::reply::Kind::Versions(wire::VersionList::default());
            let reply = wire::Reply { request_id: request.id, more: false, kind: Some(kind) };
            replies.send(reply).await.unwrap();
        })
    }
}

struct Agent {
    rooms: Rooms,
    fetcher: Fetcher,
    host: Arc<Counting>,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Agent {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let rooms = Rooms {
            ledger: Arc::new(Ledger::open(&path("ledger"), Arc::new(Disk)).unwrap()),
            events: Arc::new(
                Events::open(&path("events"), Arc::new(Disk), SystemClock.now()).unwrap(),
            ),
            board: Board::new(),
            clock: Arc::new(SystemClock),
        };
        let blobs = Arc::new(Blobs::open(&path("blobs"), Arc::new(Disk)).unwrap());
        Self {
            rooms,
            fetcher: Fetcher::new(blobs),
            host: Arc::default(),
            shutdown: CancellationToken::new(),
            task: None,
            dir,
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn connect(&mut self, stored: Stored) {
        let settings = SessionSettings {
            state_dir: self.dir().to_owned(),
            agent_version: "1.2.3".into(),
            binary_digest: vec![],
            boot_id: "boot".into(),
            outside: Arc::new(dhow_proto::dial::Machine),
        };
        let connector = Connector::new(
            self.rooms.clone(),
            settings,
            stored,
            self.host.clone(),
            self.fetcher.clone(),
        )
        .unwrap();
        self.task = Some(tokio::spawn(connector.run(self.shutdown.clone())));
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(PATIENCE, task).await.expect("it did not stop").unwrap();
    }
}

fn unit_generation(draft: &Draft) -> wire::UnitGeneration {
    wire::UnitGeneration {
        unit: Some((&draft.0.unit).into()),
        generation: Some(draft.0.generation.into()),
        digest: draft.0.digest().as_bytes().to_vec().into(),
    }
}

fn intent(draft: &Draft) -> Down {
    Down::Intent((&draft.0).into())
}

fn want(message: Up) -> Option<(Unit, u64)> {
    let Up::Want(want) = message else { return None };
    Some((want.unit.unwrap().try_into().unwrap(), want.generation.unwrap().number))
}

fn refused(message: Up) -> Option<String> {
    let Up::Refused(refused) = message else { return None };
    Some(refused.reason)
}

fn heartbeat(message: Up) -> Option<wire::Heartbeat> {
    let Up::Heartbeat(heartbeat) = message else { return None };
    Some(heartbeat)
}

async fn connected() -> (Controller, Agent, Peer) {
    let mut controller = Controller::start().await;
    let mut agent = Agent::new();
    agent.connect(controller.ca.host("h1", &controller.address));
    let peer = controller.session().await;
    (controller, agent, peer)
}

fn status(unit: Unit, number: u64) -> Status {
    Status {
        unit,
        generation: generation(number),
        phase: Phase::Settled,
        serving: vec![],
        staged_digest: None,
        observed_at: SystemClock.now(),
        settled: None,
        warnings: vec![],
        maintenance: false,
        step_times: vec![],
    }
}

#[tokio::test]
async fn a_host_that_was_away_asks_for_the_newest_generations_only() {
    let mut controller = Controller::start().await;
    let mut agent = Agent::new();
    agent.rooms.ledger.accept(&role_intent("web", 3).bytes()).unwrap();
    agent.rooms.ledger.accept(&role_intent("job", 5).bytes()).unwrap();
    agent.connect(controller.ca.host("h1", &controller.address));
    let mut peer = controller.session().await;
    assert_eq!(peer.hello.host, "h1");
    assert_eq!(peer.hello.applied.len(), 2);
    let newest = role_intent("web", 9).boot(2);
    peer.welcome(vec![unit_generation(&newest), unit_generation(&role_intent("job", 5))]).await;
    assert_eq!(peer.next(want).await, (role("web"), 9));
    let mut changes = agent.rooms.ledger.changes();
    peer.send(intent(&newest)).await;
    changes.changed().await.unwrap();
    let known = agent.rooms.ledger.known(&role("web"));
    assert_eq!(known.wanted.unwrap().generation(), generation(9));
    assert!(peer.until_heartbeat().await.iter().all(|m| !matches!(m, Up::Want(_))));
    agent.stop().await;
}

#[tokio::test]
async fn a_unit_that_welcome_does_not_name_is_left_alone_and_reported() {
    let mut controller = Controller::start().await;
    let mut agent = Agent::new();
    agent.rooms.ledger.accept(&role_intent("web", 3).bytes()).unwrap();
    agent.connect(controller.ca.host("h1", &controller.address));
    let mut peer = controller.session().await;
    peer.welcome(vec![]).await;
    let event = peer
        .next(|m| match m {
            Up::Event(event) => Some(event),
            _ => None,
        })
        .await;
    assert_eq!(event.kind(), wire::EventKind::Unmanaged);
    assert!(agent.rooms.ledger.known(&role("web")).wanted.is_some());
    peer.send(Down::EventAck(wire::EventAck { sequence: event.sequence })).await;
    let events = agent.rooms.events.clone();
    tokio::time::timeout(PATIENCE, async {
        while !events.after(0).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn older_and_conflicting_intents_are_refused_with_the_reason() {
    let (_controller, agent, mut peer) = connected().await;
    agent.rooms.ledger.accept(&role_intent("web", 3).bytes()).unwrap();
    peer.welcome(vec![]).await;
    peer.send(intent(&role_intent("web", 2))).await;
    assert_eq!(peer.next(refused).await, "generation 2 is older than 3");
    peer.send(intent(&role_intent("web", 3).boot(7))).await;
    let reason = peer.next(refused).await;
    assert_eq!(reason, "generation 3 was already accepted with other content");
    agent.stop().await;
}

#[tokio::test]
async fn a_welcome_that_contradicts_the_ledger_is_refused_loudly() {
    let mut controller = Controller::start().await;
    let mut agent = Agent::new();
    agent.rooms.ledger.accept(&role_intent("web", 3).bytes()).unwrap();
    agent.connect(controller.ca.host("h1", &controller.address));
    let mut peer = controller.session().await;
    peer.welcome(vec![unit_generation(&role_intent("web", 3).boot(9))]).await;
    assert!(peer.next(refused).await.contains("other content"));
    agent.stop().await;
}

#[tokio::test]
async fn statuses_are_reported_when_they_change_and_in_heartbeats() {
    let (_controller, agent, mut peer) = connected().await;
    peer.welcome(vec![]).await;
    agent.rooms.board.post(status(role("web"), 4));
    let reported = peer
        .next(|m| match m {
            Up::Status(status) => Some(status),
            _ => None,
        })
        .await;
    assert_eq!(reported.generation.unwrap().number, 4);
    let beat = peer.next(heartbeat).await;
    assert_eq!(beat.statuses.len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn steps_that_take_a_moment_are_one_message_and_their_times_are_told_once() {
    let (_controller, agent, mut peer) = connected().await;
    peer.welcome(vec![]).await;
    peer.until_heartbeat().await;
    for index in 0..20 {
        let step =
            StepProgress { text: "audit".into(), index, total: 20, started_at: SystemClock.now() };
        let phase = Phase::Converging(Some(step));
        agent.rooms.board.post(Status { phase, ..status(role("web"), 4) });
        tokio::task::yield_now().await;
    }
    let step_times = vec![("start".to_owned(), Duration::from_millis(3))];
    // Another unit's outcome does not wait for them.
    agent.rooms.board.post(Status { step_times, ..status(role("job"), 7) });
    let heard = peer.until_heartbeat().await;
    let statuses: Vec<&wire::Status> = heard
        .iter()
        .filter_map(|m| match m {
            Up::Status(status) => Some(status),
            _ => None,
        })
        .collect();
    let told: Vec<(wire::Phase, usize)> =
        statuses.iter().map(|s| (s.phase(), s.step_times.len())).collect();
    assert_eq!(told, [(wire::Phase::Settled, 1), (wire::Phase::Converging, 0)], "{statuses:?}");
    assert_eq!(statuses[1].step.as_ref().unwrap().index, 19);
    let beat = peer.next(heartbeat).await;
    assert!(beat.statuses.iter().all(|s| s.step_times.is_empty()), "{beat:?}");
    // Looked at again, and found as it was: no news.
    let before = agent.rooms.board.get(&role("job")).unwrap();
    agent.rooms.board.post(Status { observed_at: SystemClock.now(), ..(*before).clone() });
    let heard = peer.until_heartbeat().await;
    assert!(!heard.iter().any(|m| matches!(m, Up::Status(_))), "{heard:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_question_is_never_run_twice() {
    let (_controller, agent, mut peer) = connected().await;
    peer.welcome(vec![]).await;
    let ask = || {
        let kind = wire::request::Kind::Version(wire::AskVersion::default());
        Down::Request(wire::Request { id: "q1".into(), deadline: None, kind: Some(kind) })
    };
    let reply = |m: Up| match m {
        Up::Reply(reply) => reply.kind,
        _ => None,
    };
    peer.send(ask()).await;
    assert!(matches!(peer.next(reply).await, wire::reply::Kind::Versions(_)));
    peer.send(ask()).await;
    assert!(matches!(peer.next(reply).await, wire::reply::Kind::Error(_)));
    assert_eq!(agent.host.0.load(Ordering::SeqCst), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_foreign_controller_is_not_spoken_to() {
    let mut foreign = Controller::start().await;
    let ours = TestCa::new();
    let mut agent = Agent::new();
    let stored = ours.host("h1", &foreign.address);
    let dialer =
        dhow_proto::dial::Dialer::enrolled(&stored.dial().unwrap(), &stored.ca_set).unwrap();
    let refused = dialer.connect(&foreign.address).await;
    assert!(
        matches!(refused, Err(dhow_proto::dial::DialError::Untrusted { .. })),
        "the controller's certificate is not of our CA"
    );
    agent.connect(stored);
    foreign.nobody_connects(agent.dir()).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_controller_that_hangs_up_is_not_called_a_foreign_one() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let hangs_up = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let stored = TestCa::new().host("h1", &address);
    let dialer =
        dhow_proto::dial::Dialer::enrolled(&stored.dial().unwrap(), &stored.ca_set).unwrap();
    let refused = dialer.connect(&address).await;
    assert!(
        matches!(refused, Err(dhow_proto::dial::DialError::Unreachable { .. })),
        "{:?}",
        refused.err()
    );
    hangs_up.await.unwrap();
}

#[tokio::test]
async fn the_agent_comes_back_after_a_break() {
    let (mut controller, agent, peer) = connected().await;
    drop(peer);
    let peer = controller.session().await;
    peer.welcome(vec![]).await;
    agent.stop().await;
}

#[tokio::test]
async fn blobs_are_fetched_verified_and_kept() {
    let (controller, agent, peer) = connected().await;
    peer.welcome(vec![]).await;
    let bytes = bytes::Bytes::from(vec![7; 4500]);
    let blob = BlobRef::of(&bytes);
    controller.blobs.lock().unwrap().insert(blob.digest, bytes.clone());
    let more = bytes::Bytes::from_static(b"more");
    let second = BlobRef::of(&more);
    controller.blobs.lock().unwrap().insert(second.digest, more.clone());
    assert_eq!(agent.fetcher.fetch(vec![blob]).await.unwrap(), std::slice::from_ref(&bytes));
    // One from the cache, one not, one of them twice.
    let all = [more.clone(), bytes, more];
    assert_eq!(agent.fetcher.fetch(vec![second, blob, second]).await.unwrap(), all);
    // From the cache: the controller no longer has them.
    controller.blobs.lock().unwrap().clear();
    assert_eq!(agent.fetcher.fetch(vec![second, blob, second]).await.unwrap(), all);
    let wrong = BlobRef::of(b"other");
    controller.blobs.lock().unwrap().insert(wrong.digest, bytes::Bytes::from_static(b"wrong"));
    let not = agent.fetcher.fetch(vec![second, wrong]).await.unwrap_err();
    assert!(not.blob == wrong.digest && matches!(not.error, FetchError::Keep(_)), "{not}");
    agent.stop().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_when_the_controller_asks() {
    let (mut controller, agent, peer) = connected().await;
    let before = controller.ca.host("h1", &controller.address);
    before.save(agent.dir()).unwrap();
    peer.send(Down::Welcome(wire::Welcome {
        last: true,
        renew: true,
        controller_addresses: vec!["other.example:7443".into()],
        ..Default::default()
    }))
    .await;
    tokio::time::timeout(PATIENCE, controller.renewals.recv()).await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, async {
        loop {
            let stored = Stored::load(agent.dir()).unwrap();
            if stored.certificate_der != before.certificate_der && stored.controllers.len() == 2 {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the renewed certificate is not stored");
    drop(peer);
    controller.session().await;
    agent.stop().await;
}
