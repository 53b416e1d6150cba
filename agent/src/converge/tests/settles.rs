use std::time::Duration;

use dhow_proto::model::Generation;
use dhow_proto::model::intent::{Absent, Desired, Intent};
use dhow_proto::model::status::{Phase, Status};

use super::world::{Agent, web};
use crate::engine::fake::Behaviour;
use crate::execute::tests::world::{image, role_unit};

fn settle(number: u64, attempted: u64, otherwise: Option<u64>) -> Intent {
    let generation = |number| Generation { epoch: 0, number };
    let mut intent = web("v1", number).wanted().intent;
    intent.desired =
        Desired::Settle { attempted: generation(attempted), otherwise: otherwise.map(generation) };
    intent
}

fn absent(number: u64, absent: Absent) -> Intent {
    let mut intent = web("v1", number).wanted().intent;
    intent.desired = Desired::Absent(absent);
    intent
}

#[tokio::test(start_paused = true)]
async fn an_attempted_generation_that_serves_is_kept_and_repaired_later() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    // The first rollout of this host, whose outcome the controller did not learn.
    agent.offer(&settle(2, 1, None));
    agent.settled(&role_unit("web"), 2).await;
    let agent = agent.restart().await;
    agent.world.engine.vanish("shop-web-v1");
    let engine = agent.world.engine.clone();
    agent.until("it serves again", || engine.answers("shop-web")).await;
    let status = agent.settled(&role_unit("web"), 2).await;
    assert_eq!(status.settled.unwrap().number, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempted_generation_that_does_not_serve_gives_way_to_the_settled_one() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    agent.world.engine.add_image(image("v2").behaving(Behaviour::Unhealthy));
    agent.offer_role(&web("v2", 2));
    agent.status(&role_unit("web"), |s| matches!(s.phase, Phase::Converging(Some(_)))).await;
    agent.offer(&settle(3, 2, Some(1)));
    let status = agent.settled(&role_unit("web"), 3).await;
    assert_eq!(status.settled.unwrap().number, 1);
    assert_eq!(status.serving[0].version.as_str(), "v1");
    agent.until("v2 is stopped", || !agent.world.containers().contains("v2 running")).await;
    assert!(agent.world.engine.answers("shop-web"));
}

#[tokio::test(start_paused = true)]
async fn a_host_where_nothing_ever_served_is_released() {
    let agent = Agent::start().await;
    agent.world.engine.add_image(image("v1").behaving(Behaviour::Unhealthy));
    agent.offer_role(&web("v1", 1));
    agent.status(&role_unit("web"), |s| matches!(s.phase, Phase::Failed(_))).await;
    agent.offer(&settle(2, 1, None));
    agent.status(&role_unit("web"), |s| s.phase == Phase::Released).await;
}

#[tokio::test(start_paused = true)]
async fn what_never_served_is_stopped_before_its_unit_is_let_go() {
    // The second asks as a controller does that has heard that it failed, or that gave up on it.
    for last in [settle(2, 1, None), absent(2, Absent::Release)] {
        for failed in [false, true] {
            let mut agent = Agent::start().await;
            let unit = role_unit("web");
            agent.world.engine.add_image(image("v1").behaving(Behaviour::Unhealthy));
            agent.offer_role(&web("v1", 1));
            if failed {
                agent.status(&unit, |s| matches!(s.phase, Phase::Failed(_))).await;
            } else {
                agent.until("v1 runs", || agent.world.containers().contains("v1 running")).await;
                agent = agent.restart().await;
            }
            agent.offer(&last);
            agent.status(&unit, |s| s.phase == Phase::Released).await;
            let left = agent.world.containers();
            assert!(!left.contains("v1 running"), "{:?}, failed {failed}: {left}", last.desired);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_ever_served_a_failure_leaves_nothing_of_earlier_attempts_either() {
    let mut agent = Agent::start().await;
    let unit = role_unit("web");
    agent.world.engine.add_image(image("v1").behaving(Behaviour::Unhealthy));
    agent.offer_role(&web("v1", 1));
    agent.until("v1 runs", || agent.world.containers().contains("v1 running")).await;
    // The next rollout comes before anything has been said of the first.
    agent = agent.restart().await;
    agent.offer_role(&web("v1", 2).boot(2));
    agent.status(&unit, |s| s.generation.number > 1 && matches!(s.phase, Phase::Failed(_))).await;
    agent.until("all are stopped", || !agent.world.containers().contains("running")).await;
    assert!(agent.world.containers().contains("_replaced_"), "{}", agent.world.containers());
}

#[tokio::test(start_paused = true)]
async fn a_user_that_the_host_does_not_have_ends_in_rest_not_in_a_busy_loop() {
    let released = |s: &Status| s.phase == Phase::Released;
    for (absence, ends) in [
        (settle(2, 1, None), released as fn(&Status) -> bool),
        (settle(2, 1, Some(0)), released),
        (absent(2, Absent::Release), released),
        (absent(2, Absent::Remove), |s| matches!(s.phase, Phase::Failed(_))),
    ] {
        let agent = Agent::start().await;
        let unit = role_unit("web");
        let as_nobody = |mut intent: Intent| {
            intent.host.ssh_user = Some("no-such-user".into());
            intent
        };
        let role = web("v1", 1);
        agent.give_blob(dhow_proto::model::Document::to_bytes(&role.template));
        agent.offer(&as_nobody(role.wanted().intent));
        agent.status(&unit, |s| matches!(s.phase, Phase::Failed(_))).await;
        agent.offer(&as_nobody(absence));
        // A loop without a wait would never let paused time go on.
        let rest = tokio::time::timeout(
            Duration::from_secs(5),
            tokio::time::sleep(Duration::from_secs(2)),
        );
        rest.await.unwrap();
        agent.status(&unit, |s| s.generation.number == 2 && ends(s)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_unit_is_left_as_it_is() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    agent.offer(&absent(2, Absent::Release));
    agent.status(&role_unit("web"), |s| s.phase == Phase::Released).await;
    agent.world.engine.vanish("shop-web-v1");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!agent.world.engine.answers("shop-web"), "nothing is repaired any more");
    assert!(agent.ledger.known(&role_unit("web")).settled.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_removed_unit_is_gone() {
    let agent = Agent::start().await;
    agent.offer_role(&web("v1", 1));
    agent.settled(&role_unit("web"), 1).await;
    agent.offer(&absent(2, Absent::Remove));
    agent.status(&role_unit("web"), |s| s.phase == Phase::Removed).await;
    assert_eq!(agent.world.containers(), "");
}
