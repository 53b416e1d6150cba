//! Hosts that fall silent while nobody waits for them: a person is told within 15 s, once.

use std::time::Duration;

use dhow_proto::model::spec::BootLimit;
use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;

use super::State;
use super::fleet::Behaviour;
use super::world::{self, World, hooks};
use crate::rollout::{ClientReport, Rollouts};

/// The notes of a rollout so far.
async fn notes(rollouts: &Rollouts, id: &str) -> Vec<String> {
    let mut events = rollouts.watch(id, 0).await.unwrap();
    let mut notes = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(1), events.recv()).await
    {
        if let Some(Kind::Note(wire::Note { text })) = event.kind {
            notes.push(text);
        }
    }
    notes
}

/// h3 falls silent, is named within 15 s and not before it may have restarted, and comes back.
async fn goes_and_comes(world: &World, rollouts: &Rollouts, id: &str) {
    let before = notes(rollouts, id).await.len();
    world.fleet.leave("h3");
    tokio::time::sleep(Duration::from_secs(13)).await;
    assert_eq!(notes(rollouts, id).await.len(), before);
    tokio::time::sleep(Duration::from_millis(1900)).await;
    assert_eq!(notes(rollouts, id).await[before..], ["h3: no word for 14 s"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(notes(rollouts, id).await.len(), before + 1);
    world.fleet.arrive("h3");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(notes(rollouts, id).await[before + 1..], ["h3: heard of again"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_is_named_while_another_boot_group_is_at_work_and_in_the_pause_after_it() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let mut spec = world.spec("v1");
    spec.boot.limit = Some(BootLimit::Count(1));
    spec.boot.wait_s = 600;
    world.fleet.behave("h1", "web", "v1", Behaviour::Hang);
    let start = world.start_spec(&spec, &[]).await;
    let id = rollouts.start("ann", start).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    goes_and_comes(&world, &rollouts, &id).await;
    world.fleet.behave("h1", "web", "v1", Behaviour::Succeed);
    world.fleet.arrive("h1");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.served(), "h1: web v1", "it pauses");
    goes_and_comes(&world, &rollouts, &id).await;
    assert_eq!(world.wait(&rollouts, &id).await, (State::Succeeded, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_host_is_named_while_a_hook_runs_and_while_a_client_is_awaited() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let id = rollouts.start("ann", world.start("v1", &["pre-deploy"]).await).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.until(&rollouts, &id, State::AwaitingClient).await;
    goes_and_comes(&world, &rollouts, &id).await;
    let mut attached = rollouts.attach(&id, &hooks(&["pre-deploy"]), 0).await.unwrap();
    let hook = world::until_hook(&mut attached).await;
    world::begin(&mut attached, &hook).await;
    goes_and_comes(&world, &rollouts, &id).await;
    let report = wire::HookFinished { hook_id: hook.hook_id, ..Default::default() };
    attached.reports.send(ClientReport::HookFinished(report)).await.unwrap();
    let (_, finished) = world::serve(&mut attached, |_| 0).await;
    assert_eq!(finished.state(), State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_fails_for_its_silence_is_named_by_that_alone() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    world.deploy(&rollouts, "v1", &[]).await;
    world.fleet.behave("h2", "web", "v2", Behaviour::Silent);
    let id = rollouts.start("ann", world.start("v2", &[]).await).await.unwrap();
    let (state, reason) = world.wait(&rollouts, &id).await;
    assert_eq!(state, State::Failed);
    assert!(reason.contains("h2: role shop/web: no word from the host for 14 s"), "{reason}");
    let again = |note: &String| note.starts_with("h2: no word");
    assert!(!notes(&rollouts, &id).await.iter().any(again));
}

#[tokio::test(start_paused = true)]
async fn a_hook_begins_though_more_was_told_than_is_kept() {
    let world = World::new(&["h1", "h2", "h3"]).await;
    let rollouts = world.rollouts("a");
    let names = ["pre-deploy", "pre-app-boot"];
    let id = rollouts.start("ann", world.start("v1", &names).await).await.unwrap();
    let mut attached = rollouts.attach(&id, &hooks(&names), 0).await.unwrap();
    let hook = world::until_hook(&mut attached).await;
    world::begin(&mut attached, &hook).await;
    for _ in 0..1010 {
        world.fleet.leave("h3");
        tokio::time::sleep(Duration::from_secs(15)).await;
        world.fleet.arrive("h3");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let report = wire::HookFinished { hook_id: hook.hook_id, ..Default::default() };
    attached.reports.send(ClientReport::HookFinished(report)).await.unwrap();
    let served = world::serve(&mut attached, |_| 0);
    let (ran, finished) = tokio::time::timeout(Duration::from_secs(600), served).await.unwrap();
    assert_eq!((ran.len(), finished.state()), (1, State::Succeeded));
    let told = notes(&rollouts, &id).await.len();
    assert!((1900..2000).contains(&told), "{told} notes");
}

#[tokio::test(start_paused = true)]
async fn hosts_that_fall_silent_together_are_named_in_one_line() {
    let names: Vec<String> = (1..=12).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&names).await;
    let rollouts = world.rollouts("a");
    let spec = crate::rollout::sample::spec("v1", &[("web", &names)]);
    let start = world.start_spec(&spec_without_login(spec), &["pre-deploy"]).await;
    let id = rollouts.start("ann", start).await.unwrap();
    world.until(&rollouts, &id, State::AwaitingClient).await;
    let before = notes(&rollouts, &id).await.len();
    names.iter().for_each(|name| world.fleet.leave(name));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let told = notes(&rollouts, &id).await[before..].to_vec();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with(" and 2 more: no word for 14 s"), "{told:?}");
}

fn spec_without_login(mut spec: dhow_proto::model::spec::Spec) -> dhow_proto::model::spec::Spec {
    spec.registry.login = false;
    spec
}
