//! Which blobs a host may read: those that its intents name, the wanted and what it may go back to, and no others.

use std::sync::Arc;

use dhow_proto::model::intent::Intent;
use dhow_proto::model::{BlobDigest, HostName};

use super::dispatch::intent_prefix;
use crate::store::{Store, StoreError};

/// True where an intent of the host names the blob: of what a `settle` asks about the host may have the intent alone.
///
/// # Errors
///
/// The store could not be read.
pub(crate) async fn may_read(
    store: &Arc<dyn Store>,
    host: &HostName,
    digest: BlobDigest,
) -> Result<bool, StoreError> {
    let kept = ["settled", "attempted", "promised"].map(|kept| format!("{kept}/{host}/"));
    for prefix in std::iter::once(intent_prefix(host)).chain(kept) {
        let snapshot = store.read_all(prefix).await?;
        let named = snapshot
            .entries
            .iter()
            .filter_map(|entry| Intent::from_bytes(&entry.value).ok())
            .any(|intent| intent.blobs().iter().any(|blob| blob.digest == digest));
        if named {
            return Ok(true);
        }
    }
    Ok(false)
}
