//! The collection of blobs, at the worst of times.

use std::collections::BTreeSet;
use std::time::Duration;

use dhow_proto::model::intent::Intent;
use dhow_proto::model::{BlobDigest, Document as _};
use dhow_proto::wire;

use super::State;
use super::world::{self, World};
use crate::rollout::{StartError, named_blobs};

impl World {
    /// As the controller's housekeeping does, but with no grace at all.
    async fn collect(&self) -> usize {
        let named = named_blobs(&*self.store, &self.blobs).await.unwrap();
        self.blobs.gc(named, Duration::ZERO).await.unwrap()
    }

    /// Blobs that an intent names and that are not here.
    async fn missing(&self) -> Vec<String> {
        let mut missing = BTreeSet::new();
        for (key, value) in self.dump().await {
            if !["intent/", "settled/", "attempted/"].iter().any(|p| key.starts_with(p)) {
                continue;
            }
            for blob in Intent::from_bytes(&value).unwrap().blobs() {
                if !self.blobs.has(blob.digest).await.unwrap() {
                    missing.insert(format!("{key} names {}", blob.digest));
                }
            }
        }
        missing.into_iter().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_rollout_at_work_will_need_is_not_collected() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    // No intent names anything of v2 yet.
    let start = world.start("v2", &["pre-deploy"]).await;
    let id = rollouts.start("ann", start).await.unwrap();
    world.until(&rollouts, &id, State::AwaitingClient).await;
    world.collect().await;
    let mut attached = world.attach(&rollouts, &id).await;
    let (_, finished) = world::serve(&mut attached, |_| 0).await;
    assert_eq!(finished.state(), State::Succeeded, "{}", finished.reason);
    assert_eq!(world.missing().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_only_old_rollouts_name_goes_and_the_newest_stays() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.deploy(&rollouts, "v2", &[]).await;
    let old = BlobDigest::of(&world.spec("v1").to_bytes());
    assert!(world.collect().await > 0);
    assert!(!world.blobs.has(old).await.unwrap(), "nobody needs the spec of v1");
    assert_eq!(world.missing().await, Vec::<String>::new());
    assert_eq!(world.deploy(&rollouts, "v1", &[]).await.0, State::Succeeded);
    assert_eq!(world.missing().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_went_while_a_start_waited_for_the_lock_is_asked_for_again() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let first = rollouts.start("ann", world.start("v1", &["pre-deploy"]).await).await.unwrap();
    world.until(&rollouts, &first, State::AwaitingClient).await;
    let mut second = world.start("v2", &[]).await;
    if let Some(options) = &mut second.options {
        options.lock_wait = Some(wire::LockWait::default());
    }
    let waiting = {
        let rollouts = rollouts.clone();
        tokio::spawn(async move { rollouts.start("ann", second).await })
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.collect().await;
    let mut attached = world.attach(&rollouts, &first).await;
    world::serve(&mut attached, |_| 0).await;
    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Err(StartError::BlobMissing(_))), "{refused:?}");
}
