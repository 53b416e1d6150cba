//! Pause, stop, resume.

use std::time::Instant;

use crate::rig::{LATE, Rig, seconds, until};

/// The column of `list` after the service's name that says its state.
const STATE: usize = 3;

#[test]
fn s14_pause_waits_for_requests_and_holds_new_ones_until_resume() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let slow = rig.ask("/slow?ms=2000").send_aside();
    app.until_open(1);
    let paused = rig.run(&["pause", "web"]).silent_success();
    let slow = slow.join().unwrap().unwrap();
    assert_eq!(slow.status, 200);
    assert!(paused.at + seconds(0.3) > slow.at, "pause returned before the drain was over");

    let held = rig.ask("/").send_aside();
    let up = rig.get("/up");
    assert_eq!((up.status, up.body.as_str()), (200, ""));
    assert_eq!(rig.listed("web").unwrap()[STATE], "paused");
    assert!(!held.is_finished(), "the request is held");
    rig.run(&["resume", "web"]).silent_success();
    let held = held.join().unwrap().unwrap();
    assert_eq!((held.status, held.body.as_str()), (200, "v1\n"));
    assert_eq!(rig.listed("web").unwrap()[STATE], "running");
    // Again: nothing to resume is no error.
    rig.run(&["resume", "web"]).silent_success();
}

#[test]
fn s15_a_held_request_gets_504_when_the_pause_is_too_long() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    rig.run(&["pause", "web", "--max-pause", "1s"]).silent_success();
    let started = Instant::now();
    let answer = rig.get("/");
    let waited = answer.at - started;
    assert_eq!(answer.status, 504);
    assert!(waited >= seconds(1.0) && waited < seconds(1.0) + LATE, "504 after {waited:?}");
    assert_eq!(rig.listed("web").unwrap()[STATE], "paused");
}

#[test]
fn s16_a_stopped_service_answers_503_with_its_message_escaped() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let held = {
        rig.run(&["pause", "web"]).silent_success();
        rig.ask("/").send_aside()
    };
    rig.run(&["stop", "web", "--message", "<b>"]).silent_success();
    assert_eq!(held.join().unwrap().unwrap().status, 503, "a stop ends what a pause held");
    let answer = rig.get("/");
    assert_eq!((answer.status, answer.header("Content-Type")), (503, "text/html; charset=utf-8"));
    assert!(answer.body.contains("&lt;b&gt;") && !answer.body.contains("<b>"), "{}", answer.body);
    assert_eq!(rig.ask("/up").post(b"").send().unwrap().status, 503);
    let up = rig.get("/up");
    assert_eq!((up.status, up.body.as_str()), (200, ""));
    assert_eq!(rig.listed("web").unwrap()[STATE], "stopped");
}

#[test]
fn s17_a_stopped_service_stays_stopped_through_deploy_and_restart() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.new_app());
    rig.deploy("web", &old, &[]).silent_success();
    rig.run(&["stop", "web", "--message", "back at noon"]).silent_success();
    rig.deploy("web", &new, &[]).silent_success();
    assert_eq!(rig.get("/").status, 503);
    rig.restart_proxy();
    let answer = rig.get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("back at noon"), "{}", answer.body);
    assert_eq!(rig.listed("web").unwrap()[STATE], "stopped");
    rig.run(&["resume", "web"]).silent_success();
    assert_eq!(rig.get("/").body, "v2\n");
}

#[test]
fn a_stop_that_never_ended_its_drain_is_not_remembered() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let slow = rig.ask("/slow?ms=60000").send_aside();
    app.until_open(1);
    let stop = rig.spawn(&["stop", "web"]);
    until("the service is stopped", || rig.listed("web").unwrap()[STATE] == "stopped");
    rig.kill_proxy();
    assert_ne!(stop.wait().code, 0);
    assert!(slow.join().unwrap().is_err());
    rig.start_again();
    assert_eq!(rig.listed("web").unwrap()[STATE], "running");
    assert_eq!(rig.get("/").body, "v1\n");
}

/// Nothing of dhow pauses a service because of this.
#[test]
fn a_pause_that_outlived_a_restart_holds_requests_but_cannot_be_lifted() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    rig.run(&["pause", "web", "--max-pause", "500ms"]).silent_success();
    rig.restart_proxy();
    assert_eq!(rig.listed("web").unwrap()[STATE], "paused");
    assert_eq!(rig.get("/").status, 504);
    // The server ends; its client reads the end of the connection or ends with the container.
    assert_ne!(rig.run(&["resume", "web"]).code, 0);
    rig.start_again();
    assert_eq!(rig.listed("web").unwrap()[STATE], "paused");
    // The way out.
    rig.run(&["remove", "web"]).silent_success();
    rig.deploy("web", &app, &[]).silent_success();
    assert_eq!(rig.get("/").body, "v1\n");
}

#[test]
fn a_closed_service_is_healthy_only_at_the_path_as_it_was_given() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &["--health-check-path=ready"]).silent_success();
    rig.run(&["stop", "web"]).silent_success();
    assert_eq!(rig.get("/ready").status, 503, "without its slash it is nobody's path");
    let flags = ["--health-check-path=/a/ready", "--path-prefix=/a"];
    rig.deploy("web", &app, &flags).silent_success();
    assert_eq!(rig.get("/a/ready").status, 200, "looked at before the prefix is taken off");
}
