use std::time::SystemTime;

use dhow_proto::model::status::Held;

use super::*;
use crate::rollout::sample::{app, host, role};

const G: Generation = Generation { epoch: 1, number: 5 };

fn seen(name: &str, unit: &str, phase: Option<Phase>) -> Seen {
    Seen {
        host: host(name),
        unit: Unit::Role(app(), role(unit)),
        generation: G,
        features: vec!["role".to_owned()],
        after: Vec::new(),
        presence: Presence::Here { features: vec!["role".to_owned()] },
        phase: phase.map(|p| (G, p)),
        refusal: None,
    }
}

fn failure() -> Phase {
    let at = SystemTime::UNIX_EPOCH;
    Phase::Failed(Failure::new("start", FailureKind::Exited, "exited with 3", at))
}

#[test]
fn all_advances_only_when_everything_settled() {
    let one = seen("h1", "web", Some(Phase::Settled));
    let other = seen("h2", "web", Some(Phase::Converging(None)));
    assert_eq!(verdict(Gate::All, std::slice::from_ref(&one)), Verdict::Advance);
    let Verdict::Wait { on, look_again: None, .. } =
        verdict(Gate::All, &[one.clone(), other.clone()])
    else {
        panic!("must wait")
    };
    assert_eq!(on[0].to_string(), "h2: role shop/web: at work");
    assert_eq!(verdict(Gate::Any, &[one, other]), Verdict::Advance);
}

#[test]
fn the_others_finish_before_a_stage_fails() {
    let bad = seen("h1", "web", Some(failure()));
    let busy = seen("h2", "web", None);
    let good = seen("h2", "web", Some(Phase::Settled));
    for gate in [Gate::All, Gate::Any, Gate::Count(1)] {
        let Verdict::Wait { failed, .. } = verdict(gate, &[bad.clone(), busy.clone()]) else {
            panic!("must wait")
        };
        assert_eq!(failed.len(), 1);
        let Verdict::Fail(failed) = verdict(gate, &[bad.clone(), good.clone()]) else {
            panic!("must fail")
        };
        assert_eq!(failed[0].why.reason(), "exited with 3");
    }
}

#[test]
fn a_role_behind_a_failed_one_is_neither_waited_for_nor_blamed() {
    let web = seen("h1", "web", Some(failure()));
    let mut job = seen("h1", "job", Some(Phase::AwaitingCondition("web".to_owned())));
    job.after = vec![web.unit.clone()];
    let mut cron = seen("h1", "cron", None);
    cron.after = vec![job.unit.clone()];
    let Verdict::Fail(failed) = verdict(Gate::All, &[web, job, cron]) else { panic!("must fail") };
    assert_eq!(failed.len(), 1);
}

#[test]
fn a_host_away_is_given_the_time_of_a_restart() {
    let mut away = seen("h1", "web", Some(Phase::Converging(None)));
    away.presence = Presence::Away { since: Duration::from_secs(4) };
    let Verdict::Wait { look_again, .. } = verdict(Gate::All, std::slice::from_ref(&away)) else {
        panic!("must wait")
    };
    assert_eq!(look_again, Some(Duration::from_secs(10)));
    away.presence = Presence::Away { since: SILENCE };
    let Verdict::Fail(failed) = verdict(Gate::All, std::slice::from_ref(&away)) else {
        panic!("must fail")
    };
    assert_eq!(failed[0].why, Why::Silent(SILENCE));
    away.phase = Some((G, Phase::Settled));
    assert_eq!(verdict(Gate::All, &[away]), Verdict::Advance);
}

#[test]
fn what_an_older_intent_reached_says_nothing() {
    let mut old = seen("h1", "web", None);
    old.phase = Some((Generation { epoch: 1, number: 4 }, Phase::Settled));
    old.refusal = Some((Generation { epoch: 1, number: 4 }, "older".to_owned()));
    assert!(matches!(verdict(Gate::All, &[old]), Verdict::Wait { .. }));
}

#[test]
fn what_all_apps_of_a_host_share_may_be_written_by_any_of_them() {
    let mut proxy = Seen { unit: Unit::Proxy, ..seen("h1", "web", None) };
    proxy.phase = Some((G.next(), Phase::Converging(None)));
    assert!(matches!(verdict(Gate::All, &[proxy.clone()]), Verdict::Wait { .. }));
    proxy.phase = Some((G.next(), Phase::Settled));
    assert_eq!(verdict(Gate::All, &[proxy.clone()]), Verdict::Advance);
    for dead_end in [failure(), Phase::Released, Phase::Removed] {
        proxy.phase = Some((G.next(), dead_end));
        assert!(matches!(verdict(Gate::All, &[proxy.clone()]), Verdict::Fail(_)));
    }
    proxy.phase = None;
    proxy.refusal = Some((G.next(), "newer".to_owned()));
    assert!(matches!(verdict(Gate::All, &[proxy.clone()]), Verdict::Fail(_)));
    // An agent refuses what comes late.
    proxy.refusal = Some((G, "older".to_owned()));
    proxy.phase = Some((G.next(), Phase::Settled));
    assert_eq!(verdict(Gate::All, &[proxy]), Verdict::Advance);
}

#[test]
fn what_is_to_be_released_and_was_is_no_failure() {
    let released = seen("h1", "web", Some(Phase::Released));
    assert_eq!(verdict(Gate::All, &[released]), Verdict::Advance);
}

#[test]
fn every_dead_end_has_a_plain_reason() {
    let check = |change: fn(&mut Seen), expected: &str| {
        let mut unit = seen("h1", "web", None);
        change(&mut unit);
        let Verdict::Fail(failed) = verdict(Gate::All, &[unit]) else { panic!("must fail") };
        assert_eq!(failed[0].why.reason(), expected);
    };
    check(|u| u.presence = Presence::Here { features: Vec::new() }, "agent too old: it lacks role");
    check(
        |u| u.refusal = Some((G, "conflict".to_owned())),
        "the agent refused the intent: conflict",
    );
    check(
        |u| u.phase = Some((G, Phase::Held(Held::ForeignLock("Ann".to_owned())))),
        "on hold: another deployer holds Kamal's lock: Ann",
    );
    check(
        |u| u.phase = Some((G, Phase::AwaitingSecrets("other key".to_owned()))),
        "awaiting secrets: other key",
    );
    check(|u| u.phase = Some((G.next(), Phase::Settled)), "another rollout changed the unit");
}
