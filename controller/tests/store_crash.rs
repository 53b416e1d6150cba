//! A store whose process is killed in the middle of writing has everything it acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use dhow_controller::clock::SystemClock;
use dhow_controller::store::sqlite::Sqlite;
use dhow_controller::store::{Op, Revision, Store, Txn};

/// Set for the child: the folder of its store. Without it the child's test does nothing.
const CHILD_FOLDER: &str = "DHOW_TEST_CRASH_FOLDER";

const WRITERS: usize = 4;

fn open(folder: &Path) -> Arc<dyn Store> {
    let path = folder.join("store.db");
    Arc::new(Sqlite::open(&path, Arc::new(SystemClock::new())).expect("the store opens"))
}

/// The child's whole life: writes until killed, printing each write that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = open(Path::new(&folder));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for n in 0_u64.. {
                let txn = Txn::new()
                    .then(Op::put(format!("w{writer}/a"), n.to_string()))
                    .then(Op::put(format!("w{writer}/b/{n}"), "x".repeat(500)));
                store.txn(txn).await.expect("a write");
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {writer} {n}").expect("the parent listens");
            }
        });
    }
    writers.join_next().await;
}

fn spawn_child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts")
}

/// Kills the child (SIGKILL) after `acks` acknowledgements; the last one each writer got.
fn kill_after(acks: usize, folder: &Path) -> Vec<Option<u64>> {
    let mut child = spawn_child(folder);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut last = vec![None; WRITERS];
    let mut note = |line: &str| {
        let mut words = line.split(' ');
        let Some("ack") = words.next() else { return false };
        let mut number = || words.next()?.parse::<u64>().ok();
        // A killed child may leave half a line behind.
        if let (Some(writer), Some(n)) = (number(), number()) {
            last[usize::try_from(writer).expect("small")] = Some(n);
        }
        true
    };
    let mut seen = 0;
    while seen < acks {
        let line = lines.next().expect("the child writes on").expect("text");
        seen += usize::from(note(&line));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    // Whole lines only: the last one may have been cut.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    for line in rest.iter().take(rest.len().saturating_sub(1)) {
        note(line);
    }
    last
}

#[tokio::test]
async fn everything_acknowledged_before_a_kill_is_there_after_it() {
    for round in 0..5 {
        let folder = tempfile::tempdir().expect("a folder");
        let last = kill_after(50 + 70 * round, folder.path());
        let store = open(folder.path());
        for (writer, last) in last.iter().enumerate() {
            let Some(last) = *last else { continue };
            let entry = store.get(format!("w{writer}/a").into()).await.expect("readable");
            let text = entry.map(|entry| String::from_utf8(entry.value.to_vec()).expect("text"));
            let found: u64 = text.expect("written").parse().expect("a number");
            assert!(found >= last, "writer {writer} was told {last} and finds {found}");
            let all = store.read_all(format!("w{writer}/b/")).await.expect("readable").entries;
            assert_eq!(all.len() as u64, found + 1, "no transaction is there by half");
        }
        history_and_entries_agree(&*store).await;
    }
}

async fn history_and_entries_agree(store: &dyn Store) {
    let now = store.read_all("").await.expect("readable");
    let mut watch = store.watch("".into(), Revision(1)).await.expect("not compacted");
    let mut revision = Revision(1);
    while revision < now.revision {
        let batch = watch.next().await.expect("history");
        assert_eq!(batch.revision, revision.next(), "no revision is missing");
        revision = batch.revision;
    }
}
