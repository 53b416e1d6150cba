//! dhow's own programs on a fleet: controller and CLI in the hub, an agent on a host.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::run::{Output, Process, run, tail, wait_until};
use super::{Fleet, Host, binary, breakpoints};

/// How long any one command of the CLI may take.
const CLI_LIMIT: Duration = Duration::from_secs(300);

/// A controller in the hub, and the client of a person who is logged in to it.
#[derive(Debug)]
pub struct Controller<'a> {
    fleet: &'a Fleet,
    program: PathBuf,
    dir: PathBuf,
    name: String,
    port: u16,
    process: Option<Process>,
    admin_token: String,
}

impl<'a> Controller<'a> {
    /// Initialises and starts a controller called `name` on `port` of the hub, and waits until it listens.
    /// Each of a fleet needs its own name and port.
    ///
    /// # Errors
    ///
    /// When it does not come up; with the tail of its log.
    pub fn start(fleet: &'a Fleet, name: &str, port: u16) -> Result<Self> {
        let program = binary("dhow-controller")?;
        let dir = fleet.dir().join(format!("controller-{name}"));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let mut init = fleet.hub().enter();
        init.env("DHOW_LOG", &fleet.options().log).arg(&program).arg("init").arg("--state-dir");
        init.arg(dir.join("state")).args(["--name", &fleet.hub().address()]);
        let output = run(&mut init, Duration::from_secs(60))?.ok()?;
        let Some(token) = output.stdout.lines().last().map(str::trim).filter(|t| !t.is_empty())
        else {
            bail!("`dhow-controller init` printed no admin token");
        };
        let admin_token = token.to_owned();
        let name = name.to_owned();
        let mut this = Self { fleet, program, dir, name, port, process: None, admin_token };
        this.run()?;
        Ok(this)
    }

    /// `ADDRESS:PORT`, as agents and clients dial it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.fleet.hub().address(), self.port)
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Starts the program on the state it has, and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it runs already or does not come up.
    pub fn run(&mut self) -> Result<()> {
        if let Some(process) = self.process.as_mut()
            && process.ended()?.is_none()
        {
            bail!("controller {} is running already", self.name);
        }
        // Another's listener would be taken for this one's, and the failure come later, elsewhere.
        let taken = format!("sport = :{}", self.port);
        if !self.fleet.hub().exec(&["ss", "-Hltn", &taken])?.ok()?.stdout.is_empty() {
            bail!("controller {}: {} is in use: give each its own port", self.name, self.address());
        }
        let mut command = self.fleet.hub().enter();
        command.env("DHOW_LOG", &self.fleet.options().log);
        command.envs(breakpoints::asked(self.fleet.dir()).map(|path| ("DHOW_BREAKPOINTS", path)));
        command.arg(&self.program);
        command.arg("run").arg("--state-dir").arg(self.state_dir());
        command.args(["--listen", &self.address()]);
        let log = self.fleet.dir().join(format!("logs/controller-{}.log", self.name));
        let mut process = Process::start("controller", &mut command, &log)?;
        let up = wait_until("the controller listens", Duration::from_secs(20), || {
            if let Some(status) = process.ended()? {
                bail!("the controller ended ({status})");
            }
            super::hub::listens(&process, self.port).map(|yes| yes.then_some(()))
        });
        if let Err(error) = up {
            let log = fs::read_to_string(&log).unwrap_or_default();
            bail!("controller {}: {error:#}; it said:\n{}", self.name, tail(&log, 20));
        }
        self.process = Some(process);
        Ok(())
    }

    /// The running program.
    ///
    /// # Errors
    ///
    /// When it was stopped or killed.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("controller {} does not run", self.name))
    }

    /// `kill -9`.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process()?;
        process.signal(Signal::KILL)?;
        process.wait(Duration::from_secs(10))?;
        self.process = None;
        Ok(())
    }

    /// Stops it as a service manager does.
    ///
    /// # Errors
    ///
    /// When it does not run, or has to be killed after 20 s.
    pub fn stop(&mut self) -> Result<()> {
        let stopped = self.process()?.stop(Duration::from_secs(20));
        self.process = None;
        stopped
    }

    /// Logs the client `client` in with the controller's first token; needed once, before other commands.
    ///
    /// # Errors
    ///
    /// When the controller refuses.
    pub fn login(&self, client: &str) -> Result<()> {
        let token = self.secret_file("admin-token", &self.admin_token)?;
        let address = self.address();
        let args = ["login", "--controller", &address, "--token-file"].map(OsStr::new);
        let args = [&args[..], &[token.as_os_str()]].concat();
        self.cli_as(client, &self.dir, &args)?.ok().map(drop)
    }

    /// Runs `dhow ARGS` in `project` as the client `admin`, whatever the exit status.
    ///
    /// # Errors
    ///
    /// When it is not done within five minutes.
    pub fn cli<S: AsRef<OsStr>>(&self, project: &Path, args: &[S]) -> Result<Output> {
        self.cli_as("admin", project, args)
    }

    /// As [`Controller::cli`], as the client with the given name (its own credentials).
    ///
    /// # Errors
    ///
    /// As [`Controller::cli`].
    pub fn cli_as<S>(&self, client: &str, project: &Path, args: &[S]) -> Result<Output>
    where
        S: AsRef<OsStr>,
    {
        run(self.cli_command(client, project)?.args(args), CLI_LIMIT)
    }

    /// Starts `dhow ARGS` and leaves it running, for tests that kill or watch it; its output is in the
    /// log `cli-CLIENT.log`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn cli_start<S>(&self, client: &str, project: &Path, args: &[S]) -> Result<Process>
    where
        S: AsRef<OsStr>,
    {
        let log = self.fleet.dir().join(format!("logs/cli-{client}.log"));
        Process::start("dhow", self.cli_command(client, project)?.args(args), &log)
    }

    /// The CLI in the hub's network, in `project`, with a home and credentials of its own.
    ///
    /// # Errors
    ///
    /// When the program cannot be built.
    pub fn cli_command(&self, client: &str, project: &Path) -> Result<Command> {
        let home = self.dir.join(format!("client-{client}"));
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let mut command = self.fleet.hub().enter();
        command.current_dir(project).env("HOME", &home).env("DHOW_HOME", home.join("dhow"));
        command.env("DHOW_LOG", &self.fleet.options().log);
        command.arg(binary("dhow")?);
        Ok(command)
    }

    /// A token with which a host called `name` may join once.
    ///
    /// # Errors
    ///
    /// When nobody is logged in as `admin`, or the controller refuses.
    pub fn host_token(&self, name: &str) -> Result<String> {
        let output = self.cli(&self.dir, &["host", "token", name])?.ok()?;
        match output.stdout.lines().last().map(str::trim) {
            Some(token) if !token.is_empty() => Ok(token.to_owned()),
            _ => bail!("`dhow host token {name}` printed no token"),
        }
    }

    fn secret_file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("protect a token")?;
        Ok(path)
    }
}

/// The agent of a host. The program lives with the [`Host`], as it dies with its power.
#[derive(Clone, Copy, Debug)]
pub struct Agent<'a> {
    host: &'a Host,
}

impl<'a> Agent<'a> {
    /// Joins `host` to the controller under its address as name, and starts its agent.
    ///
    /// # Errors
    ///
    /// When joining fails or the agent cannot be started.
    pub fn start(controller: &Controller<'_>, host: &'a Host) -> Result<Self> {
        Self::start_as(controller, host, &[])
    }

    /// As [`Agent::start`], with other names the host answers to.
    ///
    /// # Errors
    ///
    /// As [`Agent::start`].
    pub fn start_as(controller: &Controller<'_>, host: &'a Host, aliases: &[&str]) -> Result<Self> {
        let this = Self { host };
        let program = this.install()?;
        let token_file = host.dir().join("join-token");
        let token = controller.host_token(&host.address())?;
        fs::write(&token_file, token).context("write the join token")?;
        fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600))
            .context("protect the join token")?;
        let mut join = host.enter()?;
        join.arg(&program).args(["join", "--controller", &controller.address(), "--token-file"]);
        join.arg(&token_file).args(["--name", &host.address(), "--state-dir"]);
        join.arg(this.state_dir());
        for alias in aliases {
            join.args(["--alias", alias]);
        }
        run(&mut join, Duration::from_secs(60))?.ok()?;
        if !this.state_dir().exists() {
            bail!("`dhow-agent join` succeeded, but wrote no {}", this.state_dir().display());
        }
        this.run()?;
        Ok(this)
    }

    /// The agent of a host that has joined before.
    #[must_use]
    pub fn of(host: &'a Host) -> Self {
        Self { host }
    }

    /// Its state directory, the same path on the host and outside.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.host.dir().join("agent")
    }

    /// Puts the program where the host can see it: the workspace may lie below `/root`, which every
    /// host covers with its own.
    fn install(&self) -> Result<PathBuf> {
        let path = self.host.dir().join("dhow-agent");
        // The program of an agent that runs cannot be written to, but it can be replaced.
        let fresh = self.host.dir().join("dhow-agent.new");
        fs::copy(binary("dhow-agent")?, &fresh).context("copy the agent to the host")?;
        fs::rename(&fresh, &path).context("put the agent in place")?;
        Ok(path)
    }

    /// Starts the program on the state it has; it may have been stopped, killed or cut off before.
    ///
    /// # Errors
    ///
    /// When it runs already, or the host is off.
    pub fn run(&self) -> Result<()> {
        let program = self.host.dir().join("dhow-agent");
        let state = self.state_dir();
        let args: [&OsStr; 7] = [
            "run".as_ref(),
            "--state-dir".as_ref(),
            state.as_os_str(),
            "--docker-host".as_ref(),
            "unix:///run/docker.sock".as_ref(),
            "--home".as_ref(),
            "/root".as_ref(),
        ];
        self.host.start_agent(&program, &args)
    }

    /// `kill -9`.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.host.agent_kill()
    }

    /// Stops it as a service manager does.
    ///
    /// # Errors
    ///
    /// When it has to be killed after 20 s.
    pub fn stop(&self) -> Result<()> {
        self.host.agent_stop()
    }
}
