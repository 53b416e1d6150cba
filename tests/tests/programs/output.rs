//! What commands print: JSON for programs, plain lines in a pipe, live lines on a terminal. The rollout looked at is one
//! that fails, as its host falls silent.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhow_tests::fleet::run::{Output, Process, run, wait_until};
use serde_json::Value;

use crate::model::{self, ModelAgent, in_hook, lose};
use crate::sick::SickEngine;
use crate::stage::{Stage, program};

/// Longest time for a rollout whose host falls silent.
const LIMIT: Duration = Duration::from_secs(90);

/// `deploy` of an app of its own, so that several can be at work at the same time.
fn deploy<'a>(stage: &Stage, app: &'a str) -> Result<[&'a str; 6]> {
    let role = "  web:\n    hosts: [h1]\n    proxy: {host: NAME.test}\n".replace("NAME", app);
    let config = format!(
        "service: {app}\nimage: {app}\nservers:\n{role}registry: {{server: \"localhost:1\", username: u, password: [PASSWORD]}}\nbuilder: {{arch: amd64}}\n"
    );
    let path = stage.project().join(app);
    fs::write(path, config).context("a config")?;
    Ok(["deploy", "-P", "--version", "v1", "-c", app])
}

/// Runs deploys of these apps at the same time; the host falls silent once all have begun.
fn failing(stage: &Stage, agent: &mut Process, runs: Vec<(&str, Command)>) -> Result<Vec<Output>> {
    let apps: Vec<String> = runs.iter().map(|(app, _)| (*app).to_owned()).collect();
    let start = |(_, mut command): (&str, Command)| thread::spawn(move || run(&mut command, LIMIT));
    let threads: Vec<_> = runs.into_iter().map(start).collect();
    for app in apps {
        // Once the host has said what it waits for there is something to show of it.
        wait_until("the host waits for its Engine", LIMIT, || {
            let list = stage.json(&["rollout", "list", "-c", &app])?;
            let Some(id) = list[0]["id"].as_str() else { return Ok(None) };
            let shown = stage.json(&["rollout", "show", id, "-c", &app])?;
            let waits = shown["waiting_for"].to_string();
            Ok(waits.contains("the Docker Engine could not be reached").then_some(()))
        })?;
    }
    agent.kill();
    threads.into_iter().map(|thread| thread.join().expect("it ran")).collect()
}

/// The kinds of events and the fields of each that `docs/json.md` names.
fn documented() -> Result<Vec<(String, BTreeSet<String>)>> {
    let path = dhow_tests::fleet::workspace_root().join("docs/json.md");
    let text = fs::read_to_string(path).context("docs/json.md")?;
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let (kind, fields) = (cells.first()?.strip_prefix('`')?, cells.get(1)?);
        let words = fields.split('`').skip(1).step_by(2).map(str::to_owned);
        Some((kind.trim_end_matches('`').to_owned(), words.collect()))
    };
    let table = text.split("## Events").nth(1).context("a table of events")?;
    Ok(table.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect())
}

/// The events that were printed, one a line; each is as `docs/json.md` has it.
fn events(printed: &str) -> Result<Vec<Value>> {
    let events = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let events = events.with_context(|| format!("each line is an object:\n{printed}"))?;
    let kinds = documented()?;
    for event in &events {
        let kind = event["kind"].as_str().context("a kind")?;
        let fields = kinds.iter().find(|(known, _)| known == kind);
        let (_, fields) = fields.with_context(|| format!("{kind} is not in docs/json.md"))?;
        let detail = event["detail"].as_object().context("a detail")?;
        assert_eq!(&detail.keys().cloned().collect::<BTreeSet<_>>(), fields, "{event}");
        for key in ["sequence", "at", "rollout"] {
            assert!(event.get(key).is_some(), "{event}");
        }
    }
    Ok(events)
}

#[test]
fn every_kind_of_event_that_is_documented_is_met() -> Result<()> {
    let stage = Stage::with_admin()?;
    stage.config(model::CONFIG)?;
    let _agent = ModelAgent::start(&stage, &["v1"])?;
    // A client that is lost while its hook runs: the one that attaches is told of it.
    let id = lose(&stage, in_hook(&stage)?)?;
    let attach = ["rollout", "attach", &id, "--hook", "succeeded", "--json"];
    let went_on = events(&stage.dhow(&attach)?.ok()?.stdout)?;
    let last = went_on.last().context("events")?;
    assert_eq!(last["detail"]["state"], "succeeded");
    fs::remove_file(stage.project().join(".kamal/hooks/pre-deploy")).context("no hook any more")?;
    let failed = stage.dhow(&["deploy", "-P", "--version", "never-pushed", "--json"])?;
    assert_eq!(failed.code(), Some(1), "{}", failed.text());
    let failed = events(&failed.stdout)?;
    let of = |events: &[Value], kind: &str| {
        events.iter().filter(|event| event["kind"] == kind).cloned().collect::<Vec<_>>()
    };
    let all = [went_on.as_slice(), &failed].concat();
    for (kind, _) in documented()? {
        assert!(!of(&all, &kind).is_empty(), "{kind} was not met");
    }
    let states: Vec<Value> =
        of(&went_on, "hook").iter().map(|hook| hook["detail"]["state"].clone()).collect();
    assert_eq!(states, ["started", "unknown", "finished"], "told from the beginning");
    assert_eq!(of(&failed, "host_failed")[0]["detail"]["failure"], "image_missing");
    // What is taken back after a failure is told as no drift.
    let status = stage.json(&["status"])?;
    assert_eq!(status["events"], serde_json::json!([]), "{status}");
    Ok(())
}

#[test]
fn a_deploy_prints_one_event_a_line_of_a_documented_kind() -> Result<()> {
    let stage = Stage::with_admin()?;
    let _engine = SickEngine::start(&stage.path("docker.sock"))?;
    let mut agent = stage.agent("h1")?;
    // Without an Engine that answers a host can only say so: an object all the same, and no success.
    for words in [
        &["app", "version"][..],
        &["app", "details"],
        &["app", "containers"],
        &["app", "images"],
        &["app", "logs"],
    ] {
        deploy(&stage, "shop")?;
        let output = stage.dhow(&[words, &["--json", "-c", "shop"]].concat())?;
        let answer: Value = serde_json::from_str(&output.stdout).context("one object")?;
        assert_eq!(answer["host"], "h1");
        assert!(answer["error"].is_string(), "{answer}");
        assert_eq!(output.code(), Some(1));
    }
    assert_eq!(stage.json(&["host", "list"])?[0]["online"], true);
    let mut command = stage.dhow_command("home")?;
    command.args(deploy(&stage, "shop")?).arg("--json");
    let outputs = failing(&stage, &mut agent, vec![("shop", command)])?;
    let output = outputs.first().context("an output")?;
    assert_eq!(output.code(), Some(1), "{}", output.text());
    let events = events(&output.stdout)?;
    let failed = events.iter().find(|event| event["kind"] == "host_failed").context("a failure")?;
    assert_eq!(failed["detail"]["host"], "h1");
    let last = events.last().context("events")?;
    assert_eq!((&last["kind"], &last["detail"]["state"]), (&"finished".into(), &"failed".into()));

    // And every command that reads answers in JSON, in one line.
    let list = stage.json(&["rollout", "list", "-c", "shop"])?;
    assert_eq!(list[0]["state"], "failed");
    let id = list[0]["id"].as_str().context("an id")?;
    assert_eq!(last["rollout"], id);
    let shown = stage.json(&["rollout", "show", id, "-c", "shop"])?;
    assert_eq!(shown["failures"][0]["host"], "h1");
    let status = stage.json(&["status", "-c", "shop"])?;
    assert_eq!(status["hosts"][0]["host"], "h1");
    assert_eq!(stage.json(&["version"])?["user"], "admin");
    assert!(stage.json(&["host", "token", "h2"])?["token"].is_string());
    assert!(stage.json(&["config", "--version", "v1"])?.is_object());
    Ok(())
}

/// `dhow ARGS` on a terminal of its own.
fn on_a_terminal(stage: &Stage, args: &[&str]) -> Result<Command> {
    let mut command = Command::new("script");
    let line = format!("{} {}", program("dhow")?.display(), args.join(" "));
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.current_dir(stage.project()).env("DHOW_HOME", stage.path("home"));
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    Ok(command)
}

#[test]
fn progress_is_live_on_a_terminal_and_plain_elsewhere() -> Result<()> {
    let stage = Stage::with_admin()?;
    let _engine = SickEngine::start(&stage.path("docker.sock"))?;
    let mut agent = stage.agent("h1")?;
    let (red, redrawn) = ("\u{1b}[31m", "\u{1b}[2K");
    let mut plain = stage.dhow_command("home")?;
    plain.args(deploy(&stage, "plain")?);
    let mut quiet = stage.dhow_command("home")?;
    quiet.args(deploy(&stage, "quiet")?).arg("-q");
    let live = on_a_terminal(&stage, &deploy(&stage, "live")?)?;
    let mut colorless = on_a_terminal(&stage, &deploy(&stage, "colorless")?)?;
    colorless.env("NO_COLOR", "1");
    let mut dumb = on_a_terminal(&stage, &deploy(&stage, "dumb")?)?;
    dumb.env("TERM", "dumb");
    let runs = vec![
        ("plain", plain),
        ("quiet", quiet),
        ("live", live),
        ("colorless", colorless),
        ("dumb", dumb),
    ];
    let outputs = failing(&stage, &mut agent, runs)?;
    for output in &outputs {
        assert_eq!(output.code(), Some(1), "{}", output.text());
        assert!(
            output.stdout.contains("FAILED") && output.stdout.contains("h1"),
            "{}",
            output.text()
        );
    }
    let [plain, quiet, live, colorless, dumb] = &outputs[..] else { panic!("five ran") };

    assert!(!plain.stdout.contains(['\u{1b}', '\r']), "{:?}", plain.stdout);
    // Host and stage are named once.
    let first = plain.stdout.lines().find(|line| line.starts_with("[1/")).context("a stage")?;
    assert_eq!(first.split_once("] ").map(|(_, stage)| stage), Some("lock, pull on h1"));
    // What the host waits for is said while it waits.
    assert!(plain.stdout.contains("the Docker Engine could not be reached"), "{}", plain.stdout);
    // -q: failures only.
    assert!(!quiet.stdout.contains("[1/"), "{}", quiet.stdout);
    assert!(live.stdout.contains(red) && live.stdout.contains(redrawn), "{:?}", live.stdout);
    // NO_COLOR takes the colours, not the lines; a dumb terminal can do neither.
    assert!(
        !colorless.stdout.contains(red) && colorless.stdout.contains(redrawn),
        "{:?}",
        colorless.stdout
    );
    assert!(!dumb.stdout.contains('\u{1b}'), "{:?}", dumb.stdout);
    Ok(())
}
