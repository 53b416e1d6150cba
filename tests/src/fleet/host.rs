//! One machine of a fleet: namespaces, address, Docker Engine, home, and what can be done to it.

mod engine;
mod network;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::breakpoints;
use super::options::FleetOptions;
use super::require::PATH;
use super::run::{Output, Process, only_child, run, tail, wait_until};
use super::slot::Names;
use super::sweep;

/// A machine of a fleet. All methods take `&self`, so that a test may act on hosts from several threads.
#[derive(Debug)]
pub struct Host {
    number: usize,
    names: Names,
    options: FleetOptions,
    dir: PathBuf,
    programs: Mutex<Programs>,
}

/// What runs on a host; `None`: not running, or ended by us.
#[derive(Debug, Default)]
struct Programs {
    init: Option<Process>,
    dockerd: Option<Process>,
    sshd: Option<Process>,
    agent: Option<Process>,
}

impl Host {
    pub(crate) fn new(names: &Names, number: usize, options: &FleetOptions) -> Self {
        Self {
            number,
            names: names.clone(),
            options: options.clone(),
            dir: names.dir().join(format!("h{number}")),
            programs: Mutex::default(),
        }
    }

    /// Its number in the fleet, from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its address, which is also the name `deploy.yml` uses.
    #[must_use]
    pub fn address(&self) -> String {
        self.names.host_address(self.number)
    }

    /// The name its programs' log files begin with.
    #[must_use]
    pub fn name(&self) -> String {
        format!("h{}", self.number)
    }

    /// Its directory on the machine that runs the tests.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its programs see as `/root`, as a path on the machine that runs the tests.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The Docker socket, as a path on the machine that runs the tests.
    #[must_use]
    pub fn docker_socket(&self) -> PathBuf {
        self.dir.join("run/docker.sock")
    }

    /// Its network namespace, below `/run/netns`.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.names.host_namespace(self.number)
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.names.dir().join(format!("logs/{}-{program}.log", self.name()))
    }

    // Power.

    /// Switches it on and gives without waiting for the Engine; see [`Host::wait_ready`].
    pub(crate) fn boot(&self) -> Result<()> {
        let mut programs = self.programs();
        if programs.init.is_some() {
            bail!("{} is on already", self.name());
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        self.connect_network()?;
        fs::write(self.dir.join("daemon.json"), self.daemon_config().to_string())
            .context("write the Engine's settings")?;
        let mut command = Command::new("nsenter");
        command
            .env_clear()
            .env("PATH", PATH)
            .arg(format!("--net=/run/netns/{}", self.namespace()))
            .args(["--", "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"])
            .args(["bash".as_ref(), self.names.dir().join("bin/init.sh").as_os_str()])
            .arg(&self.dir)
            .arg(format!("dhow-{}", self.name()))
            .arg(self.options.small_disk_mb.unwrap_or(0).to_string());
        // The mark of an earlier boot would be taken for this one's.
        let _ = fs::remove_file(self.dir.join("run/ready"));
        programs.init = Some(Process::start("init", &mut command, &self.log("init"))?);
        drop(programs);
        let ready = self.dir.join("run/ready");
        wait_until("process 1 has laid out the host", Duration::from_secs(20), || {
            if let Some(init) = self.programs().init.as_mut()
                && let Some(status) = init.ended()?
            {
                bail!("process 1 ended ({status})");
            }
            Ok(ready.exists().then_some(()))
        })
        .map_err(|error| self.did_not_come_up("init", &error))?;
        if self.options.sshd {
            self.start_sshd()?;
        }
        self.launch_dockerd()
    }

    fn did_not_come_up(&self, program: &str, error: &anyhow::Error) -> anyhow::Error {
        let log = fs::read_to_string(self.log(program)).unwrap_or_default();
        let log = tail(&log, 20);
        anyhow::anyhow!("host {} did not come up: {error:#}\n{program} said:\n{log}", self.number)
    }

    /// Power cut: everything on it stops at once, and so does its network. Its disk stays.
    ///
    /// # Errors
    ///
    /// When it is off already, or something of it stays alive.
    pub fn power_cut(&self) -> Result<()> {
        let mut programs = self.programs();
        if programs.init.is_none() {
            bail!("{} is off already", self.name());
        }
        sweep::cut(&self.namespace(), &self.names.hub_namespace(), &self.name())?;
        // Dropping reaps the dead.
        *programs = Programs::default();
        Ok(())
    }

    /// Switches it on again and waits for the Engine. The agent does not start by itself.
    ///
    /// # Errors
    ///
    /// When it is on already or does not come up; then with the tail of the log that tells why.
    pub fn power_on(&self) -> Result<()> {
        self.boot()?;
        self.wait_ready()
    }

    // Programs.

    /// A command that enters the host, with only `PATH` and `HOME` set; append program and arguments.
    ///
    /// # Errors
    ///
    /// When the host is off.
    pub fn enter(&self) -> Result<Command> {
        self.enter_locked(&self.programs())
    }

    fn enter_locked(&self, programs: &Programs) -> Result<Command> {
        let Some(init) = &programs.init else { bail!("{} is off", self.name()) };
        let Some(first) = only_child(init.id())? else { bail!("{} is off", self.name()) };
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", PATH).env("HOME", "/root");
        command.arg("--target").arg(first.to_string());
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/root", "--"]);
        Ok(command)
    }

    /// Runs a program on the host, whatever its exit status.
    ///
    /// # Errors
    ///
    /// When the host is off or the program takes longer than two minutes.
    pub fn exec<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Output> {
        run(self.enter()?.args(words), Duration::from_secs(120))
    }

    fn start_sshd(&self) -> Result<()> {
        let keys = self.names.dir().join("ssh");
        let config = format!(
            "Port 22\nListenAddress {address}\nHostKey {keys}/host_ed25519\n\
             AuthorizedKeysFile {keys}/authorized_keys\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\n\
             StrictModes no\nPidFile /run/sshd.pid\nMaxSessions 100\nMaxStartups 200\nPrintMotd no\n\
             LogLevel VERBOSE\nSetEnv DOCKER_HOST=unix:///run/docker.sock PATH={PATH}\n\
             Subsystem sftp internal-sftp\n",
            address = self.address(),
            keys = keys.display(),
        );
        let path = self.dir.join("sshd_config");
        fs::write(&path, config).context("write sshd's settings")?;
        let mut programs = self.programs();
        let mut command = self.enter_locked(&programs)?;
        // sshd writes no times, and logs are merged by time. It insists on an absolute path.
        command.args(["bash", "-c"]).arg(format!(
            "exec /usr/sbin/sshd -D -e -f {} 2> >(while IFS= read -r line; do \
             TZ=UTC printf '%(%FT%T)TZ %s\\n' -1 \"$line\"; done)",
            path.display()
        ));
        programs.sshd = Some(Process::start_entered("sshd", &mut command, &self.log("sshd"))?);
        Ok(())
    }

    /// Starts a program on the host as its agent, with its output in the log `hN-agent.log`.
    pub(crate) fn start_agent(&self, program: &Path, args: &[&OsStr]) -> Result<()> {
        let mut programs = self.programs();
        if let Some(agent) = programs.agent.as_mut()
            && agent.ended()?.is_none()
        {
            bail!("the agent of {} is running already", self.name());
        }
        let mut command = self.enter_locked(&programs)?;
        command.env("DHOW_LOG", self.options.log.as_str());
        command.envs(breakpoints::asked(self.names.dir()).map(|path| ("DHOW_BREAKPOINTS", path)));
        command.arg(program).args(args);
        programs.agent = Some(Process::start_entered("agent", &mut command, &self.log("agent"))?);
        Ok(())
    }

    /// Calls `act` with the agent's process.
    ///
    /// # Errors
    ///
    /// When no agent was started since the host was switched on, or `act` fails.
    pub fn agent<T>(&self, act: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        match self.programs().agent.as_mut() {
            Some(agent) => act(agent),
            None => bail!("no agent was started on {}", self.name()),
        }
    }

    /// `kill -9` of the agent.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn agent_kill(&self) -> Result<()> {
        self.agent(|agent| {
            agent.signal(Signal::KILL)?;
            agent.wait(Duration::from_secs(10)).map(drop)
        })
    }

    /// Stops the agent as a service manager does.
    ///
    /// # Errors
    ///
    /// When it was not started, or has to be killed after 20 s.
    pub fn agent_stop(&self) -> Result<()> {
        self.agent(|agent| agent.stop(Duration::from_secs(20)))
    }
}
