//! Any history of calls means the same in the store as in a model that keeps every state in a
//! plain map and shares no code with the implementations.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;

const HISTORIES: usize = 40;

#[derive(Clone, Debug)]
enum Call {
    Txn(Txn),
    Grant,
    /// The n-th lease granted so far.
    Revoke(usize),
    Compact,
}

pub(super) async fn any_history_means_the_same_as_in_the_model(f: Fixture) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..HISTORIES {
        let calls = prop::collection::vec(call(), 1..20).new_tree(&mut runner).unwrap().current();
        f.store.txn(Txn::new().then(Op::delete_prefix("k"))).await.unwrap();
        replay(&f, &calls).await;
    }
}

async fn replay(f: &Fixture, calls: &[Call]) {
    let start = f.store.read_all("").await.unwrap().revision;
    let mut watch = f.store.watch(key("k"), start.next()).await.unwrap();
    let mut model = Model { revision: start.0, ..Model::default() };
    let mut leases = Vec::new();
    let mut seen = BTreeMap::new();
    for call in calls {
        let before = model.revision;
        match call {
            Call::Txn(txn) => {
                let txn = with_lease(txn, leases.last().copied());
                let outcome = f.store.txn(txn.clone()).await.unwrap();
                let succeeded = model.txn(&txn);
                assert_eq!(outcome.succeeded, succeeded, "{txn:?} in {calls:?}");
                assert_eq!(outcome.revision.0, model.revision, "{txn:?} in {calls:?}");
            }
            Call::Grant => leases.push(f.store.grant(Duration::from_secs(60)).await.unwrap().id),
            Call::Revoke(n) => {
                if leases.is_empty() {
                    continue;
                }
                let lease = leases.remove(n % leases.len());
                f.store.revoke(lease).await.unwrap();
                model.revoke(lease);
            }
            Call::Compact => f.store.compact(Revision(model.revision)).await.unwrap(),
        }
        if model.revision > before {
            follow(&mut seen, soon(watch.next()).await.unwrap(), model.revision);
        }
        let stored = f.store.read_all("k").await.unwrap().entries;
        let expected: Vec<Entry> = model.entries.values().cloned().collect();
        assert_eq!(stored, expected, "after {call:?} in {calls:?}");
        assert_eq!(seen, model.entries, "a watcher sees the same, after {call:?} in {calls:?}");
    }
}

/// Applies a watched batch to what the watcher knows.
fn follow(seen: &mut BTreeMap<Key, Entry>, batch: WatchBatch, revision: u64) {
    assert_eq!(batch.revision.0, revision);
    for event in batch.events {
        match event {
            Event::Put(entry) => drop(seen.insert(entry.key.clone(), entry)),
            Event::Delete { key, .. } => {
                assert!(seen.remove(&key).is_some(), "only what was there is deleted");
            }
        }
    }
}

#[derive(Default)]
struct Model {
    revision: u64,
    entries: BTreeMap<Key, Entry>,
}

impl Model {
    fn txn(&mut self, txn: &Txn) -> bool {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.then_ops } else { &txn.else_ops };
        let next = Revision(self.revision + 1);
        let mut wrote = false;
        for op in ops {
            wrote |= self.op(op, next);
        }
        self.revision += u64::from(wrote);
        succeeded
    }

    fn holds(&self, compare: &Compare) -> bool {
        let entry = |key| self.entries.get(key);
        match compare {
            Compare::Absent { key } => entry(key).is_none(),
            Compare::Exists { key } => entry(key).is_some(),
            Compare::ModRevision { key, revision } => {
                entry(key).is_some_and(|entry| entry.mod_revision == *revision)
            }
            Compare::CreateRevision { key, revision } => {
                entry(key).is_some_and(|entry| entry.create_revision == *revision)
            }
            Compare::Version { key, version } => {
                entry(key).is_some_and(|entry| entry.version == *version)
            }
            Compare::Value { key, value } => entry(key).is_some_and(|entry| entry.value == value),
        }
    }

    fn op(&mut self, op: &Op, next: Revision) -> bool {
        match op {
            Op::Get { .. } => false,
            Op::Put { key, value, lease } => {
                let old = self.entries.get(key);
                let entry = Entry {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: old.map_or(next, |old| old.create_revision),
                    mod_revision: next,
                    version: old.map_or(1, |old| old.version + 1),
                    lease: *lease,
                };
                self.entries.insert(key.clone(), entry);
                true
            }
            Op::Delete { key } => self.entries.remove(key).is_some(),
            Op::DeletePrefix { prefix } => {
                let before = self.entries.len();
                self.entries.retain(|key, _| !key.as_bytes().starts_with(prefix.as_bytes()));
                self.entries.len() < before
            }
        }
    }

    fn revoke(&mut self, lease: LeaseId) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.lease != Some(lease));
        self.revision += u64::from(self.entries.len() < before);
    }
}

/// Generated puts name lease 0 where they mean "the newest one, if there is one".
fn with_lease(txn: &Txn, newest: Option<LeaseId>) -> Txn {
    let mut txn = txn.clone();
    for op in txn.then_ops.iter_mut().chain(&mut txn.else_ops) {
        if let Op::Put { lease, .. } = op {
            *lease = lease.and(newest);
        }
    }
    txn
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        12 => txn().prop_map(Call::Txn),
        2 => Just(Call::Grant),
        1 => (0..8_usize).prop_map(Call::Revoke),
        1 => Just(Call::Compact),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let compares = prop::collection::vec(compare(), 0..3);
    let ops = || prop::collection::vec(op(), 0..4);
    (compares, ops(), ops())
        .prop_map(|(compares, then_ops, else_ops)| Txn { compares, then_ops, else_ops })
        .prop_filter("refused ones have tests of their own", |txn| txn.validate().is_ok())
}

fn any_key() -> impl Strategy<Value = Key> {
    prop::sample::select(vec!["k", "k/", "k/a", "k/a/b", "k/b", "k0"]).prop_map(Key::from)
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![
        any_key().prop_map(|key| Compare::Absent { key }),
        any_key().prop_map(|key| Compare::Exists { key }),
        (any_key(), 1..30_u64)
            .prop_map(|(key, n)| Compare::ModRevision { key, revision: Revision(n) }),
        (any_key(), 1..30_u64)
            .prop_map(|(key, n)| Compare::CreateRevision { key, revision: Revision(n) }),
        (any_key(), 1..3_u64).prop_map(|(key, version)| Compare::Version { key, version }),
        (any_key(), "[ab]").prop_map(|(key, value)| Compare::Value { key, value: value.into() }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any_key(), "[ab]", any::<bool>()).prop_map(|(key, value, leased)| Op::Put {
            key,
            value: value.into(),
            lease: leased.then_some(LeaseId(0)),
        }),
        2 => any_key().prop_map(|key| Op::Delete { key }),
        1 => any_key().prop_map(|prefix| Op::DeletePrefix { prefix }),
        1 => any_key().prop_map(|key| Op::Get { key }),
    ]
}
