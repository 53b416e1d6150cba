//! Which service a request reaches, and what becomes of it there.

use crate::rig::Rig;

#[test]
fn s13_a_named_host_and_the_wildcard_are_both_routed() {
    let rig = Rig::start();
    let (any, named) = (rig.app(&[]), rig.new_app());
    rig.deploy("any", &any, &[]).silent_success();
    rig.deploy("named", &named, &["--host", "b.test", "--host=*.c.test"]).silent_success();
    assert_eq!(rig.get_host("b.test", "/").body, "v2\n");
    assert_eq!(rig.get_host("b.test:8080", "/").body, "v2\n");
    assert_eq!(rig.get_host("x.c.test", "/").body, "v2\n");
    // The star stands for one label.
    assert_eq!(rig.get_host("x.y.c.test", "/").body, "v1\n");
    assert_eq!(rig.get_host("other.test", "/").body, "v1\n");
}

#[test]
fn s19_the_apps_own_errors_are_passed_through() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    for status in [500, 404] {
        let answer = rig.get(&format!("/status/{status}"));
        assert_eq!((answer.status, answer.body.clone()), (status, format!("app says {status}\n")));
        assert_eq!(answer.header("X-Version"), "v1");
    }
}

#[test]
fn s25_prefixes_match_at_slashes_and_are_stripped() {
    let rig = Rig::start();
    let (root, api) = (rig.app(&[]), rig.new_app());
    rig.deploy("root", &root, &[]).silent_success();
    rig.deploy("api", &api, &["--path-prefix", "/api,/v2"]).silent_success();
    let seen = |path: &str| {
        let answer = rig.get(path);
        (answer.body.trim().to_owned(), answer.header("X-Path").to_owned())
    };
    let at = |version: &str, path: &str| (version.to_owned(), path.to_owned());
    assert_eq!(seen("/api"), at("v2", "/"));
    assert_eq!(seen("/api/u"), at("v2", "/u"));
    assert_eq!(seen("/v2/u?q=%20"), at("v2", "/u?q=%20"));
    assert_eq!(seen("/apix"), at("v1", "/apix"));
    assert_eq!(seen("/"), at("v1", "/"));
    rig.deploy("api", &api, &["--path-prefix", "api", "--strip-path-prefix=false"])
        .silent_success();
    assert_eq!(seen("/api/u"), at("v2", "/api/u"));
    assert_eq!(seen("/v2/u"), at("v1", "/v2/u"), "a deploy replaces all options");
}
