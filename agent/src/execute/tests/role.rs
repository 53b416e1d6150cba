//! A role that converges.

use dhow_proto::model::intent::{Absent, Run, Traffic};
use expect_test::expect;

use super::world::{Role, World, absent, proxy_wanted, role_unit, seconds};
use crate::engine::ContainerState;

#[tokio::test(start_paused = true)]
async fn a_first_deploy_boots_and_routes() {
    let world = World::ready().await;
    expect![[r#"
        audit [web] Booted app version v1
        write env file of web
        create shop-web-v1 from 10.0.0.1:5000/shop:v1
        start shop-web-v1
        route shop-web to shop-web-v1:80"#]]
    .assert_eq(&world.settle(&Role::web("v1").wanted()).await);
    assert!(world.engine.answers("shop-web"));
    let env = std::fs::read_to_string(world.home.join(".kamal/apps/shop/env/roles/web.env"));
    assert_eq!(env.unwrap(), "\n");
    assert_eq!(
        world.engine.env_of("shop-web-v1"),
        ["KAMAL_CONTAINER_NAME=shop-web-v1", "KAMAL_VERSION=v1", "KAMAL_HOST=1.2.3.4"]
    );
    let body = world.engine.body_of("shop-web-v1").unwrap();
    assert_eq!(body["Labels"]["destination"], "");
    let hostname = body["Hostname"].as_str().unwrap();
    assert!(hostname.starts_with("1.2.3.4-") && hostname.len() == 20, "{hostname}");
}

#[tokio::test(start_paused = true)]
async fn the_old_container_stops_only_after_the_new_one_serves() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let engine = world.engine.clone();
    let steps = world
        .converge(&Role::web("v2").wanted(), |step| {
            assert!(engine.answers("shop-web"), "nothing serves after: {step}");
        })
        .await
        .unwrap();
    expect![[r#"
        audit [web] Booted app version v2
        write env file of web
        create shop-web-v2 from 10.0.0.1:5000/shop:v2
        start shop-web-v2
        route shop-web to shop-web-v2:80
        stop shop-web-v1"#]]
    .assert_eq(&steps);
    expect![[r#"
        shop-web-v1 exited
        shop-web-v2 running"#]]
    .assert_eq(&world.containers());
}

#[tokio::test(start_paused = true)]
async fn the_same_version_anew_renames_the_old_container() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let steps = world.settle(&Role::web("v1").boot(1).wanted()).await;
    let id = world.engine.all().into_iter().find(|c| c.name.contains("_replaced_")).unwrap().id;
    let hex = dhow_proto::model::BlobDigest::of(id.as_bytes()).short(16);
    expect![[r#"
        audit [web] Renaming container v1 to v1_replaced_HEX
        rename shop-web-v1 to shop-web-v1_replaced_HEX
        audit [web] Booted app version v1
        write env file of web
        create shop-web-v1 from 10.0.0.1:5000/shop:v1
        start shop-web-v1
        route shop-web to shop-web-v1:80
        stop shop-web-v1_replaced_HEX"#]]
    .assert_eq(&steps.replace(&hex, "HEX"));
}

#[tokio::test(start_paused = true)]
async fn a_role_without_proxy_is_watched_until_it_is_ready() {
    let world = World::ready().await;
    world.deploy(&Role::job("v1")).await;
    expect![[r#"
        audit [job] Booted app version v2
        write env file of job
        create shop-job-v2 from 10.0.0.1:5000/shop:v2
        start shop-job-v2
        wait up to 30s until shop-job-v2 is ready
        stop shop-job-v1 within 20s"#]]
    .assert_eq(&world.settle(&Role::job("v2").wanted()).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_proxy_routes_to_is_live_whatever_the_tag_says() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    world.settle(&Role::web("v2").wanted()).await;
    // The tag still says v1; its container runs again, and v2 is routed to.
    world.engine.force_state("shop-web-v1", ContainerState::Running);
    expect!["stop shop-web-v1"].assert_eq(&world.settle(&Role::web("v2").wanted()).await);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_was_only_seen_drains_first() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let steps = match world.plan(&Role::web("v2").wanted()).await {
        crate::plan::Plan::Steps(steps) => steps,
        other => panic!("{other}"),
    };
    let wanted = Role::web("v2").wanted();
    for step in &steps[..4] {
        world.run(&wanted, step).await.unwrap();
    }
    let id = world.engine.all().into_iter().find(|c| c.name == "shop-web-v2").unwrap();
    world.engine.force_route("shop-web", &format!("{}:80", id.short_id()));
    let plan = world.plan(&wanted).await;
    expect![[r#"
        let requests of shop-web drain for 20s
        stop shop-web-v1"#]]
    .assert_eq(&plan.to_string());
    // The time since it was first seen counts.
    tokio::time::advance(seconds(15)).await;
    assert!(world.plan(&wanted).await.to_string().contains("drain for 5s"));
}

#[tokio::test(start_paused = true)]
async fn drift_is_repaired() {
    let world = World::ready().await;
    let wanted = Role::web("v1").wanted().settled();
    world.settle(&wanted).await;
    world.engine.force_state("shop-web-v1", ContainerState::Exited);
    // Routed to already, and routed again: that waits until it is healthy.
    expect![[r#"
        connect shop-web-v1 to kamal
        audit [web] Started app version v1
        start shop-web-v1
        route shop-web to shop-web-v1:80"#]]
    .assert_eq(&world.settle(&wanted).await);
    world.engine.force_state("shop-web-v1", ContainerState::Paused);
    expect!["unpause shop-web-v1"].assert_eq(&world.settle(&wanted).await);
    world.engine.vanish("shop-web-v1");
    expect![[r#"
        audit [web] Booted app version v1
        write env file of web
        create shop-web-v1 from 10.0.0.1:5000/shop:v1
        start shop-web-v1
        route shop-web to shop-web-v1:80"#]]
    .assert_eq(&world.settle(&wanted).await);
    world.engine.vanish_network("kamal");
    world.settle(&super::world::proxy_wanted(0)).await;
    expect!["connect shop-web-v1 to kamal"].assert_eq(&world.settle(&wanted).await);
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_of_the_proxy_lost_routes_are_made_again() {
    let world = World::ready().await;
    let wanted = Role::web("v1").wanted().settled();
    world.settle(&wanted).await;
    world.engine.force_route("shop-web", "ffffffffffff:80");
    expect!["route shop-web to shop-web-v1:80"].assert_eq(&world.settle(&wanted).await);
    world.engine.force_state("kamal-proxy", ContainerState::Exited);
    expect!["waiting: kamal-proxy does not run"].assert_eq(&world.plan(&wanted).await.to_string());
    world.settle(&proxy_wanted(0)).await;
    assert!(world.plan(&wanted).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn maintenance_survives_a_deploy() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let traffic = Traffic::Maintenance { message: "back soon".to_owned(), drain: seconds(5) };
    let closed = |version: &str| Role { traffic: traffic.clone(), ..Role::web(version) };
    expect!["put shop-web into maintenance"].assert_eq(&world.settle(&closed("v1").wanted()).await);
    world.settle(&closed("v2").wanted()).await;
    expect!["end maintenance of shop-web"]
        .assert_eq(&world.settle(&Role::web("v2").wanted()).await);
}

#[tokio::test(start_paused = true)]
async fn stopped_and_removed() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let stopped = Role { run: Run::Stopped, ..Role::web("v1") };
    expect![[r#"
        remove route shop-web
        audit [web] Stopped app
        stop shop-web-v1"#]]
    .assert_eq(&world.settle(&stopped.wanted()).await);
    expect![[r#"
        audit [web] Removed all app containers
        remove shop-web-v1
        remove env file of web"#]]
    .assert_eq(&world.settle(&absent(role_unit("web"), Absent::Remove)).await);
    assert_eq!(world.containers(), "");
}

#[tokio::test(start_paused = true)]
async fn a_role_is_not_removed_without_its_route() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    world.engine.force_state("kamal-proxy", ContainerState::Exited);
    let gone = absent(role_unit("web"), Absent::Remove);
    expect!["waiting: kamal-proxy does not run, so the route of the role cannot be removed"]
        .assert_eq(&world.plan(&gone).await.to_string());
    world.settle(&proxy_wanted(0)).await;
    world.settle(&gone).await;
    assert!(world.engine.routes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_role_that_leaves_the_proxy_loses_its_route_last() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    let mut role = Role::web("v2");
    role.template.proxy = None;
    expect![[r#"
        audit [web] Booted app version v2
        write env file of web
        create shop-web-v2 from 10.0.0.1:5000/shop:v2
        start shop-web-v2
        wait up to 30s until shop-web-v2 is ready
        remove route shop-web
        stop shop-web-v1 within 20s"#]]
    .assert_eq(&world.settle(&role.wanted()).await);
}
