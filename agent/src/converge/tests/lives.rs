use std::time::Duration;

use dhow_proto::model::intent::{After, Desired};
use dhow_proto::model::secrets::{Purpose, SealedSecrets, Secrets};
use dhow_proto::model::status::{Phase, Status};
use dhow_proto::model::{BlobRef, Generation, Unit};
use dhow_proto::seal::{Bundle, HostKey};
use secrecy::SecretString;

use super::world::{Agent, web};
use crate::engine::fake::Behaviour;
use crate::execute::tests::world::{Role, app, app_intent, app_wanted, image, role_unit};

/// A role that comes after a generation of another unit.
fn offer_after(agent: &Agent, role: &Role, unit: Unit, number: u64) {
    agent.give_blob(dhow_proto::model::Document::to_bytes(&role.template));
    let mut intent = role.wanted().intent;
    intent.after.push(After { unit, generation: Generation { epoch: 0, number } });
    agent.offer(&intent);
}

/// The app's shared part, which wants the image of a version.
fn offer_app(agent: &Agent, version: &str, number: u64) {
    let mut intent = app_wanted(app_intent(version)).intent;
    intent.generation.number = number;
    agent.offer(&intent);
}

#[tokio::test(start_paused = true)]
async fn an_accepted_intent_is_brought_about_and_settles() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    let status = agent.settled(&role_unit("web"), 1).await;
    assert_eq!(status.serving[0].version.as_str(), "v1");
    assert_eq!(status.settled.unwrap().number, 1);
    assert!(!status.step_times.is_empty());
    let known = agent.ledger.known(&role_unit("web"));
    assert_eq!(known.settled, known.wanted);
}

#[tokio::test(start_paused = true)]
async fn a_failed_generation_is_never_tried_again_and_the_settled_one_serves_on() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    agent.world.engine.add_image(image("v2").behaving(Behaviour::Unhealthy));
    agent.offer_role(&web("v2", 2));
    let failed = |s: &dhow_proto::model::status::Status| {
        matches!(s.phase, Phase::Failed(_)) && s.serving.iter().any(|c| c.version.as_str() == "v1")
    };
    agent.status(&role_unit("web"), failed).await;
    let containers = || agent.world.containers();
    agent
        .until("what failed is stopped", || {
            containers().contains("v2 exited") && containers().contains("v1 running")
        })
        .await;
    let (creates, starts) = (agent.calls("create"), agent.calls("start"));
    let agent = agent.restart().await;
    agent.status(&role_unit("web"), failed).await;
    // An hour of periods, and another start in it.
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let agent = agent.restart().await;
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!((agent.calls("create"), agent.calls("start")), (creates, starts));
    assert!(agent.world.engine.answers("shop-web"));
}

#[tokio::test(start_paused = true)]
async fn a_container_removed_by_hand_comes_back_and_both_are_told() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    agent.world.engine.vanish("shop-web-v1");
    let engine = agent.world.engine.clone();
    agent.until("it serves again", || engine.answers("shop-web")).await;
    agent.until("both are told", || agent.told().len() == 2).await;
    let told = agent.told();
    assert!(told[0].contains("web: drift found, `create shop-web-v1 from "), "{told:?}");
    assert!(told[1].contains("web: repaired"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_after_a_failure_that_is_over_is_told_as_ever() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    agent.world.engine.add_image(image("v2").behaving(Behaviour::Exits(Duration::ZERO, 1)));
    agent.offer_role(&web("v2", 2));
    agent.status(&role_unit("web"), |s| matches!(s.phase, Phase::Failed(_))).await;
    // What the end of its rollout says, perhaps before the agent has gone back by itself.
    agent.offer_role(&web("v1", 3));
    agent.settled(&role_unit("web"), 3).await;
    let before = agent.told().len();
    agent.world.engine.vanish("shop-web-v1");
    agent.until("both are told", || agent.told().len() == before + 2).await;
    assert!(agent.told()[before].contains("drift"), "{:?}", agent.told());
}

#[tokio::test(start_paused = true)]
async fn a_newer_generation_takes_over_between_steps() {
    let agent = Agent::start().await;
    let slow = image("v1").behaving(Behaviour::HealthyAfter(Duration::from_secs(20)));
    agent.world.engine.add_image(slow);
    agent.offer_role(&web("v1", 1));
    agent.status(&role_unit("web"), |s| matches!(s.phase, Phase::Converging(Some(_)))).await;
    agent.offer_role(&web("v2", 2));
    let status = agent.settled(&role_unit("web"), 2).await;
    assert_eq!(status.serving[0].version.as_str(), "v2");
    let known = agent.ledger.known(&role_unit("web"));
    assert!(known.failed.is_none(), "superseded is not failed");
    assert_eq!(known.settled.unwrap().generation().number, 2);
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_waited_for() {
    let agent = Agent::start().await;
    offer_after(&agent, &Role::job("v1"), role_unit("web"), 1);
    let job = role_unit("job");
    agent.status(&job, |s| matches!(s.phase, Phase::AwaitingCondition(_))).await;
    // Longer than a generation waits for what is not a condition.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.containers().contains("shop-job"));
    agent.offer_role(&web("v1", 1));
    agent.settled(&job, 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_settled_is_looked_after_while_its_successor_waits() {
    let agent = Agent::start().await;
    let unit = role_unit("web");
    agent.offer_role(&web("v1", 1));
    agent.settled(&unit, 1).await;
    offer_after(&agent, &web("v2", 2), Unit::App(app()), 9);
    let waits = |s: &Status| matches!(s.phase, Phase::AwaitingCondition(_));
    agent.status(&unit, waits).await;
    agent.world.engine.vanish("shop-web-v1");
    tokio::time::timeout(Duration::from_secs(100), async {
        while !agent.world.engine.answers("shop-web") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    let status = agent.status(&unit, waits).await;
    assert_eq!((status.generation.number, status.settled.unwrap().number), (2, 1));
    assert!(!agent.world.containers().contains("shop-web-v2"), "{}", agent.world.containers());
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_does_not_wait_again_when_its_conditions_are_overwritten() {
    for behaviour in [Behaviour::Well, Behaviour::Unhealthy] {
        let agent = Agent::start().await;
        agent.world.engine.add_image(image("v2").behaving(behaviour.clone()));
        let unit = role_unit("web");
        offer_app(&agent, "v2", 1);
        offer_after(&agent, &web("v2", 1), Unit::App(app()), 1);
        let decided = agent.status(&unit, |s| s.phase.is_final()).await.phase.clone();
        offer_app(&agent, "v1", 2);
        agent.settled(&Unit::App(app()), 2).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        let now = agent.status(&unit, |_| true).await.phase.clone();
        assert_eq!(std::mem::discriminant(&now), std::mem::discriminant(&decided), "{now:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_begun_goes_on_after_a_restart_though_its_conditions_were_overwritten() {
    let agent = Agent::start().await;
    let unit = role_unit("web");
    agent.offer_role(&web("v1", 1));
    agent.settled(&unit, 1).await;
    offer_app(&agent, "v2", 1);
    agent.settled(&Unit::App(app()), 1).await;
    let slow = Behaviour::HealthyAfter(Duration::from_secs(20));
    agent.world.engine.add_image(image("v2").behaving(slow));
    offer_after(&agent, &web("v2", 2), Unit::App(app()), 1);
    let routes = |s: &Status| matches!(&s.phase, Phase::Converging(Some(step)) if step.text.starts_with("route"));
    agent.status(&unit, routes).await;
    offer_app(&agent, "v1", 2);
    agent.settled(&Unit::App(app()), 2).await;
    let agent = agent.restart().await;
    let status = agent.settled(&unit, 2).await;
    assert_eq!(status.serving[0].version.as_str(), "v2");
    assert!(
        !agent.world.containers().contains("shop-web-v1 running"),
        "{}",
        agent.world.containers()
    );
}

#[tokio::test(start_paused = true)]
async fn what_has_come_to_serve_in_between_is_not_replaced_by_what_settled_before() {
    let agent = Agent::start().await;
    let unit = role_unit("web");
    agent.offer_role(&web("v1", 1));
    agent.settled(&unit, 1).await;
    let slow = Behaviour::HealthyAfter(Duration::from_secs(10));
    agent.world.engine.add_image(image("v2").behaving(slow));
    agent.offer_role(&web("v2", 2));
    let routes = |s: &Status| matches!(&s.phase, Phase::Converging(Some(step)) if step.text.starts_with("route"));
    agent.status(&unit, routes).await;
    offer_after(&agent, &web("v3", 3), Unit::App(app()), 9);
    agent.status(&unit, |s| matches!(s.phase, Phase::AwaitingCondition(_))).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let new = agent.world.engine.all().into_iter().find(|c| c.name == "shop-web-v2").unwrap();
    let routes = agent.world.engine.routes();
    assert!(routes["shop-web"].reaches(new.short_id()), "{}", agent.world.containers());
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_fails_while_its_successor_waits_is_told_of_beside_what_is_waited_for() {
    let agent = Agent::start().await;
    let unit = role_unit("job");
    agent.offer_role(&Role::job("v1"));
    agent.settled(&unit, 1).await;
    offer_after(&agent, &Role { number: 2, ..Role::job("v2") }, Unit::App(app()), 9);
    agent.status(&unit, |s| matches!(s.phase, Phase::AwaitingCondition(_))).await;
    agent.world.engine.add_image(image("v1").behaving(Behaviour::Exits(Duration::ZERO, 7)));
    agent.world.engine.vanish("shop-job-v1");
    let status = agent.status(&unit, |s| !s.warnings.is_empty()).await;
    assert!(matches!(status.phase, Phase::AwaitingCondition(_)), "{:?}", status.phase);
    assert!(status.warnings[0].contains("exit"), "{:?}", status.warnings);
}

#[tokio::test(start_paused = true)]
async fn a_condition_on_a_role_is_not_met_by_another_version_that_settled_since() {
    let agent = Agent::start().await;
    agent.world.engine.add_image(image("v2").behaving(Behaviour::Unhealthy));
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    let offer_job = |version: &str, number: u64, after: u64| {
        let job = Role { number, ..Role::job(version) };
        offer_after(&agent, &job, role_unit("web"), after);
    };
    offer_job("v2", 1, 2);
    agent.offer_role(&web("v2", 2));
    agent.status(&role_unit("web"), |s| matches!(s.phase, Phase::Failed(_))).await;
    // Back to what was before, as a later rollout says it.
    agent.offer_role(&web("v1", 3));
    agent.settled(&role_unit("web"), 3).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.containers().contains("shop-job"), "{}", agent.world.containers());
    // A newer one of its own version does.
    offer_job("v1", 2, 2);
    agent.settled(&role_unit("job"), 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_condition_on_an_image_is_not_met_by_that_of_a_later_rollout() {
    let agent = Agent::start().await;
    let unit = role_unit("web");
    offer_app(&agent, "v2", 2);
    agent.settled(&Unit::App(app()), 2).await;
    offer_after(&agent, &web("v1", 1), Unit::App(app()), 1);
    agent.status(&unit, |s| matches!(s.phase, Phase::AwaitingCondition(_))).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.containers().contains("shop-web"), "{}", agent.world.containers());
    offer_app(&agent, "v1", 3);
    agent.settled(&unit, 1).await;
}

#[tokio::test(start_paused = true)]
async fn secrets_for_another_host_key_are_awaited_and_cured_by_the_next_intent() {
    let agent = Agent::start().await;
    let unit = role_unit("web");
    let mut secrets = Secrets::new();
    secrets.insert("TOKEN", SecretString::from("s3cret"));
    let seal = |key: &HostKey| {
        let bundle = Bundle::seal(&secrets, &unit, Purpose::Env).unwrap();
        let host = "h1".parse().unwrap();
        let key = bundle.wrap(&host, &key.public_bytes()).unwrap();
        let ciphertext: BlobRef = agent.give_blob(bundle.ciphertext);
        SealedSecrets { ciphertext, key, purpose: Purpose::Env, unit: unit.clone() }
    };
    let offer = |number: u64, key: &HostKey| {
        let role = web("v1", number);
        let mut template = role.template.clone();
        template.container.env.clear();
        agent.give_blob(dhow_proto::model::Document::to_bytes(&template));
        let mut intent = role.wanted().intent;
        if let Desired::Role(role) = &mut intent.desired {
            role.env = Some(seal(key));
        }
        agent.offer(&intent);
    };
    offer(1, &HostKey::generate().unwrap());
    agent.status(&unit, |s| matches!(s.phase, Phase::AwaitingSecrets(_))).await;
    assert!(!agent.world.containers().contains("shop-web"));
    offer(2, &agent.host_key);
    agent.settled(&unit, 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_fails_nothing_that_has_served() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    for _ in 0..5 {
        let away = crate::engine::EngineError::Unreachable("no such socket".into());
        agent.world.engine.fail_next("*", away);
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(agent.ledger.known(&role_unit("web")).failed.is_none());
    agent.settled(&role_unit("web"), 1).await;
    assert!(agent.world.engine.answers("shop-web"));
}

#[tokio::test(start_paused = true)]
async fn an_intent_waits_for_its_blobs_as_long_as_no_controller_can_give_them() {
    let agent = Agent::start().await;
    agent.connected(false);
    let role = web("v1", 1);
    agent.offer(&role.wanted().intent);
    let unit = role_unit("web");
    agent.status(&unit, |s| matches!(s.phase, Phase::AwaitingCondition(_))).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(agent.ledger.known(&unit).failed.is_none(), "a controller away is no failure");
    agent.give_blob(dhow_proto::model::Document::to_bytes(&role.template));
    agent.connected(true);
    agent.settled(&unit, 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_intent_whose_blobs_the_controller_does_not_give_fails() {
    let agent = Agent::start().await;
    agent.offer(&web("v1", 1).wanted().intent);
    agent.status(&role_unit("web"), |s| matches!(s.phase, Phase::Failed(_))).await;
}
