//! Properties of every plan, from any state of a host.

use proptest::prelude::*;

use super::world::{REPOSITORY, Role, World, paused, versions};
use crate::engine::{ContainerBody, ContainerState, Engine as _, NewContainer};
use crate::plan::{Plan, plan};

/// A container that is there before.
#[derive(Clone, Debug)]
struct Before {
    version: &'static str,
    state: ContainerState,
    made: Made,
}

/// How it came to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Made {
    /// By an earlier generation of dhow.
    Dhow,
    /// By Kamal.
    Kamal,
    /// Renamed out of the way.
    Replaced,
    /// Has the name and not the labels.
    Squatter,
}

#[derive(Clone, Debug)]
struct Host {
    before: Vec<Before>,
    /// Which of them is routed to, if any.
    routed: Option<usize>,
    latest: Option<&'static str>,
    proxied: bool,
    wanted: &'static str,
    boot: u64,
}

fn states() -> impl Strategy<Value = ContainerState> {
    prop::sample::select(vec![
        ContainerState::Created,
        ContainerState::Running,
        ContainerState::Running,
        ContainerState::Paused,
        ContainerState::Exited,
        ContainerState::Restarting,
        ContainerState::Dead,
    ])
}

fn hosts() -> impl Strategy<Value = Host> {
    let made = prop::sample::select(vec![Made::Dhow, Made::Kamal, Made::Replaced, Made::Squatter]);
    let before = (versions(), states(), made).prop_map(|(version, state, made)| Before {
        version,
        state,
        made,
    });
    (
        prop::collection::vec(before, 0..4),
        prop::option::of(0_usize..4),
        prop::option::of(versions()),
        any::<bool>(),
        versions(),
        0_u64..2,
    )
        .prop_map(|(before, routed, latest, proxied, wanted, boot)| Host {
            before,
            routed,
            latest,
            proxied,
            wanted,
            boot,
        })
}

fn role(version: &str, proxied: bool) -> Role {
    let mut role = Role::web(version);
    if !proxied {
        role.template.proxy = None;
    }
    role
}

/// Builds the host.
async fn build(host: &Host) -> World {
    let world = World::ready().await;
    let mut ids = Vec::new();
    for (i, before) in host.before.iter().enumerate() {
        let name = match before.made {
            Made::Replaced => format!("shop-web-{}_replaced_{i:016x}", before.version),
            Made::Dhow | Made::Kamal | Made::Squatter => format!("shop-web-{}", before.version),
        };
        if world.engine.all().iter().any(|c| c.name == name) {
            continue;
        }
        let mut labels = serde_json::json!({});
        if before.made != Made::Squatter {
            labels = serde_json::json!({"service": "shop", "role": "web", "destination": ""});
        }
        if before.made == Made::Dhow {
            labels["dhow.intent"] = serde_json::json!(format!("{i:064x}"));
        }
        let body = ContainerBody::new(serde_json::json!({
            "Image": format!("{REPOSITORY}:{}", before.version), "Labels": labels,
            "HostConfig": {"NetworkMode": "kamal", "RestartPolicy": {"Name": "unless-stopped"}},
        }));
        let id = world.engine.create(NewContainer { name, platform: None, body }).await.unwrap();
        if before.state.is_up() {
            world.engine.start(&id).await.unwrap();
        }
        world.engine.force_state(&id, before.state);
        ids.push(id);
    }
    if let Some(id) = host.routed.and_then(|i| ids.get(i)) {
        world.engine.force_route("shop-web", &format!("{}:80", &id[..12]));
    }
    if let Some(version) = host.latest {
        let tag = dhow_proto::model::ImageRef {
            repository: REPOSITORY.to_owned(),
            tag: "latest".to_owned(),
        };
        world.engine.tag(&format!("{REPOSITORY}:{version}"), &tag).await.unwrap();
    }
    world
}

/// True where something of the role serves.
fn serves(world: &World, proxied: bool) -> bool {
    if proxied {
        return world.engine.answers("shop-web");
    }
    let role = ["service=shop", "role=web", "destination="].map(str::to_owned);
    world.engine.runs_any(&role)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_that_ran_leaves_nothing_to_do_and_never_nothing_that_serves(host in hosts()) {
        paused(|| async {
            let world = build(&host).await;
            let wanted = role(host.wanted, host.proxied).boot(host.boot).wanted();
            let mut served = serves(&world, host.proxied);
            // The first plan settles: a second round has nothing to do.
            let Plan::Steps(steps) = world.plan(&wanted).await else { panic!("{host:?}") };
            for step in &steps {
                world.run(&wanted, step).await.unwrap_or_else(|f| panic!("{step}: {}", f.reason));
                let now = serves(&world, host.proxied);
                assert!(now || !served, "nothing serves after: {step}");
                served |= now;
            }
            assert!(served);
            let again = world.plan(&wanted).await;
            assert!(again.is_empty(), "still to do:\n{again}\nafter:\n{}", Plan::Steps(steps));
        });
    }

    #[test]
    fn a_crash_after_any_step_continues(host in hosts(), crash in 0_usize..12) {
        paused(|| async {
            let world = build(&host).await;
            let wanted = role(host.wanted, host.proxied).boot(host.boot).wanted();
            let Plan::Steps(steps) = world.plan(&wanted).await else { panic!("{host:?}") };
            for step in steps.iter().take(crash) {
                world.run(&wanted, step).await.unwrap();
            }
            let mut served = serves(&world, host.proxied);
            world.converge(&wanted, |step| {
                let now = serves(&world, host.proxied);
                assert!(now || !served, "nothing serves after: {step}");
                served |= now;
            }).await.unwrap();
        });
    }

    #[test]
    fn the_same_state_gives_the_same_plan(host in hosts()) {
        paused(|| async {
            let world = build(&host).await;
            let wanted = role(host.wanted, host.proxied).wanted();
            let observed = world.observe(&wanted).await;
            assert_eq!(plan(&wanted, &observed), plan(&wanted, &observed));
        });
    }

    #[test]
    fn a_failed_generation_never_starts_again(host in hosts()) {
        paused(|| async {
            let world = build(&host).await;
            let failed = role(host.wanted, host.proxied).boot(host.boot).wanted();
            // It got as far as running beside whatever serves.
            let Plan::Steps(steps) = world.plan(&failed).await else { panic!("{host:?}") };
            let routing = steps.iter().position(|s| {
                s.is_routing() || matches!(s, crate::plan::Step::AwaitReady { .. })
            });
            for step in steps.iter().take(routing.unwrap_or(0)) {
                world.run(&failed, step).await.unwrap();
            }
            let mut served = serves(&world, host.proxied);
            let mut settled = role("v2", host.proxied).boot(7);
            settled.number = 1;
            let settled = settled.wanted().settled();
            let digest = crate::plan::intent_label(&failed);
            let abandoned = failed.abandoned(Some(&settled));
            for wanted in [&abandoned, &settled, &abandoned, &settled] {
                world.converge(wanted, |step| {
                    if let crate::plan::Step::Start { container } = step {
                        let all = world.engine.all();
                        let started = all.iter().find(|c| c.name == container.name).unwrap();
                        assert_ne!(started.label("dhow.intent"), digest, "started: {step}");
                    }
                    let now = serves(&world, host.proxied);
                    assert!(now || !served, "nothing serves after: {step}");
                    served |= now;
                }).await.unwrap();
            }
            let all = world.engine.all();
            let left = all.iter().find(|c| c.label("dhow.intent") == digest && c.state.is_up());
            assert!(left.is_none(), "{left:?}");
        });
    }
}
