//! What happens to requests in flight.

use std::io::{BufReader, Read as _};
use std::time::Instant;

use crate::http::{self, read_answer, read_head};
use crate::rig::{AT_ONCE, LATE, Rig, seconds, until};
use crate::socket::Socket;

#[test]
fn s08_a_slow_request_ends_on_the_old_target_while_new_ones_go_to_the_new() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.new_app());
    rig.deploy("web", &old, &[]).silent_success();
    let mut kept = BufReader::new(http::connect(rig.http()).unwrap());
    rig.ask("/").write(kept.get_mut()).unwrap();
    assert_eq!(read_answer(&mut kept).unwrap().body, "v1\n");

    let slow = rig.ask("/slow?ms=4000").send_aside();
    old.until_open(1);
    let mut deploy = rig.spawn_deploy("web", &new.target(), &["--drain-timeout", "20s"]);
    until("the new target serves", || rig.get("/").body == "v2\n");
    assert!(!slow.is_finished() && !deploy.is_over(), "the switch does not wait for the drain");
    // A connection that is kept alive survives, and its next request goes to the new target.
    rig.ask("/").write(kept.get_mut()).unwrap();
    assert_eq!(read_answer(&mut kept).unwrap().body, "v2\n");

    let slow = slow.join().unwrap().unwrap();
    assert_eq!((slow.status, slow.body.as_str()), (200, "v1\n"));
    let deployed = deploy.wait().silent_success();
    assert!(deployed.at + seconds(0.3) > slow.at, "the deploy returned before the drain was over");
    assert!(deployed.at < slow.at + AT_ONCE, "the deploy went on after the drain was over");
}

#[test]
fn s09_a_request_slower_than_the_drain_timeout_gets_504() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.new_app());
    rig.deploy("web", &old, &[]).silent_success();
    let slow = rig.ask("/slow?ms=30000").send_aside();
    old.until_open(1);
    let started = Instant::now();
    let deploy = rig.spawn_deploy("web", &new.target(), &["--drain-timeout", "2s"]);
    let slow = slow.join().unwrap().unwrap();
    assert_eq!(slow.status, 504);
    let waited = slow.at - started;
    assert!(waited >= seconds(2.0) && waited < seconds(2.0) + LATE, "504 after {waited:?}");
    deploy.wait().silent_success().after(seconds(2.0));
}

#[test]
fn s10_a_websocket_is_closed_at_once_by_a_deploy() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.new_app());
    rig.deploy("web", &old, &["--buffer-requests", "--buffer-responses"]).silent_success();
    let mut socket = Socket::open(&rig.ask("/socket"));
    socket.hello();
    let started = Instant::now();
    let deploy = rig.spawn_deploy("web", &new.target(), &["--drain-timeout", "30s"]);
    socket.until_closed();
    assert!(started.elapsed() < AT_ONCE, "closed after {:?}", started.elapsed());
    deploy.wait().at_once().silent_success();
    assert_eq!(rig.get("/").body, "v2\n");
}

#[test]
fn s11_an_event_stream_is_cut_at_the_drain_timeout() {
    let rig = Rig::start();
    let (old, new) = (rig.app(&[]), rig.new_app());
    rig.deploy("web", &old, &["--buffer-responses"]).silent_success();
    let mut stream = BufReader::new(http::connect(rig.http()).unwrap());
    rig.ask("/events").write(stream.get_mut()).unwrap();
    let head = read_head(&mut stream).unwrap();
    assert_eq!((head.status, head.header("Content-Type")), (200, "text/event-stream"));
    let mut event = [0; 20];
    stream.read_exact(&mut event).expect("events come one by one");
    let started = Instant::now();
    let deploy = rig.spawn_deploy("web", &new.target(), &["--drain-timeout", "2s"]);
    let (mut rest, mut piece) = (Vec::new(), [0; 64]);
    // An end in the midst of a chunked body; whether it looks like one or like an error does not matter.
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        rest.extend(&piece[..read]);
        assert!(started.elapsed() < seconds(2.0) + LATE, "the stream goes on");
    }
    let waited = started.elapsed();
    assert!(waited >= seconds(2.0) && waited < seconds(2.0) + LATE, "cut after {waited:?}");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the stream must not look complete");
    deploy.wait().silent_success().after(seconds(2.0));
}

#[test]
fn s18_an_answer_that_takes_longer_than_the_target_timeout_is_a_504() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &["--target-timeout", "1s"]).silent_success();
    let started = Instant::now();
    let answer = rig.get("/slow?ms=30000");
    let waited = answer.at - started;
    assert_eq!(answer.status, 504);
    assert!(waited >= seconds(1.0) && waited < seconds(1.0) + LATE, "504 after {waited:?}");
}

#[test]
fn s30_remove_forgets_at_once_and_lets_requests_in_flight_finish() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &[]).silent_success();
    let slow = rig.ask("/slow?ms=4000").send_aside();
    app.until_open(1);
    let removed = rig.run(&["remove", "web"]).silent_success();
    assert_eq!(rig.get("/").status, 404);
    let slow = slow.join().unwrap().unwrap();
    assert_eq!((slow.status, slow.body.as_str()), (200, "v1\n"));
    assert!(removed.at < slow.at, "remove waited for the request");
    assert_eq!(rig.list().len(), 0);
}
