use std::sync::Arc;

use super::*;
use crate::clock::SystemClock;
use crate::rollout::sample::{host, spec};
use crate::store::Txn;
use crate::store::memory::Memory;

fn other(service: &str) -> Spec {
    let mut other = spec("v1", &[("web", &["h1"]), ("job", &["h2"])]);
    other.app.service = service.try_into().unwrap();
    other
}

async fn write(store: &dyn Store, writes: Vec<(Compare, Op)>) {
    let txn = writes.into_iter().fold(Txn::new(), |txn, (when, op)| txn.when(when).then(op));
    assert!(store.txn(txn).await.unwrap().succeeded);
}

async fn held_by(apps: &[&Spec]) -> (Arc<dyn Store>, Vec<Held>) {
    let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(SystemClock::new())));
    for app in apps {
        let held = read(&*store, &host("h1")).await.unwrap();
        let wanted = wanted(app, &host("h1"));
        check(&host("h1"), &held, &wanted).unwrap();
        write(&*store, acquire(&host("h1"), &held, &wanted)).await;
    }
    let held = read(&*store, &host("h1")).await.unwrap();
    (store, held)
}

fn refused(held: &[Held], spec: &Spec) -> String {
    check(&host("h1"), held, &wanted(spec, &host("h1"))).unwrap_err().to_string()
}

fn at(mut spec: Spec, name: &str) -> Spec {
    spec.roles[0].templates[0].template.proxy.as_mut().unwrap().hosts = vec![name.to_owned()];
    spec
}

fn publishing(mut spec: Spec, binding: serde_json::Value) -> Spec {
    let options = &mut spec.roles[0].templates[0].template.container.options;
    options.host_config.insert("PortBindings".to_owned(), binding);
    spec
}

#[tokio::test]
async fn an_app_claims_again_what_it_has_and_writes_nothing() {
    let shop = at(other("shop"), "shop.test");
    let (_, held) = held_by(&[&shop]).await;
    assert!(acquire(&host("h1"), &held, &wanted(&shop, &host("h1"))).is_empty());
    assert!(wanted(&shop, &host("h2")).iter().all(|c| matches!(c.thing, Thing::Containers(_))));
}

#[tokio::test]
async fn a_proxied_host_has_one_owner() {
    let (_, held) = held_by(&[&at(other("shop"), "a.test")]).await;
    assert_eq!(
        refused(&held, &at(other("blog"), "a.test")),
        "proxied host a.test/ on host h1 is claimed by app shop; app blog cannot have it"
    );
    let elsewhere = wanted(&at(other("blog"), "b.test"), &host("h1"));
    assert_eq!(check(&host("h1"), &held, &elsewhere), Ok(()));
}

#[tokio::test]
async fn a_role_that_reads_like_a_destination_is_refused() {
    let mut staging = at(other("shop"), "s.test");
    staging.app.destination = Some("web".try_into().unwrap());
    let mut plain = at(other("shop"), "p.test");
    plain.roles[0].name = "web-web".try_into().unwrap();
    let (_, held) = held_by(&[&staging]).await;
    assert_eq!(
        refused(&held, &plain),
        "container name shop-web-web-… on host h1 is claimed by app shop@web; app shop cannot have it"
    );
}

#[tokio::test]
async fn the_proxys_ports_are_taken_for_apps_that_publish_them() {
    let (_, held) = held_by(&[&at(other("shop"), "a.test")]).await;
    let blog = publishing(
        at(other("blog"), "b.test"),
        serde_json::json!({"80/tcp": [{"HostIp": "10.0.0.1", "HostPort": "80"}]}),
    );
    assert_eq!(
        refused(&held, &blog),
        "port 10.0.0.1:80/tcp on host h1 is claimed by kamal-proxy; app blog cannot have it"
    );
}

#[tokio::test]
async fn ports_on_different_addresses_or_protocols_do_not_collide() {
    let one = publishing(
        at(other("shop"), "a.test"),
        serde_json::json!({"53/udp": [{"HostPort": "53"}], "9/tcp": [{"HostIp": "10.0.0.1", "HostPort": "9"}]}),
    );
    let two = publishing(
        at(other("blog"), "b.test"),
        serde_json::json!({"53/tcp": [{"HostPort": "53"}], "9/tcp": [{"HostIp": "10.0.0.2", "HostPort": "9-10"}]}),
    );
    let (_, held) = held_by(&[&one, &two]).await;
    assert_eq!(held.iter().filter(|h| matches!(h.claim.thing, Thing::Port { .. })).count(), 7);
}

#[tokio::test]
async fn what_is_given_up_is_free_and_the_proxys_ports_go_with_its_last_app() {
    let (shop, blog) = (at(other("shop"), "a.test"), at(other("blog"), "b.test"));
    let (store, held) = held_by(&[&shop, &blog]).await;
    write(&*store, give_up(&held, &shop.app, &[])).await;
    let held = read(&*store, &host("h1")).await.unwrap();
    assert!(held.iter().any(|h| h.claim.owner == Owner::Proxy));
    assert!(held.iter().all(|h| h.claim.owner != Owner::App(shop.app.clone())));
    write(&*store, give_up(&held, &blog.app, &[])).await;
    assert!(read(&*store, &host("h1")).await.unwrap().is_empty());
}

#[test]
fn explicit_proxy_settings_beat_defaults_and_must_agree() {
    let claims = |specs: &[&Spec]| -> Vec<Claim> {
        specs.iter().flat_map(|s| wanted(s, &host("h1"))).collect()
    };
    let (mut shop, mut blog) = (other("shop"), other("blog"));
    blog.proxy.image.tag = "v0.10.0".to_owned();
    let newest = compose(&claims(&[&shop, &blog])).unwrap().unwrap();
    assert_eq!(newest.image.tag, "v0.10.0");
    shop.proxy.explicit = true;
    shop.proxy.http_port = 8080;
    let explicit = compose(&claims(&[&shop, &blog])).unwrap().unwrap();
    assert_eq!(explicit.http_port, 8080);
    blog.proxy.explicit = true;
    let conflict = compose(&claims(&[&shop, &blog])).unwrap_err();
    assert_eq!((conflict.first.to_string(), conflict.second.to_string()).0, "app shop");
    assert_eq!(compose(&[]), Ok(None));
}
