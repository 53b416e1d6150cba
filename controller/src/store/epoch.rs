//! The epoch of this store: compared before generations, raised when a backup is restored, so
//! that intents written after a restore are newer than those of the time that was lost.

use super::{Compare, Op, Store, StoreError, Txn};

const KEY: &str = "epoch";

/// The epoch of a store that was never restored.
const FIRST: u64 = 1;

/// Reads the epoch; 1 in a store that was never restored.
///
/// # Errors
///
/// As [`Store::get`]; [`StoreError::Unavailable`] when the stored value is no number.
pub async fn read(store: &dyn Store) -> Result<u64, StoreError> {
    match store.get(KEY.into()).await? {
        Some(entry) => parse(&entry.value),
        None => Ok(FIRST),
    }
}

/// Raises the epoch by one and returns the new one.
///
/// # Errors
///
/// As [`read`].
pub async fn raise(store: &dyn Store) -> Result<u64, StoreError> {
    loop {
        let entry = store.get(KEY.into()).await?;
        let (unchanged, epoch) = match &entry {
            Some(entry) => (Compare::unchanged(entry), parse(&entry.value)?),
            None => (Compare::absent(KEY), FIRST),
        };
        let raised = epoch + 1;
        let txn = Txn::new().when(unchanged).then(Op::put(KEY, raised.to_string()));
        if store.txn(txn).await?.succeeded {
            return Ok(raised);
        }
    }
}

fn parse(value: &[u8]) -> Result<u64, StoreError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| StoreError::Unavailable { reason: "stored epoch is not a number".into() })
}
