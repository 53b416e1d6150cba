//! Rollouts as a whole: the in-memory store, a scripted fleet, paused time.

mod fleet;
mod world;

use std::time::Duration;

use dhow_proto::model::intent::Desired;
use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;

use super::record::{AppRecord, key};
use super::sample::{app, host, role, spec};
use super::*;
use fleet::Behaviour;
use world::{Client, World, hooks};

type State = wire::RolloutState;

#[tokio::test(start_paused = true)]
async fn a_deploy_switches_every_host_and_frees_the_app() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let (state, reason) = world.deploy(&rollouts, "v1", &[]).await;
    assert_eq!((state, reason.as_str()), (State::Succeeded, ""));
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v1\nh3: job v1");
    assert!(!world.kamal_locked());
    assert_eq!(world.leftovers().await, Vec::<String>::new());
    let record: AppRecord = world.record(key::app(&app())).await;
    assert_eq!((record.version.unwrap().as_str(), record.boot), ("v1", 1));
    let (state, _) = world.deploy(&rollouts, "v2", &[]).await;
    assert_eq!(state, State::Succeeded);
    assert_eq!(world.served(), "h1: web v2\nh2: job v2, web v2\nh3: job v2");
    // The digest the first primary host reported is everybody's.
    for name in ["h1", "h2"] {
        let Desired::Role(web) = world.intent(name, "web").await.desired else { panic!("a role") };
        assert!(web.variants[0].digest.is_some());
    }
    let listed = rollouts.list(&app(), 0).await.unwrap();
    assert_eq!(listed.iter().map(|r| r.version.as_str()).collect::<Vec<_>>(), ["v2", "v1"]);
    let shown = rollouts.get(&listed[0].id[..6]).await;
    assert!(matches!(shown, Err(RolloutError::Ambiguous(_))), "both ids begin alike");
    let shown = rollouts.get(&listed[0].id).await.unwrap();
    assert!(shown.stages.iter().all(|s| s.state() == wire::StageState::Done));
    let status = rollouts.status(&app()).await.unwrap();
    assert_eq!((status.wanted_version.as_str(), status.hosts.len()), ("v2", 3));
    assert!(status.hosts.iter().all(|h| h.pending.is_empty() && h.online));
}

#[tokio::test(start_paused = true)]
async fn one_host_fails_and_nothing_retries_there_later() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.fleet.behave("h2", "web", "v2", Behaviour::Fail);
    let (state, reason) = world.deploy(&rollouts, "v2", &[]).await;
    assert_eq!(state, State::Failed);
    assert!(reason.ends_with("h2: role shop/web: exited with 1"), "{reason}");
    // As with Kamal: h1 switched and stays; nothing is tagged; the failed host and its later roles keep the old one; the
    // barrier stays closed.
    assert_eq!(world.served(), "h1: web v2\nh2: job v1, web v1\nh3: job v1");
    assert_eq!(world.tags(), "h1: v1\nh2: v1\nh3: v1");
    let Desired::Role(web) = world.intent("h2", "web").await.desired else { panic!("a role") };
    assert_eq!(web.variants[0].version.as_str(), "v1");
    assert_eq!(world.leftovers().await, Vec::<String>::new());
    assert!(!world.kamal_locked());
    world.fleet.behave("h2", "web", "v2", Behaviour::Succeed);
    let (state, _) = world.deploy(&rollouts, "v2", &[]).await;
    assert_eq!(state, State::Succeeded);
    assert_eq!(world.served(), "h1: web v2\nh2: job v2, web v2\nh3: job v2");
}

#[tokio::test(start_paused = true)]
async fn a_first_deploy_that_fails_releases_what_never_settled() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.fleet.behave("h1", "web", "v1", Behaviour::Fail);
    world.fleet.behave("h2", "web", "v1", Behaviour::Fail);
    let (state, _) = world.deploy(&rollouts, "v1", &[]).await;
    assert_eq!(state, State::Failed);
    assert!(matches!(world.intent("h1", "web").await.desired, Desired::Absent(_)));
    assert_eq!(world.served(), "");
    assert_eq!(world.leftovers().await, Vec::<String>::new());
    assert!(world.claims("h1").await.iter().all(|c| c.contains("kamal-proxy")), "names are free");
}

#[tokio::test(start_paused = true)]
async fn the_rollback_policy_takes_switched_hosts_back() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.fleet.behave("h2", "web", "v2", Behaviour::Fail);
    let start = world.start("v2", &[]).await;
    let options = wire::RolloutOptions { failure_policy: 2, ..start.options.clone().unwrap() };
    let start = wire::StartRollout { options: Some(options), ..start };
    let (state, _) = world.run(&rollouts, start).await;
    assert_eq!(state, State::Failed);
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v1\nh3: job v1");
    assert_eq!(world.leftovers().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_begin_is_refused_before_anything_changes() {
    let world = World::new(&["h1", "h2"]).await;
    let rollouts = world.rollouts("a");
    let before = world.dump().await;
    let start = world.start("v1", &[]).await;
    let error = rollouts.start("ann", start.clone()).await.unwrap_err();
    assert!(error.to_string().starts_with("not enrolled: h3;"), "{error}");
    world.enrol("h3").await;
    let enrolled = world.dump().await;
    let error = rollouts.start("ann", start.clone()).await.unwrap_err();
    assert!(error.to_string().starts_with("offline: h3;"), "{error}");
    let version = wire::StartRollout { version: "v9".to_owned(), ..start.clone() };
    let error = rollouts.start("ann", version).await.unwrap_err();
    assert_eq!(error.to_string(), "the request is for version v9, its spec for v1");
    let blob = wire::StartRollout {
        spec: Some(dhow_proto::model::BlobRef::of(b"gone").into()),
        ..start.clone()
    };
    assert!(matches!(rollouts.start("ann", blob).await, Err(StartError::BlobMissing(_))));
    let prune = wire::StartRollout { operation: 8, ..start };
    assert!(matches!(rollouts.start("ann", prune).await, Err(StartError::Unsupported { .. })));
    assert_eq!(world.dump().await, enrolled);
    assert_ne!(before, enrolled);
}

#[tokio::test(start_paused = true)]
async fn an_offline_host_is_waited_for_as_long_as_asked() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.fleet.leave("h3");
    let mut start = world.start("v1", &[]).await;
    start.options.as_mut().unwrap().wait_for_hosts =
        Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let fleet = world.fleet.clone();
    let comes = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        fleet.arrive("h3");
    });
    let (state, _) = world.run(&rollouts, start).await;
    comes.await.unwrap();
    assert_eq!(state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_host_left_out_catches_up_with_the_newest_only() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.fleet.leave("h2");
    for version in ["v2", "v3"] {
        let mut start = world.start(version, &[]).await;
        start.options.as_mut().unwrap().skip_offline = true;
        let (state, reason) = world.run(&rollouts, start).await;
        assert_eq!((state, reason.as_str()), (State::Succeeded, ""));
    }
    assert_eq!(world.served(), "h1: web v3\nh2: job v1, web v1\nh3: job v3");
    let status = rollouts.status(&app()).await.unwrap();
    let behind = status.hosts.iter().find(|h| h.host == "h2").unwrap();
    assert!(!behind.online && behind.pending.len() == 4, "{:?}", behind.pending);
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    assert_eq!(world.served(), "h1: web v3\nh2: job v3, web v3\nh3: job v3");
    assert_eq!(world.fleet.booted("h2"), ["web v1", "job v1", "web v3", "job v3"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_goes_silent_is_named_and_settles_by_itself_later() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.fleet.behave("h2", "web", "v2", Behaviour::Vanish);
    let begun = tokio::time::Instant::now();
    let (state, reason) = world.deploy(&rollouts, "v2", &[]).await;
    assert_eq!(state, State::Failed);
    assert!(reason.contains("h2: role shop/web: no word from the host"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    assert!(matches!(world.intent("h2", "web").await.desired, Desired::Settle { .. }));
    assert!(matches!(world.intent("h2", "app").await.desired, Desired::App(_)));
    assert_eq!(world.leftovers().await, Vec::<String>::new());
    // It did switch while nobody heard of it: it stays, and a later failure falls back to that.
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    assert_eq!(world.served(), "h1: web v2\nh2: job v1, web v2\nh3: job v2");
    world.fleet.behave("h2", "web", "v3", Behaviour::Fail);
    world.deploy(&rollouts, "v3", &[]).await;
    assert_eq!(world.served(), "h1: web v3\nh2: job v1, web v2\nh3: job v2");
}

#[tokio::test(start_paused = true)]
async fn a_second_deploy_is_told_who_and_since_when_or_waits() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.fleet.behave("h1", "web", "v1", Behaviour::Hang);
    world.fleet.behave("h2", "web", "v1", Behaviour::Hang);
    let first = rollouts.start("ann", world.start("v1", &[]).await).await.unwrap();
    let second = world.start("v2", &[]).await;
    let error = rollouts.start("bob", second.clone()).await.unwrap_err();
    assert!(error.to_string().starts_with("shop is being changed by ann since "), "{error}");
    let mut waits = second.clone();
    let wait = |seconds| wire::LockWait {
        timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
        interval: None,
    };
    waits.options.as_mut().unwrap().lock_wait = Some(wait(20));
    let error = rollouts.start("bob", waits.clone()).await.unwrap_err();
    assert!(error.to_string().ends_with("(waited 20 s)"), "{error}");
    waits.options.as_mut().unwrap().lock_wait = Some(wait(900));
    let fleet = world.fleet.clone();
    let frees = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        fleet.behave("h1", "web", "v1", Behaviour::Succeed);
        fleet.behave("h2", "web", "v1", Behaviour::Succeed);
    });
    let (state, reason) = world.run(&rollouts, waits).await;
    assert_eq!((state, reason.as_str()), (State::Succeeded, ""));
    frees.await.unwrap();
    assert_eq!(world.wait(&rollouts, &first).await.0, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_is_the_same_rollout() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let start = world.start("v1", &[]).await;
    let first = rollouts.start("ann", start.clone()).await.unwrap();
    assert_eq!(rollouts.start("ann", start.clone()).await.unwrap(), first);
    assert!(matches!(rollouts.start("bob", start).await, Err(StartError::IdTaken(_))));
    assert_eq!(world.wait(&rollouts, &first).await.0, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn another_apps_route_is_refused_naming_both() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    let mut blog = spec("v1", &[("web", &["h1"])]);
    blog.app.service = "blog".try_into().unwrap();
    let error = rollouts.start("ann", world.start_spec(&blog, &[]).await).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "proxied path / of all hosts on host h1 is claimed by app shop; app blog cannot have it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rollback_needs_a_container_for_every_role_and_pulls_nothing() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.deploy(&rollouts, "v2", &[]).await;
    let rollback = |start| wire::StartRollout { operation: 4, ..start };
    let (state, reason) = world.run(&rollouts, rollback(world.start("v0", &[]).await)).await;
    assert_eq!(state, State::Failed);
    assert!(reason.contains("'v0' is not available as a container of role web on h1"), "{reason}");
    assert_eq!(world.served(), "h1: web v2\nh2: job v2, web v2\nh3: job v2");
    let (state, reason) = world.run(&rollouts, rollback(world.start("v1", &[]).await)).await;
    assert_eq!((state, reason.as_str()), (State::Succeeded, ""));
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v1\nh3: job v1");
    let Desired::App(files) = world.intent("h1", "app").await.desired else { panic!("an app") };
    assert!(files.staged.unwrap().local_only);
}

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
        assert!(writes > 20, "{writes} writes");
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
    assert_eq!(role("web").as_str(), "web");
    assert_eq!(host("h1").as_str(), "h1");
}
