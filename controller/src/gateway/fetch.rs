//! Which blobs a host may read: those its wanted and settled intents name, and no others.

use std::sync::Arc;

use dhow_proto::model::intent::Intent;
use dhow_proto::model::{BlobDigest, HostName};

use super::dispatch::intent_prefix;
use crate::store::{Store, StoreError};

/// True where an intent of the host, wanted or settled, names the blob.
///
/// # Errors
///
/// The store could not be read.
pub(crate) async fn may_read(
    store: &Arc<dyn Store>,
    host: &HostName,
    digest: BlobDigest,
) -> Result<bool, StoreError> {
    for prefix in [intent_prefix(host), format!("settled/{host}/")] {
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
