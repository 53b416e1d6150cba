use std::collections::BTreeMap;

use dhow_proto::model::spec::BootLimit;
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::rollout::sample::{Asked, host, spec};

fn check(spec: &Spec, asked: &Asked, expected: Expect) {
    let stages = stages(spec, &asked.plan());
    assert!(stages.iter().all(Stage::is_of_its_kind), "{stages:?}");
    let text: Vec<String> = stages.iter().map(ToString::to_string).collect();
    expected.assert_eq(&text.join("\n"));
}

#[test]
fn a_deploy_locks_and_pulls_first_and_boots_other_roles_behind_the_barrier() {
    let spec = spec("v2", &[("web", &["h1", "h2"]), ("job", &["h2", "h3"])]);
    check(
        &spec,
        &Asked::all(&spec, Operation::Deploy).hooks(),
        expect![[r#"
            lock, pull (all of 1, pins the digest)
              h1: app shop staged+locked
            pull (all of 2)
              h2: app shop staged
              h3: app shop staged
            pre-deploy hook (KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=true)
            proxy, stale containers (all of 6)
              h1: proxy network, container
              h2: proxy network, container
              h3: proxy network
              h1: app shop staged+locked+stale
              h2: app shop staged+stale
              h3: app shop staged+stale
            pre-app-boot hook (KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=true)
            boot web (any of 2)
              h1: role shop/web boot
              h2: role shop/web boot
            boot (all of 4)
              h2: role shop/job boot after role shop/web
              h3: role shop/job boot
            post-app-boot hook (KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=true)
            tag latest, prune (all of 3)
              h1: app shop staged+locked+stale+tagged+pruned
              h2: app shop staged+stale+tagged+pruned
              h3: app shop staged+stale+tagged+pruned
            unlock (all of 1)
              h1: app shop staged+stale+tagged+pruned
            record (app is free)
            post-deploy hook (KAMAL_HOSTS=h1,h2,h3 KAMAL_LOCK=false KAMAL_RUNTIME)"#]],
    );
}

#[test]
fn one_host_for_each_registry_mirror_pulls_before_the_others() {
    let spec = spec("v2", &[("web", &["h1", "h2", "h3", "h4", "h5", "h6"])]);
    let mut asked = Asked::all(&spec, Operation::Deploy);
    // h5 has none: it asks the registry itself.
    for (host, mirror) in [(0, "a"), (1, "b"), (2, "a"), (3, "b"), (5, "c")] {
        asked.hosts[host].mirror = format!("https://{mirror}.example/");
    }
    let stages = stages(&spec, &asked.plan());
    let text: Vec<String> = stages.iter().take(3).map(ToString::to_string).collect();
    expect![[r#"
        lock, pull (all of 1, pins the digest)
          h1: app shop staged+locked
        pull once for each mirror (all of 2)
          h2: app shop staged
          h6: app shop staged
        pull (all of 3)
          h3: app shop staged
          h4: app shop staged
          h5: app shop staged"#]]
    .assert_eq(&text.join("\n"));
}

#[test]
fn groups_share_one_barrier_and_pause_after_each() {
    let mut spec = spec("v2", &[("web", &["h1", "h2"]), ("job", &["h2", "h3"])]);
    spec.boot.limit = Some(BootLimit::Percent(70));
    spec.boot.wait_s = 5;
    let mut asked = Asked::all(&spec, Operation::Redeploy);
    asked.hooks.insert("pre-app-boot".to_owned());
    check(
        &spec,
        &asked,
        expect![[r#"
            lock, pull (all of 1, pins the digest)
              h1: app shop staged+locked
            pull (all of 2)
              h2: app shop staged
              h3: app shop staged
            stale containers (all of 3)
              h1: app shop staged+locked+stale
              h2: app shop staged+stale
              h3: app shop staged+stale
            pre-app-boot hook 1 of 2 (KAMAL_HOSTS=h1,h2 KAMAL_LOCK=true)
            boot web 1 of 2 (any of 2)
              h1: role shop/web boot
              h2: role shop/web boot
            boot 1 of 2 (all of 3)
              h2: role shop/job boot after role shop/web
            pause 1 of 2 (5s)
            pre-app-boot hook 2 of 2 (KAMAL_HOSTS=h3 KAMAL_LOCK=true)
            boot 2 of 2 (all of 1)
              h3: role shop/job boot
            pause 2 of 2 (5s)
            tag latest (all of 3)
              h1: app shop staged+locked+stale+tagged
              h2: app shop staged+stale+tagged
              h3: app shop staged+stale+tagged
            unlock (all of 1)
              h1: app shop staged+stale+tagged
            record (app is free)"#]],
    );
}

#[test]
fn a_rollback_looks_for_containers_first_and_prunes_nothing() {
    let spec = spec("v1", &[("web", &["h1"])]);
    check(
        &spec,
        &Asked::all(&spec, Operation::Rollback).hooks(),
        expect![[r#"
            find containers
              ask h1
            lock (all of 1)
              h1: app shop locked
            pre-deploy hook (KAMAL_HOSTS=h1 KAMAL_LOCK=true)
            find image (all of 1)
              h1: app shop staged+locked
            pre-app-boot hook (KAMAL_HOSTS=h1 KAMAL_LOCK=true)
            boot (all of 1)
              h1: role shop/web boot
            post-app-boot hook (KAMAL_HOSTS=h1 KAMAL_LOCK=true)
            tag latest (all of 1)
              h1: app shop staged+locked+tagged
            unlock (all of 1)
              h1: app shop staged+tagged
            record (app is free)
            post-deploy hook (KAMAL_HOSTS=h1 KAMAL_LOCK=false KAMAL_RUNTIME)"#]],
    );
}

#[test]
fn setup_holds_the_lock_from_the_pull_to_the_last_hook() {
    let spec = spec("v1", &[("web", &["h1"])]);
    check(
        &spec,
        &Asked::all(&spec, Operation::Setup).hooks(),
        expect![[r#"
            lock, pull (all of 1, pins the digest)
              h1: app shop staged+locked
            pre-deploy hook (KAMAL_HOSTS=h1 KAMAL_LOCK=true)
            proxy, stale containers (all of 2)
              h1: proxy network, container
              h1: app shop staged+locked+stale
            pre-app-boot hook (KAMAL_HOSTS=h1 KAMAL_LOCK=true)
            boot (all of 1)
              h1: role shop/web boot
            post-app-boot hook (KAMAL_HOSTS=h1 KAMAL_LOCK=true)
            tag latest, prune (all of 1)
              h1: app shop staged+locked+stale+tagged+pruned
            unlock (all of 1)
              h1: app shop staged+stale+tagged+pruned
            record (app stays locked)
            post-deploy hook (KAMAL_HOSTS=h1 KAMAL_LOCK=true KAMAL_RUNTIME)"#]],
    );
}

#[test]
fn without_the_primary_role_the_first_one_takes_its_place() {
    let spec = spec("v2", &[("web", &["h1"]), ("cron", &["h2"]), ("job", &["h2", "h3"])]);
    let mut asked = Asked::all(&spec, Operation::Redeploy);
    asked.roles.remove(0);
    asked.hosts.remove(0);
    check(
        &spec,
        &asked,
        expect![[r#"
            lock, pull (all of 1, pins the digest)
              h2: app shop staged+locked
            pull (all of 1)
              h3: app shop staged
            stale containers (all of 2)
              h2: app shop staged+locked+stale
              h3: app shop staged+stale
            boot cron (any of 1)
              h2: role shop/cron boot
            boot (all of 3)
              h2: role shop/job boot after role shop/cron
              h3: role shop/job boot
            tag latest (all of 2)
              h2: app shop staged+locked+stale+tagged
              h3: app shop staged+stale+tagged
            unlock (all of 1)
              h2: app shop staged+stale+tagged
            record (app is free)"#]],
    );
}

#[test]
fn a_joined_rollout_leaves_the_lock_to_the_outer_one() {
    let spec = spec("v2", &[("web", &["h1"])]);
    let asked = Asked::all(&spec, Operation::Deploy);
    let stages = stages(&spec, &Plan { joined: true, ..asked.plan() });
    assert!(stages.iter().all(|s| s.name != "lock" && s.name != "unlock"));
}

#[test]
fn a_host_that_was_away_catches_up_in_the_order_of_the_stages() {
    let spec = spec("v3", &[("web", &["h1", "h2"]), ("job", &["h2"])]);
    let mut asked = Asked::all(&spec, Operation::Deploy);
    asked.hosts[1].away = true;
    let text = |asked: &Asked, without: &[HostName]| -> String {
        let changes = catch_up(&spec, &asked.plan(), without);
        changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        h2: proxy network, container
        h2: app shop staged+tagged when serving
        h2: role shop/web boot after proxy, app shop
        h2: role shop/job boot after proxy, app shop, role shop/web"#]]
    .assert_eq(&text(&asked, &[]));
    let mut again = Asked::all(&spec, Operation::Redeploy);
    again.hosts[1].away = true;
    expect![[r#"
        h2: app shop staged+tagged when serving
        h2: role shop/web boot after app shop
        h2: role shop/job boot after app shop, role shop/web"#]]
    .assert_eq(&text(&again, &[]));
    assert_eq!(text(&again, &[host("h2")]), text(&asked, &[]));
    let stages = stages(&spec, &asked.plan());
    assert!(stages.iter().all(|s| s.hosts.iter().all(|h| h.as_str() == "h1")));
}

fn fleets() -> impl Strategy<Value = (Spec, Asked)> {
    let roles = prop::collection::vec(prop::collection::btree_set(0..8u8, 1..6), 1..4);
    let limit = prop_oneof![
        Just(None),
        (1..9u32).prop_map(|n| Some(BootLimit::Count(n))),
        (1..101u32).prop_map(|p| Some(BootLimit::Percent(p))),
    ];
    let away = prop::collection::btree_set(0..8u8, 0..3);
    (roles, limit, any::<bool>(), away, 0..4usize).prop_map(|(roles, limit, parallel, away, op)| {
        let names = ["web", "job", "cron"];
        let hosts: Vec<Vec<String>> =
            roles.iter().map(|r| r.iter().map(|n| format!("h{n}")).collect()).collect();
        let borrowed: Vec<Vec<&str>> =
            hosts.iter().map(|h| h.iter().map(String::as_str).collect()).collect();
        let listed: Vec<(&str, &[&str])> =
            names.into_iter().zip(borrowed.iter().map(Vec::as_slice)).collect();
        let mut spec = spec("v2", &listed);
        spec.boot.limit = limit;
        spec.boot.parallel_roles = parallel;
        let operations =
            [Operation::Setup, Operation::Deploy, Operation::Redeploy, Operation::Rollback];
        let mut asked = Asked::all(&spec, operations[op]).hooks();
        for host in &mut asked.hosts {
            host.away = away.iter().any(|n| host.name.as_str() == format!("h{n}"));
        }
        (spec, asked)
    })
}

proptest! {
    #[test]
    fn every_host_is_in_one_group_and_every_role_boots_once((spec, asked) in fleets()) {
        let stages = stages(&spec, &asked.plan());
        prop_assert_eq!(&stages, &super::stages(&spec, &asked.plan()), "pure");
        let mut groups: BTreeMap<&HostName, usize> = BTreeMap::new();
        let mut booted: BTreeMap<(&HostName, &Unit), usize> = BTreeMap::new();
        let mut primary_done = false;
        for stage in &stages {
            match &stage.work {
                Work::Hook(hook) if hook.name == "pre-app-boot" => {
                    for host in &stage.hosts {
                        *groups.entry(host).or_default() += 1;
                    }
                }
                Work::Intents { changes, .. } => {
                    for (i, change) in changes.iter().enumerate() {
                        let Content::Role(_) = &change.content else { continue };
                        *booted.entry((&change.host, &change.unit)).or_default() += 1;
                        // The barrier: nothing but one role boots before the first of its containers is healthy.
                        prop_assert!(primary_done || changes.iter().all(|c| c.content == change.content));
                        for unit in &change.after {
                            let earlier = changes[..i].iter().any(|c| c.host == change.host && c.unit == *unit);
                            prop_assert!(earlier || primary_done, "what it waits for is written before");
                        }
                    }
                    primary_done |= changes.iter().any(|c| matches!(c.content, Content::Role(_)));
                }
                Work::Hook(_) | Work::FindContainers | Work::Pause(_) | Work::Commit { .. } => {}
            }
        }
        // Hosts are told beside the name.
        let names: BTreeSet<&str> = stages.iter().map(|s| s.name.as_str()).collect();
        prop_assert_eq!(names.len(), stages.len(), "{:?}", names);
        let named = |host: &HostFact| names.iter().any(|n| n.split(' ').any(|word| word == host.name.as_str()));
        prop_assert!(!asked.hosts.iter().any(named), "{names:?}");
        prop_assert!(groups.values().all(|n| *n == 1));
        prop_assert!(booted.values().all(|n| *n == 1));
        let present: Vec<&HostFact> = asked.hosts.iter().filter(|h| !h.away).collect();
        let pairs: usize = present.iter().map(|h| spec.roles_on(&h.config).count()).sum();
        prop_assert_eq!(booted.len(), pairs);
        prop_assert_eq!(groups.len(), present.len());
    }

    #[test]
    fn primary_hosts_come_first_and_what_is_locked_is_unlocked((spec, asked) in fleets()) {
        let stages = stages(&spec, &asked.plan());
        let primary = |name: &HostName| {
            asked.hosts.iter().any(|h| h.name == *name
                && spec.roles_on(&h.config).any(|r| r.name == spec.primary_role))
        };
        for stage in &stages {
            let order: Vec<bool> = stage.hosts.iter().map(primary).collect();
            prop_assert!(order.is_sorted_by(|a, b| a >= b), "{stage}");
        }
        let held = stages.iter().filter_map(|s| match &s.work {
            Work::Intents { changes, .. } => Some(changes),
            Work::FindContainers | Work::Hook(_) | Work::Pause(_) | Work::Commit { .. } => None,
        });
        let mut locked = BTreeSet::new();
        for change in held.flatten() {
            let Content::App(part) = change.content else { continue };
            if part.locked { locked.insert(&change.host); } else { locked.remove(&change.host); }
        }
        prop_assert!(locked.is_empty());
    }
}

/// Of the deploys that have them all, so that a test of every kind of stage knows where to meet it.
#[test]
fn every_kind_of_stage_is_met() {
    let mut spec = spec("v2", &[("web", &["h1", "h2"]), ("job", &["h2", "h3"])]);
    spec.boot.wait_s = 1;
    spec.error_pages = Some(vec![dhow_proto::model::spec::ErrorPage {
        name: "404.html".to_owned(),
        content: dhow_proto::model::BlobRef::of(b"gone"),
    }]);
    let mut met = std::collections::BTreeSet::new();
    for operation in [Operation::Deploy, Operation::Rollback] {
        let asked = Asked::all(&spec, operation).hooks();
        met.extend(stages(&spec, &asked.plan()).iter().map(|stage| stage.kind));
    }
    assert_eq!(met.into_iter().collect::<Vec<_>>(), StageKind::ALL);
}
