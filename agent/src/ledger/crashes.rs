//! The ledger against a file system that loses what was not synced: a restart at any point keeps the rules.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use dhow_proto::model::Unit;
use dhow_proto::model::status::Failure;
use dhow_proto::wire::FailureKind;
use proptest::prelude::*;

use super::Ledger;
use super::fake::FakeDisk;
use crate::testing::{generation, role, role_intent};

#[derive(Clone, Debug)]
enum Do {
    Accept {
        number: u64,
        boot: u64,
    },
    Settle,
    Fail,
    /// Of what was not synced, a part survives as the bits of `kept` say.
    Restart {
        operations: u64,
        kept: u64,
    },
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (1..12u64, 1..3u64).prop_map(|(number, boot)| Do::Accept { number, boot }),
        2 => Just(Do::Settle),
        1 => Just(Do::Fail),
        2 => (0..20u64, any::<u64>()).prop_map(|(operations, kept)| Do::Restart { operations, kept }),
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
        let disk = FakeDisk::new();
        let io = Arc::new(disk.clone());
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
                Do::Restart { operations, mut kept } => {
                    disk.lose_power(|| {
                        kept = kept.rotate_right(1);
                        kept & 1 == 1
                    });
                    ledger = Ledger::open(root, io.clone()).unwrap();
                    disk.cut_power_after(operations);
                }
            }
            check(&ledger, &promised)?;
        }
        disk.lose_power(|| false);
        check(&Ledger::open(root, io).unwrap(), &promised)?;
    }
}
