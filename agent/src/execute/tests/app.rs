//! The app unit.

use dhow_proto::model::intent::{Absent, KamalLock, Prepare, PreparedRole, StopStale};
use dhow_proto::model::{Unit, kamal};
use expect_test::expect;
use serde_json::json;

use super::world::{
    REPOSITORY, Role, World, absent, app, app_intent, app_wanted, latest, prune, seconds,
};
use crate::engine::fake::FakeImage;
use crate::engine::{ContainerBody, Engine as _, EngineError, NewContainer};
use crate::plan::{Step, staged_digest};

fn lock() -> KamalLock {
    KamalLock {
        holder: "Ann".to_owned(),
        at_unix_s: 1_700_000_000,
        version: "v1".to_owned(),
        message: kamal::LOCK_MESSAGE.to_owned(),
        wait: None,
    }
}

#[tokio::test(start_paused = true)]
async fn staging_pulls_once_per_number_and_reports_the_digest() {
    let world = World::new();
    let wanted = app_wanted(app_intent("v1"));
    expect![[r#"
        create the app's directory
        audit Pulled image with version v1
        pull 10.0.0.1:5000/shop:v1
        verify 10.0.0.1:5000/shop:v1
        remember pull 1"#]]
    .assert_eq(&world.settle(&wanted).await);
    let digest = staged_digest(&wanted, &world.observe(&wanted).await).unwrap();
    let view = FakeImage::new(&format!("{REPOSITORY}:v1"), Some("shop"), "v1").view;
    assert_eq!(Some(digest.as_str()), view.digest_in(REPOSITORY));
    let mut intent = app_intent("v1");
    if let Some(staged) = &mut intent.staged {
        staged.pull = 2;
        staged.digest = Some(digest);
    }
    assert!(world.settle(&app_wanted(intent)).await.contains("remember pull 2"));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_never_pulls() {
    let world = World::new();
    let mut intent = app_intent("v1");
    if let Some(staged) = &mut intent.staged {
        staged.local_only = true;
    }
    let plan = world.plan(&app_wanted(intent)).await;
    assert!(plan.to_string().contains("a rollback does not pull"), "{plan}");
}

#[tokio::test(start_paused = true)]
async fn what_settled_before_is_not_missed_once_somebody_took_its_image_away() {
    let world = World::new();
    let mut intent = app_intent("v1");
    intent.latest = latest("v1", false);
    world.settle(&app_wanted(intent.clone())).await;
    world.engine.vanish_image(&format!("{REPOSITORY}:v1"));
    // The first stages of the next rollout still say `latest: v1`, as that is what settled.
    let mut next = app_intent("v2");
    next.latest = intent.latest;
    if let Some(staged) = &mut next.staged {
        staged.pull = 2;
    }
    expect![[r#"
        audit Pulled image with version v2
        pull 10.0.0.1:5000/shop:v2
        verify 10.0.0.1:5000/shop:v2
        remember pull 2"#]]
    .assert_eq(&world.settle(&app_wanted(next)).await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_fails_as_such() {
    let world = World::new();
    let secret = FakeImage::new(&format!("{REPOSITORY}:v8"), Some("shop"), "v8");
    world.engine.publish(secret, Some(("ann", "right")));
    let failure =
        world.converge(&app_wanted(app_intent("v8")), |_| {}).await.unwrap_err().failure();
    assert_eq!(failure.kind, dhow_proto::wire::FailureKind::RegistryDenied);
}

#[tokio::test(start_paused = true)]
async fn kamals_lock_is_taken_and_freed() {
    let world = World::new();
    let path = world.home.join(".kamal/lock-shop");
    let mut intent = app_intent("v1");
    intent.staged = None;
    intent.lock = Some(lock());
    world.settle(&app_wanted(intent.clone())).await;
    assert!(path.join("details").is_file());
    // Our own lock is no other deployer.
    let observed = world.observe(&app_wanted(intent.clone())).await;
    assert_eq!(crate::plan::hold(observed.foreign()), None);
    intent.lock = None;
    expect!["release Kamal's lock"].assert_eq(&world.settle(&app_wanted(intent.clone())).await);
    assert!(!path.exists());
    std::fs::create_dir(&path).unwrap();
    assert!(world.plan(&app_wanted(intent.clone())).await.is_empty());
    intent.lock = Some(lock());
    let plan = world.plan(&app_wanted(intent)).await;
    assert!(plan.to_string().starts_with("held: another deployer holds Kamal's lock"), "{plan}");
}

#[tokio::test(start_paused = true)]
async fn the_latest_tag_waits_for_the_roles_where_it_should() {
    let world = World::ready().await;
    world.settle(&Role::web("v1").wanted()).await;
    let mut intent = app_intent("v2");
    intent.staged = None;
    intent.latest = latest("v2", true);
    assert!(world.plan(&app_wanted(intent.clone())).await.is_empty());
    world.settle(&Role::web("v2").wanted()).await;
    expect![[r#"
        audit Tagging 10.0.0.1:5000/shop:v2 as the latest image
        tag 10.0.0.1:5000/shop:v2 as 10.0.0.1:5000/shop:latest"#]]
    .assert_eq(&world.settle(&app_wanted(intent)).await);
}

#[tokio::test(start_paused = true)]
async fn pruning_keeps_the_newest_and_every_latest() {
    let world = World::ready().await;
    for version in ["v1", "v2", "v3"] {
        world.deploy(&Role::web(version)).await;
    }
    let staging = dhow_proto::model::ImageRef {
        repository: REPOSITORY.to_owned(),
        tag: "latest-staging".to_owned(),
    };
    world.engine.tag(&format!("{REPOSITORY}:v1"), &staging).await.unwrap();
    world.engine.add_image(FakeImage::new(&format!("{REPOSITORY}:v0"), Some("shop"), "v0"));
    let mut intent = app_intent("v3");
    intent.staged = None;
    intent.prune = prune(1, 1);
    expect![[r#"
        audit Pruned containers
        remove shop-web-v1
        audit Pruned images
        prune dangling images
        remove image 10.0.0.1:5000/shop:v1
        remove image 10.0.0.1:5000/shop:v0
        remember prune 1"#]]
    .assert_eq(&sorted_images(&world.settle(&app_wanted(intent)).await));
    expect![[r#"
        shop-web-v2 exited
        shop-web-v3 running"#]]
    .assert_eq(&world.containers());
    assert!(world.engine.image(&staging.to_string()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_stopped_with_the_engine_is_not_pruned() {
    let world = World::ready().await;
    for version in ["v1", "v2", "v1"] {
        world.deploy(&Role::web(version)).await;
    }
    world.engine.force_state("shop-web-v1", crate::engine::ContainerState::Exited);
    let mut intent = app_intent("v1");
    intent.staged = None;
    intent.prune = prune(1, 1);
    let steps = world.settle(&app_wanted(intent)).await;
    assert!(!steps.contains("remove shop-web"), "v1 is current, v2 is the one to keep: {steps}");
}

/// Images come in the order of their ids, which mean nothing.
fn sorted_images(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let is_image = |l: &&str| l.starts_with("remove image");
    let mut images: Vec<&str> = lines.iter().copied().filter(|l| is_image(l)).collect();
    images.sort_unstable_by(|a, b| b.cmp(a));
    let at = lines.iter().position(is_image).unwrap_or(lines.len());
    lines.retain(|l| !is_image(l));
    lines.splice(at..at, images);
    lines.join("\n")
}

/// A container as Kamal boots it.
async fn kamal_container(world: &World, version: &str) {
    let body = json!({
        "Image": format!("{REPOSITORY}:{version}"),
        "Labels": {"service": "shop", "role": "web", "destination": ""},
        "HostConfig": {"NetworkMode": "kamal", "RestartPolicy": {"Name": "unless-stopped"}},
    });
    let name = format!("shop-web-{version}");
    let body = ContainerBody::new(body);
    let new = NewContainer { name: name.clone(), platform: None, body };
    world.engine.create(new).await.unwrap();
    world.engine.start(&name).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stale_containers_stop_and_what_is_routed_to_does_not() {
    let world = World::ready().await;
    kamal_container(&world, "v1").await;
    kamal_container(&world, "v2").await;
    // v2 is newer, v1 is live.
    let live = world.engine.all().into_iter().find(|c| c.name == "shop-web-v1").unwrap();
    world.engine.force_route("shop-web", &format!("{}:80", live.short_id()));
    let mut intent = app_intent("v3");
    intent.staged = None;
    let roles = vec!["web".parse().unwrap()];
    intent.stop_stale = Some(StopStale { number: 1, roles, drain_timeout: seconds(20) });
    let wanted = app_wanted(intent);
    world.engine.fail_next("exec", EngineError::Unreachable("gone".to_owned()));
    let plan = world.plan(&wanted).await.to_string();
    assert_eq!(plan, "waiting: kamal-proxy does not answer yet");
    expect![[r#"
        create the app's directory
        stop shop-web-v2
        remember stale containers 1"#]]
    .assert_eq(&world.settle(&wanted).await);
}

#[tokio::test(start_paused = true)]
async fn kamal_proxy_is_asked_only_where_a_plan_depends_on_it() {
    let world = World::ready().await;
    world.deploy(&Role::web("v1")).await;
    world.deploy(&Role::web("v2")).await;
    let asked = |world: &World| world.engine.calls().iter().filter(|c| *c == "exec").count();
    let mut intent = app_intent("v2");
    intent.lock = Some(lock());
    intent.latest = latest("v2", false);
    intent.prune = prune(1, 5);
    let roles = vec!["web".parse().unwrap()];
    intent.stop_stale = Some(StopStale { number: 1, roles, drain_timeout: seconds(20) });
    let before = asked(&world);
    let steps = world.settle(&app_wanted(intent.clone())).await;
    assert!(steps.contains("remember stale containers 1") && steps.contains("Pruned"), "{steps}");
    assert_eq!(asked(&world), before, "nothing of it depends on the routes");

    // Whether one that is not dhow's is live only the table tells.
    world.engine.add_image(FakeImage::new(&format!("{REPOSITORY}:v3"), Some("shop"), "v3"));
    kamal_container(&world, "v3").await;
    if let Some(stale) = &mut intent.stop_stale {
        stale.number = 2;
    }
    let plan = world.plan(&app_wanted(intent)).await.to_string();
    assert!(plan.contains("stop shop-web-v3"), "{plan}");
    assert!(asked(&world) > before);
}

#[tokio::test(start_paused = true)]
async fn removal_deletes_the_apps_files() {
    let world = World::new();
    world.settle(&app_wanted(app_intent("v1"))).await;
    expect!["remove the app's files"]
        .assert_eq(&world.settle(&absent(Unit::App(app()), Absent::Remove)).await);
    assert!(!world.home.join(".kamal/apps/shop").exists());
}

/// A tar with one file.
fn tar(path: &str, content: &str) -> bytes::Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    builder.into_inner().unwrap().into()
}

/// As when a rollout ends and takes a version back: nothing makes the app's unit wait for the role's, or the other way
/// round.
#[tokio::test]
async fn the_same_assets_may_be_laid_out_by_two_units_at_once() {
    let world = World::ready().await;
    let mut builder = tar::Builder::new(Vec::new());
    // Many: the first still copies them when the second begins.
    for number in 0..3000 {
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("./{number}.js"), b"v1".as_slice()).unwrap();
    }
    let mut image = super::world::image("v1");
    image.files.insert("/assets".to_owned(), builder.into_inner().unwrap().into());
    world.engine.vanish_image(&format!("{REPOSITORY}:v1"));
    world.engine.add_image(image);
    let step = Step::BridgeAssets {
        role: "web".parse().unwrap(),
        version: "v1".parse().unwrap(),
        old: None,
        image: dhow_proto::model::ImageRef {
            repository: REPOSITORY.to_owned(),
            tag: "v1".to_owned(),
        },
        path: "/assets".to_owned(),
    };
    let (app, role) = (app_wanted(app_intent("v1")), Role::web("v1").wanted());
    let volume = world.home.join(".kamal/apps/shop/assets/volumes/web-v1");
    let later = async {
        while volume.read_dir().map_or(true, |mut files| files.next().is_none()) {
            tokio::task::yield_now().await;
        }
        world.run(&role, &step).await
    };
    let (first, second) = tokio::join!(world.run(&app, &step), later);
    first.unwrap();
    second.unwrap();
    assert_eq!(std::fs::read_dir(volume).unwrap().count(), 3000);
}

#[tokio::test(start_paused = true)]
async fn assets_of_both_versions_are_served_and_the_old_ones_go_after_the_switch() {
    let world = World::ready().await;
    for version in ["v1", "v2"] {
        let mut image = super::world::image(version);
        image.files.insert("/assets".to_owned(), tar(&format!("./{version}.js"), version));
        world.engine.vanish_image(&format!("{REPOSITORY}:{version}"));
        world.engine.add_image(image);
    }
    let web = |version: &str| {
        let mut role = Role::web(version);
        role.template.asset_path = Some("/assets".to_owned());
        role
    };
    let prepared = |version: &str| {
        let mut intent = app_intent(version);
        intent.staged = None;
        intent.prepare = Some(Prepare {
            version: version.parse().unwrap(),
            roles: vec![PreparedRole {
                role: "web".parse().unwrap(),
                asset_path: Some("/assets".to_owned()),
                tls: None,
            }],
            error_pages: Vec::new(),
        });
        app_wanted(intent)
    };
    expect![[r#"
        create the app's directory
        extract assets of web v1
        remember prepared files"#]]
    .assert_eq(&world.settle(&prepared("v1")).await);
    world.settle(&web("v1").wanted()).await;
    expect![[r#"
        bridge assets of web from v1 to v2
        remember prepared files"#]]
    .assert_eq(&world.settle(&prepared("v2")).await);
    let volumes = world.home.join(".kamal/apps/shop/assets/volumes");
    for volume in ["web-v1", "web-v2"] {
        for file in ["v1.js", "v2.js"] {
            assert!(volumes.join(volume).join(file).is_file(), "{volume}/{file}");
        }
    }
    // Drift of the old one does not take away what is prepared for the new one.
    assert!(world.plan(&web("v1").wanted().settled()).await.is_empty());
    let steps = world.settle(&web("v2").wanted()).await;
    assert!(steps.ends_with("stop shop-web-v1\nclean assets web-v1"), "{steps}");
    assert!(!volumes.join("web-v1").exists());
}
