//! The proxy unit.

use expect_test::expect;

use super::world::{World, proxy_wanted};
use crate::engine::ContainerState;
use crate::engine::fake::FakeImage;

#[tokio::test(start_paused = true)]
async fn a_first_boot_makes_network_directory_and_container() {
    let world = World::new();
    expect![[r#"
        create network kamal
        create the proxy's directory
        pull basecamp/kamal-proxy:v0.9.2
        create kamal-proxy from basecamp/kamal-proxy:v0.9.2
        start kamal-proxy
        wait until kamal-proxy answers
        remember proxy boot 0"#]]
    .assert_eq(&world.settle(&proxy_wanted(0)).await);
    assert!(world.home.join(".kamal/proxy/apps-config").is_dir());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_proxy_is_started_and_never_made_anew() {
    let world = World::ready().await;
    world.engine.force_state("kamal-proxy", ContainerState::Exited);
    // Connected first: it may be to a network of that name that is no more.
    expect![[r#"
        connect kamal-proxy to kamal
        start kamal-proxy
        wait until kamal-proxy answers"#]]
    .assert_eq(&world.settle(&proxy_wanted(0)).await);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_gone_comes_back_with_the_proxy_in_it() {
    let world = World::ready().await;
    world.engine.vanish_network("kamal");
    expect![[r#"
        create network kamal
        connect kamal-proxy to kamal"#]]
    .assert_eq(&world.settle(&proxy_wanted(0)).await);
}

#[tokio::test(start_paused = true)]
async fn a_new_boot_number_reboots() {
    let world = World::ready().await;
    expect![[r#"
        stop kamal-proxy once no routing is under way
        remove kamal-proxy
        create kamal-proxy from basecamp/kamal-proxy:v0.9.2
        start kamal-proxy
        wait until kamal-proxy answers
        remember proxy boot 1"#]]
    .assert_eq(&world.settle(&proxy_wanted(1)).await);
}

#[tokio::test(start_paused = true)]
async fn boot_config_files_of_the_host_apply() {
    let world = World::new();
    let directory = world.home.join(".kamal/proxy");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("options"), "--publish 8080:80").unwrap();
    std::fs::write(directory.join("image_version"), "v0.9.9").unwrap();
    world.engine.publish(FakeImage::new("basecamp/kamal-proxy:v0.9.9", None, "newer"), None);
    world.settle(&proxy_wanted(0)).await;
    let body = world.engine.body_of("kamal-proxy").unwrap();
    assert_eq!(body["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
    assert_eq!(body["HostConfig"]["PortBindings"].as_object().unwrap().len(), 1);
    assert_eq!(body["Image"], "basecamp/kamal-proxy:v0.9.9");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_too_old_is_refused() {
    let world = World::new();
    let directory = world.home.join(".kamal/proxy");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("image_version"), "v0.8.4").unwrap();
    world.engine.publish(FakeImage::new("basecamp/kamal-proxy:v0.8.4", None, "older"), None);
    let error = world.converge(&proxy_wanted(0), |_| {}).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("v0.8.4 is too old"), "{text}");
}
