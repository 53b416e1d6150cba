//! Where settings come from: a file, above it the environment, above both the command line.

use std::fs;

use anyhow::{Context as _, Result};
use dhow_tests::fleet::run::{Process, wait_until};

use crate::stage::{Stage, command, done, refused, served};

#[test]
fn flags_of_the_controller_win_over_variables_and_those_over_the_file() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.kill();
    let state = stage.path("controller");
    let file = "listen = '127.0.0.2:0'\nlog = 'warn,dhow_controller=info'\n";
    fs::write(state.join("controller.toml"), file).context("a settings file")?;
    // Each time one source more, and it wins.
    for (number, (variable, flag, expected)) in [
        (None, None, "127.0.0.2:"),
        (Some("127.0.0.3:0"), None, "127.0.0.3:"),
        (Some("127.0.0.3:0"), Some("127.0.0.4:0"), "127.0.0.4:"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut run = command("dhow-controller")?;
        run.args(["run", "--state-dir"]).arg(&state);
        variable.map(|address| run.env("DHOW_LISTEN", address));
        flag.map(|address| run.args(["--listen", address]));
        let log = stage.path(&format!("run-{number}.log"));
        let (mut process, address) = served(Process::start("controller", &mut run, &log)?, &log)?;
        assert!(address.starts_with(expected), "{address}");
        process.kill();
    }
    Ok(())
}

#[test]
fn settings_of_the_controller_that_cannot_be_are_refused_with_their_place() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.kill();
    let file = stage.path("other.toml");
    let run = |text: &str, variable: (&str, &str)| {
        fs::write(&file, text).context("a settings file")?;
        let mut run = command("dhow-controller")?;
        run.args(["run", "--state-dir"]).arg(stage.path("controller")).arg("--config").arg(&file);
        done(run.env(variable.0, variable.1))
    };
    let unknown = run("log = 'info'\nlisten_adress = '127.0.0.1:0'\n", ("A", "a"))?;
    refused(&unknown, 1, &["other.toml", "line 2", "unknown field `listen_adress`"]);
    let variable = run("", ("DHOW_LISTEN", "here"))?;
    refused(&variable, 1, &["variable DHOW_LISTEN", "invalid socket address"]);
    refused(&run("", ("DHOW_LOG_FORMAT", "xml"))?, 1, &["variable DHOW_LOG_FORMAT"]);
    Ok(())
}

#[test]
fn flags_of_the_agent_win_over_variables_and_those_over_the_file() -> Result<()> {
    let stage = Stage::with_admin()?;
    stage.join(&stage.host_token("h1")?, "h1")?.ok()?;
    fs::write(stage.path("h1/agent.toml"), "home = '/file'\n").context("a settings file")?;
    for (number, (variable, flag, expected)) in [
        (None, None, "home=/file"),
        (Some("/variable"), None, "home=/variable"),
        (Some("/variable"), Some("/flag"), "home=/flag"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut run = command("dhow-agent")?;
        run.args(["run", "--state-dir"]).arg(stage.path("h1"));
        run.args(["--docker-host", "unix:///nowhere/docker.sock"]);
        variable.map(|home| run.env("DHOW_AGENT_HOME", home));
        flag.map(|home| run.args(["--home", home]));
        let log = stage.path(&format!("agent-{number}.log"));
        let mut process = Process::start("agent", &mut run, &log)?;
        wait_until("the agent starts", std::time::Duration::from_secs(30), || {
            let text = fs::read_to_string(&log).context("a log")?;
            Ok(text
                .lines()
                .any(|l| l.contains("agent starts") && l.contains(expected))
                .then_some(()))
        })?;
        process.kill();
    }
    fs::write(stage.path("h1/agent.toml"), "hoem = '/file'\n").context("a settings file")?;
    let mut run = command("dhow-agent")?;
    refused(
        &done(run.args(["run", "--state-dir"]).arg(stage.path("h1")))?,
        1,
        &["agent.toml", "hoem"],
    );
    Ok(())
}
