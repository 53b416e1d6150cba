//! Apps and proxies that go and come back.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::docker::docker;
use crate::rig::{LATE, Rig, seconds, until};

#[test]
fn s20_an_app_that_comes_back_is_served_again_without_a_deploy() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    assert_eq!(rig.get("/").status, 200);
    app.kill();
    assert_eq!(rig.get("/").status, 502);
    app.start();
    until("the app is served again", || rig.get("/").status == 200);
}

#[test]
fn s21_restored_targets_are_live_without_a_check() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let before = rig.list();
    app.kill();
    rig.restart_proxy();
    assert_eq!(rig.list(), before);
    assert_eq!(rig.get("/").status, 502);
    app.start();
    until("the app is served again", || rig.get("/").status == 200);
    assert_eq!(app.checks().len(), 0, "nobody checked the app that came back");
}

#[test]
fn s29_sigterm_refuses_new_connections_and_lets_requests_finish() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let slow = rig.ask("/slow?ms=3000").send_aside();
    app.until_open(1);
    let address = rig.http();
    let stop = stop(&rig);
    until("new connections are refused", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(!slow.is_finished() && !stop.is_finished(), "the request goes on");
    assert_eq!(slow.join().unwrap().unwrap().status, 200);
    let took = stop.join().unwrap();
    assert!(took < seconds(10.0), "stopped after {took:?} though nothing was in flight");
    assert_eq!(exit_code(&rig), "0");
}

#[test]
fn s29_sigterm_cuts_requests_after_ten_seconds() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let slow = rig.ask("/slow?ms=40000").send_aside();
    app.until_open(1);
    let started = Instant::now();
    let stop = stop(&rig);
    assert!(slow.join().unwrap().is_err(), "the request is cut");
    let cut = started.elapsed();
    assert!(cut >= seconds(10.0) && cut < seconds(10.0) + LATE, "cut after {cut:?}");
    stop.join().unwrap();
    assert_eq!(exit_code(&rig), "0");
}

/// Sends SIGTERM in another thread, which gives the time until the container has stopped.
fn stop(rig: &Rig) -> JoinHandle<Duration> {
    let proxy = rig.proxy();
    std::thread::spawn(move || {
        let started = Instant::now();
        docker(&["stop", "--time", "60", &proxy]);
        started.elapsed()
    })
}

fn exit_code(rig: &Rig) -> String {
    docker(&["inspect", "--format", "{{.State.ExitCode}}", &rig.proxy()])
}
