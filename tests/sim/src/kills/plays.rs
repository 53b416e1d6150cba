//! What is rolled out over what. Deaths come in the last operation; how the hosts came to be as they are then is calm.

use std::collections::BTreeMap;
use std::time::Duration;

use dhow_agent::engine::fake::Behaviour;
use dhow_proto::wire::Operation;

use super::fate::{Death, Point};
use crate::number::Numbers;
use crate::scenario::{Action, Fault, Scenario, VERSIONS};
use crate::shuffle::Odds;

/// All run web, one of them job as well.
pub(super) const HOSTS: usize = 2;

const HOOKS: [&str; 4] = ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"];

/// Never gets healthy on the second host.
const BAD: usize = 4;

/// Operations, one after the other.
pub struct Play {
    /// For people.
    pub name: &'static str,
    operations: &'static [(Operation, usize)],
    /// The version fails, and all hosts are put back.
    pub fails: bool,
    /// The agent of the first host is killed in the middle of a switch and is away for so long: what it does next is met.
    cut_off: Option<Duration>,
}

use Operation::{Deploy, Redeploy, Rollback};

/// Every play there is.
pub const PLAYS: [Play; 8] = [
    Play { name: "a first deploy", operations: &[(Deploy, 1)], fails: false, cut_off: None },
    Play {
        name: "a deploy in groups",
        operations: &[(Deploy, 1), (Deploy, 2)],
        fails: false,
        cut_off: None,
    },
    Play {
        name: "the same version again",
        operations: &[(Deploy, 1), (Redeploy, 1)],
        fails: false,
        cut_off: None,
    },
    Play {
        name: "a rollback",
        operations: &[(Deploy, 1), (Deploy, 3), (Rollback, 1)],
        fails: false,
        cut_off: None,
    },
    Play {
        name: "a deploy that prunes",
        operations: &[(Deploy, 1), (Deploy, 3), (Deploy, 5)],
        fails: false,
        cut_off: None,
    },
    Play {
        name: "a version that fails and is taken back",
        operations: &[(Deploy, 1), (Deploy, BAD)],
        fails: true,
        cut_off: None,
    },
    Play {
        name: "a switch that was cut off, and is still at work",
        operations: &[(Deploy, 1), (Deploy, 3)],
        fails: false,
        cut_off: Some(Duration::from_millis(500)),
    },
    Play {
        name: "a switch that was cut off, and ended unseen",
        operations: &[(Deploy, 1), (Deploy, 3)],
        fails: false,
        cut_off: Some(Duration::from_secs(2)),
    },
];

impl Play {
    pub(super) fn scenario(&self, seed: u64) -> Scenario {
        let mut behaviours = BTreeMap::new();
        // Slow to answer, so that a switch has a middle.
        let slow = Behaviour::HealthyAfter(Duration::from_secs(2));
        for host in 0..HOSTS {
            behaviours.extend((1..=VERSIONS).map(|version| ((host, version), slow.clone())));
        }
        behaviours.insert((1, BAD), Behaviour::Unhealthy);
        let actions = self.operations.iter().map(|(operation, version)| Action {
            after: Duration::from_secs(2),
            operation: *operation,
            version: *version,
            hooks: HOOKS.to_vec(),
            failing: None,
            leaves: None,
            skip_offline: false,
            rolls_back: self.fails,
            looks: true,
        });
        Scenario {
            seed,
            hosts: HOSTS,
            jobs: vec![1],
            behaviours,
            people: vec![actions.collect()],
            faults: Vec::new(),
            furnished: true,
            wait_for_hosts: Duration::from_secs(30),
            tick: Duration::from_millis(50),
            latency: Duration::from_millis(10),
            odds: Odds::default(),
            ahead: vec![0; HOSTS + 1],
            forgets: None,
            numbers: Numbers::new(seed),
        }
    }

    /// Whom the play itself kills, and where.
    pub(super) fn death(&self) -> Option<(Point, Death)> {
        self.cut_off.map(|lasts| {
            let point = ("agent before route of role shop/web on h0".to_owned(), 1);
            let fault = Fault::Agent { host: 0, power: false, lasts };
            // Well before the new version answers.
            (point, Death { fault, late: Duration::from_millis(500) })
        })
    }
}
