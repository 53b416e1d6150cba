//! A controller with its clients and agents, in a folder of its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dhow_tests::fleet::run::{Output, Process, run, run_with_input, wait_until};
use dhow_tests::power::recorder;
use serde_json::Value;
use tempfile::TempDir;

/// How long any one command may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Names of the controllers' certificates.
const NAMES: &str = "localhost,127.0.0.1";

/// A config with two roles; nobody ever looks for the image.
pub(crate) const CONFIG: &str = "service: shop\nimage: shop\nservers:\n  web: [h1, h2]\n  jobs: {hosts: [h3], cmd: work}\n\
    registry: {server: \"localhost:1\", username: u, password: [PASSWORD]}\nbuilder: {arch: amd64}\n";

/// A program of this workspace, which was built with the tests.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_dhow-load")).parent();
    let folder = std::env::var_os("DHOW_BIN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let folder = folder.or(beside.map(Path::to_owned)).context("programs are in a folder")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is missing: `cargo build --workspace`", path.display());
    Ok(path)
}

/// A program with nothing of this process's environment that could set something.
pub(crate) fn command(name: &str) -> Result<Command> {
    command_after(&[], name)
}

/// The same with words before it, which start it.
pub(crate) fn command_after(before: &[OsString], name: &str) -> Result<Command> {
    let program = program(name)?;
    let mut command = match before.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("DHOW_") || text.starts_with("KAMAL_") || text == "VERSION" {
            command.env_remove(&variable);
        }
    }
    Ok(command)
}

/// Runs a command to its end, whatever that is.
pub(crate) fn done(command: &mut Command) -> Result<Output> {
    run(command, LIMIT)
}

/// A controller that runs, with a folder for everything around it.
pub(crate) struct Stage {
    folder: TempDir,
    token: String,
    address: String,
    process: Process,
}

impl Stage {
    /// Initialises and starts a controller on a port of the system's choice.
    pub(crate) fn new() -> Result<Self> {
        Self::named(NAMES)
    }

    /// As [`Stage::new`], with other names in the controller's certificate.
    pub(crate) fn named(names: &str) -> Result<Self> {
        Self::start(names, |_| Vec::new())
    }

    /// As [`Stage::new`], with the system calls of the controller recorded in `init.calls` and `run.calls`.
    pub(crate) fn recorded() -> Result<Self> {
        Self::start(NAMES, recorder)
    }

    fn start(names: &str, before: impl Fn(&Path) -> Vec<OsString>) -> Result<Self> {
        let folder = TempDir::new().context("a folder")?;
        let state = folder.path().join("controller");
        let mut init =
            command_after(&before(&folder.path().join("init.calls")), "dhow-controller")?;
        init.args(["init", "--name", names, "--state-dir"]).arg(&state);
        let token = done(&mut init)?.ok()?.stdout.trim().to_owned();
        let before = before(&folder.path().join("run.calls"));
        let (process, address) = serve(folder.path(), &state, "127.0.0.1:0", &before)?;
        fs::create_dir_all(folder.path().join("app/config")).context("a project")?;
        fs::create_dir_all(folder.path().join("app/.kamal")).context("a project")?;
        let this = Self { folder, token, address, process };
        this.config(CONFIG)?;
        fs::write(this.project().join(".kamal/secrets"), "PASSWORD=word\n").context("secrets")?;
        Ok(this)
    }

    /// As [`Stage::new`], with an admin logged in.
    pub(crate) fn with_admin() -> Result<Self> {
        let this = Self::new()?;
        let address = this.address.clone();
        this.dhow_with(&["login", "--controller", &address, "--token-file", "-"], &this.token)?
            .ok()?;
        Ok(this)
    }

    /// Where everything is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.path("app")
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The first admin's login token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Replaces the project's `deploy.yml`.
    pub(crate) fn config(&self, text: &str) -> Result<()> {
        fs::write(self.project().join("config/deploy.yml"), text).context("write a config")
    }

    /// Writes a hook: a shell script that is run in the project's folder.
    pub(crate) fn hook(&self, name: &str, script: &str) -> Result<()> {
        let folder = self.project().join(".kamal/hooks");
        fs::create_dir_all(&folder).context("a folder for hooks")?;
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).context("a hook")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).context("make it executable")
    }

    /// `dhow` in the project, as the person with the home of this name.
    pub(crate) fn dhow_command(&self, home: &str) -> Result<Command> {
        let mut dhow = command("dhow")?;
        dhow.current_dir(self.project()).env("DHOW_HOME", self.path(home)).env_remove("NO_COLOR");
        Ok(dhow)
    }

    /// Runs `dhow ARGS` as the admin.
    pub(crate) fn dhow<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output> {
        self.dhow_as("home", args)
    }

    /// Runs `dhow ARGS` as the person with the home of this name.
    pub(crate) fn dhow_as<S: AsRef<OsStr>>(&self, home: &str, args: &[S]) -> Result<Output> {
        done(self.dhow_command(home)?.args(args))
    }

    /// The same with something on its standard input.
    pub(crate) fn dhow_with(&self, args: &[&str], input: &str) -> Result<Output> {
        run_with_input(self.dhow_command("home")?.args(args), input.as_bytes(), LIMIT)
    }

    /// What `dhow ARGS --json` prints.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.dhow(&[args, &["--json"]].concat())?.ok()?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("{args:?} printed {:?}", output.stdout))
    }

    /// A token for a host to join with.
    pub(crate) fn host_token(&self, host: &str) -> Result<String> {
        Ok(self.dhow(&["host", "token", host, "-q"])?.ok()?.stdout.trim().to_owned())
    }

    /// `dhow-agent join` as `name`, with the token on standard input.
    pub(crate) fn join(&self, token: &str, name: &str) -> Result<Output> {
        let mut join = command("dhow-agent")?;
        join.args(["join", "--controller", &self.address, "--token-file", "-", "--name", name]);
        join.arg("--state-dir").arg(self.path(name));
        run_with_input(&mut join, token.as_bytes(), LIMIT)
    }

    /// Joins a host and starts its agent, with an Engine that is not there; waits until the controller knows it.
    pub(crate) fn agent(&self, name: &str) -> Result<Process> {
        self.join(&self.host_token(name)?, name)?.ok()?;
        let agent = self.run_agent(name)?;
        wait_until("the agent is online", LIMIT, || {
            let hosts = self.json(&["host", "list"])?;
            let hosts = hosts.as_array().cloned().unwrap_or_default();
            let here = hosts.iter().any(|host| host["name"] == name && host["online"] == true);
            Ok(here.then_some(()))
        })?;
        Ok(agent)
    }

    /// Starts the agent of a host that joined, without Docker unless a test has it at `docker.sock`; its output is in
    /// `NAME.log`.
    pub(crate) fn run_agent(&self, name: &str) -> Result<Process> {
        let mut run = command("dhow-agent")?;
        run.arg("run").arg("--state-dir").arg(self.path(name));
        let docker = format!("unix://{}", self.path("docker.sock").display());
        run.args(["--docker-host", &docker, "--home"]).arg(self.path("root"));
        Process::start("dhow-agent", &mut run, &self.path(&format!("{name}.log")))
    }

    /// All that the controller logged until now.
    pub(crate) fn log(&self) -> Result<String> {
        fs::read_to_string(self.path("controller.log")).context("read the controller's log")
    }

    /// Waits until the controller has logged a line with all these words.
    pub(crate) fn logged(&self, words: &[&str]) -> Result<()> {
        let found = wait_until("the controller logs it", LIMIT, || {
            let log = self.log()?;
            Ok(log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
        });
        found.with_context(|| {
            format!("no line with {words:?} in\n{}", self.log().unwrap_or_default())
        })
    }

    /// `kill -9` the controller.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the controller and starts one with another state on its port.
    pub(crate) fn go_on_with(&mut self, state: &Path) -> Result<()> {
        self.process.kill();
        (self.process, _) = serve(self.folder.path(), state, &self.address, &[])?;
        Ok(())
    }
}

/// Starts the controller with this state and waits until it says where it serves.
fn serve(
    folder: &Path,
    state: &Path,
    listen: &str,
    before: &[OsString],
) -> Result<(Process, String)> {
    let log = folder.join("controller.log");
    // What the one before said is another's.
    let _ = fs::remove_file(&log);
    let mut run = command_after(before, "dhow-controller")?;
    run.args(["run", "--listen", listen, "--state-dir"]).arg(state);
    served(Process::start("dhow-controller", &mut run, &log)?, &log)
}

/// Waits until a controller says where it serves.
pub(crate) fn served(mut process: Process, log: &Path) -> Result<(Process, String)> {
    let address = wait_until("the controller serves", LIMIT, || {
        let text = fs::read_to_string(log).unwrap_or_default();
        if let Some(status) = process.ended()? {
            bail!("the controller ended ({status}): {text}");
        }
        let line = text.lines().find_map(|line| line.split_once("serving address="));
        Ok(line.map(|(_, address)| address.trim().to_owned()))
    })?;
    Ok((process, address))
}

/// A refusal: exit status 1 (or another), and every one of these words on standard error.
#[track_caller]
pub(crate) fn refused(output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.code(), Some(status), "{}", output.text());
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in\n{}", output.text());
    }
    assert!(!output.text().contains("panicked"), "{}", output.text());
}
