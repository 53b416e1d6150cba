//! What hosts go back to that missed a rollout, or whose end of one nobody knew.

use std::sync::Arc;

use dhow_proto::breakpoint::{Asked, Breakpoints, Wait};
use dhow_proto::model::intent::Desired;
use dhow_proto::wire;

use super::State;
use super::fleet::{Behaviour, Fleet, IMAGE};
use super::world::World;
use crate::rollout::Rollouts;

/// v1 everywhere, then v3 while h2 is away, whose roles behave so with it.
async fn missed(behaviour: Behaviour) -> (World, Rollouts) {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.fleet.behave("h2", "web", "v3", behaviour);
    world.fleet.leave("h2");
    assert_eq!(without_absent(&world, &rollouts, "v3").await, State::Succeeded);
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    (world, rollouts)
}

async fn without_absent(world: &World, rollouts: &Rollouts, version: &str) -> State {
    let start = world.start(version, &[]).await;
    leaving_out_absent(world, rollouts, start).await
}

async fn leaving_out_absent(
    world: &World,
    rollouts: &Rollouts,
    mut start: wire::StartRollout,
) -> State {
    start.options.as_mut().unwrap().skip_offline = true;
    world.run(rollouts, start).await.0
}

/// Deploys a version that h2 does this with; v3 works from then on. Nothing may be left open.
async fn fails(world: &World, rollouts: &Rollouts, version: &str, behaviour: Behaviour) {
    world.fleet.behave("h1", "web", version, Behaviour::Fail);
    world.fleet.behave("h2", "web", version, behaviour);
    let (state, reason) = world.deploy(rollouts, version, &[]).await;
    assert_eq!(state, State::Failed, "{reason}");
    world.fleet.behave("h2", "web", "v3", Behaviour::Succeed);
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    for (name, unit) in [("h1", "web"), ("h2", "web"), ("h2", "job"), ("h3", "job")] {
        assert_eq!(world.unsettled(name, unit).await, None, "{name} {unit}");
    }
    assert_eq!(world.leftovers().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_missed_the_last_success_goes_on_to_it_when_the_next_rollout_fails() {
    for behaviour in [Behaviour::Fail, Behaviour::Vanish] {
        // It is still at work on what it missed when the next rollout begins.
        let (world, rollouts) = missed(Behaviour::Hang).await;
        assert_eq!(world.served(), "h1: web v3\nh2: job v1, web v1\nh3: job v3");
        fails(&world, &rollouts, "v4", behaviour).await;
        assert_eq!(world.served(), "h1: web v3\nh2: job v3, web v3\nh3: job v3");
        fails(&world, &rollouts, "v5", Behaviour::Fail).await;
        assert_eq!(world.served(), "h1: web v3\nh2: job v3, web v3\nh3: job v3");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_kept_a_promise_nobody_heard_of_goes_back_to_that() {
    let (world, rollouts) = missed(Behaviour::Succeed).await;
    world.fleet.leave("h2");
    world.fleet.forget("h2");
    world.fleet.behave("h2", "web", "v4", Behaviour::Fail);
    assert_eq!(without_absent(&world, &rollouts, "v4").await, State::Succeeded);
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    assert_eq!(world.served(), "h1: web v4\nh2: job v3, web v3\nh3: job v4");
    fails(&world, &rollouts, "v5", Behaviour::Fail).await;
    let Desired::Role(web) = world.intent("h2", "web").await.desired else { panic!("a role") };
    assert_eq!(web.variants[0].version.as_str(), "v3");
}

#[tokio::test(start_paused = true)]
async fn so_does_one_that_was_never_there_before() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.fleet.behave("h2", "web", "v3", Behaviour::Hang);
    world.fleet.leave("h2");
    assert_eq!(without_absent(&world, &rollouts, "v3").await, State::Succeeded);
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    fails(&world, &rollouts, "v4", Behaviour::Fail).await;
    assert_eq!(world.served(), "h1: web v3\nh2: job v3, web v3\nh3: job v3");
    assert!(world.claims("h2").await.iter().any(|c| !c.contains("kamal-proxy")), "they are kept");
}

#[tokio::test(start_paused = true)]
async fn one_where_it_failed_does_not_try_it_again() {
    let (world, rollouts) = missed(Behaviour::Fail).await;
    assert_eq!(world.served(), "h1: web v3\nh2: job v1, web v1\nh3: job v3");
    // It would work from now on, but nobody asked for it.
    fails(&world, &rollouts, "v4", Behaviour::Fail).await;
    let Desired::Role(web) = world.intent("h2", "web").await.desired else { panic!("a role") };
    assert_eq!(web.variants[0].version.as_str(), "v1");
    assert!(world.served().contains("web v1"), "{}", world.served());
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_with_an_unknown_end_is_gone_back_to_only_where_it_served() {
    for (behaviour, version) in [(Behaviour::Vanish, "v2"), (Behaviour::Silent, "v1")] {
        let world = World::new(&["h1", "h2", "h3"]).await;
        let rollouts = world.rollouts("a");
        world.deploy(&rollouts, "v1", &[]).await;
        fails(&world, &rollouts, "v2", behaviour).await;
        // Twice, as after the first what settled on the host is newer than all that was tried.
        for next in ["v3", "v4"] {
            fails(&world, &rollouts, next, Behaviour::Fail).await;
            let served = world.served();
            assert!(served.contains(&format!("h2: job v1, web {version}")), "{next}: {served}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_something_that_failed_is_not_gone_back_to() {
    // The role it waited for is written with it, or in a stage before.
    for all_at_once in [false, true] {
        let (world, rollouts) = missed(Behaviour::Fail).await;
        assert_eq!(world.served(), "h1: web v3\nh2: job v1, web v1\nh3: job v3");
        world.fleet.behave("h2", "job", "v4", Behaviour::Fail);
        let mut start = world.start("v4", &[]).await;
        if all_at_once {
            start.options.as_mut().unwrap().roles = vec!["job".to_owned()];
        }
        let (state, reason) = world.run(&rollouts, start).await;
        assert_eq!(state, State::Failed, "{reason}");
        world.fleet.settle().await;
        let served = world.served();
        assert!(served.contains("h2: job v1, "), "{served}");
        assert!(!world.fleet.booted("h2").contains(&"job v3".to_owned()), "{served}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_still_pulls_what_it_missed_pulls_it_anew_when_the_next_rollout_fails() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.fleet.leave("h2");
    world.fleet.behave("h2", IMAGE, "v3", Behaviour::Hang);
    assert_eq!(without_absent(&world, &rollouts, "v3").await, State::Succeeded);
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    // One that is written before the next one fails, then both.
    for (version, failing, role, serves) in [("v4", "h1", "web", "v3"), ("v5", "h3", "job", "v5")] {
        world.fleet.behave(failing, role, version, Behaviour::Fail);
        world.fleet.behave("h2", "web", version, Behaviour::Fail);
        let (state, reason) = world.deploy(&rollouts, version, &[]).await;
        assert_eq!(state, State::Failed, "{reason}");
        world.fleet.settle().await;
        let expected = format!("h1: web {serves}\nh2: job v1, web v1\nh3: job v3");
        assert_eq!(world.served(), expected);
    }
    world.fleet.behave("h2", IMAGE, "v3", Behaviour::Succeed);
    world.fleet.arrive("h2");
    world.fleet.settle().await;
    assert_eq!(world.served(), "h1: web v5\nh2: job v3, web v3\nh3: job v3");
}

#[tokio::test(start_paused = true)]
async fn one_that_missed_a_deploy_still_pulls_it_after_a_rollback_to_it() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    for (missed, back) in [(&["v2"][..], "v2"), (&["v3", "v4"], "v3")] {
        world.fleet.leave("h2");
        for version in missed {
            assert_eq!(without_absent(&world, &rollouts, version).await, State::Succeeded);
        }
        let start = world.start(back, &[]).await;
        let rollback = wire::StartRollout { operation: 4, ..start };
        assert_eq!(leaving_out_absent(&world, &rollouts, rollback).await, State::Succeeded);
        world.fleet.arrive("h2");
        world.fleet.settle().await;
        let expected = format!("h1: web {back}\nh2: job {back}, web {back}\nh3: job {back}");
        assert_eq!(world.served(), expected);
    }
}

/// Has h2 come back when a rollout is about to put hosts back, before it says anything.
struct Arrival(Arc<Fleet>);

impl Asked for Arrival {
    fn ask<'a>(&'a self, point: &'a str) -> Wait<'a> {
        if point.contains("before put-back") {
            self.0.forget("h2");
            self.0.begin_to_arrive("h2");
        }
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_has_just_come_back_and_told_nothing_keeps_what_serves() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    world.deploy(&world.rollouts("a"), "v1", &[]).await;
    let arrival = Arc::new(Arrival(Arc::clone(&world.fleet)));
    let rollouts = world.rollouts_at("b", Breakpoints::of(arrival));
    fails(&world, &rollouts, "v2", Behaviour::Vanish).await;
    assert_eq!(world.served(), "h1: web v1\nh2: job v1, web v2\nh3: job v1");
    assert_eq!(world.fleet.booted("h2"), ["web v1", "job v1", "web v2"]);
}
