//! What fails, and what serves on.

use std::time::Duration;

use dhow_proto::wire::FailureKind;
use expect_test::expect;

use super::world::{Role, World, image, seconds};
use crate::engine::fake::Behaviour;
use crate::engine::{ContainerState, EngineError};
use crate::plan::{Observed, ObservedRole, Plan, Step, has_come_to_serve};

/// Deploys v1, then a v2 that behaves so; gives the failure after what failed was given up and v1 converged again.
async fn fail(
    world: &World,
    old: Role,
    new: Role,
    behaviour: Behaviour,
) -> dhow_proto::model::status::Failure {
    world.deploy(&old).await;
    world.engine.add_image(image(&new.version).behaving(behaviour));
    let engine = world.engine.clone();
    let service = new.service();
    let proxied = new.template.proxy.is_some();
    let serves = |step: &dyn std::fmt::Display| {
        let labels = ["service=shop".to_owned()];
        let ok = if proxied { engine.answers(&service) } else { engine.runs_any(&labels) };
        assert!(ok, "nothing serves after: {step}");
    };
    let failure = world.converge(&new.wanted(), |s| serves(s)).await.unwrap_err().failure();
    let settled = old.wanted().settled();
    world.converge(&new.wanted().abandoned(Some(&settled)), |s| serves(s)).await.unwrap();
    world.converge(&settled, |s| serves(s)).await.unwrap();
    // Agreed: neither does anything more.
    assert!(world.plan(&new.wanted().abandoned(Some(&settled))).await.is_empty());
    assert!(world.plan(&settled).await.is_empty());
    failure
}

#[tokio::test(start_paused = true)]
async fn a_version_that_never_gets_healthy_leaves_the_old_one() {
    let world = World::ready().await;
    let failure = fail(&world, Role::web("v1"), Role::web("v2"), Behaviour::Unhealthy).await;
    assert_eq!(failure.kind, FailureKind::Unhealthy);
    expect!["kamal-proxy: target failed to become healthy within configured timeout (30s)"]
        .assert_eq(&failure.reason);
    expect![[r#"
        shop-web-v1 running
        shop-web-v2 exited"#]]
    .assert_eq(&world.containers());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_exits_fails_at_once_with_its_status() {
    let world = World::ready().await;
    let began = world.engine.now();
    let exits = Behaviour::Exits(Duration::ZERO, 7);
    // It restarts for ever, as `unless-stopped` asks.
    let failure = fail(&world, Role::web("v1"), Role::web("v2"), exits).await;
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::Exited, Some(7)));
    assert_eq!(failure.container.unwrap().as_str(), "shop-web-v2");
    assert!(!failure.log_lines.is_empty());
    // Though kamal-proxy itself goes on waiting, and what settled before waits for that.
    assert!(failure.at.duration_since(began).unwrap() < seconds(10));
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_without_proxy_fails_before_the_time_is_up() {
    let world = World::ready().await;
    let began = tokio::time::Instant::now();
    let exits = Behaviour::Exits(seconds(2), 3);
    let failure = fail(&world, Role::job("v1"), Role::job("v2"), exits).await;
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::Exited, Some(3)));
    assert!(began.elapsed() < seconds(20), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_refused_names_the_port() {
    let world = World::ready().await;
    let words = "driver failed programming external connectivity: Bind for 0.0.0.0:25 failed: port is already allocated";
    let refused = Behaviour::StartRefused(words.to_owned());
    let failure = fail(&world, Role::web("v1"), Role::web("v2"), refused).await;
    assert_eq!(failure.kind, FailureKind::PortTaken);
    expect![[r#"
        shop-web-v1 running
        shop-web-v2 created"#]]
    .assert_eq(&world.containers());
}

#[tokio::test(start_paused = true)]
async fn a_failed_redeploy_of_the_same_version_keeps_the_renamed_one() {
    let world = World::ready().await;
    let failure =
        fail(&world, Role::web("v1"), Role::web("v1").boot(1), Behaviour::Unhealthy).await;
    assert_eq!(failure.kind, FailureKind::Unhealthy);
    let states = world.containers();
    let states: Vec<&str> = states.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(states, ["running", "exited"]);
    assert!(world.engine.answers("shop-web"));
}

#[tokio::test(start_paused = true)]
async fn a_first_deploy_that_fails_leaves_nothing_running() {
    let world = World::ready().await;
    world.engine.add_image(image("v1").behaving(Behaviour::Unhealthy));
    let wanted = Role::web("v1").wanted();
    world.converge(&wanted, |_| {}).await.unwrap_err().failure();
    world.settle(&wanted.abandoned(None)).await;
    expect!["shop-web-v1 exited"].assert_eq(&world.containers());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_looked_up() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let wanted = Role::web("v2").wanted();
    let crate::plan::Plan::Steps(steps) = world.plan(&wanted).await else { panic!("no steps") };
    for step in &steps[..4] {
        world.run(&wanted, step).await.unwrap();
    }
    // The call is lost before anything was routed: it failed.
    world.engine.fail_next("exec", EngineError::OutcomeUnknown("lost".to_owned()));
    let failure = world.run(&wanted, &steps[4]).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ProxyRefused, "{}", failure.reason);
    // And after kamal-proxy had switched: it succeeded, though what drains is not known.
    let new = world.engine.all().into_iter().find(|c| c.name == "shop-web-v2").unwrap();
    world.engine.force_route("shop-web", &format!("{}:80", new.short_id()));
    world.engine.fail_next("exec", EngineError::OutcomeUnknown("lost".to_owned()));
    world.run(&wanted, &steps[4]).await.unwrap();
    assert!(world.plan(&wanted).await.to_string().starts_with("let requests of shop-web drain"));
}

#[tokio::test(start_paused = true)]
async fn a_deploy_that_outlived_its_caller_is_waited_for() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    world.engine.add_image(image("v2").behaving(Behaviour::HealthyAfter(seconds(10))));
    let wanted = Role::web("v2").wanted();
    let crate::plan::Plan::Steps(steps) = world.plan(&wanted).await else { panic!("no steps") };
    for step in &steps[..4] {
        world.run(&wanted, step).await.unwrap();
    }
    // The agent dies while kamal-proxy waits.
    let cut = tokio::time::timeout(seconds(3), world.run(&wanted, &steps[4])).await;
    assert!(cut.is_err());
    let settled = Role::web("v1").wanted().settled();
    expect!["wait up to 50s for running deploys of shop-web"]
        .assert_eq(world.plan(&settled).await.to_string().lines().next().unwrap());
    expect![[r#"
        wait up to 50s for running deploys of shop-web
        route shop-web to shop-web-v2:80
        stop shop-web-v1"#]]
    .assert_eq(&world.settle(&wanted).await);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_refused_before_anything_changes() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let plan = world.plan(&Role::web("v9").wanted()).await;
    expect!["impossible: image 10.0.0.1:5000/shop:v9 is not on this host"]
        .assert_eq(&plan.to_string());
    let mut pinned = Role::web("v2");
    pinned.digest = Some(format!("sha256:{}", "0".repeat(64)).parse().unwrap());
    assert!(world.plan(&pinned.wanted()).await.to_string().contains("the rollout pinned"));
    let mut bare = image("v3");
    bare.view.labels.clear();
    bare.view.id = "sha256:bare".to_owned();
    world.engine.add_image(bare);
    expect!["impossible: Image 10.0.0.1:5000/shop:v3 is missing the 'service' label"]
        .assert_eq(&world.plan(&Role::web("v3").wanted()).await.to_string());
}

#[tokio::test(start_paused = true)]
async fn settle_is_decided_by_what_serves() {
    let world = World::ready().await;
    let (old, new) = (Role::web("v1"), Role { number: 2, ..Role::web("v2") });
    world.deploy(&old).await;
    let serves = |observed: &Observed| match observed {
        Observed::Role(o) => has_come_to_serve(&new.wanted(), o),
        _ => panic!("not a role"),
    };
    assert_eq!(serves(&world.observe(&new.wanted()).await), Ok(false));
    // It runs, and kamal-proxy has not switched to it.
    let wanted = new.wanted();
    let Plan::Steps(steps) = world.plan(&wanted).await else { panic!("steps") };
    let route = steps.iter().position(|s| matches!(s, Step::Route { .. })).unwrap();
    for step in &steps[..route] {
        world.run(&wanted, step).await.unwrap();
    }
    assert!(world.containers().contains("shop-web-v2 running"), "{}", world.containers());
    assert_eq!(serves(&world.observe(&wanted).await), Ok(false));
    world.run(&wanted, &steps[route]).await.unwrap();
    assert_eq!(serves(&world.observe(&wanted).await), Ok(true));
}

#[tokio::test(start_paused = true)]
async fn without_a_proxy_it_serves_once_it_is_ready() {
    let world = World::ready().await;
    let job = Role::job("v1");
    let wanted = job.wanted();
    let Plan::Steps(steps) = world.plan(&wanted).await else { panic!("steps") };
    let ready = steps.iter().position(|s| matches!(s, Step::AwaitReady { .. })).unwrap();
    for step in &steps[..ready] {
        world.run(&wanted, step).await.unwrap();
    }
    let serves = |observed: &Observed| match observed {
        Observed::Role(o) => has_come_to_serve(&wanted, o),
        _ => panic!("not a role"),
    };
    let why = serves(&world.observe(&wanted).await).unwrap_err();
    assert!(why.reason.contains("has not run for long enough"), "{why:?}");
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(serves(&world.observe(&wanted).await), Ok(true));
}

#[tokio::test(start_paused = true)]
async fn another_deployer_puts_the_app_on_hold() {
    let world = World::ready().await;
    let wanted = Role::web("v1").wanted().settled();
    world.settle(&wanted).await;
    let hold = |observed: Observed| crate::plan::hold(observed.foreign());
    assert_eq!(hold(world.observe(&wanted).await), None);
    let log = world.home.join(".kamal/shop-audit.log");
    let ours = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{ours}[t] [ann@x] [web] Booted app version v2\n")).unwrap();
    let held = hold(world.observe(&wanted).await).unwrap().to_string();
    assert!(held.contains("Booted app version v2"), "{held}");
    world.worker.adopt(&super::world::app(), &wanted).await.unwrap();
    assert_eq!(hold(world.observe(&wanted).await), None);
    std::fs::create_dir(world.home.join(".kamal/lock-shop")).unwrap();
    assert!(hold(world.observe(&wanted).await).unwrap().to_string().contains("lock"));
}

#[tokio::test(start_paused = true)]
async fn without_the_proxys_table_nothing_is_stopped() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    world.engine.force_state("shop-web-v1", ContainerState::Running);
    world.engine.fail_next("exec", EngineError::Unreachable("gone".to_owned()));
    expect!["waiting: kamal-proxy does not answer yet"]
        .assert_eq(&world.plan(&Role::web("v2").wanted()).await.to_string());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stopped_that_kamal_proxy_may_still_switch_to() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let wanted = Role::web("v2").wanted();
    let Plan::Steps(steps) = world.plan(&wanted).await else { panic!("no steps") };
    for step in &steps[..4] {
        world.run(&wanted, step).await.unwrap();
    }
    let Observed::Role(mut observed) = world.observe(&wanted).await else { panic!("a role") };
    let given_up = wanted.clone().abandoned(Some(&Role::web("v1").wanted().settled()));
    let steps = |observed: &ObservedRole| {
        let plan = crate::plan::plan(&given_up, &Observed::Role(observed.clone()));
        let Plan::Steps(steps) = plan else { panic!("no steps") };
        steps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(!has_come_to_serve(&wanted, &observed).unwrap());
    assert_eq!(steps(&observed), ["stop shop-web-v2"]);
    // A caller that was killed leaves kamal-proxy at it.
    observed.proxy.deploying.insert("shop-web".to_owned());
    has_come_to_serve(&wanted, &observed).unwrap_err();
    let waits = steps(&observed);
    assert!(matches!(&waits[..], [wait] if wait.starts_with("wait")), "{waits:?}");
}
