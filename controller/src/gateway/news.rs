//! What hosts report of drift, repairs and other deployers: the newest of each host, kept for `status`.
//!
//! Always true: what a host was told has arrived is stored, so that it outlives a controller; each event once.

use dhow_proto::model::HostName;
use dhow_proto::wire;
use prost::Message as _;

use crate::store::{Key, Op, Store, StoreError, Txn};

/// Events kept of a host: some days of one that is often touched by hand.
const KEPT: usize = 32;

fn prefix(host: &HostName) -> Key {
    format!("news/{host}/").into()
}

/// By time, and in order within one moment. A host that was set up anew counts from one again.
fn key(host: &HostName, event: &wire::Event) -> Key {
    let at = event.at.unwrap_or_default();
    let (seconds, nanos) = (at.seconds.max(0), at.nanos.max(0));
    format!("news/{host}/{seconds:012}.{nanos:09}-{:020}", event.sequence).into()
}

/// Stores an event; the oldest beyond [`KEPT`] go.
///
/// # Errors
///
/// [`StoreError`]; nothing changed then.
pub(super) async fn keep(
    store: &dyn Store,
    host: &HostName,
    event: &wire::Event,
) -> Result<(), StoreError> {
    let key = key(host, event);
    let known = store.read_all(prefix(host)).await?.entries;
    // Sent again, as its answer was lost.
    if known.iter().any(|entry| entry.key == key) {
        return Ok(());
    }
    let put = Op::put(key, event.encode_to_vec());
    let many = (known.len() + 1).saturating_sub(KEPT);
    let old = known.into_iter().take(many).map(|entry| Op::delete(entry.key));
    let txn = old.fold(Txn::new(), Txn::then).then(put);
    store.txn(txn).await.map(drop)
}

/// The newest events of a host, oldest first. One that cannot be read is left out: `status` has more to say.
///
/// # Errors
///
/// [`StoreError`].
pub(crate) async fn of(store: &dyn Store, host: &HostName) -> Result<Vec<wire::Event>, StoreError> {
    let entries = store.read_all(prefix(host)).await?.entries;
    let read = entries.into_iter().filter_map(|entry| {
        let event = wire::Event::decode(entry.value);
        event.inspect_err(|error| tracing::error!(key = %entry.key, %error, "cannot be read")).ok()
    });
    Ok(read.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::memory::Memory;

    fn event(seconds: i64, sequence: u64) -> wire::Event {
        let at = Some(prost_types::Timestamp { seconds, nanos: 0 });
        wire::Event { at, sequence, text: format!("at {seconds}"), ..Default::default() }
    }

    #[tokio::test]
    async fn each_event_of_a_host_is_kept_once_and_the_newest_only() {
        let store = Memory::new(Arc::new(SystemClock::new()));
        let host = HostName::try_from("h1").unwrap();
        let other = HostName::try_from("h10").unwrap();
        keep(&store, &other, &event(5, 5)).await.unwrap();
        for n in 1..=40 {
            // Sent again, as an answer may be lost.
            for _ in 0..2 {
                keep(&store, &host, &event(n, n.unsigned_abs())).await.unwrap();
            }
        }
        // The oldest of those that are kept; and one from a clock that was behind, which becomes the oldest.
        for again in [event(9, 9), event(2, 70), event(2, 70)] {
            keep(&store, &host, &again).await.unwrap();
        }
        // The host was set up anew.
        keep(&store, &host, &event(50, 1)).await.unwrap();
        let kept: Vec<i64> =
            of(&store, &host).await.unwrap().iter().map(|e| e.at.unwrap().seconds).collect();
        assert_eq!(kept, (10..=40).chain([50]).collect::<Vec<_>>());
        assert_eq!(of(&store, &other).await.unwrap().len(), 1);
    }
}
