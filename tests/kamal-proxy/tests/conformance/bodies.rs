//! Bodies and paths on their way through: what is buffered, limited, cut, written anew.

use std::io::BufReader;
use std::time::Instant;

use crate::http::{connect, read_head};
use crate::rig::{Rig, seconds, until};

#[test]
fn a_buffered_answer_arrives_when_it_is_whole_also_one_in_chunks() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    let first_byte = || {
        let mut stream = connect(rig.http()).unwrap();
        let asked = Instant::now();
        // The app sends headers at once and ends in chunks.
        rig.ask("/slow?ms=1500&trickle=1").write(&mut stream).unwrap();
        let head = read_head(&mut BufReader::new(stream)).unwrap();
        assert_eq!(head.status, 200);
        asked.elapsed()
    };
    rig.deploy("web", &app, &["--buffer-responses"]).silent_success();
    let buffered = first_byte();
    assert!(buffered >= seconds(1.5), "the answer began after {buffered:?}");
    rig.deploy("web", &app, &[]).silent_success();
    let passed_on = first_byte();
    assert!(passed_on < seconds(1.5), "the answer began after {passed_on:?}");
}

#[test]
fn a_buffered_answer_that_a_drain_cuts_is_no_answer() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    rig.deploy("web", &app, &["--buffer-responses"]).silent_success();
    let cut = rig.ask("/slow?ms=30000&trickle=1").send_aside();
    app.until_open(1);
    rig.deploy("web", &app, &["--drain-timeout=500ms"]).silent_success();
    let answer = cut.join().unwrap();
    assert!(answer.is_err(), "the app's answer had begun: {answer:?}");
}

#[test]
fn a_limit_counts_only_where_the_body_is_buffered() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    let echo = |bytes: usize| rig.ask("/echo").post(&vec![b'x'; bytes]).send().unwrap().status;
    rig.deploy("web", &app, &["--max-request-body=100", "--buffer-requests=false"])
        .silent_success();
    assert_eq!(echo(101), 200);
    rig.deploy("web", &app, &["--max-request-body=100", "--buffer-requests"]).silent_success();
    assert_eq!((echo(100), echo(101)), (200, 413));
    rig.deploy("web", &app, &["--max-response-body=100", "--buffer-responses"]).silent_success();
    assert_eq!(rig.get("/download?bytes=100&chunked=1").status, 200);
    assert_eq!(rig.get("/download?bytes=101&chunked=1").status, 500);
}

#[test]
fn a_request_body_in_chunks_stays_in_chunks() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    for buffer in ["--buffer-requests", "--buffer-requests=false"] {
        rig.deploy("web", &app, &[buffer]).silent_success();
        let chunked = rig
            .ask("/headers")
            .method("POST")
            .header("Transfer-Encoding", "chunked")
            .raw_body(b"5\r\nhello\r\n0\r\n\r\n");
        let seen = chunked.send().unwrap().body;
        assert!(seen.contains("\"transfer-encoding\":[\"chunked\"]"), "{buffer}: {seen}");
        assert!(!seen.contains("content-length"), "{buffer}: {seen}");
    }
}

#[test]
fn a_path_is_matched_decoded_and_goes_on_as_it_came() {
    let rig = Rig::start();
    let (root, api) = (rig.app(&[]), rig.new_app());
    rig.deploy("root", &root, &[]).silent_success();
    rig.deploy("api", &api, &["--path-prefix=/api"]).silent_success();
    let seen = |path: &str| {
        let answer = rig.get(path);
        format!("{} {}", answer.body.trim(), answer.header("X-Path"))
    };
    assert_eq!(seen("/a%2Fb%20c?q=%20;x"), "v1 /a%2Fb%20c?q=%20;x");
    assert_eq!(seen("/a//b"), "v1 /a//b");
    assert_eq!(seen("/%61pi/u"), "v2 /u");
    // Only where the prefix is taken off is the rest written anew.
    assert_eq!(seen("/api/a%2Fb%20c"), "v2 /a/b%20c");
    assert_eq!(rig.get("/bad%zz").status, 400);
}

#[test]
fn a_health_check_path_is_never_a_query() {
    let rig = Rig::start();
    let app = rig.app(&["APP_LOG_REQUESTS=true"]);
    rig.deploy("web", &app, &["--health-check-path=/status/200?x=1"]).error_starts("target failed");
    rig.deploy("web", &app, &["--health-check-path=anything?x=1"]).silent_success();
    until("the app was asked", || app.log().contains("GET /anything%3Fx=1 200"));
}
