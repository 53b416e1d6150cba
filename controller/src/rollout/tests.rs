//! Rollouts as a whole: the in-memory store, a scripted fleet, paused time.

mod away;
mod collect;
mod crash;
mod fleet;
mod hook;
mod kills;
mod mortal;
mod promises;
mod silence;
mod world;

use std::time::Duration;

use dhow_proto::model::intent::Desired;
use dhow_proto::wire;

use super::record::{AppRecord, key};
use super::sample::{app, spec};
use super::*;
use fleet::Behaviour;
use world::World;

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
async fn a_host_without_docker_is_named_and_waited_for_as_long_as_asked() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.fleet.set_engine("h3", false);
    let mut start = world.start("v1", &[]).await;
    // It would catch up with nobody there to see how.
    start.options.as_mut().unwrap().skip_offline = true;
    let refused = rollouts.start("ann", start).await.unwrap_err().to_string();
    assert!(refused.starts_with("Docker does not answer on h3; start it there"), "{refused}");
    world.fleet.leave("h1");
    let refused = rollouts.start("ann", world.start("v1", &[]).await).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.starts_with("Docker does not answer on h3, and offline: h1;"), "{refused}");
    world.fleet.arrive("h1");
    assert_eq!(world.state().await, "served \ntags \nbooted ", "nothing was changed");
    let mut start = world.start("v1", &[]).await;
    start.options.as_mut().unwrap().wait_for_hosts =
        Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let fleet = world.fleet.clone();
    let comes = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        fleet.set_engine("h3", true);
    });
    assert_eq!(world.run(&rollouts, start).await, (State::Succeeded, String::new()));
    comes.await.unwrap();
    world.fleet.set_engine("h3", false);
    // One that is being started again costs nobody a deploy.
    let fleet = world.fleet.clone();
    let comes = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        fleet.set_engine("h3", true);
    });
    let state = world.run(&rollouts, world.start("v2", &[]).await).await;
    assert_eq!(state, (State::Succeeded, String::new()));
    comes.await.unwrap();
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
