//! Promise 8 without Docker: the controller is away, and every command says so plainly and soon.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhow_tests::fleet::run::wait_until;

use crate::model::{self, ModelAgent};
use crate::stage::{LIMIT, Stage, refused};

const COMMANDS: [&[&str]; 7] = [
    &["status"],
    &["deploy", "-P", "--version", "v2"],
    &["rollback", "v1"],
    &["app", "version"],
    &["rollout", "list"],
    &["host", "list"],
    &["host", "token", "h9"],
];

#[test]
fn a_controller_that_is_gone_is_named_at_once_with_what_to_do() -> Result<()> {
    let mut stage = Stage::with_admin()?;
    stage.kill();
    for args in COMMANDS {
        let output = stage.dhow(args)?;
        let words = [
            stage.address(),
            "the controller cannot be reached",
            "the apps keep running",
            "try again when it is back",
        ];
        refused(&output, 1, &words);
        assert!(output.elapsed < Duration::from_secs(15), "{args:?} took {:?}", output.elapsed);
        let json = stage.dhow(&[args, &["--json"]].concat())?;
        let told: serde_json::Value = serde_json::from_str(&json.stdout).context("one object")?;
        assert!(told["error"].as_str().is_some_and(|e| e.contains(stage.address())), "{told}");
    }
    // What needs no controller works, and says what it could not ask.
    let version = stage.dhow(&["version"])?.ok()?;
    assert!(
        version.stdout.contains("controller: the controller cannot be reached"),
        "{}",
        version.stdout
    );
    Ok(())
}

/// Also where it was told while the controller died.
#[test]
fn what_a_host_repaired_is_known_to_the_next_controller() -> Result<()> {
    let mut stage = Stage::with_admin()?;
    stage.config(model::CONFIG)?;
    let agent = ModelAgent::start(&stage, &["v1"])?;
    stage.dhow(&["deploy", "-P", "--version", "v1"])?.ok()?;
    let events = |stage: &Stage| -> Result<Vec<String>> {
        let status = stage.json(&["status"])?;
        let events = status["events"].as_array().context("events")?.iter();
        Ok(events.filter_map(|event| Some(event["text"].as_str()?.to_owned())).collect())
    };
    let repaired = |stage: &Stage, times: usize| {
        wait_until("the repair is told of", LIMIT, || {
            let events = events(stage)?;
            let repaired = events.iter().filter(|text| text.contains("repaired")).count();
            Ok((repaired == times).then_some(events))
        })
    };
    agent.engine.vanish("shop-web-v1");
    let before = repaired(&stage, 1)?;
    stage.kill();
    agent.engine.vanish("shop-web-v1");
    stage.go_on_with(&stage.path("controller"))?;
    let after = repaired(&stage, 2)?;
    assert_eq!(after[..before.len()], before, "{after:?}");
    Ok(())
}

/// A machine that takes connections and says nothing, as behind a broken balancer: no refusal ever comes.
#[test]
fn a_controller_that_is_silent_is_given_up_on() -> Result<()> {
    let mut stage = Stage::with_admin()?;
    stage.kill();
    let listener = TcpListener::bind(stage.address()).context("the controller's port")?;
    let silent = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept()?;
        // Until the client gives up and closes it.
        connection.read_to_end(&mut Vec::new()).map(drop)
    });
    let output = stage.dhow(&["status"])?;
    refused(&output, 1, &[stage.address(), "did not answer within 10s", "the apps keep running"]);
    assert!(output.elapsed < Duration::from_secs(30), "{:?}", output.elapsed);
    let _ = silent.join();
    Ok(())
}
