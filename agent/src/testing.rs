//! Intents for the tests of this crate.

use std::time::Duration;

use dhow_proto::model::intent::{Desired, HostPart, Intent, RoleIntent, Run, Traffic, Variant};
use dhow_proto::model::{App, BlobRef, Generation, Unit, Version};

pub(crate) fn app() -> App {
    App { service: "shop".parse().unwrap(), destination: None }
}

pub(crate) fn role(name: &str) -> Unit {
    Unit::Role(app(), name.parse().unwrap())
}

pub(crate) fn generation(number: u64) -> Generation {
    Generation { epoch: 0, number }
}

/// An intent that is changed until it is as a test needs it.
#[derive(Clone)]
pub(crate) struct Draft(pub(crate) Intent);

/// A running, live role of version `v1`.
pub(crate) fn role_intent(name: &str, number: u64) -> Draft {
    Draft(Intent {
        unit: role(name),
        generation: generation(number),
        features: vec![],
        rollout_id: None,
        after: vec![],
        host: HostPart {
            config_host: "10.0.0.1".parse().unwrap(),
            ssh_user: None,
            run_directory: None,
        },
        desired: Desired::Role(RoleIntent {
            run: Run::Running,
            traffic: Traffic::Live,
            boot: 1,
            variants: vec![Variant {
                template: BlobRef::of(b"{}"),
                count: 1,
                share: 100,
                version: Version::try_from("v1").unwrap(),
                digest: None,
            }],
            env: None,
            primary: true,
        }),
    })
}

impl Draft {
    fn role(&mut self) -> &mut RoleIntent {
        match &mut self.0.desired {
            Desired::Role(role) => role,
            other => panic!("no role: {other:?}"),
        }
    }

    pub(crate) fn boot(mut self, number: u64) -> Self {
        self.role().boot = number;
        self
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        self.role().variants[0].version = version.parse().unwrap();
        self
    }

    pub(crate) fn template(mut self, bytes: &[u8]) -> Self {
        self.role().variants[0].template = BlobRef::of(bytes);
        self
    }

    pub(crate) fn rollout(mut self, id: &str) -> Self {
        self.0.rollout_id = Some(id.to_owned());
        self
    }

    pub(crate) fn settle(mut self, attempted: u64, otherwise: Option<u64>) -> Self {
        self.0.desired = Desired::Settle {
            attempted: generation(attempted),
            otherwise: otherwise.map(generation),
        };
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }
}

/// Long enough for anything that is going to happen, on a paused clock or a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
