//! The image, the command line and the table: what scripts and agents are written against.

use crate::docker::{docker, images};
use crate::rig::{Rig, until};

#[test]
fn the_image_is_packaged_like_the_real_one() {
    let inspect = |format: &str| docker(&["image", "inspect", "--format", format, &images().proxy]);
    assert_eq!(inspect("{{json .Config.Cmd}}"), r#"["kamal-proxy","run"]"#);
    assert!(matches!(inspect("{{json .Config.Entrypoint}}").as_str(), "null" | "[]"));
    assert_eq!(inspect("{{json .Config.ExposedPorts}}"), r#"{"443/tcp":{},"80/tcp":{}}"#);
    assert_eq!(
        inspect(r#"{{index .Config.Labels "org.opencontainers.image.title"}}"#),
        "kamal-proxy"
    );
    let user = inspect("{{.Config.User}}");
    assert!(!matches!(user.as_str(), "" | "root" | "0"), "runs as {user:?}");
}

#[test]
fn list_is_byte_compatible() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    let target = app.target();
    rig.deploy("b", &app, &["--host", "x.test,y.test", "--path-prefix=/api,/v2"]).silent_success();
    rig.deploy("an-app", &app, &[]).silent_success();
    rig.run(&["stop", "b"]).silent_success();
    let rows = [
        ["Service", "Host", "Path", "Target", "State", "TLS"],
        ["an-app", "*", "/", &target, "running", "no"],
        ["b", "x.test,y.test", "/api,/v2", &target, "stopped", "no"],
    ];
    let mut expected = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let style = match (number, column) {
                (0, _) => "3;94",
                (_, 0) => "1;34",
                _ => "",
            };
            let width = rows.iter().map(|row| row[column].len()).max().unwrap();
            let padding = " ".repeat(width - cell.len());
            expected += &format!("\x1b[{style}m{cell}\x1b[0m{padding}  ");
        }
        expected.push('\n');
    }
    assert_eq!(rig.run(&["list"]).stdout, expected);
    assert_eq!(rig.run(&["ls"]).stdout, expected);
}

#[test]
fn a_deploy_takes_every_flag_that_kamal_passes() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy(
        "shop-web",
        &app,
        &[
            "--host=a.test",
            "--deploy-timeout=30s",
            "--drain-timeout=30s",
            "--health-check-interval=1s",
            "--health-check-timeout=5s",
            "--health-check-path=/up",
            "--target-timeout=30s",
            "--buffer-requests",
            "--buffer-responses",
            "--buffer-memory=1048576",
            "--max-request-body=1000",
            "--max-response-body=2000",
            "--path-prefix=/",
            "--strip-path-prefix=true",
            "--forward-headers",
            "--tls-redirect=false",
            "--log-request-header=Cache-Control",
            "--log-request-header=User-Agent",
            "--log-response-header=X-Version",
        ],
    )
    .silent_success();
    let echoed = rig.ask_host("a.test", "/echo").post(&[b'x'; 1000]).send().unwrap();
    assert_eq!((echoed.status, echoed.body.len()), (200, 1000));
    assert_eq!(rig.ask_host("a.test", "/echo").post(&[b'x'; 1001]).send().unwrap().status, 413);
    assert_eq!(rig.get_host("a.test", "/download?bytes=2000").status, 200);
    assert_eq!(rig.get_host("a.test", "/download?bytes=2001").status, 500);
}

#[test]
fn a_deploy_takes_the_flags_that_kamal_does_not_know() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy(
        "web",
        &app,
        &[
            "--host=a.test,b.test",
            "--canonical-host=a.test",
            "--force=false",
            "--health-check-port=80",
            "--health-check-host=checked.test",
            "--tls-staging=false",
            "--tls-acme-cache-path=/tmp/certs",
            "--scope-cookie-paths",
            "--writer-affinity-timeout=1s",
            "--read-target-websockets=0",
        ],
    )
    .silent_success();
    assert_eq!(app.check_field("host"), "checked.test");
    let moved = rig.get_host("b.test", "/x?y");
    assert_eq!((moved.status, moved.header("Location")), (301, "http://a.test/x?y"));
}

#[test]
fn wrong_usage_exits_1_with_one_error_line() {
    let rig = Rig::start();
    let wrong: [&[&str]; 8] = [
        &["deploy", "web"],
        &["deploy", "--target", "web:80"],
        &["deploy", "web", "--target", "web:80", "--no-such-flag"],
        &["deploy", "web", "--target", "web:80", "--deploy-timeout", "30"],
        &["deploy", "web", "--target", "web:80", "--max-request-body", "5"],
        &["deploy", "web", "--target", "web:80", "--tls-certificate-path", "/x"],
        &["rollout", "set", "web"],
        &["remove"],
    ];
    for words in wrong {
        let said = rig.run(words).at_once();
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{words:?}");
        assert!(said.stderr.starts_with("Error: "), "{words:?}: {}", said.stderr);
    }
    rig.run(&["deploy", "web", "--target", "http://web"]).error("http://web :invalid host pattern");
    rig.run(&["deploy", "web", "--target=web:80", "--tls", "--host=a", "--path-prefix=/x"])
        .error("TLS settings must be specified on the root path service");
}

#[test]
fn an_app_sees_who_asked_for_what() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let answer = rig
        .ask_host("a.test:81", "/headers")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .send()
        .unwrap();
    let seen = |name: &str| header(&answer.body, name);
    assert_eq!(seen("host"), "a.test:81");
    assert!(seen("x-forwarded-for").starts_with("1.2.3.4, "), "{}", answer.body);
    assert_eq!(seen("x-forwarded-proto"), "https");
    assert_eq!(seen("x-kamal-target"), app.target());
    assert_eq!(seen("x-request-id").len(), 36);
    assert!(seen("x-request-start").starts_with("t="));
    rig.deploy("web", &app, &["--forward-headers=false"]).silent_success();
    let answer = rig.ask("/headers").header("X-Forwarded-For", "1.2.3.4").send().unwrap();
    assert!(!answer.body.contains("1.2.3.4"), "{}", answer.body);
}

#[test]
fn services_survive_a_new_container_with_the_same_volume() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &["--host", "a.test"]).silent_success();
    let before = rig.list();
    rig.remove_proxy();
    rig.start_proxy(&[], &[]);
    rig.until_ready();
    assert_eq!(rig.list(), before);
    assert_eq!(rig.get_host("a.test", "/").body, "v1\n");
}

#[test]
fn a_forced_deploy_does_not_wait_and_serves_after_the_first_success() {
    let rig = Rig::start();
    let app = rig.app(&["APP_UP_STATUS=500"]);
    rig.deploy("web", &app, &["--force"]).at_once().silent_success();
    assert_eq!(rig.get("/").status, 503);
    app.set_up("status=200");
    until("the target serves", || rig.get("/").status == 200);
}

#[test]
fn of_several_targets_the_unhealthy_ones_leave_and_come_back() {
    let rig = Rig::start();
    let (one, two) = (rig.app(&[]), rig.new_app());
    let both = format!("{},{}", one.target(), two.target());
    rig.spawn_deploy("web", &both, &["--health-check-interval=200ms"]).wait().silent_success();
    let mut seen = std::collections::BTreeSet::new();
    until("both serve", || seen.insert(rig.get("/").body) | (seen.len() == 2));
    one.set_up("status=500");
    let only_two = || (0..6).all(|_| rig.get("/").body == "v2\n");
    until("one has left", only_two);
    one.set_up("status=200");
    until("one is back", || rig.get("/").body == "v1\n");
}

#[test]
fn a_rollout_takes_the_clients_on_its_list() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.new_app());
    rig.deploy("web", &old, &[]).silent_success();
    rig.run(&["rollout", "set", "web", "--list", "ann"]).error("rollout target not set");
    let target = format!("--target={}", new.target());
    rig.run(&["rollout", "deploy", "web", &target]).silent_success();
    rig.run(&["rollout", "set", "web", "--percent", "0", "--list", "ann,bob"]).silent_success();
    let version = |client: &str| {
        rig.ask("/").header("Cookie", &format!("kamal-rollout={client}")).send().unwrap().body
    };
    assert_eq!((version("bob"), rig.get("/").body), ("v2\n".to_owned(), "v1\n".to_owned()));
    rig.run(&["rollout", "stop", "web"]).silent_success();
    assert_eq!(version("bob"), "v1\n");
    rig.run(&["rollout", "stop", "web"]).silent_success();
}

#[test]
fn the_log_says_what_happened_in_json() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &["--log-request-header", "User-Agent"]).silent_success();
    rig.ask("/status/404?q=1").header("User-Agent", "tester").send().unwrap();
    let lines = || {
        let log = docker(&["logs", &rig.proxy()]);
        let lines = log.lines().map(|line| serde_json::from_str(line).expect("every line is JSON"));
        lines.collect::<Vec<serde_json::Value>>()
    };
    let find = |msg: &str| lines().into_iter().find(|line| line["msg"] == msg);
    until("the request is logged", || find("Request").is_some());
    let request = find("Request").unwrap();
    assert_eq!(request["service"], "web");
    assert_eq!(request["target"], app.target());
    assert_eq!((&request["status"], &request["path"]), (&404.into(), &"/status/404".into()));
    assert_eq!((&request["query"], &request["req_user_agent"]), (&"q=1".into(), &"tester".into()));
    for msg in ["Deploying", "Deployed", "Target health updated", "Server started"] {
        assert!(find(msg).is_some(), "no line says {msg}");
    }
}

/// The first value of a header in what `/headers` of the sample app answers.
fn header(body: &str, name: &str) -> String {
    let headers: serde_json::Value = serde_json::from_str(body).unwrap();
    headers[name][0].as_str().unwrap_or_default().to_owned()
}
