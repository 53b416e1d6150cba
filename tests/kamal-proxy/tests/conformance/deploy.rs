//! What makes a deploy succeed or fail, and what a failure leaves behind.

use crate::rig::{Rig, kill_9, seconds, until};

#[test]
fn s05_a_deploy_to_a_port_where_nothing_listens_fails_at_its_timeout() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.spawn_deploy("web", &app.target_port(81), &["--deploy-timeout", "2s"])
        .wait()
        .after(seconds(2.0))
        .error("target failed to become healthy within configured timeout (2s)");
    assert_eq!(rig.listed("web"), None);
}

#[test]
fn s06_a_target_that_turns_healthy_is_live_at_the_next_check() {
    let rig = Rig::start();
    let app = rig.app(&["APP_UP_STATUS=503"]);
    let deploy = rig.spawn_deploy("web", &app.target(), &[]);
    until("the first check came", || !app.checks().is_empty());
    // Healthy 2.5 s after the first check: half-way between the third and the fourth.
    let since = app.now_ms() - app.checks()[0].0;
    app.set_up(&format!("status=200&healthy_in_ms={}", 2500_u64.saturating_sub(since)));
    deploy.wait().silent_success().after(seconds(2.5));
    let checks = app.checks();
    let statuses: Vec<u64> = checks.iter().map(|(_, status)| *status).collect();
    assert_eq!(statuses, [503, 503, 503, 200]);
    for (number, (at, _)) in checks.iter().enumerate() {
        let late = (at - checks[0].0) as i64 - number as i64 * 1000;
        // A check that starts on time may be seen late, the first one too.
        assert!((-400..900).contains(&late), "check {number} came {late} ms late: {checks:?}");
    }
    assert_eq!(app.check_field("user_agent"), "kamal-proxy");
    assert_eq!(app.check_field("host"), app.target());
    // One success is enough, and the last check of a lone target: two intervals bring no other.
    std::thread::sleep(seconds(2.2));
    assert_eq!(app.checks().len(), 4);
}

#[test]
fn s07_a_failed_redeploy_leaves_the_old_target_live() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.app(&["APP_UP_STATUS=500"]));
    rig.deploy("web", &old, &[]).silent_success();
    let before = rig.listed("web");
    rig.deploy("web", &new, &["--host", "other.test", "--deploy-timeout", "1500ms"])
        .after(seconds(1.5))
        .error("target failed to become healthy within configured timeout (1.5s)");
    assert_eq!(rig.get("/").status, 200);
    assert_eq!(rig.listed("web"), before);
}

#[test]
fn s12_a_claimed_host_is_refused_but_only_after_the_target_is_healthy() {
    let rig = Rig::start();
    let (first, second) = (rig.app(&[]), rig.app(&["APP_HEALTHY_AFTER_MS=1500"]));
    rig.deploy("one", &first, &["--host", "a.test"]).silent_success();
    rig.deploy("two", &second, &["--host", "b.test,a.test"])
        .error("host settings conflict with another service");
    let last = second.checks().last().copied();
    assert_eq!(last.map(|(_, status)| status), Some(200), "the target was healthy before");
    rig.spawn_deploy(
        "two",
        &second.target_port(81),
        &["--host", "a.test", "--deploy-timeout", "1s"],
    )
    .wait()
    .error("target failed to become healthy within configured timeout (1s)");
    assert_eq!(rig.list().len(), 1);
    assert_eq!(rig.get_host("a.test", "/").status, 200);
}

#[test]
fn s26_a_health_path_may_redirect_or_be_empty_but_not_be_missing_or_slow() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    app.set_up("status=302&location=/");
    rig.deploy("redirecting", &app, &["--host", "a.test"]).silent_success();
    app.set_up("status=204&location=");
    rig.deploy("empty", &app, &["--host", "b.test"]).silent_success();
    let unhealthy = "target failed to become healthy within configured timeout (2s)";
    app.set_up("status=404");
    rig.deploy("missing", &app, &["--host", "c.test", "--deploy-timeout", "2s"]).error(unhealthy);
    app.set_up("status=200&delay_ms=1000");
    let slow = ["--host", "d.test", "--deploy-timeout", "2s", "--health-check-timeout", "300ms"];
    rig.deploy("slow", &app, &slow).error(unhealthy);
    // The path is the caller's choice, with or without its slash.
    app.set_up("status=500&delay_ms=0");
    rig.deploy("elsewhere", &app, &["--host", "e.test", "--health-check-path", "status/200"])
        .silent_success();
    let services: Vec<String> = rig.list().into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(services, ["elsewhere", "empty", "redirecting"]);
}

#[test]
fn s27_a_deploy_goes_on_when_its_client_is_killed() {
    let rig = Rig::start();
    let app = rig.app(&["APP_UP_STATUS=503"]);
    let target = format!("--target={}", app.target());
    let client = rig.spawn(&["deploy", "web", &target]);
    until("the deploy waits", || !app.checks().is_empty());
    kill_9(rig.process(&["deploy", "web", &target]).expect("the client runs"));
    assert_ne!(client.wait().code, 0);
    assert_eq!(rig.listed("web"), None);
    app.set_up("status=200");
    until("the service is deployed", || rig.listed("web").is_some());
    assert_eq!(rig.get("/").status, 200);
}

#[test]
fn s28_a_killed_server_fails_its_clients_and_starts_again_over_its_socket() {
    let rig = Rig::without_proxy();
    // The container's first process must outlive the server, and the image need not have another
    // program: a second proxy, whose ports, socket and state are elsewhere, keeps the container up.
    let elsewhere = ["--env", "HOME=/tmp", "--env", "XDG_RUNTIME_DIR=/tmp/.config/kamal-proxy"];
    rig.start_proxy(&elsewhere, &["kamal-proxy", "run", "--http-port=8080", "--https-port=8443"]);
    rig.until_ready();
    let proxy = rig.proxy();
    let inner = ["--env", "HOME=/home/kamal-proxy", "--env", "XDG_RUNTIME_DIR=/tmp"];
    let exec = |options: &[&str], words: &[&str]| {
        crate::docker::try_docker(
            &[&["exec"], &inner[..], options, &[&proxy, "kamal-proxy"], words].concat(),
        )
    };
    let until_listed =
        || until("the server takes commands", || exec(&[], &["list"]).status.success());
    exec(&["--detach"], &["run"]);
    until_listed();
    let app = rig.app(&[]);
    let good = format!("--target={}", app.target());
    assert!(exec(&[], &["deploy", "web", &good]).status.success());

    let bad = format!("--target={}", app.target_port(81));
    let started = std::time::Instant::now();
    let output = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| exec(&[], &["deploy", "late", &bad, "--deploy-timeout=60s"]));
        let mut server = None;
        until("the client waits", || {
            server = rig.process(&["run"]);
            server.is_some()
                && rig.process(&["deploy", "late", &bad, "--deploy-timeout=60s"]).is_some()
        });
        // The client's request must have arrived: the log of the exec'd server is not to be had, and
        // an answer to a later command says that the server has taken all earlier connections.
        until_listed();
        kill_9(server.expect("the server runs"));
        deploy.join().unwrap()
    });
    let stderr =
        |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(1), "Error: unexpected EOF\n")
    );
    assert!(started.elapsed() < seconds(60.0));
    let output = exec(&[], &["list"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "Error: dial unix /tmp/kamal-proxy.sock: connect: connection refused\n"
    );
    exec(&["--detach"], &["run"]);
    until_listed();
    until("the saved service serves", || rig.get("/").status == 200);
}

#[test]
fn of_two_deploys_at_once_the_last_to_become_healthy_wins() {
    let rig = Rig::start();
    let (first, second) = (rig.app(&["APP_UP_STATUS=503"]), rig.new_app());
    let waiting = rig.spawn_deploy("web", &first.target(), &["--health-check-interval=100ms"]);
    until("the first deploy waits", || !first.checks().is_empty());
    rig.deploy("web", &second, &[]).silent_success();
    assert_eq!(rig.get("/").body, "v2\n");
    first.set_up("status=200");
    waiting.wait().silent_success();
    assert_eq!(rig.get("/").body, "v1\n");
    // The target in use may be deployed again.
    rig.deploy("web", &first, &[]).silent_success();
    assert_eq!(rig.get("/").body, "v1\n");
}

#[test]
fn a_service_removed_while_a_deploy_waits_comes_back() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.app(&["APP_UP_STATUS=503"]));
    rig.deploy("web", &old, &[]).silent_success();
    let waiting = rig.spawn_deploy("web", &new.target(), &["--health-check-interval=100ms"]);
    until("the deploy waits", || !new.checks().is_empty());
    rig.run(&["remove", "web"]).at_once().silent_success();
    assert_eq!(rig.get("/").status, 404);
    new.set_up("status=200");
    waiting.wait().silent_success();
    assert_eq!(rig.get("/").status, 200);
}
