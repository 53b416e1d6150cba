//! Promise 1: what the controller answered is there after a power cut, whatever of the rest is.
//!
//! The real controller runs with its system calls recorded. After each answer a person or a host got, the record tells what a
//! disk would have kept; a controller is started with just that, and asked.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use dhow_tests::fleet::run::{run_with_input, wait_until};
use dhow_tests::power::{Luck, recorder, replay};
use sha2::{Digest as _, Sha256};

use crate::model::{self, ModelAgent, in_hook, lose};
use crate::sick::SickEngine;
use crate::stage::{CONFIG, LIMIT, Stage, command_after, done, refused};

/// What was on the disk for certain at a moment.
struct Moment {
    name: &'static str,
    record: String,
    /// Names of the blobs that were there.
    blobs: BTreeSet<String>,
}

impl Moment {
    /// What was recorded until now. Blobs are listed first, so that the record tells of each.
    fn now(stage: &Stage, name: &'static str) -> Result<Self> {
        let blobs = blobs(&stage.path("controller"))?;
        let record = fs::read_to_string(stage.path("run.calls")).context("a record")?;
        Ok(Self { name, record, blobs })
    }

    /// Goes on with a controller that has what a power cut at this moment left.
    fn go_on(&self, stage: &mut Stage, luck: Luck) -> Result<PathBuf> {
        let init = fs::read_to_string(stage.path("init.calls")).context("a record")?;
        let disk = replay(stage.folder(), &[&init, &self.record])?;
        ensure!(disk.syncs() > 5, "{}: hardly anything was synced: {}", self.name, disk.syncs());
        let place = stage.path(&format!("after {} {luck:?}", self.name));
        fs::create_dir(&place).context("a folder")?;
        disk.after_power_cut(luck, &place)?;
        let state = place.join("controller");
        stage.go_on_with(&state).with_context(|| format!("after a power cut: {}", self.name))?;
        Ok(state)
    }
}

/// The digests of the blobs in a controller's folder; each has to be whole.
fn blobs(state: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let Ok(folders) = fs::read_dir(state.join("blobs")) else { return Ok(found) };
    for folder in folders {
        let folder = folder?.path();
        let first = folder.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
        if first.len() != 2 {
            continue;
        }
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
            let digest = format!("{first}{name}");
            let hash = Sha256::digest(fs::read(&path)?);
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            ensure!(hash == digest, "blob {digest} is not whole");
            found.insert(digest);
        }
    }
    Ok(found)
}

const LUCKS: [Luck; 3] = [Luck::None, Luck::Seed(1), Luck::Seed(2)];

#[test]
fn what_the_controller_answered_is_there_after_a_power_cut() -> Result<()> {
    let mut stage = Stage::recorded()?;
    stage.config(
        &CONFIG.replace("[h1, h2]", "[h1]").replace("  jobs: {hosts: [h3], cmd: work}\n", ""),
    )?;
    let started = Moment::now(&stage, "start")?;

    let address = stage.address().to_owned();
    let login = ["login", "--controller", &address, "--token-file", "-"];
    let admin_token = stage.token().to_owned();
    stage.dhow_with(&login, &admin_token)?.ok()?;
    let logged_in = Moment::now(&stage, "login")?;

    let join_token = stage.host_token("h2")?;
    let token_made = Moment::now(&stage, "token")?;

    stage.join(&stage.host_token("h1")?, "h1")?.ok()?;
    let joined = Moment::now(&stage, "join")?;

    let _engine = SickEngine::start(&stage.path("docker.sock"))?;
    let mut agent = stage.run_agent("h1")?;
    let deploy = ["deploy", "-P", "--version", "v1", "--wait", "30", "--json"];
    let mut deploy = stage
        .dhow_command("home")?
        .args(deploy)
        .stdout(Stdio::piped())
        .spawn()
        .context("a deploy")?;
    let mut lines = BufReader::new(deploy.stdout.take().context("its output")?).lines();
    let first = lines.next().context("an event")??;
    let accepted = Moment::now(&stage, "deploy")?;
    let event: serde_json::Value = serde_json::from_str(&first).context("an event")?;
    let id = event["rollout"].as_str().context("a rollout")?.to_owned();
    // The rollout ends, as its host falls silent.
    agent.kill();
    let last = lines.last().context("the last event")??;
    ensure!(last.contains("\"finished\""), "{last}");
    let ended = Moment::now(&stage, "end")?;
    deploy.wait().context("the deploy ends")?;

    for luck in LUCKS {
        // `init` said that there is a controller, and gave a token.
        started.go_on(&mut stage, luck)?;
        let mut other = stage.dhow_command(&format!("other {luck:?}"))?;
        other.args(["login", "--controller", &address]).env("DHOW_TOKEN", &admin_token);
        done(&mut other)?.ok()?;

        logged_in.go_on(&mut stage, luck)?;
        refused(&stage.dhow_with(&login, &admin_token)?, 1, &["token was used already"]);
        ensure!(stage.json(&["version"])?["user"] == "admin", "the login is known");

        token_made.go_on(&mut stage, luck)?;
        let again = stage.path(&format!("h2 {luck:?}"));
        stage.join(&join_token, "h2")?.ok()?;
        fs::rename(stage.path("h2"), again).context("out of the way")?;

        joined.go_on(&mut stage, luck)?;
        let hosts = stage.json(&["host", "list"])?;
        ensure!(hosts[0]["name"] == "h1", "{hosts}");

        let state = accepted.go_on(&mut stage, luck)?;
        let kept = blobs(&state)?;
        ensure!(accepted.blobs.is_subset(&kept), "{:?} of {:?}", kept, accepted.blobs);
        ensure!(accepted.blobs.len() >= 2, "a spec and a bundle: {:?}", accepted.blobs);
        let shown = stage.json(&["rollout", "show", &id])?;
        ensure!(shown["rollout"]["version"] == "v1", "{shown}");
        // It holds the app's lock, so it is what runs.
        let status = stage.json(&["status"])?;
        ensure!(status["rollout"]["id"] == id.as_str(), "{status}");

        ended.go_on(&mut stage, luck)?;
        let shown = stage.json(&["rollout", "show", &id])?;
        ensure!(shown["rollout"]["state"] == "failed", "{shown}");
        ensure!(shown["failures"][0]["host"] == "h1", "{shown}");
    }
    Ok(())
}

/// A hook runs once at most: its client runs it only after the controller has answered that it counts as begun.
#[test]
fn a_hook_that_began_is_not_run_again_after_a_power_cut() -> Result<()> {
    let mut stage = Stage::recorded()?;
    let address = stage.address().to_owned();
    let token = stage.token().to_owned();
    stage.dhow_with(&["login", "--controller", &address, "--token-file", "-"], &token)?.ok()?;
    stage.config(model::CONFIG)?;
    let _agent = ModelAgent::start(&stage, &["v1"])?;
    let client = in_hook(&stage)?;
    let began = Moment::now(&stage, "hook")?;
    let id = lose(&stage, client)?;
    for luck in LUCKS {
        began.go_on(&mut stage, luck)?;
        wait_until("the controller waits for a client", LIMIT, || {
            let shown = stage.json(&["rollout", "show", &id])?;
            Ok((shown["hooks"][0]["state"] == "unknown").then_some(()))
        })?;
    }
    let attach = stage.dhow(&["rollout", "attach", &id, "--hook", "failed"])?;
    ensure!(attach.code() == Some(1), "{}", attach.text());
    let ran = fs::read_to_string(stage.project().join("ran")).context("it ran")?;
    ensure!(ran == "ran\n", "it ran again: {ran}");
    Ok(())
}

/// A token is good once, so what was made of it must be there when the program says so.
#[test]
fn a_login_and_a_join_outlive_a_power_cut_of_their_machine() -> Result<()> {
    let stage = Stage::with_admin()?;
    let token = stage.host_token("h1")?;
    let calls = stage.path("join.calls");
    let mut join = command_after(&recorder(&calls), "dhow-agent")?;
    join.args(["join", "--controller", stage.address(), "--token-file", "-", "--name", "h1"]);
    join.arg("--state-dir").arg(stage.path("var/lib/h1"));
    run_with_input(&mut join, token.as_bytes(), LIMIT)?.ok()?;
    is_kept(&stage, &calls, "var/lib/h1/identity.json")?;

    let stage = Stage::new()?;
    let calls = stage.path("login.calls");
    let mut login = command_after(&recorder(&calls), "dhow")?;
    login.current_dir("/").env("DHOW_HOME", stage.path("person/config/dhow"));
    login.args(["login", "--controller", stage.address(), "--token-file", "-"]);
    run_with_input(&mut login, stage.token().as_bytes(), LIMIT)?.ok()?;
    is_kept(&stage, &calls, "person/config/dhow/login.json")
}

/// The file is whole on the disk that a power cut left after these calls.
fn is_kept(stage: &Stage, calls: &Path, file: &str) -> Result<()> {
    let written = fs::read(stage.path(file)).context("what was written")?;
    let record = fs::read_to_string(calls).context("a record")?;
    let disk = replay(stage.folder(), &[&record])?;
    for luck in LUCKS {
        let place = stage.path(&format!("cut {luck:?}"));
        fs::create_dir(&place).context("a folder")?;
        disk.after_power_cut(luck, &place)?;
        let kept = fs::read(place.join(file)).with_context(|| format!("{file} with {luck:?}"))?;
        ensure!(kept == written, "{file} is not whole with {luck:?}");
    }
    Ok(())
}
