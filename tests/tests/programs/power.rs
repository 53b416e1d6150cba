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
use dhow_tests::power::{Luck, replay};
use sha2::{Digest as _, Sha256};

use crate::stage::{CONFIG, Stage, done, refused};

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
