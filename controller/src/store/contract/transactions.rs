use bytes::Bytes;

use super::*;

pub(super) async fn a_put_is_read_back_with_its_revisions(f: Fixture) {
    let at = f.store.put("a", "1").await.unwrap();
    let entry = f.store.get(key("a")).await.unwrap().unwrap();
    let expected = Entry {
        key: key("a"),
        value: Bytes::from("1"),
        create_revision: at,
        mod_revision: at,
        version: 1,
        lease: None,
    };
    assert_eq!(entry, expected);
    assert!(at > Revision(1), "a new store is at 1");
    assert_eq!(f.store.get(key("b")).await.unwrap(), None);
}

pub(super) async fn versions_count_puts_since_creation(f: Fixture) {
    let first = f.store.put("a", "1").await.unwrap();
    let second = f.store.put("a", "1").await.unwrap();
    let entry = f.store.get(key("a")).await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (first, second, 2));

    assert!(f.store.delete("a").await.unwrap());
    let third = f.store.put("a", "2").await.unwrap();
    let entry = f.store.get(key("a")).await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (third, third, 1));
}

pub(super) async fn all_writes_of_a_transaction_share_a_revision(f: Fixture) {
    let before = f.store.put("z", "").await.unwrap();
    let txn = Txn::new().then(Op::put("a", "1")).then(Op::put("b", "2")).then(Op::delete("z"));
    let outcome = f.store.txn(txn).await.unwrap();
    assert_eq!(outcome.revision, before.next());
    assert_eq!(outcome.results, [OpResult::Put, OpResult::Put, OpResult::Deleted(1)]);
    for name in ["a", "b"] {
        let entry = f.store.get(key(name)).await.unwrap().unwrap();
        assert_eq!(entry.mod_revision, outcome.revision);
    }
}

pub(super) async fn a_transaction_without_writes_leaves_the_revision(f: Fixture) {
    let before = f.store.put("a", "1").await.unwrap();
    let txn = Txn::new().then(Op::get("a")).then(Op::delete("none")).then(Op::delete_prefix("no"));
    assert_eq!(f.store.txn(txn).await.unwrap().revision, before);
    assert_eq!(f.store.put("a", "1").await.unwrap(), before.next(), "an equal put is a write");
}

pub(super) async fn the_else_branch_runs_when_a_compare_fails(f: Fixture) {
    f.store.put("a", "1").await.unwrap();
    let txn = Txn::new()
        .when(Compare::absent("a"))
        .then(Op::put("a", "2"))
        .otherwise(Op::get("a"))
        .otherwise(Op::put("b", "else"));
    let outcome = f.store.txn(txn).await.unwrap();
    assert!(!outcome.succeeded);
    let OpResult::Got(Some(found)) = &outcome.results[0] else { panic!("{outcome:?}") };
    assert_eq!(found.value, "1");
    assert_eq!(f.store.get(key("b")).await.unwrap().unwrap().value, "else");
}

pub(super) async fn every_compare_holds_and_fails_as_named(f: Fixture) {
    let created = f.store.put("a", "0").await.unwrap();
    let modified = f.store.put("a", "1").await.unwrap();
    let entry = f.store.get(key("a")).await.unwrap().unwrap();
    let holding = [
        Compare::absent("none"),
        Compare::exists("a"),
        Compare::mod_revision("a", modified),
        Compare::create_revision("a", created),
        Compare::Version { key: key("a"), version: 2 },
        Compare::value("a", "1"),
        Compare::unchanged(&entry),
    ];
    let failing = [
        Compare::absent("a"),
        Compare::exists("none"),
        Compare::mod_revision("a", created),
        Compare::mod_revision("none", modified),
        Compare::create_revision("a", modified),
        Compare::create_revision("none", created),
        Compare::Version { key: key("a"), version: 1 },
        Compare::Version { key: key("none"), version: 2 },
        Compare::value("a", "0"),
        Compare::value("none", "1"),
    ];
    for compare in holding {
        let outcome = f.store.txn(Txn::new().when(compare.clone())).await.unwrap();
        assert!(outcome.succeeded, "{compare:?}");
    }
    for compare in failing {
        let outcome = f.store.txn(Txn::new().when(compare.clone())).await.unwrap();
        assert!(!outcome.succeeded, "{compare:?}");
    }
}

pub(super) async fn a_failed_compare_changes_nothing(f: Fixture) {
    let before = f.store.put("a", "1").await.unwrap();
    let txn = Txn::new()
        .when(Compare::exists("a"))
        .when(Compare::exists("none"))
        .then(Op::put("b", "2"))
        .then(Op::delete("a"));
    let outcome = f.store.txn(txn).await.unwrap();
    assert!(!outcome.succeeded && outcome.results.is_empty());
    assert_eq!(f.store.read_all("").await.unwrap().revision, before);
    assert_eq!(f.store.get(key("b")).await.unwrap(), None);
}

pub(super) async fn a_get_sees_the_operations_before_it(f: Fixture) {
    let txn = Txn::new().then(Op::get("a")).then(Op::put("a", "1")).then(Op::get("a"));
    let outcome = f.store.txn(txn).await.unwrap();
    assert_eq!(outcome.results[0], OpResult::Got(None));
    let OpResult::Got(Some(found)) = &outcome.results[2] else { panic!("{outcome:?}") };
    assert_eq!((&found.value[..], found.mod_revision), (&b"1"[..], outcome.revision));
}

pub(super) async fn delete_counts_what_it_deleted(f: Fixture) {
    f.store.put("a/1", "").await.unwrap();
    f.store.put("a/2", "").await.unwrap();
    f.store.put("b", "").await.unwrap();
    let txn = Txn::new()
        .then(Op::delete("b"))
        .then(Op::delete("b"))
        .then(Op::delete_prefix("a/"))
        .then(Op::delete_prefix("a/"));
    let counts = [1, 0, 2, 0].map(OpResult::Deleted);
    assert_eq!(f.store.txn(txn).await.unwrap().results, counts);
    assert!(f.store.read_all("").await.unwrap().entries.is_empty());
}

pub(super) async fn a_prefix_delete_spares_its_neighbours(f: Fixture) {
    for name in ["a", "a.", "a/", "a/1", "a0", "b"] {
        f.store.put(name, "").await.unwrap();
    }
    f.store.txn(Txn::new().then(Op::delete_prefix("a/"))).await.unwrap();
    assert_eq!(names(&f, "").await, ["a", "a.", "a0", "b"]);
}

fn txn_of_puts(count: usize) -> Txn {
    (0..count).fold(Txn::new(), |txn, n| txn.then(Op::put(format!("k/{n:03}"), "v")))
}

pub(super) async fn too_many_operations_are_refused(f: Fixture) {
    for txn in [
        txn_of_puts(MAX_TXN_OPS + 1),
        txn_of_puts(MAX_TXN_OPS).when(Compare::absent("k")),
        txn_of_puts(MAX_TXN_OPS).otherwise(Op::get("k")),
    ] {
        let refused = f.store.txn(txn).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { ops: 129, .. })), "{refused:?}");
    }
    assert!(f.store.read_all("").await.unwrap().entries.is_empty());
}

pub(super) async fn the_largest_number_of_operations_is_accepted(f: Fixture) {
    let outcome = f.store.txn(txn_of_puts(MAX_TXN_OPS)).await.unwrap();
    assert_eq!(outcome.results.len(), MAX_TXN_OPS);
    assert_eq!(f.store.read_all("k/").await.unwrap().entries.len(), MAX_TXN_OPS);
}

pub(super) async fn too_many_bytes_are_refused(f: Fixture) {
    let refused = f.store.put("k", vec![0; MAX_TXN_BYTES]).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { ops: 1, .. })), "{refused:?}");
    let compare = Compare::value("k", vec![0; MAX_TXN_BYTES]);
    let refused = f.store.txn(Txn::new().when(compare)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
}

pub(super) async fn the_largest_value_is_accepted(f: Fixture) {
    let value = vec![7; MAX_TXN_BYTES - 1];
    f.store.put("k", value.clone()).await.unwrap();
    assert_eq!(f.store.get(key("k")).await.unwrap().unwrap().value, value);
}

pub(super) async fn a_key_put_twice_is_refused(f: Fixture) {
    let txn = Txn::new().then(Op::put("a", "1")).then(Op::put("a", "2"));
    assert!(matches!(f.store.txn(txn).await, Err(StoreError::DuplicateKey { .. })));
    let txn = Txn::new().then(Op::put("a", "1")).otherwise(Op::put("a", "2"));
    assert!(f.store.txn(txn).await.unwrap().succeeded, "one in each branch is fine");
}

pub(super) async fn a_key_put_and_deleted_is_refused(f: Fixture) {
    for delete in [Op::delete("a/1"), Op::delete_prefix("a/")] {
        let txn = Txn::new().then(delete).then(Op::put("a/1", ""));
        assert!(matches!(f.store.txn(txn).await, Err(StoreError::DuplicateKey { .. })));
    }
}

pub(super) async fn an_empty_key_is_refused(f: Fixture) {
    for op in [Op::put("", "v"), Op::delete(""), Op::delete_prefix(""), Op::get("")] {
        assert!(matches!(f.store.txn(Txn::new().then(op)).await, Err(StoreError::EmptyKey)));
    }
}

pub(super) async fn one_of_many_concurrent_swaps_wins(f: Fixture) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..32 {
        let store = Arc::clone(&f.store);
        tasks.spawn(async move { store.create("owner", format!("{n}")).await.unwrap() });
    }
    let won = soon(tasks.join_all()).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

pub(super) async fn concurrent_increments_are_never_lost(f: Fixture) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&f.store);
        tasks.spawn(async move {
            for _ in 0..5 {
                increment(&*store).await;
            }
        });
    }
    soon(tasks.join_all()).await;
    assert_eq!(f.store.get(key("n")).await.unwrap().unwrap().value, "40");
}

async fn increment(store: &dyn Store) {
    loop {
        let entry = store.get(key("n")).await.unwrap();
        let (compare, number) = match &entry {
            None => (Compare::absent("n"), 0),
            Some(entry) => {
                let number: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                (Compare::unchanged(entry), number)
            }
        };
        let txn = Txn::new().when(compare).then(Op::put("n", (number + 1).to_string()));
        if store.txn(txn).await.unwrap().succeeded {
            return;
        }
    }
}

pub(super) async fn pages_follow_the_key_order_without_gaps(f: Fixture) {
    let expected: Vec<String> = (0..25).map(|n| format!("p/{n:02}")).collect();
    for name in expected.iter().rev() {
        f.store.put(name.as_str(), "").await.unwrap();
    }
    f.store.put("o", "").await.unwrap();
    f.store.put("q", "").await.unwrap();

    let mut range = Range::prefix("p/").limit(10);
    let mut found = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let page = f.store.range(range.clone()).await.unwrap();
        sizes.push(page.entries.len());
        found.extend(page.entries.iter().map(|entry| entry.key.to_string()));
        if !page.more {
            break;
        }
        range.after = page.entries.last().map(|entry| entry.key.clone());
    }
    assert_eq!(found, expected);
    assert_eq!(sizes, [10, 10, 5]);
    let outside = f.store.range(Range::prefix("p/").after(key("a"))).await.unwrap();
    assert_eq!(outside.entries.len(), 25, "a start before the prefix is no start");
    let outside = f.store.range(Range::prefix("p/").after(key("z"))).await.unwrap();
    assert!(outside.entries.is_empty() && !outside.more);
}

pub(super) async fn a_page_is_bounded_in_bytes(f: Fixture) {
    for n in 0..4 {
        f.store.put(format!("big/{n}"), vec![0; MAX_PAGE_BYTES / 2]).await.unwrap();
    }
    let page = f.store.range(Range::prefix("big/")).await.unwrap();
    assert_eq!((page.entries.len(), page.more), (2, true));
    assert_eq!(f.store.read_all("big/").await.unwrap().entries.len(), 4);
}

pub(super) async fn a_prefix_of_highest_bytes_ends(f: Fixture) {
    for bytes in [vec![0xfe_u8], vec![0xff], vec![0xff, 0xff], vec![0xff, 0xff, 0]] {
        f.store.put(bytes, "").await.unwrap();
    }
    let under = |prefix: Vec<u8>| f.store.range(Range::prefix(prefix));
    assert_eq!(under(vec![0xff]).await.unwrap().entries.len(), 3);
    assert_eq!(under(vec![0xff, 0xff]).await.unwrap().entries.len(), 2);
    assert_eq!(under(vec![0xfe]).await.unwrap().entries.len(), 1);
}

pub(super) async fn the_epoch_starts_at_one_and_only_grows(f: Fixture) {
    assert_eq!(epoch::read(&*f.store).await.unwrap(), 1);
    assert_eq!(epoch::raise(&*f.store).await.unwrap(), 2);
    assert_eq!(epoch::raise(&*f.store).await.unwrap(), 3);
    assert_eq!(epoch::read(&*f.store).await.unwrap(), 3);
}

async fn names(f: &Fixture, prefix: &str) -> Vec<String> {
    let all = f.store.read_all(prefix).await.unwrap();
    all.entries.iter().map(|entry| entry.key.to_string()).collect()
}
