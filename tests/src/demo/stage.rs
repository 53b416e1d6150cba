//! Registry, controller, agent and project of the demo.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dhow_test_images::ARCHITECTURE;

use super::programs::{free_port, runs, start};
use super::tell::Teller;
use super::{HOST, SERVICE, Settings, images};
use crate::fleet::run::{run, run_with_input, wait_until};
use crate::load::{LoadReport, LoadSpec};

/// For what takes a moment.
const SOON: Duration = Duration::from_secs(30);

/// What the demo is played on.
pub(super) struct Stage {
    settings: Settings,
    controller: u16,
    registry: u16,
    http: u16,
    https: u16,
}

impl Stage {
    pub(super) fn set(settings: &Settings, tell: &Teller, app: &Path) -> Result<Self> {
        let http = free_port(8080)?;
        let stage = Self {
            settings: settings.clone(),
            controller: free_port(7443)?,
            registry: free_port(5000)?,
            http,
            https: free_port(http.max(8443 - 1) + 1)?,
        };
        tell.chapter("A registry with two versions of an app");
        stage.start_registry()?;
        images::push(settings, app, &stage.registry_address())?;
        tell.line(&format!("127.0.0.1:{} holds {SERVICE}:v1 and {SERVICE}:v2.", stage.registry));
        stage.write_project()?;
        tell.chapter("A controller: it holds what is wanted");
        stage.start_controller(tell)?;
        tell.chapter("An agent: it makes this machine so");
        stage.start_agent(tell)?;
        Ok(stage)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    fn registry_address(&self) -> String {
        format!("127.0.0.1:{}", self.registry)
    }

    fn controller_address(&self) -> String {
        format!("127.0.0.1:{}", self.controller)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.settings.dir.join(below)
    }

    fn start_registry(&self) -> Result<()> {
        let dir = self.path("registry");
        fs::create_dir_all(&dir).context("create the registry's directory")?;
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n\
             http: {{addr: \"{}\"}}\n",
            dir.display(),
            self.registry_address()
        );
        fs::write(&config, text).context("write the registry's settings")?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        start(&self.settings, "registry", &command)?;
        self.await_port("registry", self.registry)
    }

    fn await_port(&self, name: &str, port: u16) -> Result<()> {
        let log = self.path(&format!("logs/{name}.log"));
        wait_until(&format!("the {name} listens on port {port}"), SOON, || {
            if !runs(&self.settings, name) {
                bail!("the {name} ended; see {}", log.display());
            }
            Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
        })
    }

    /// The project as a person would write it, and a `dhow` that knows where it is.
    fn write_project(&self) -> Result<()> {
        let project = self.path("project");
        for below in ["config", ".kamal"] {
            fs::create_dir_all(project.join(below)).context("create the project")?;
        }
        let yml = format!(
            "service: {SERVICE}\nimage: {SERVICE}\nservers: [{HOST}]\n\
             registry:\n  server: {registry}\n  username: demo\n  password: [REGISTRY_PASSWORD]\n\
             builder: {{arch: {ARCHITECTURE}}}\n\
             proxy:\n  app_port: 80\n  healthcheck: {{path: /up, interval: 1, timeout: 5}}\n\
             \x20 run: {{http_port: {http}, https_port: {https}, bind_ips: [127.0.0.1]}}\n\
             env: {{secret: [GREETING]}}\n",
            registry = self.registry_address(),
            http = self.http,
            https = self.https,
        );
        fs::write(project.join("config/deploy.yml"), yml).context("write deploy.yml")?;
        fs::write(project.join(".kamal/secrets"), "REGISTRY_PASSWORD=demo\nGREETING=hello\n")
            .context("write the secrets")?;
        let wrapper = self.path("dhow");
        let script = format!(
            "#!/bin/sh\ncd '{}' && HOME='{}' DHOW_HOME='{}' exec '{}' \"$@\"\n",
            project.display(),
            self.path("client").display(),
            self.path("client/dhow").display(),
            self.program("dhow")?.display()
        );
        fs::create_dir_all(self.path("client")).context("create the client's home")?;
        fs::write(&wrapper, script).context("write the demo's dhow")?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))
            .context("make the demo's dhow executable")
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.settings.programs.join(name);
        ensure!(path.is_file(), "there is no {}: run `make demo`, which builds it", path.display());
        std::path::absolute(path).context("make a path absolute")
    }

    fn start_controller(&self, tell: &Teller) -> Result<()> {
        let program = self.program("dhow-controller")?;
        let (state, address) = (self.path("controller"), self.controller_address());
        tell.command(&format!(
            "dhow-controller init --state-dir {} --name 127.0.0.1 > login-token",
            state.display()
        ));
        let mut init = Command::new(&program);
        init.args(["init", "--name", "127.0.0.1", "--state-dir"]).arg(&state);
        let token = run(&mut init, SOON)?.ok()?.stdout;
        tell.command(&format!(
            "dhow-controller run --state-dir {} --listen {address}",
            state.display()
        ));
        let mut command = Command::new(&program);
        command.args(["run", "--listen", &address, "--state-dir"]).arg(&state);
        start(&self.settings, "controller", &command)?;
        self.await_port("controller", self.controller)?;
        let login = ["login", "--controller", &address, "--token-file", "-"];
        tell.command(&format!("dhow {} < login-token", login.join(" ")));
        let mut command = Command::new(self.path("dhow"));
        let said = run_with_input(command.args(login), last_line(&token).as_bytes(), SOON)?.ok()?;
        said.stdout.lines().for_each(|line| tell.line(line));
        Ok(())
    }

    fn start_agent(&self, tell: &Teller) -> Result<()> {
        let program = self.program("dhow-agent")?;
        let (state, address) = (self.path("agent"), self.controller_address());
        tell.command(&format!("dhow host token {HOST} > token"));
        let token =
            run(Command::new(self.path("dhow")).args(["host", "token", HOST]), SOON)?.ok()?;
        let join = ["join", "--controller", &address, "--name", HOST, "--token-file", "-"];
        tell.command(&format!("dhow-agent {} < token", join.join(" ")));
        let mut command = Command::new(&program);
        command.args(join).arg("--state-dir").arg(&state);
        run_with_input(&mut command, last_line(&token.stdout).as_bytes(), SOON)?.ok()?;
        tell.command(&format!("dhow-agent run --state-dir {}", state.display()));
        let mut command = Command::new(&program);
        command.arg("run").arg("--state-dir").arg(&state).arg("--home").arg(self.path("home"));
        command.args(["--docker-host", &self.settings.docker_host]);
        fs::create_dir_all(self.path("home")).context("create the agent's home")?;
        start(&self.settings, "agent", &command)?;
        wait_until("the agent is online", SOON, || {
            if !runs(&self.settings, "agent") {
                bail!("the agent ended; see {}", self.path("logs/agent.log").display());
            }
            let mut list = Command::new(self.path("dhow"));
            let said = run(list.args(["host", "list", "--json"]), SOON)?.ok()?.stdout;
            Ok(said.contains("\"online\":true").then_some(()))
        })?;
        self.dhow(tell, &["host", "list"])
    }

    /// `dhow ARGS`, shown as it runs; it must succeed.
    pub(super) fn dhow(&self, tell: &Teller, args: &[&str]) -> Result<()> {
        tell.command(&format!("dhow {}", args.join(" ")));
        let status = Command::new(self.path("dhow")).args(args).stdin(Stdio::null()).status();
        let status = status.context("run dhow")?;
        ensure!(status.success(), "`dhow {}` failed ({status})", args.join(" "));
        Ok(())
    }

    /// One request to the app, answered.
    pub(super) fn ask(&self) -> Result<LoadReport> {
        let url = format!("{}/", self.url());
        wait_until("the app answers", SOON, || {
            // One that goes by itself: its end is not waited for.
            let report = one(LoadSpec { count: 1, ..LoadSpec::new(&url) })?;
            Ok((report.ok == 1).then_some(report))
        })
    }
}

fn one(spec: LoadSpec) -> Result<LoadReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a request")?;
    runtime.block_on(super::send(spec, std::future::pending()))
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim()
}
