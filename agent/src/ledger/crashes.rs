//! The ledger against a file system that loses what was not synced: a restart at any point keeps the rules.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use dhow_proto::model::Unit;
use dhow_proto::model::status::Failure;
use dhow_proto::wire::FailureKind;
use proptest::prelude::*;

use super::{Io, Ledger};
use crate::testing::{generation, role, role_intent};

/// Files as processes see them, and as they are after power is lost.
#[derive(Clone, Default)]
struct Files {
    seen: BTreeMap<PathBuf, Vec<u8>>,
    durable: BTreeMap<PathBuf, Vec<u8>>,
    synced: BTreeMap<PathBuf, Vec<u8>>,
    /// Operations until power is lost.
    left: u64,
}

#[derive(Default)]
struct Lossy(Mutex<Files>);

impl Lossy {
    fn go(&self) -> io::Result<std::sync::MutexGuard<'_, Files>> {
        let mut files = self.0.lock().unwrap();
        if files.left == 0 {
            return Err(io::Error::other("power is lost"));
        }
        files.left -= 1;
        Ok(files)
    }

    fn restart(&self, left: u64) {
        let mut files = self.0.lock().unwrap();
        files.seen = files.durable.clone();
        files.synced = files.durable.clone();
        files.left = left;
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Io for Lossy {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.0.lock().unwrap();
        let inside = files.seen.keys().filter(|p| p.parent() == Some(dir));
        Ok(inside.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.lock().unwrap().seen.get(path).cloned().ok_or_else(missing)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.go()?;
        files.seen.insert(path.to_owned(), bytes.to_vec());
        // The worst that may be on disk without a sync: a name with half of the bytes.
        files.synced.insert(path.to_owned(), bytes[..bytes.len() / 2].to_vec());
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut files = self.go()?;
        let bytes = files.seen.get(path).cloned().ok_or_else(missing)?;
        files.synced.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.go()?;
        let bytes = files.seen.remove(from).ok_or_else(missing)?;
        files.seen.insert(to.to_owned(), bytes);
        let content = files.synced.remove(from).unwrap_or_default();
        files.synced.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut files = self.go()?;
        files.seen.remove(path).ok_or_else(missing)?;
        files.synced.remove(path);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut files = self.go()?;
        files.durable = files.synced.clone();
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Do {
    Accept { number: u64, boot: u64 },
    Settle,
    Fail,
    Restart { operations: u64 },
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (1..12u64, 1..3u64).prop_map(|(number, boot)| Do::Accept { number, boot }),
        2 => Just(Do::Settle),
        1 => Just(Do::Fail),
        2 => (0..20u64).prop_map(|operations| Do::Restart { operations }),
    ]
}

/// What the ledger acknowledged, which no restart may undo.
#[derive(Default)]
struct Promised {
    wanted: Option<(u64, u64)>,
    settled: Option<u64>,
    failed: Option<u64>,
}

fn unit() -> Unit {
    role("web")
}

fn check(ledger: &Ledger, promised: &Promised) -> Result<(), TestCaseError> {
    let known = ledger.known(&unit());
    prop_assert!(ledger.corrupt().is_empty(), "{:?}", ledger.corrupt());
    let number = known.wanted.as_ref().map(|w| w.generation().number);
    prop_assert!(number >= promised.wanted.map(|w| w.0), "wanted fell back to {number:?}");
    let settled = known.settled.as_ref().map(|s| s.generation().number);
    prop_assert!(settled >= promised.settled, "settled fell back to {settled:?}");
    if let Some(failed) = promised.failed {
        prop_assert!(known.failed.is_some_and(|f| f.generation.number >= failed));
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_was_acknowledged_survives_power_loss_at_any_point(steps in prop::collection::vec(step(), 1..60)) {
        let io = Arc::new(Lossy::default());
        io.restart(1000);
        let root = Path::new("/ledger");
        let mut ledger = Ledger::open(root, io.clone()).unwrap();
        let mut promised = Promised::default();
        for step in steps {
            match step {
                Do::Accept { number, boot } => {
                    let before = ledger.known(&unit()).wanted;
                    let accepted = ledger.accept(&role_intent("web", number).boot(boot).bytes()).is_ok();
                    if let Some(before) = before && accepted {
                        prop_assert!(before.generation() <= generation(number));
                    }
                    if let Some((known, other)) = promised.wanted && accepted && known == number {
                        prop_assert_eq!(other, boot, "one number with two contents was taken");
                    }
                    if accepted {
                        promised.wanted = Some((number, boot));
                    }
                }
                Do::Settle => {
                    if let Some(wanted) = ledger.known(&unit()).wanted && ledger.settle(&wanted).is_ok() {
                        promised.settled = Some(wanted.generation().number);
                    }
                }
                Do::Fail => {
                    let Some(wanted) = ledger.known(&unit()).wanted else { continue };
                    let failure = Failure::new("start", FailureKind::Exited, "exited", SystemTime::UNIX_EPOCH);
                    if ledger.fail(&unit(), wanted.generation(), &failure).is_ok() {
                        promised.failed = Some(wanted.generation().number);
                    }
                }
                Do::Restart { operations } => {
                    io.restart(1000);
                    ledger = Ledger::open(root, io.clone()).unwrap();
                    io.0.lock().unwrap().left = operations;
                }
            }
            check(&ledger, &promised)?;
        }
        io.restart(1000);
        check(&Ledger::open(root, io).unwrap(), &promised)?;
    }
}
