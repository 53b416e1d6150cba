//! Hooks: once each, whoever comes and goes.

use std::time::Duration;

use dhow_proto::wire;

use super::State;
use super::fleet::Behaviour;
use super::world::{self, World, hooks};
use crate::rollout::sample::app;
use crate::rollout::{ClientReport, RolloutError};

#[tokio::test(start_paused = true)]
async fn hooks_run_once_each_with_kamals_variables() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let names = ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"];
    let id = rollouts.start("ann", world.start("v1", &names).await).await.unwrap();
    let mut attached = rollouts.attach(&id, &hooks(&names), 0).await.unwrap();
    let (ran, finished) = world::serve(&mut attached, |_| 0).await;
    assert_eq!(finished.state(), State::Succeeded);
    let text: Vec<String> = ran.iter().map(world::describe).collect();
    expect_test::expect![[r#"
        pre-deploy KAMAL_COMMAND=deploy KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=true KAMAL_PERFORMER=ann@test KAMAL_SERVICE=shop KAMAL_SERVICE_VERSION=shop@v1 KAMAL_VERSION=v1
        pre-app-boot KAMAL_COMMAND=deploy KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=true KAMAL_PERFORMER=ann@test KAMAL_SERVICE=shop KAMAL_SERVICE_VERSION=shop@v1 KAMAL_VERSION=v1
        post-app-boot KAMAL_COMMAND=deploy KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=true KAMAL_PERFORMER=ann@test KAMAL_SERVICE=shop KAMAL_SERVICE_VERSION=shop@v1 KAMAL_VERSION=v1
        post-deploy KAMAL_COMMAND=deploy KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=false KAMAL_PERFORMER=ann@test KAMAL_RUNTIME=0 KAMAL_SERVICE=shop KAMAL_SERVICE_VERSION=shop@v1 KAMAL_VERSION=v1"#]]
    .assert_eq(&text.join("\n"));
    assert!(ran.iter().all(|h| h.env.iter().any(|e| e.name == "DHOW_ROLLOUT" && e.value == id)));
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_stops_the_rollout_before_anything_boots() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    let id = rollouts.start("ann", world.start("v2", &["pre-deploy"]).await).await.unwrap();
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    let (_, finished) = world::serve(&mut attached, |_| 3).await;
    assert_eq!(finished.state(), State::Failed);
    assert_eq!(finished.reason, "pre-deploy hook: hook pre-deploy failed with exit status 3");
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v1\nh3: job v1");
    assert!(!world.kamal_locked());
    assert_eq!(world.leftovers().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_post_deploy_hook_that_fails_undoes_nothing() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let id = rollouts.start("ann", world.start("v1", &["post-deploy"]).await).await.unwrap();
    let mut attached = rollouts.attach(&id, &hooks(&["post-deploy"]), 0).await.unwrap();
    let (_, finished) = world::serve(&mut attached, |_| 1).await;
    assert_eq!(finished.state(), State::Failed);
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v1\nh3: job v1");
    assert_eq!(rollouts.status(&app()).await.unwrap().wanted_version, "v1");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_may_come_back_with_the_same_hooks() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let id = rollouts.start("ann", world.start("v1", &["pre-deploy"]).await).await.unwrap();
    world.until(&rollouts, &id, State::AwaitingClient).await;
    let other = vec![wire::HookFile { name: "pre-deploy".to_owned(), digest: vec![9].into() }];
    assert!(matches!(rollouts.attach(&id, &other, 0).await, Err(RolloutError::HooksDiffer { .. })));
    // One that goes before it says it started leaves the hook to the next.
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    world::until_hook(&mut attached).await;
    drop(attached);
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    let (ran, finished) = world::serve(&mut attached, |_| 0).await;
    assert_eq!((ran.len(), finished.state()), (1, State::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_back_to_a_hook_and_the_rollout_ends_with_a_reason() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let id = rollouts.start("ann", world.start("v1", &["pre-deploy"]).await).await.unwrap();
    let (state, reason) = world.wait(&rollouts, &id).await;
    assert_eq!(state, State::Failed);
    assert_eq!(reason, "pre-deploy hook: no client came back within 900 s to run hook pre-deploy");
    assert_eq!(world.leftovers().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_hook_with_an_unknown_outcome_is_not_run_again() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let id = rollouts.start("ann", world.start("v1", &["pre-deploy"]).await).await.unwrap();
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    let hook = world::until_hook(&mut attached).await;
    world::begin(&mut attached, &hook).await;
    drop(attached);
    world.until(&rollouts, &id, State::AwaitingClient).await;
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    // Another client is not asked; the one that ran it may still tell how it went.
    let report = wire::HookFinished { hook_id: hook.hook_id, ..Default::default() };
    tokio::time::sleep(Duration::from_secs(60)).await;
    attached.reports.send(ClientReport::HookFinished(report)).await.unwrap();
    let (ran, finished) = world::serve(&mut attached, |_| 0).await;
    assert_eq!((ran.len(), finished.state()), (0, State::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_rollout_stops_at_the_next_stage() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    let id = rollouts.start("ann", world.start("v2", &["pre-deploy"]).await).await.unwrap();
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    let hook = world::until_hook(&mut attached).await;
    world::begin(&mut attached, &hook).await;
    attached.reports.send(ClientReport::Cancel("changed my mind".to_owned())).await.unwrap();
    let (_, finished) = world::serve(&mut attached, |_| 0).await;
    assert_eq!(finished.state(), State::Cancelled);
    assert!(finished.reason.ends_with("changed my mind"));
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v1\nh3: job v1");
    assert_eq!(world.leftovers().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn dhow_inside_a_hook_joins_the_rollout_and_keeps_its_lock() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let outer = rollouts.start("ann", world.start("v1", &["pre-app-boot"]).await).await.unwrap();
    let mut attached = rollouts.attach(&outer, &hooks(&["pre-app-boot"]), 0).await.unwrap();
    let hook = world::until_hook(&mut attached).await;
    world::begin(&mut attached, &hook).await;
    let inner = world.start("v2", &[]).await;
    let inner = wire::StartRollout { parent_rollout: outer.clone(), ..inner };
    let (state, reason) = world.run(&rollouts, inner).await;
    assert_eq!((state, reason.as_str()), (State::Succeeded, ""));
    assert!(world.kamal_locked(), "the outer rollout is still at work");
    let report = wire::HookFinished { hook_id: hook.hook_id, ..Default::default() };
    attached.reports.send(ClientReport::HookFinished(report)).await.unwrap();
    let (_, finished) = world::serve(&mut attached, |_| 0).await;
    assert_eq!(finished.state(), State::Succeeded);
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v1\nh3: job v1");
    assert!(!world.kamal_locked());
    assert_eq!(world.leftovers().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_a_rollout_that_fails_goes_also_where_one_inside_its_hook_has_succeeded() {
    for leaves in [false, true] {
        let world = World::new(&["h1", "h2", "h3"]).await;
        let rollouts = world.rollouts("a");
        world.deploy(&rollouts, "v0", &[]).await;
        let outer =
            rollouts.start("ann", world.start("v1", &["pre-app-boot"]).await).await.unwrap();
        let mut attached = rollouts.attach(&outer, &hooks(&["pre-app-boot"]), 0).await.unwrap();
        let hook = world::until_hook(&mut attached).await;
        world::begin(&mut attached, &hook).await;
        let mut inner = world.start("v2", &[]).await;
        inner.parent_rollout.clone_from(&outer);
        if leaves {
            world.fleet.leave("h1");
            inner.options.as_mut().unwrap().skip_offline = true;
        }
        assert_eq!(world.run(&rollouts, inner).await, (State::Succeeded, String::new()));
        assert!(world.kamal_locked(), "the outer rollout is still at work");
        let report =
            wire::HookFinished { hook_id: hook.hook_id, exit_code: 1, ..Default::default() };
        attached.reports.send(ClientReport::HookFinished(report)).await.unwrap();
        let (_, finished) = world::serve(&mut attached, |_| 0).await;
        assert_eq!(finished.state(), State::Failed);
        world.fleet.arrive("h1");
        world.fleet.settle().await;
        assert!(!world.kamal_locked(), "away: {leaves}");
        assert_eq!(world.served(), "h1: web v2\nh2: job v2, web v2\nh3: job v2");
        assert_eq!(world.leftovers().await, Vec::<String>::new());
        // What the next rollout goes back to has no lock either.
        world.fleet.behave("h1", "web", "v3", Behaviour::Fail);
        assert_eq!(world.deploy(&rollouts, "v3", &[]).await.0, State::Failed);
        assert!(!world.kamal_locked(), "away: {leaves}");
        let promised = |(key, _): &(String, Vec<u8>)| key.starts_with("promised/");
        assert!(!world.dump().await.iter().any(promised), "what came about is no promise");
    }
}
