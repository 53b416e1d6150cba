//! What only a store on disk can do: be opened again, be refused, be full.

use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;

use super::*;
use crate::clock::ManualClock;
use crate::store::{Compare, Op};

struct Disk {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Disk {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        Self { folder: tempfile::tempdir().unwrap(), clock }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("store.db")
    }

    fn open(&self) -> Result<Arc<dyn Store>, OpenError> {
        Ok(Arc::new(Sqlite::open(&self.path(), self.clock.clone())?))
    }

    /// A look at the file past the store.
    fn sql(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    store.put("a", "1").await.unwrap();
    store.put("a", "2").await.unwrap();
    store.put("b", "3").await.unwrap();
    store.compact(Revision(3)).await.unwrap();
    let before = store.read_all("").await.unwrap();
    drop(store);

    let store = disk.open().unwrap();
    let after = store.read_all("").await.unwrap();
    assert_eq!((after.entries, after.revision), (before.entries, before.revision));
    assert!(matches!(
        store.watch("".into(), Revision(2)).await,
        Err(StoreError::Compacted { oldest: Revision(3) })
    ));
    let mut watch = store.watch("".into(), Revision(3)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, Revision(3));
    assert_eq!(store.put("c", "").await.unwrap(), before.revision.next());
}

#[tokio::test]
async fn leases_outlive_a_restart_and_begin_their_ttl_anew() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let lease = store.grant(Duration::from_secs(10)).await.unwrap();
    store.txn(Txn::new().then(Op::put_leased("a", "v", lease.id))).await.unwrap();
    disk.clock.advance(Duration::from_secs(9));
    drop(store);

    let store = disk.open().unwrap();
    disk.clock.advance(Duration::from_secs(9));
    store.keep_alive(lease.id).await.unwrap();
    assert_ne!(store.grant(Duration::from_secs(10)).await.unwrap().id, lease.id);
    let mut watch = store.watch("a".into(), Revision(3)).await.unwrap();
    disk.clock.advance(Duration::from_secs(10));
    watch.next().await.unwrap();
    assert_eq!(store.get("a".into()).await.unwrap(), None);
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    store.put("a", "1").await.unwrap();
    for file in std::fs::read_dir(disk.folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.file_name());
    }
}

#[test]
fn a_second_process_is_refused() {
    let disk = Disk::new();
    let _store = disk.open().unwrap();
    assert!(matches!(disk.open(), Err(OpenError::InUse { .. })));
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_left_alone() {
    let disk = Disk::new();
    drop(disk.open().unwrap());
    disk.sql("PRAGMA user_version = 99");
    assert!(matches!(disk.open(), Err(OpenError::Newer { found: 99, known: 1 })));
    disk.sql("PRAGMA user_version = 1");
    drop(disk.open().unwrap());
}

#[test]
fn a_database_of_another_program_is_refused() {
    let disk = Disk::new();
    disk.sql("CREATE TABLE theirs (x)");
    assert!(matches!(disk.open(), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let disk = Disk::new();
    std::fs::write(disk.path(), "what is this? ".repeat(100)).unwrap();
    assert!(matches!(disk.open(), Err(OpenError::Sql(_) | OpenError::Damaged { .. })));
}

#[tokio::test]
async fn a_damaged_page_is_found_when_opening() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    for n in 0..200 {
        store.put(format!("k/{n}"), vec![b'x'; 1000]).await.unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(disk.path()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096 * 4].fill(0xa5);
    std::fs::write(disk.path(), bytes).unwrap();
    assert!(matches!(disk.open(), Err(OpenError::Damaged { .. })));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_changes_nothing_until_there_is_room() {
    let disk = Disk::new();
    drop(disk.open().unwrap());
    let opened = schema::open(&disk.path()).unwrap();
    // SQLite's own limit stands in for the disk's: it fails with the same SQLITE_FULL.
    opened.connection.pragma_update(None, "max_page_count", 40).unwrap();
    let writer = writer::Writer::new(opened, disk.clock.clone()).unwrap();
    let reader = schema::open_reader(&disk.path()).unwrap();
    let (writes, write_queue) = mpsc::channel(QUEUE_DEPTH);
    let (reads, read_queue) = mpsc::channel(QUEUE_DEPTH);
    let threads = vec![
        spawn("store-writer", move || writer.run(write_queue)).unwrap(),
        spawn("store-reader", move || reader::run(&reader, read_queue)).unwrap(),
    ];
    let store: Arc<dyn Store> =
        Arc::new(Sqlite { writes: Some(writes), reads: Some(reads), threads });

    let small = store.put("small", "1").await.unwrap();
    let lease = store.grant(Duration::from_secs(10)).await.unwrap();
    let refused = store.put("big", vec![0; 500_000]).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    assert_eq!(store.get("big".into()).await.unwrap(), None);
    assert_eq!(store.read_all("").await.unwrap().revision, small);
    store.keep_alive(lease.id).await.unwrap();
    assert_eq!(store.put("small", "2").await.unwrap(), small.next(), "it goes on");
}

#[tokio::test]
async fn a_group_commit_answers_each_of_its_requests_as_if_alone() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200_u32 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let txn = Txn::new()
                .when(Compare::absent(format!("k/{}", n / 2)))
                .then(Op::put(format!("k/{}", n / 2), n.to_string()));
            let outcome = store.txn(txn).await.unwrap();
            (outcome.succeeded, outcome.revision)
        });
    }
    let outcomes = tasks.join_all().await;
    let mut revisions: Vec<Revision> =
        outcomes.iter().filter(|(won, _)| *won).map(|(_, revision)| *revision).collect();
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 100, "each key has one winner with a revision of its own");
}

#[tokio::test]
async fn a_store_that_fails_tells_its_callers_and_stops() {
    let disk = Disk::new();
    let store = Arc::new(Sqlite::open(&disk.path(), disk.clock.clone()).unwrap());
    let calls: Arc<dyn Store> = store.clone();
    calls.put("a", "1").await.unwrap();
    disk.sql("DROP TABLE event");
    let failed = calls.put("a", "2").await.unwrap_err();
    assert!(matches!(failed, StoreError::Unavailable { .. }), "{failed}");
    tokio::time::timeout(Duration::from_secs(10), store.stopped()).await.unwrap();
    assert!(matches!(calls.put("a", "3").await, Err(StoreError::Closed)));
}

#[test]
fn commits_are_synced_before_they_return() {
    let disk = Disk::new();
    let opened = schema::open(&disk.path()).unwrap();
    let pragma = |name| {
        opened
            .connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
    };
    assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
    // 2 is FULL (sqlite.org/pragma.html#pragma_synchronous).
    assert_eq!(pragma("synchronous").unwrap(), 2.into());
    assert_eq!(pragma("foreign_keys").unwrap(), 1.into());
}
