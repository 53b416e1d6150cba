//! Which blobs may not be forgotten.

use std::collections::BTreeSet;

use dhow_proto::model::intent::Intent;
use dhow_proto::model::spec::Spec;
use dhow_proto::model::{BlobDigest, BlobRef, Document as _};

use super::fence::{self, DriveError};
use super::record::{Header, RolloutId, from_json, key};
use super::secrets::Bundles;
use crate::blob::Blobs;
use crate::store::Store;

/// Blobs that a wanted, settled or retained intent names, and those of rollouts at work: their spec, their sealed
/// secrets, and what the intents of their later stages will name.
///
/// # Errors
///
/// [`DriveError`]; nothing may be forgotten then.
pub async fn named_blobs(
    store: &dyn Store,
    blobs: &Blobs,
) -> Result<BTreeSet<BlobDigest>, DriveError> {
    // Rollouts first: one that ends in between has written its intents by then.
    let mut named = BTreeSet::new();
    for header in at_work(store).await? {
        named.extend(of_rollout(&header, blobs).await?.into_iter().map(|blob| blob.digest));
    }
    for prefix in ["intent/", "settled/", "attempted/", "promised/"] {
        for entry in store.read_all(prefix).await?.entries {
            let intent = Intent::from_bytes(&entry.value)?;
            named.extend(intent.blobs().into_iter().map(|b| b.digest));
        }
    }
    Ok(named)
}

async fn at_work(store: &dyn Store) -> Result<Vec<Header>, DriveError> {
    let running = store.read_all(key::all_running()).await?.entries;
    let ids = running.iter().filter_map(|e| e.key.as_str()?.strip_prefix("running/"));
    let keys: Vec<_> = ids
        .filter_map(|id| RolloutId::try_from(id.to_owned()).ok())
        .map(|id| key::rollout(&id))
        .collect();
    let entries = fence::read(store, &keys).await?;
    entries.iter().flatten().map(|entry| Ok(from_json(entry)?)).collect()
}

async fn of_rollout(header: &Header, blobs: &Blobs) -> Result<Vec<BlobRef>, DriveError> {
    let spec = Spec::from_bytes(&blobs.load(header.spec.digest).await?)?;
    let mut named = vec![header.spec];
    named.extend(of_spec(&spec));
    if let Some(blob) = header.bundles {
        named.push(blob);
        named.extend(Bundles::from_bytes(&blobs.load(blob.digest).await?)?.ciphertexts());
    }
    Ok(named)
}

/// What intents made of a spec may name.
fn of_spec(spec: &Spec) -> impl Iterator<Item = BlobRef> {
    let templates = spec.roles.iter().flat_map(|role| &role.templates);
    let pages = spec.error_pages.iter().flatten().map(|page| page.content);
    templates.map(|t| BlobRef::of(&t.template.to_bytes())).chain(pages)
}
