//! Controllers that die or sleep, fleets of every kind of misfortune.

use std::sync::Arc;
use std::time::Duration;

use dhow_proto::wire::rollout_event::Kind;

use super::State;
use super::fleet::Behaviour;
use super::world::{Client, World, hooks};
use crate::rollout::fence::Fence;
use crate::rollout::record::RolloutId;
use crate::rollout::record::key;
use crate::rollout::sample::spec;
use crate::rollout::{DriveError, OwnerRecord};
use crate::store::Store;

#[tokio::test(start_paused = true)]
async fn a_pause_is_not_begun_anew_by_a_restart() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let first = world.rollouts("a");
    let mut slow = world.spec("v1");
    slow.boot.wait_s = 100;
    let begun = tokio::time::Instant::now();
    let id = first.start("ann", world.start_spec(&slow, &[]).await).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.kill(first).await;
    let second = world.rollouts("a");
    second.resume_all().await.unwrap();
    assert_eq!(world.wait(&second, &id).await.0, State::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(105), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_at_any_write_is_continued_to_the_same_end() {
    for fails in [false, true] {
        let (expected, writes) = run_killed_at(None, fails).await;
        assert!(writes > 10, "{writes} writes");
        for n in 1..=writes {
            let (end, _) = run_killed_at(Some(n), fails).await;
            assert_eq!(end, expected, "killed at write {n} (fails: {fails})");
        }
    }
}

/// v1, then v2 with a controller that dies after its n-th write; what is left, and the number of writes.
async fn run_killed_at(n: Option<usize>, fails: bool) -> (String, usize) {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    if fails {
        world.fleet.behave("h2", "web", "v2", Behaviour::Fail);
    }
    let start = world.start("v2", &["pre-deploy"]).await;
    let id = start.rollout_id.clone();
    world.store.die_after(n);
    let mut client = Client::default();
    // The first controller runs until it is dead, the second to the end. The client outlives both.
    if n.is_some() {
        let first = world.rollouts("a");
        let begin = async {
            // A start whose answer is lost is repeated below.
            let _ = first.start("ann", start.clone()).await;
            let mut attached = world.attach(&first, &id).await;
            client.serve(&mut attached, |_| 0).await;
            std::future::pending::<()>().await;
        };
        tokio::select! { () = begin => {}, () = world.store.dead() => {} }
        world.kill(first).await;
        world.store.revive();
    }
    let second = world.rollouts("a");
    second.resume_all().await.unwrap();
    let id = second.start("ann", start).await.unwrap();
    let mut attached = world.attach(&second, &id).await;
    let finished = client.serve(&mut attached, |_| 0).await.unwrap();
    assert_eq!(client.ran.len(), 1, "the hook ran once, killed at {n:?}");
    let text = format!(
        "{:?} {}\nserved {}\ntags {}\nlocked {} left {:?} claims {:?}",
        finished.state(),
        finished.reason,
        world.served(),
        world.tags(),
        world.kamal_locked(),
        world.leftovers().await,
        world.claims("h1").await,
    );
    (text, world.store.writes())
}

#[tokio::test(start_paused = true)]
async fn whatever_hosts_do_every_unit_ends_with_an_intent_that_holds() {
    let behaviours = [Behaviour::Succeed, Behaviour::Fail, Behaviour::Vanish];
    let units = [("h1", "web"), ("h2", "web"), ("h2", "job"), ("h3", "job")];
    for case in 0..behaviours.len().pow(4) * 2 {
        let world = World::new(&["h1", "h2", "h3"]).await;
        let rollouts = world.rollouts("a");
        if case % 2 == 0 {
            world.deploy(&rollouts, "v1", &[]).await;
        }
        let mut rest = case / 2;
        for (name, role) in units {
            world.fleet.behave(name, role, "v2", behaviours[rest % 3]);
            rest /= 3;
        }
        let (state, reason) = world.deploy(&rollouts, "v2", &[]).await;
        assert_eq!(state == State::Succeeded, case < 2, "case {case}: {reason}");
        for name in ["h1", "h2", "h3"] {
            world.fleet.arrive(name);
        }
        world.fleet.settle().await;
        for (name, unit) in units {
            if let Some(problem) = world.unsettled(name, unit).await {
                panic!("case {case}: {name} {unit}: {problem}; {reason}");
            }
        }
        assert!(!world.kamal_locked(), "case {case}");
        assert_eq!(world.leftovers().await, Vec::<String>::new(), "case {case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_fleet_fits_the_stores_limits() {
    let names: Vec<String> = (0..150).map(|n| format!("n{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&names).await;
    let rollouts = world.rollouts("a");
    let spec = spec("v1", &[("web", &names), ("job", &names[100..])]);
    let (state, reason) = world.run(&rollouts, world.start_spec(&spec, &[]).await).await;
    assert_eq!((state, reason.as_str()), (State::Succeeded, ""));
    assert_eq!(world.served().matches("web v1").count(), 150);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_slept_through_its_lease_cannot_write() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let first = world.rollouts("a");
    world.fleet.behave("h1", "web", "v1", Behaviour::Hang);
    world.fleet.behave("h2", "web", "v1", Behaviour::Hang);
    let id = first.start("ann", world.start("v1", &[]).await).await.unwrap();
    let rollout_id = RolloutId::try_from(id.clone()).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Another replica may not take what is owned…
    let second = world.rollouts("b");
    let other = OwnerRecord::new("b".to_owned(), "b1".to_owned());
    let store: Arc<dyn Store> = world.store.clone();
    assert!(Fence::take(Arc::clone(&store), &rollout_id, &other).await.unwrap().is_none());
    // …but once the lease lapsed it does, and the first one's writes are refused.
    let mine = OwnerRecord::new("c".to_owned(), "c1".to_owned());
    world.kill(first).await;
    store.delete(key::owner(&rollout_id)).await.unwrap();
    let asleep = Fence::take(Arc::clone(&store), &rollout_id, &mine).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    second.resume_all().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let late = asleep.commit(vec![(None, crate::store::Op::put("intent/h1/proxy", "late"))]).await;
    assert!(matches!(late, Err(DriveError::Lost)), "{late:?}");
    world.fleet.behave("h1", "web", "v1", Behaviour::Succeed);
    world.fleet.behave("h2", "web", "v1", Behaviour::Succeed);
    assert_eq!(world.wait(&second, &id).await.0, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_late_is_told_everything() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let id = rollouts.start("ann", world.start("v1", &[]).await).await.unwrap();
    world.wait(&rollouts, &id).await;
    let mut events = rollouts.watch(&id, 0).await.unwrap();
    let mut sequences = Vec::new();
    let mut stages = Vec::new();
    while let Some(event) = events.recv().await {
        sequences.push(event.sequence);
        if let Some(Kind::StageFinished(stage)) = event.kind {
            stages.push(stage.stage);
        }
    }
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    assert_eq!(stages.last().map(String::as_str), Some("record"));
    let mut rest = rollouts.watch(&id, sequences.len() as u64 - 1).await.unwrap();
    assert_eq!(rest.recv().await.unwrap().sequence, sequences.len() as u64);
    assert!(rest.recv().await.is_none());
}

/// As when the disk stalls for longer than an ownership lasts.
#[tokio::test(start_paused = true)]
async fn a_client_of_a_driver_that_lost_its_rollout_is_let_go_and_served_by_the_next() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let id = rollouts.start("ann", world.start("v1", &["pre-deploy"]).await).await.unwrap();
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    let mut client = Client::default();
    let store: &dyn Store = &*world.store;
    let owner = key::owner(&RolloutId::try_from(id.clone()).unwrap());
    while store.get(owner.clone()).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.delete(owner).await.unwrap();
    let over = tokio::time::timeout(Duration::from_secs(60), client.serve(&mut attached, |_| 0));
    assert!(over.await.expect("the client was kept for good").is_none());
    rollouts.resume_all().await.unwrap();
    let mut attached = world.attach(&rollouts, &id).await;
    let finished = client.serve(&mut attached, |_| 0).await.unwrap();
    assert_eq!(finished.state(), State::Succeeded);
    assert_eq!(client.ran.len(), 1);
}
