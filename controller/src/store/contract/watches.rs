use super::*;

/// The next batch as text: `revision: +put=value -deleted`.
async fn next(watch: &mut Watch) -> String {
    let batch = soon(watch.next()).await.unwrap();
    let mut text = format!("{}:", batch.revision);
    for event in &batch.events {
        match event {
            Event::Put(entry) => {
                assert_eq!(entry.mod_revision, batch.revision);
                text += &format!(" +{}={}", entry.key, entry.value.escape_ascii());
            }
            Event::Delete { key, revision } => {
                assert_eq!(*revision, batch.revision);
                text += &format!(" -{key}");
            }
        }
    }
    text
}

async fn watch(f: &Fixture, prefix: &str, from: u64) -> Watch {
    f.store.watch(key(prefix), Revision(from)).await.unwrap()
}

pub(super) async fn a_watch_sees_later_changes_in_order(f: Fixture) {
    let mut watch = watch(&f, "", 2).await;
    f.store.put("a", "1").await.unwrap();
    f.store.put("a", "2").await.unwrap();
    f.store.delete("a").await.unwrap();
    let txn = Txn::new().then(Op::put("c", "3")).then(Op::put("b", "4"));
    f.store.txn(txn).await.unwrap();
    assert_eq!(next(&mut watch).await, "2: +a=1");
    assert_eq!(next(&mut watch).await, "3: +a=2");
    assert_eq!(next(&mut watch).await, "4: -a");
    assert_eq!(next(&mut watch).await, "5: +c=3 +b=4");
}

pub(super) async fn a_watch_sees_only_its_prefix(f: Fixture) {
    f.store.put("a/0", "old").await.unwrap();
    let mut watch = watch(&f, "a/", 2).await;
    f.store.put("b", "").await.unwrap();
    f.store.put("a", "").await.unwrap();
    let txn = Txn::new().then(Op::put("b", "")).then(Op::put("a/1", "1")).then(Op::put("c", ""));
    f.store.txn(txn).await.unwrap();
    assert_eq!(next(&mut watch).await, "2: +a/0=old");
    assert_eq!(next(&mut watch).await, "5: +a/1=1");
}

pub(super) async fn a_watch_from_the_past_replays_history(f: Fixture) {
    f.store.put("a", "1").await.unwrap();
    f.store.put("a", "2").await.unwrap();
    f.store.delete("a").await.unwrap();
    let mut watch = watch(&f, "a", 3).await;
    f.store.put("a", "3").await.unwrap();
    assert_eq!(next(&mut watch).await, "3: +a=2");
    assert_eq!(next(&mut watch).await, "4: -a");
    assert_eq!(next(&mut watch).await, "5: +a=3");
}

pub(super) async fn a_watch_from_the_future_waits_for_its_revision(f: Fixture) {
    let mut watch = watch(&f, "", 4).await;
    for value in ["1", "2", "3"] {
        f.store.put("a", value).await.unwrap();
    }
    assert_eq!(next(&mut watch).await, "4: +a=3");
}

pub(super) async fn reading_then_watching_misses_nothing(f: Fixture) {
    let writer = {
        let store = Arc::clone(&f.store);
        tokio::spawn(async move {
            for n in 1..=100 {
                store.put("n", n.to_string()).await.unwrap();
            }
        })
    };
    let read = f.store.read_all("n").await.unwrap();
    let mut seen = read.entries.first().map_or(0, |entry| entry.version);
    let mut watch = f.store.watch(key("n"), read.revision.next()).await.unwrap();
    while seen < 100 {
        let batch = soon(watch.next()).await.unwrap();
        let Event::Put(entry) = &batch.events[0] else { panic!("{batch:?}") };
        assert_eq!(entry.version, seen + 1, "neither twice nor missing");
        seen = entry.version;
    }
    writer.await.unwrap();
}

pub(super) async fn a_compacted_revision_cannot_be_watched(f: Fixture) {
    for value in ["1", "2", "3"] {
        f.store.put("a", value).await.unwrap();
    }
    f.store.compact(Revision(3)).await.unwrap();
    for from in [0, 1, 2] {
        let refused = f.store.watch(key("a"), Revision(from)).await;
        let Err(StoreError::Compacted { oldest }) = refused else { panic!("{refused:?}") };
        assert_eq!(oldest, Revision(3));
    }
}

pub(super) async fn the_compaction_revision_itself_can_be_watched(f: Fixture) {
    for value in ["1", "2", "3"] {
        f.store.put("a", value).await.unwrap();
    }
    f.store.compact(Revision(3)).await.unwrap();
    let mut watch = watch(&f, "a", 3).await;
    assert_eq!(next(&mut watch).await, "3: +a=2");
    assert_eq!(next(&mut watch).await, "4: +a=3");
}

pub(super) async fn compacting_the_future_is_refused(f: Fixture) {
    let at = f.store.put("a", "1").await.unwrap();
    let refused = f.store.compact(at.next()).await;
    let Err(StoreError::FutureRevision { current }) = refused else { panic!("{refused:?}") };
    assert_eq!(current, at);
}

pub(super) async fn compacting_twice_does_nothing(f: Fixture) {
    let first = f.store.put("a", "1").await.unwrap();
    let second = f.store.put("a", "2").await.unwrap();
    f.store.compact(second).await.unwrap();
    f.store.compact(first).await.unwrap();
    f.store.compact(second).await.unwrap();
    let refused = f.store.watch(key("a"), first).await;
    assert!(matches!(refused, Err(StoreError::Compacted { oldest }) if oldest == second));
}

pub(super) async fn compaction_keeps_current_values(f: Fixture) {
    f.store.put("a", "1").await.unwrap();
    let last = f.store.put("b", "2").await.unwrap();
    f.store.compact(last).await.unwrap();
    assert_eq!(f.store.read_all("").await.unwrap().entries.len(), 2);
}

pub(super) async fn a_slow_watcher_is_told_it_lagged(f: Fixture) {
    let mut slow = watch(&f, "a", 2).await;
    for n in 0..=WATCH_DEPTH {
        f.store.put("a", n.to_string()).await.unwrap();
    }
    for n in 0..WATCH_DEPTH as u64 {
        assert_eq!(soon(slow.next()).await.unwrap().revision, Revision(n + 2));
    }
    assert!(matches!(soon(slow.next()).await, Err(StoreError::Lagged)));
    assert!(matches!(soon(slow.next()).await, Err(StoreError::Lagged)), "for good");
}

pub(super) async fn a_slow_watcher_does_not_hold_up_writers(f: Fixture) {
    let _slow = watch(&f, "a", 2).await;
    let mut other = watch(&f, "b", 2).await;
    for n in 0..WATCH_DEPTH + 10 {
        soon(f.store.put("a", n.to_string())).await.unwrap();
    }
    let at = soon(f.store.put("b", "1")).await.unwrap();
    assert_eq!(soon(other.next()).await.unwrap().revision, at);
}
