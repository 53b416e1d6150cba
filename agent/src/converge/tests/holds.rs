use std::time::Duration;

use dhow_proto::model::intent::KamalLock;
use dhow_proto::model::kamal::LOCK_MESSAGE;
use dhow_proto::model::status::{Held, Phase, Status};
use dhow_proto::model::{Document as _, Unit};
use dhow_proto::wire::FailureKind;

use super::world::{Agent, web};
use crate::execute::tests::world::{
    app, app_intent, app_wanted, proxy_template, proxy_wanted, role_unit,
};

/// Writes a lock as Kamal does, on the host's run directory.
fn foreign_lock(agent: &Agent) {
    use base64::Engine as _;
    let lock = agent.world.home.join(".kamal/lock-shop");
    std::fs::create_dir_all(&lock).unwrap();
    let details = "Locked by: sue at 2026-01-01T00:00:00Z\nVersion: v9\nMessage: by hand";
    let text = base64::engine::general_purpose::STANDARD.encode(details);
    std::fs::write(lock.join("details"), text).unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repaired_while_another_deployer_is_at_work_until_a_rollout_adopts() {
    let agent = Agent::start().await;
    let unit = role_unit("web");
    let mut first = agent.offer_role(&web("v1", 1));
    agent.settled(&unit, 1).await;
    foreign_lock(&agent);
    let held = |s: &dhow_proto::model::status::Status| matches!(s.phase, Phase::Held(_));
    let status = agent.status(&unit, held).await;
    let Phase::Held(Held::ForeignLock(holder)) = &status.phase else { panic!("{status:?}") };
    assert!(holder.contains("sue"), "{holder}");
    agent.world.engine.vanish("shop-web-v1");
    let agent = agent.restart().await;
    agent.status(&unit, held).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.engine.answers("shop-web"), "it was repaired while on hold");
    // An intent of no rollout does not adopt, one of a new rollout does.
    first.generation.number = 2;
    agent.offer(&first);
    agent.status(&unit, |s| s.generation.number == 2 && held(s)).await;
    std::fs::remove_dir_all(agent.world.home.join(".kamal/lock-shop")).unwrap();
    first.generation.number = 3;
    first.rollout_id = Some("r2".into());
    agent.offer(&first);
    agent.settled(&unit, 3).await;
    assert!(agent.world.engine.answers("shop-web"));
}

fn held(status: &Status) -> bool {
    matches!(status.phase, Phase::Held(_))
}

/// Writes a line as Kamal does before it acts.
fn audit(agent: &Agent, text: &str) {
    let log = agent.world.home.join(".kamal/shop-audit.log");
    crate::host::append(&log, &format!("[t] [sue@x] {text}"), None).unwrap();
}

/// An agent with a settled role and the proxy as a unit.
async fn with_a_proxy() -> Agent {
    let agent = Agent::start().await;
    agent.give_blob(proxy_template(true).to_bytes());
    agent.offer(&proxy_wanted(0).intent);
    agent.settled(&Unit::Proxy, 1).await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    agent
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_another_deployer_reboots_is_left_to_it() {
    let agent = with_a_proxy().await;
    audit(&agent, "Rebooted proxy");
    agent.world.engine.vanish("kamal-proxy");
    agent.status(&Unit::Proxy, held).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let there = || agent.world.engine.all().iter().any(|c| c.name == "kamal-proxy");
    assert!(!there(), "it was in the other deployer's way");
    // A rollout of the app takes it back.
    let mut proxy = proxy_wanted(0).intent;
    proxy.generation.number = 2;
    agent.offer(&proxy);
    agent.settled(&Unit::Proxy, 2).await;
    let mut role = web("v1", 2).wanted().intent;
    role.rollout_id = Some("r2".into());
    agent.offer(&role);
    agent.until("the proxy is back", there).await;
    agent.settled(&role_unit("web"), 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_proxy_is_left_alone_while_every_app_is_on_hold() {
    let agent = with_a_proxy().await;
    audit(&agent, "Stopped app");
    agent.status(&role_unit("web"), held).await;
    agent.world.engine.vanish("kamal-proxy");
    agent.status(&Unit::Proxy, held).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.engine.all().iter().any(|c| c.name == "kamal-proxy"));
}

#[tokio::test(start_paused = true)]
async fn traffic_that_somebody_else_stopped_stays_stopped_until_a_rollout() {
    let agent = with_a_proxy().await;
    let unit = role_unit("web");
    agent.world.engine.stop_route("shop-web");
    let status = agent.status(&unit, held).await;
    assert_eq!(status.phase, Phase::Held(Held::StoppedTraffic("shop-web".into())));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.engine.answers("shop-web"), "maintenance was ended");
    let mut role = web("v1", 2).wanted().intent;
    role.rollout_id = Some("r2".into());
    agent.offer(&role);
    agent.settled(&unit, 2).await;
    assert!(agent.world.engine.answers("shop-web"));
}

/// The lock stage of a rollout that waits for ten minutes.
fn offer_lock(agent: &Agent, number: u64) {
    let mut app = app_intent("v1");
    app.lock = Some(KamalLock {
        holder: "Ann".into(),
        at_unix_s: 1_700_000_000,
        version: "v1".into(),
        message: LOCK_MESSAGE.into(),
        wait: Some(Duration::from_secs(600)),
    });
    let mut intent = app_wanted(app).intent;
    intent.generation.number = number;
    intent.rollout_id = Some("waiting".into());
    agent.offer(&intent);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_a_rollout_waits_for_is_taken_once_it_is_free() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    foreign_lock(&agent);
    let unit = Unit::App(app());
    offer_lock(&agent, 1);
    let waits =
        |s: &Status| matches!(&s.phase, Phase::AwaitingCondition(why) if why.contains("sue"));
    agent.status(&unit, waits).await;
    // The other units meet the lock as well; that must not keep the rollout out.
    agent.world.engine.vanish("shop-web-v1");
    agent.status(&role_unit("web"), |s| matches!(s.phase, Phase::Held(_))).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.engine.answers("shop-web"), "it was repaired under somebody's lock");
    std::fs::remove_dir_all(agent.world.home.join(".kamal/lock-shop")).unwrap();
    agent.settled(&unit, 1).await;
    agent.until("it is repaired", || agent.world.engine.answers("shop-web")).await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_stays_fails_what_waited_for_it() {
    let agent = Agent::start().await;
    foreign_lock(&agent);
    offer_lock(&agent, 1);
    let begun = tokio::time::Instant::now();
    let unit = Unit::App(app());
    let status = agent.status(&unit, |s| matches!(s.phase, Phase::Failed(_))).await;
    let Phase::Failed(failure) = &status.phase else { unreachable!() };
    assert_eq!(failure.kind, FailureKind::Locked);
    assert!(failure.reason.contains("sue"), "{}", failure.reason);
    assert!(begun.elapsed() >= Duration::from_secs(600), "gave up after {:?}", begun.elapsed());
}
