//! Collects blobs that nothing names any more: at the start, and a while after the ledger has changed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Blobs, Ledger};

/// Time after a change, so that the changes of one rollout are one collection.
const AFTER: Duration = Duration::from_secs(60);

/// Runs until `shutdown`. What a crash left over has no change of its own, so the first collection waits for none.
pub async fn collect_blobs(ledger: Arc<Ledger>, blobs: Arc<Blobs>, shutdown: CancellationToken) {
    let mut changes = ledger.changes();
    let run = async {
        loop {
            changes.mark_unchanged();
            let (ledger, blobs) = (ledger.clone(), blobs.clone());
            match tokio::task::spawn_blocking(move || ledger.collect(&blobs)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(gone)) => tracing::info!(blobs = gone, "deleted blobs that nothing names"),
                // What is left over goes next time.
                Ok(Err(error)) => tracing::warn!(%error, "blobs could not be collected"),
                Err(error) => tracing::error!(%error, "the collection of blobs broke"),
            }
            if changes.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(AFTER).await;
        }
    };
    // Drop-safe: a collection that began ends by itself, and another one goes on from what is there.
    shutdown.run_until_cancelled(run).await;
}
