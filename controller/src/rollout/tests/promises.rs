//! What a host has to catch up with hangs together: what cannot come about any more is given up as a whole, and what was in
//! the making when the next rollout failed is said again.

use std::sync::Arc;

use dhow_proto::breakpoint::{Asked, Breakpoints, Wait};

use super::State;
use super::fleet::{Behaviour, Fleet, IMAGE};
use super::world::World;
use crate::rollout::Rollouts;
use crate::rollout::sample::spec;

const STOP: i32 = 1;
const ROLL_BACK: i32 = 2;

/// Roles and their hosts.
const CONFIG: [(&str, &[&str]); 3] =
    [("web", &["h1", "h2"]), ("job", &["h2", "h3"]), ("cron", &["h2"])];

/// Three roles on h2, one waiting for another. v1 is everywhere; v3 was deployed while h2 was away, and h2 does this with it.
struct Missed {
    world: World,
    rollouts: Rollouts,
}

impl Missed {
    async fn v3(role: &str, behaviour: Behaviour) -> Self {
        let world = World::new(&["h1", "h2", "h3"]).await;
        let rollouts = world.rollouts("a");
        let missed = Self { world, rollouts };
        assert_eq!(missed.deploy("v1", &[], STOP).await, State::Succeeded);
        missed.behave("h2", role, "v3", behaviour);
        missed.world.fleet.leave("h2");
        assert_eq!(missed.deploy("v3", &[], STOP).await, State::Succeeded);
        missed.come_back().await;
        assert!(
            missed.served("h2").starts_with("h2: cron v1, job v1, "),
            "{}",
            missed.served("h2")
        );
        missed
    }

    async fn come_back(&self) {
        self.world.fleet.arrive("h2");
        self.world.fleet.settle().await;
    }

    fn behave(&self, host: &str, role: &str, version: &str, behaviour: Behaviour) {
        self.world.fleet.behave(host, role, version, behaviour);
    }

    async fn deploy(&self, version: &str, roles: &[&str], policy: i32) -> State {
        self.deploy_config(version, &CONFIG, roles, policy).await
    }

    async fn deploy_config(
        &self,
        version: &str,
        config: &[(&str, &[&str])],
        roles: &[&str],
        policy: i32,
    ) -> State {
        let mut spec = spec(version, config);
        spec.registry.login = false;
        let mut start = self.world.start_spec(&spec, &[]).await;
        let options = start.options.as_mut().unwrap();
        options.skip_offline = true;
        if !roles.is_empty() {
            options.roles = roles.iter().map(|r| (*r).to_owned()).collect();
        }
        options.failure_policy = policy;
        let ended = self.world.run(&self.rollouts, start);
        let limit = std::time::Duration::from_secs(3600);
        let (state, _) = tokio::time::timeout(limit, ended).await.expect("a rollout ends");
        self.world.fleet.settle().await;
        state
    }

    fn served(&self, host: &str) -> String {
        let served = self.world.served();
        served.lines().find(|line| line.starts_with(host)).unwrap_or_default().to_owned()
    }

    /// Everything on h2 is as it is told to be, so it waits for nothing, and it was never told to serve v3.
    async fn is_at_rest(&self, serves: &str) {
        assert_eq!(self.served("h2"), format!("h2: {serves}"));
        for role in ["web", "job", "cron"] {
            assert_eq!(self.world.unsettled("h2", role).await, None, "{role}");
        }
        let booted = self.world.fleet.booted("h2");
        assert!(!booted.iter().any(|b| b.ends_with("v3")), "{booted:?}");
        assert_eq!(self.world.leftovers().await, Vec::<String>::new());
        let left = self.world.dump().await;
        let left = left.iter().map(|(key, _)| key).filter(|k| k.starts_with("promised/h2/role"));
        let left: Vec<_> = left.filter(|key| !key.ends_with("web")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_failed_is_given_up_with_all_roles_that_wait_for_it() {
    for away in [false, true] {
        let missed = Missed::v3(IMAGE, Behaviour::Fail).await;
        if away {
            missed.world.fleet.leave("h2");
        }
        // It cannot be pulled then: two of the three parts that wait for it are not this rollout's.
        assert_eq!(missed.deploy("v4", &["web"], STOP).await, State::Succeeded);
        missed.come_back().await;
        missed.is_at_rest("cron v1, job v1, web v4").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_that_failed_is_given_up_with_those_that_wait_for_it_one_after_another() {
    for (failing, serves) in
        [("web", "cron v1, job v1, web v1"), ("job", "cron v1, job v1, web v4")]
    {
        let missed = Missed::v3("web", Behaviour::Fail).await;
        for host in ["h1", "h2"] {
            missed.behave(host, failing, "v4", Behaviour::Fail);
        }
        assert_eq!(missed.deploy("v4", &[], STOP).await, State::Failed);
        missed.is_at_rest(serves).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_role_s_rollout_has_overwritten_is_given_up_where_that_succeeds() {
    let missed = Missed::v3(IMAGE, Behaviour::Hang).await;
    assert_eq!(missed.deploy("v4", &["web"], STOP).await, State::Succeeded);
    missed.is_at_rest("cron v1, job v1, web v4").await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_is_said_again_and_fails_is_given_up_like_the_first() {
    let missed = Missed::v3(IMAGE, Behaviour::Hang).await;
    for version in ["v4", "v5"] {
        for host in ["h1", "h2"] {
            missed.behave(host, "web", version, Behaviour::Fail);
        }
        assert_eq!(missed.deploy(version, &[], STOP).await, State::Failed);
        missed.behave("h2", IMAGE, "v3", Behaviour::Fail);
        missed.come_back().await;
    }
    missed.is_at_rest("cron v1, job v1, web v1").await;
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_rolled_back_pull_what_they_missed_before_they_boot_it() {
    let missed = Missed::v3(IMAGE, Behaviour::Hang).await;
    missed.behave("h1", "web", "v4", Behaviour::Fail);
    assert_eq!(missed.deploy("v4", &[], ROLL_BACK).await, State::Failed);
    assert_eq!(missed.served("h2"), "h2: cron v1, job v1, web v4");
    missed.behave("h2", IMAGE, "v3", Behaviour::Succeed);
    missed.come_back().await;
    assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v3");
    // That counts as settled: the next one goes back to it.
    missed.behave("h1", "web", "v5", Behaviour::Fail);
    missed.behave("h2", "web", "v5", Behaviour::Fail);
    assert_eq!(missed.deploy("v5", &[], STOP).await, State::Failed);
    assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v3");
}

/// What h2 does with v3 from such a point of the controller on.
struct Then(Arc<Fleet>, &'static [(&'static str, Behaviour)]);

impl Asked for Then {
    fn ask<'a>(&'a self, point: &'a str) -> Wait<'a> {
        for (_, behaviour) in self.1.iter().filter(|(at, _)| point.contains(at)) {
            self.0.behave("h2", "web", "v3", *behaviour);
        }
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_when_hosts_are_rolled_back_keeps_nobody_waiting() {
    let mut missed = Missed::v3("web", Behaviour::Hang).await;
    let at = &[("before put-back", Behaviour::Fail)];
    let then = Arc::new(Then(Arc::clone(&missed.world.fleet), at));
    missed.rollouts = missed.world.rollouts_at("b", Breakpoints::of(then));
    missed.behave("h3", "job", "v4", Behaviour::Fail);
    let began = tokio::time::Instant::now();
    assert_eq!(missed.deploy("v4", &[], ROLL_BACK).await, State::Failed);
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(missed.served("h2"), "h2: cron v4, job v4, web v4");
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_vain_is_given_up_by_a_rollout_that_did_not_get_that_far() {
    let missed = Missed::v3("web", Behaviour::Fail).await;
    missed.behave("h1", IMAGE, "v4", Behaviour::Fail);
    assert_eq!(missed.deploy("v4", &[], STOP).await, State::Failed);
    assert_eq!(missed.served("h2"), "h2: cron v1, job v1, web v1");
    for role in ["job", "cron"] {
        assert_eq!(missed.world.unsettled("h2", role).await, None, "{role}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_come_about_is_kept_whether_or_not_anybody_heard_of_it() {
    // The controller knows, or has started since and heard nothing of the host, which is away again.
    for unheard in [false, true] {
        let missed = Missed::v3("web", Behaviour::Hang).await;
        missed.behave("h2", "web", "v3", Behaviour::Succeed);
        missed.come_back().await;
        assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v3");
        if unheard {
            missed.world.fleet.leave("h2");
            missed.world.fleet.forget("h2");
        }
        // Succeeds with one role of them.
        assert_eq!(missed.deploy("v4", &["web"], STOP).await, State::Succeeded);
        missed.come_back().await;
        assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v4");
        // Fails before it comes to the others.
        missed.behave("h1", "web", "v5", Behaviour::Fail);
        assert_eq!(missed.deploy("v5", &[], STOP).await, State::Failed);
        assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v5");
        // What an end goes back to is that as well.
        missed.behave("h1", "web", "v6", Behaviour::Fail);
        missed.behave("h2", "job", "v6", Behaviour::Fail);
        missed.behave("h2", "cron", "v6", Behaviour::Fail);
        assert_eq!(missed.deploy("v6", &["job", "cron"], STOP).await, State::Failed);
        assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v5");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_away_is_not_judged_by_what_it_told_before() {
    let missed = Missed::v3("web", Behaviour::Hang).await;
    missed.behave("h2", "web", "v3", Behaviour::Succeed);
    missed.behave("h2", "job", "v3", Behaviour::Vanish);
    missed.come_back().await;
    // That it waits is the last that was heard of job.
    assert_eq!(missed.served("h2"), "h2: cron v1, job v3, web v3");
    assert_eq!(missed.deploy("v4", &["web"], STOP).await, State::Succeeded);
    missed.come_back().await;
    assert_eq!(missed.served("h2"), "h2: cron v1, job v3, web v4");
    missed.behave("h2", "job", "v5", Behaviour::Fail);
    assert_eq!(missed.deploy("v5", &["job"], STOP).await, State::Failed);
    assert_eq!(missed.served("h2"), "h2: cron v1, job v3, web v4");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_unit_that_its_host_decides_about_does_not_wait_for_ever() {
    let missed = Missed::v3("job", Behaviour::Hang).await;
    assert_eq!(missed.served("h2"), "h2: cron v1, job v1, web v3");
    missed.behave("h2", "web", "v4", Behaviour::Silent);
    assert_eq!(missed.deploy("v4", &[], STOP).await, State::Failed);
    missed.behave("h2", "job", "v3", Behaviour::Succeed);
    missed.come_back().await;
    assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v3");
    // Whichever way that decides.
    let missed = Missed::v3("job", Behaviour::Hang).await;
    missed.behave("h2", "web", "v4", Behaviour::Vanish);
    assert_eq!(missed.deploy("v4", &[], STOP).await, State::Failed);
    missed.behave("h2", "job", "v3", Behaviour::Succeed);
    missed.come_back().await;
    assert_eq!(missed.served("h2"), "h2: cron v3, job v3, web v4");
}

#[tokio::test(start_paused = true)]
async fn what_failed_when_it_was_deployed_again_is_not_tried_once_more_for_having_been_missed() {
    let mut missed = Missed::v3("web", Behaviour::Hang).await;
    let at = &[("written boot", Behaviour::Fail), ("before put-back", Behaviour::Succeed)];
    let then = Arc::new(Then(Arc::clone(&missed.world.fleet), at));
    missed.rollouts = missed.world.rollouts_at("b", Breakpoints::of(then));
    assert_eq!(missed.deploy("v3", &[], STOP).await, State::Failed);
    assert_eq!(missed.served("h2"), "h2: cron v1, job v1, web v1");
    for role in ["web", "job", "cron"] {
        assert_eq!(missed.world.unsettled("h2", role).await, None, "{role}");
    }
}

#[tokio::test(start_paused = true)]
async fn roles_that_have_left_the_config_do_not_wait_for_ever_either() {
    for fails in [false, true] {
        let missed = Missed::v3("web", Behaviour::Fail).await;
        let (ends, web) = if fails { (State::Failed, "v1") } else { (State::Succeeded, "v4") };
        if fails {
            missed.behave("h2", "web", "v4", Behaviour::Fail);
        }
        assert_eq!(missed.deploy_config("v4", &CONFIG[..1], &[], STOP).await, ends);
        assert_eq!(missed.served("h2"), format!("h2: cron v1, job v1, web {web}"));
        for role in ["job", "cron"] {
            assert_eq!(missed.world.unsettled("h2", role).await, None, "{role}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_that_was_said_again_and_failed_is_given_up_with_those_that_waited_for_the_first() {
    for ends in [State::Failed, State::Succeeded] {
        let missed = Missed::v3("web", Behaviour::Hang).await;
        for host in ["h1", "h2"] {
            missed.behave(host, "web", "v4", Behaviour::Fail);
        }
        assert_eq!(missed.deploy("v4", &[], STOP).await, State::Failed);
        missed.behave("h2", "web", "v3", Behaviour::Fail);
        missed.come_back().await;
        // It fails before it comes to them, or is about another role.
        if ends == State::Failed {
            missed.behave("h1", IMAGE, "v5", Behaviour::Fail);
        }
        let only = if ends == State::Failed { "" } else { "cron" };
        let roles: Vec<&str> = [only].into_iter().filter(|r| !r.is_empty()).collect();
        assert_eq!(missed.deploy("v5", &roles, STOP).await, ends);
        for role in ["job", "cron"] {
            assert_eq!(missed.world.unsettled("h2", role).await, None, "{role}");
        }
    }
}
