use std::time::{Duration, SystemTime};

use dhow_proto::model::{BlobRef, Version};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{self, app, role, role_intent};

struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Ledger {
        Ledger::open(self.dir.path(), Arc::new(Disk)).unwrap()
    }

    /// Has everything in plain files, as after a restart.
    fn restart(&self) {
        drop(self.open());
    }

    fn only_file(&self, suffix: &str) -> PathBuf {
        let names = Disk.list(self.dir.path()).unwrap();
        self.dir.path().join(names.iter().find(|n| n.ends_with(suffix)).unwrap())
    }
}

fn bytes(number: u64, boot: u64) -> Vec<u8> {
    role_intent("web", number).boot(boot).bytes()
}

fn in_epoch(epoch: u64, number: u64) -> Vec<u8> {
    let mut intent = role_intent("web", number);
    intent.0.generation.epoch = epoch;
    intent.bytes()
}

fn failure() -> Failure {
    let kind = dhow_proto::wire::FailureKind::Unhealthy;
    Failure::new("start shop-web-v2", kind, "never healthy", SystemTime::UNIX_EPOCH)
}

#[test]
fn only_newer_generations_are_taken() {
    let room = Room::new();
    let ledger = room.open();
    assert_eq!(ledger.accept(&bytes(5, 1)).unwrap(), Accept::New);
    assert_eq!(ledger.accept(&bytes(5, 1)).unwrap(), Accept::Known);
    assert!(matches!(ledger.accept(&bytes(4, 1)), Err(AcceptError::Outdated { .. })));
    assert!(matches!(ledger.accept(&bytes(5, 2)), Err(AcceptError::Conflicting { .. })));
    assert_eq!(ledger.accept(&bytes(6, 2)).unwrap(), Accept::New);
}

#[test]
fn the_epoch_counts_before_the_number() {
    let room = Room::new();
    let ledger = room.open();
    ledger.accept(&in_epoch(0, 900)).unwrap();
    assert_eq!(ledger.accept(&in_epoch(1, 1)).unwrap(), Accept::New);
    assert!(matches!(ledger.accept(&in_epoch(0, 901)), Err(AcceptError::Outdated { .. })));
}

#[test]
fn a_restart_forgets_nothing() {
    let room = Room::new();
    {
        let ledger = room.open();
        ledger.accept(&bytes(1, 1)).unwrap();
        let first = ledger.known(&role("web")).wanted.unwrap();
        ledger.settle(&first).unwrap();
        ledger.accept(&bytes(2, 2)).unwrap();
        ledger.fail(&role("web"), testing::generation(2), &failure()).unwrap();
        ledger.mark(&role("web"), "prune", "3").unwrap();
        ledger.hold(&app(), Held::ForeignLock("sue".into())).unwrap();
    }
    let ledger = room.open();
    let known = ledger.known(&role("web"));
    assert_eq!(known.wanted.as_ref().unwrap().generation().number, 2);
    assert_eq!(known.settled.as_ref().unwrap().generation().number, 1);
    assert!(known.has_failed(testing::generation(2)));
    assert_eq!(known.failed.unwrap().failure, failure());
    assert_eq!(known.marks["prune"], "3");
    assert_eq!(ledger.held(&app()).unwrap().held, Held::ForeignLock("sue".into()));
    assert!(matches!(ledger.accept(&bytes(1, 1)), Err(AcceptError::Outdated { .. })));
}

#[test]
fn a_damaged_file_costs_its_unit_only() {
    let room = Room::new();
    {
        let ledger = room.open();
        ledger.accept(&bytes(1, 1)).unwrap();
        let first = ledger.known(&role("web")).wanted.unwrap();
        ledger.settle(&first).unwrap();
        ledger.accept(&bytes(7, 2)).unwrap();
        ledger.accept(&role_intent("job", 3).bytes()).unwrap();
    }
    room.restart();
    let web = room.dir.path().join(file::name(&role("web").key(), Kind::Wanted));
    std::fs::write(&web, b"dhowled1 and then nothing of sense").unwrap();
    let ledger = room.open();
    assert_eq!(ledger.corrupt().len(), 1);
    assert!(ledger.known(&role("job")).wanted.is_some());
    assert!(ledger.known(&role("web")).wanted.is_none());
    // What the settled file knows still fences.
    assert!(matches!(ledger.accept(&in_epoch(0, 0)), Err(AcceptError::Outdated { .. })));
    assert_eq!(ledger.accept(&bytes(7, 2)).unwrap(), Accept::New);
}

#[test]
fn a_file_under_another_units_name_is_refused() {
    let room = Room::new();
    room.open().accept(&bytes(1, 1)).unwrap();
    room.restart();
    let from = room.only_file(".wanted");
    std::fs::rename(from, room.dir.path().join("role!shop!!job.wanted")).unwrap();
    let ledger = room.open();
    assert_eq!(ledger.corrupt().len(), 1);
    assert!(ledger.units().is_empty());
}

#[test]
fn files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let room = Room::new();
    let root = room.dir.path().join("below");
    let ledger = Ledger::open(&root, Arc::new(Disk)).unwrap();
    ledger.accept(&bytes(1, 1)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    drop(Ledger::open(&root, Arc::new(Disk)).unwrap());
    for name in [&file::name(&role("web").key(), Kind::Wanted), "journal"] {
        assert_eq!(mode(&root.join(name)), 0o600);
    }
}

#[test]
fn a_settle_keeps_the_intent_it_asks_about() {
    let room = Room::new();
    {
        let ledger = room.open();
        ledger.accept(&bytes(1, 1)).unwrap();
        ledger.settle(&ledger.known(&role("web")).wanted.unwrap()).unwrap();
        ledger.accept(&bytes(2, 2)).unwrap();
        ledger.accept(&role_intent("web", 3).settle(2, Some(1)).bytes()).unwrap();
    }
    let ledger = room.open();
    let known = ledger.known(&role("web"));
    assert_eq!(known.attempted.unwrap().generation().number, 2);
    assert_eq!(known.settled.unwrap().generation().number, 1);
    ledger.accept(&bytes(4, 3)).unwrap();
    assert!(room.open().known(&role("web")).attempted.is_none());
}

#[test]
fn a_feature_this_build_lacks_is_refused() {
    let room = Room::new();
    let mut intent = role_intent("web", 1);
    intent.0.features.push("canary".into());
    let refused = room.open().accept(&intent.bytes());
    assert!(matches!(refused, Err(AcceptError::FeatureMissing { feature }) if feature == "canary"));
}

#[test]
fn only_a_newer_rollout_adopts() {
    let room = Room::new();
    let ledger = room.open();
    ledger.accept(&role_intent("web", 1).rollout("r1").bytes()).unwrap();
    ledger.hold(&app(), Held::AuditLine("[kamal] Booted".into())).unwrap();
    drop(ledger);
    let ledger = room.open();
    let hold = ledger.held(&app()).unwrap();
    assert!(!hold.adopted_by(&role_intent("web", 2).rollout("r1").0));
    assert!(!hold.adopted_by(&role_intent("web", 2).0));
    assert!(hold.adopted_by(&role_intent("web", 2).rollout("r2").0));
    ledger.adopt(&app()).unwrap();
    assert!(room.open().held(&app()).is_none());
}

#[test]
fn blobs_that_intents_name_are_kept_and_others_collected() {
    let room = Room::new();
    let ledger = room.open();
    let blobs = Blobs::open(&room.dir.path().join("blobs"), Arc::new(Disk)).unwrap();
    ledger.accept(&role_intent("web", 1).template(b"{}").bytes()).unwrap();
    let (named, other) = (BlobRef::of(b"{}"), BlobRef::of(b"other"));
    blobs.put(&named, b"{}").unwrap();
    blobs.put(&other, b"other").unwrap();
    assert!(matches!(blobs.put(&other, b"changed"), Err(BlobError::Mismatch(_))));
    assert_eq!(ledger.collect(&blobs).unwrap(), 1);
    assert_eq!(blobs.get(&named).unwrap().as_ref(), b"{}");
    assert!(blobs.get(&other).is_none());
}

/// A failed version goes back to what settled, and an unknown outcome is decided by what was attempted: without asking anybody.
#[test]
fn blobs_that_a_unit_may_go_back_to_are_kept() {
    let room = Room::new();
    let ledger = room.open();
    let blobs = Blobs::open(&room.dir.path().join("blobs"), Arc::new(Disk)).unwrap();
    let [settled, attempted] = [b"settled".as_slice(), b"attempted"].map(|bytes| {
        blobs.put(&BlobRef::of(bytes), bytes).unwrap();
        BlobRef::of(bytes)
    });
    ledger.accept(&role_intent("web", 1).template(b"settled").bytes()).unwrap();
    ledger.settle(&ledger.known(&role("web")).wanted.unwrap()).unwrap();
    ledger.accept(&role_intent("web", 2).template(b"attempted").bytes()).unwrap();
    assert_eq!(ledger.collect(&blobs).unwrap(), 0);
    assert!(blobs.get(&settled).is_some() && blobs.get(&attempted).is_some());
    ledger.accept(&role_intent("web", 3).settle(2, Some(1)).bytes()).unwrap();
    assert_eq!(ledger.collect(&blobs).unwrap(), 0);
    assert!(blobs.get(&settled).is_some() && blobs.get(&attempted).is_some());
    ledger.accept(&role_intent("web", 4).template(b"settled").bytes()).unwrap();
    assert_eq!(ledger.collect(&blobs).unwrap(), 1, "what was attempted is decided");
    assert!(blobs.get(&settled).is_some());
}

#[tokio::test(start_paused = true)]
async fn blobs_of_an_intent_that_was_superseded_go_after_a_while() {
    let room = Room::new();
    let ledger = Arc::new(room.open());
    let dir = room.dir.path().join("blobs");
    let blobs = Arc::new(Blobs::open(&dir, Arc::new(Disk)).unwrap());
    let [old, new] = [BlobRef::of(b"old"), BlobRef::of(b"new")];
    ledger.accept(&role_intent("web", 1).template(b"old").bytes()).unwrap();
    blobs.put(&old, b"old").unwrap();
    let left_over = BlobRef::of(b"left over by a crash");
    blobs.put(&left_over, b"left over by a crash").unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(collect_blobs(ledger.clone(), blobs.clone(), shutdown.clone()));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(blobs.get(&left_over).is_none(), "nothing ever names it");
    assert!(blobs.get(&old).is_some(), "a wanted intent names it");
    ledger.accept(&role_intent("web", 2).template(b"new").bytes()).unwrap();
    blobs.put(&new, b"new").unwrap();
    ledger.settle(&ledger.known(&role("web")).wanted.unwrap()).unwrap();
    ledger.accept(&role_intent("web", 3).template(b"new").bytes()).unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(blobs.get(&old).is_none(), "nothing names it");
    assert!(blobs.get(&new).is_some());
    shutdown.cancel();
    task.await.unwrap();
}

#[test]
fn a_damaged_blob_is_not_given() {
    let room = Room::new();
    let dir = room.dir.path().join("blobs");
    let blobs = Blobs::open(&dir, Arc::new(Disk)).unwrap();
    let blob = BlobRef::of(b"{}");
    blobs.put(&blob, b"{}").unwrap();
    drop(blobs);
    let blobs = Blobs::open(&dir, Arc::new(Disk)).unwrap();
    std::fs::write(dir.join(blob.digest.to_string()), b"[]").unwrap();
    assert!(blobs.get(&blob).is_none());
}

#[test]
fn events_wait_in_order_until_acknowledged_and_over_restarts() {
    let room = Room::new();
    let now = SystemTime::UNIX_EPOCH;
    let open = || Events::open(room.dir.path(), Arc::new(Disk), now).unwrap();
    let kind = dhow_proto::wire::EventKind::Drift;
    let events = open();
    for text in ["a", "b", "c"] {
        events.push(now, Some(&role("web")), kind, text).unwrap();
    }
    events.acknowledge(1);
    let events = open();
    let waiting: Vec<String> = events.after(0).into_iter().map(|e| e.text).collect();
    assert_eq!(waiting, ["b", "c"]);
    events.acknowledge(3);
    let events = open();
    events.push(now, None, kind, "d").unwrap();
    assert_eq!(events.after(0)[0].sequence, 4);
}

#[test]
fn a_full_queue_drops_the_oldest_and_says_so() {
    let room = Room::new();
    let now = SystemTime::UNIX_EPOCH;
    let events = Events::open(room.dir.path(), Arc::new(Disk), now).unwrap();
    let kind = dhow_proto::wire::EventKind::Drift;
    for n in 0..QUEUE + 1 {
        events.push(now, None, kind, &n.to_string()).unwrap();
    }
    let waiting = events.after(0);
    assert_eq!(waiting.len(), QUEUE);
    assert_eq!(waiting[0].text, "2");
    assert!(waiting[QUEUE - 1].text.starts_with("2 events were dropped"));
}

#[test]
fn a_version_is_read_back_as_it_was_offered() {
    let room = Room::new();
    let ledger = room.open();
    ledger.accept(&role_intent("web", 1).version("v9").bytes()).unwrap();
    let Desired::Role(wanted) = ledger.known(&role("web")).wanted.unwrap().intent.desired.clone()
    else {
        panic!("a role")
    };
    assert_eq!(wanted.variants[0].version, Version::try_from("v9").unwrap());
}
