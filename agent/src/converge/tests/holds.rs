use std::time::Duration;

use dhow_proto::model::status::{Held, Phase};

use super::world::{Agent, web};
use crate::execute::tests::world::role_unit;

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
