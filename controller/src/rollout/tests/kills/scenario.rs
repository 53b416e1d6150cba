//! What is rolled out over what, on which hosts, and what goes wrong.

use dhow_proto::model::spec::{BootLimit, Spec};
use dhow_proto::wire;

use super::super::fleet::Behaviour;
use super::super::world::World;

/// A rollout, and how the fleet came to be as it is before.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Versions that were deployed before; nobody died.
    pub(super) before: &'static [&'static str],
    pub(super) version: &'static str,
    pub(super) operation: wire::Operation,
    pub(super) spec: fn(&mut Spec),
    pub(super) options: fn(&mut wire::RolloutOptions),
    /// A host, a role, and what it does with the version.
    pub(super) behaves: Option<(&'static str, &'static str, Behaviour)>,
    /// A host that is away until the rollout is over.
    pub(super) away: Option<&'static str>,
    /// The hook that fails, and how.
    pub(super) fails: Option<(&'static str, i32)>,
}

const HOOKS: [&str; 4] = ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"];

const DEPLOY: Scenario = Scenario {
    name: "a deploy",
    before: &["v1"],
    version: "v2",
    operation: wire::Operation::Deploy,
    spec: |_| {},
    options: |_| {},
    behaves: None,
    away: None,
    fails: None,
};

pub(super) const SCENARIOS: [Scenario; 11] = [
    Scenario { name: "a first deploy", before: &[], ..DEPLOY },
    DEPLOY,
    Scenario {
        name: "a deploy in groups with files",
        spec: |spec| {
            spec.boot.limit = Some(BootLimit::Count(2));
            spec.boot.wait_s = 20;
            spec.roles[0].templates[0].template.asset_path = Some("/assets".to_owned());
        },
        ..DEPLOY
    },
    Scenario {
        name: "a deploy of one role alone",
        // The first host with the role is not the primary one, which holds Kamal's lock.
        options: |options| options.roles = vec!["job".to_owned()],
        ..DEPLOY
    },
    Scenario { name: "a setup", before: &[], operation: wire::Operation::Setup, ..DEPLOY },
    Scenario {
        name: "a rollback",
        before: &["v1", "v2"],
        version: "v1",
        operation: wire::Operation::Rollback,
        ..DEPLOY
    },
    Scenario {
        name: "a version that fails on a host",
        behaves: Some(("h2", "web", Behaviour::Fail)),
        ..DEPLOY
    },
    Scenario {
        name: "a version that fails and takes the others back",
        behaves: Some(("h2", "web", Behaviour::Fail)),
        options: |options| options.failure_policy = wire::FailurePolicy::Rollback.into(),
        ..DEPLOY
    },
    Scenario {
        name: "a host that falls silent",
        behaves: Some(("h2", "web", Behaviour::Vanish)),
        ..DEPLOY
    },
    Scenario {
        name: "a host that is left out",
        away: Some("h3"),
        options: |options| options.skip_offline = true,
        ..DEPLOY
    },
    Scenario { name: "a hook that fails", fails: Some(("pre-app-boot", 3)), ..DEPLOY },
];

impl Scenario {
    /// A fleet as it is before.
    pub(super) async fn world(&self) -> World {
        let world = World::new(&["h1", "h2", "h3"]).await;
        let rollouts = world.rollouts("a");
        for version in self.before {
            let (state, reason) = world.deploy(&rollouts, version, &[]).await;
            assert_eq!(state, wire::RolloutState::Succeeded, "{reason}");
        }
        world.kill(rollouts).await;
        if let Some((host, role, behaviour)) = self.behaves {
            world.fleet.behave(host, role, self.version, behaviour);
        }
        if let Some(host) = self.away {
            world.fleet.leave(host);
        }
        world
    }

    /// What a person asks for.
    pub(super) async fn start(&self, world: &World) -> wire::StartRollout {
        let mut spec = world.spec(self.version);
        (self.spec)(&mut spec);
        let mut start = world.start_spec(&spec, &HOOKS).await;
        start.operation = self.operation.into();
        (self.options)(start.options.as_mut().unwrap());
        start
    }
}
