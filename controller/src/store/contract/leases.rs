use super::*;

const TTL: Duration = Duration::from_secs(10);

async fn leased(f: &Fixture, name: &str) -> LeaseId {
    let lease = f.store.grant(TTL).await.unwrap();
    assert!(lease.ttl >= TTL);
    f.store.txn(Txn::new().then(Op::put_leased(name, "v", lease.id))).await.unwrap();
    lease.id
}

/// Waits until `name` is deleted.
async fn deleted(f: &Fixture, name: &str) {
    let mut watch = f.store.watch(key(name), Revision(1)).await.unwrap();
    loop {
        let batch = soon(watch.next()).await.unwrap();
        if matches!(batch.events[0], Event::Delete { .. }) {
            return;
        }
    }
}

async fn exists(f: &Fixture, name: &str) -> bool {
    f.store.get(key(name)).await.unwrap().is_some()
}

pub(super) async fn a_key_goes_with_its_lapsed_lease(f: Fixture) {
    let lease = leased(&f, "a").await;
    assert_eq!(f.store.get(key("a")).await.unwrap().unwrap().lease, Some(lease));
    f.clock.advance(TTL);
    deleted(&f, "a").await;
    assert!(!exists(&f, "a").await);
}

pub(super) async fn a_key_without_lease_stays(f: Fixture) {
    leased(&f, "a").await;
    f.store.put("b", "v").await.unwrap();
    f.clock.advance(TTL * 10);
    deleted(&f, "a").await;
    assert!(exists(&f, "b").await);
}

pub(super) async fn keeping_a_lease_alive_keeps_its_keys(f: Fixture) {
    let kept = leased(&f, "kept").await;
    leased(&f, "left").await;
    f.clock.advance(TTL * 6 / 10);
    f.store.keep_alive(kept).await.unwrap();
    f.clock.advance(TTL * 6 / 10);
    deleted(&f, "left").await;
    assert!(exists(&f, "kept").await);
    f.store.keep_alive(kept).await.unwrap();
}

pub(super) async fn a_lapsed_lease_cannot_be_kept_alive(f: Fixture) {
    let lease = leased(&f, "a").await;
    f.clock.advance(TTL);
    let refused = f.store.keep_alive(lease).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound { id }) if id == lease));
}

pub(super) async fn revoking_deletes_the_keys_at_one_revision(f: Fixture) {
    let lease = leased(&f, "b").await;
    let txn = Txn::new().then(Op::put_leased("a", "v", lease)).then(Op::put("c", "v"));
    let before = f.store.txn(txn).await.unwrap().revision;
    f.store.revoke(lease).await.unwrap();
    let mut watch = f.store.watch(key(""), before.next()).await.unwrap();
    let batch = soon(watch.next()).await.unwrap();
    let keys: Vec<String> = batch.events.iter().map(|event| event.key().to_string()).collect();
    assert_eq!((batch.revision, keys), (before.next(), vec!["a".into(), "b".into()]));
    assert!(exists(&f, "c").await);
}

pub(super) async fn a_revoked_lease_is_gone(f: Fixture) {
    let lease = leased(&f, "a").await;
    f.store.revoke(lease).await.unwrap();
    let not_found = |result| matches!(result, Err(StoreError::LeaseNotFound { .. }));
    assert!(not_found(f.store.revoke(lease).await));
    assert!(not_found(f.store.keep_alive(lease).await));
}

pub(super) async fn a_put_with_a_dead_lease_changes_nothing(f: Fixture) {
    let lease = leased(&f, "a").await;
    f.clock.advance(TTL);
    deleted(&f, "a").await;
    let txn = Txn::new().then(Op::put("b", "v")).then(Op::put_leased("c", "v", lease));
    let refused = f.store.txn(txn).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound { id }) if id == lease));
    assert!(!exists(&f, "b").await && !exists(&f, "c").await);
}

pub(super) async fn a_put_without_the_lease_detaches_the_key(f: Fixture) {
    let lease = leased(&f, "a").await;
    leased(&f, "b").await;
    f.store.put("a", "v").await.unwrap();
    assert_eq!(f.store.get(key("a")).await.unwrap().unwrap().lease, None);
    f.store.revoke(lease).await.unwrap();
    f.clock.advance(TTL);
    deleted(&f, "b").await;
    assert!(exists(&f, "a").await);
}

pub(super) async fn lease_numbers_are_never_reused(f: Fixture) {
    let first = f.store.grant(TTL).await.unwrap().id;
    f.store.revoke(first).await.unwrap();
    let second = f.store.grant(TTL).await.unwrap().id;
    assert_ne!(first, second);
}
