//! Pushes intents to agents as they are written: one watch for the whole fleet.

use std::sync::Arc;

use dhow_proto::model::HostName;
use dhow_proto::wire;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::picture::Fleet;
use crate::store::{Event, Revision, Store, StoreError};

/// Where the wanted intents of a host are: `intent/<host>/<unit key>`.
pub(crate) fn intent_prefix(host: &HostName) -> String {
    format!("intent/{host}/")
}

/// Splits a key of an intent into host and unit key.
fn host_of(key: &str) -> Option<HostName> {
    let (host, _) = key.strip_prefix("intent/")?.split_once('/')?;
    HostName::try_from(host).ok()
}

/// Runs until cancelled: every intent written to the store goes to its host's session, if it has one. A watch that
/// was compacted or lagged is made good by pushing all wanted intents again: agents ignore what they have.
///
/// # Errors
///
/// The store is gone for good.
pub async fn dispatch_intents(
    store: Arc<dyn Store>,
    fleet: Fleet,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let mut from: Option<Revision> = None;
    loop {
        let next = match from {
            Some(revision) => revision,
            None => push_all(&store, &fleet).await?,
        };
        let mut watch = store.watch("intent/".into(), next).await?;
        from = loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                // Cancel-safe: a batch not taken stays in the watch.
                batch = watch.next() => batch,
            };
            match batch {
                Ok(batch) => {
                    for event in batch.events {
                        let Event::Put(entry) = event else { continue };
                        push(&fleet, entry.key.as_str().unwrap_or_default(), &entry.value);
                    }
                }
                Err(StoreError::Closed) if shutdown.is_cancelled() => return Ok(()),
                Err(error)
                    if error.is_retryable()
                        || matches!(error, StoreError::Compacted { .. } | StoreError::Lagged) =>
                {
                    tracing::info!(%error, "watch of intents broke: all are pushed again");
                    break None;
                }
                Err(error) => return Err(error),
            }
        };
    }
}

async fn push_all(store: &Arc<dyn Store>, fleet: &Fleet) -> Result<Revision, StoreError> {
    let snapshot = store.read_all("intent/").await?;
    for entry in &snapshot.entries {
        push(fleet, entry.key.as_str().unwrap_or_default(), &entry.value);
    }
    Ok(snapshot.revision.next())
}

fn push(fleet: &Fleet, key: &str, value: &[u8]) {
    let Some(host) = host_of(key) else {
        tracing::error!(key, "an intent is stored under a malformed key");
        return;
    };
    let Some(online) = fleet.online(&host) else { return };
    match wire::Intent::decode(value) {
        Ok(intent) => {
            if let Err(missing) = offerable(&intent, &online.features) {
                withhold(fleet, &host, &intent, &missing);
            } else {
                fleet.send(&host, wire::session_response::Message::Intent(intent));
            }
        }
        Err(error) => tracing::error!(key, %error, "a stored intent is malformed"),
    }
}

/// Checks that an agent has every feature an intent needs; the first it lacks otherwise. Protobuf drops unknown
/// fields silently, so nothing may rely on the agent noticing.
pub(crate) fn offerable(intent: &wire::Intent, features: &[String]) -> Result<(), String> {
    intent.features.iter().find(|f| !features.contains(f)).map_or(Ok(()), |f| Err(f.clone()))
}

/// Notes an intent that the host's agent is too old for.
pub(crate) fn withhold(fleet: &Fleet, host: &HostName, intent: &wire::Intent, missing: &str) {
    let Some(unit) = intent.unit.clone().and_then(|u| u.try_into().ok()) else { return };
    let generation = intent.generation.unwrap_or_default().into();
    fleet.refuse(
        host,
        unit,
        generation,
        format!("agent too old: it does not know `{missing}`; upgrade it"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_is_withheld_from_an_agent_that_lacks_a_feature() {
        let intent =
            wire::Intent { features: vec!["role".into(), "canary".into()], ..Default::default() };
        assert_eq!(offerable(&intent, &["role".into()]), Err("canary".into()));
        assert_eq!(offerable(&intent, &["role".into(), "canary".into()]), Ok(()));
    }
}
