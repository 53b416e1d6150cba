//! A fleet that goes round in a cycle of operations, so that each of them always finds the same.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use dhow_tests::fleet::run::{Output, Process, run, wait_until};
use dhow_tests::fleet::{Agent, Breakpoints, Controller, Trap};
use dhow_tests::load::{Load, LoadSpec};
use dhow_tests::snapshot::{Allowed, difference, snapshot};
use dhow_tests::{Fleet, Project};
use rustix::process::Signal;

use super::plan::{Kill, Kills, Program};
use crate::deploy::{Stage, clear};
use crate::scene::{HASTY, containers, no_lock, none_lost};

/// No death may hold an operation up for longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Longer than an Engine takes to make its rules anew, in milliseconds: seen were two times a tenth of a second.
const RULES_MS: f64 = 2000.0;

const APP: &str = "kills";

/// Of the first controller.
const PORT: u16 = 7470;

/// What is done.
#[derive(Debug)]
pub(crate) struct Operation(&'static [&'static str]);

/// On hosts that nobody deployed to before.
pub(crate) const FIRST: Operation = Operation(&["deploy", "-P", "--version", "v1"]);

/// Each finds what the one before it left, and the first of them that v1 serves. With one old container kept, deploys prune.
/// The same version again renames its old container.
pub(crate) const CYCLE: [Operation; 5] = [
    Operation(&["deploy", "-P", "--version", "v2"]),
    Operation(&["rollback", "v1"]),
    Operation(&["deploy", "-P", "--version", "v3"]),
    Operation(&["deploy", "-P", "--version", "v3"]),
    Operation(&["deploy", "-P", "--version", "v1"]),
];

/// An operation in which nobody was killed.
#[derive(Debug)]
pub(crate) struct Reference {
    /// Whether anything serves when it begins, and so all the time.
    pub(crate) serves: bool,
    /// What is left on each host.
    hosts: Vec<String>,
    /// What the hooks wrote.
    hooks: Vec<String>,
    /// Every point of every program.
    pub(crate) points: Vec<String>,
}

pub(crate) struct Rig<'a> {
    fleet: &'a Fleet,
    points: Breakpoints,
    stage: Stage<'a>,
    /// How many stages there were: each has a name and a port of its own.
    stages: u16,
    project: Project,
}

impl<'a> Rig<'a> {
    pub(crate) fn set(fleet: &'a Fleet) -> Result<Self> {
        let points = Breakpoints::listen(fleet)?;
        let stage = Stage::set(fleet, &format!("{APP}-0"), PORT)?;
        let project = Project::new(fleet, APP)?;
        let [a, b] = [1, 2].map(|number| fleet.host(number).address());
        project.deploy_yml(
            fleet,
            &format!(
                "servers:\n  web: [{a}, {b}]\n  job:\n    hosts: [{a}]\n    cmd: /sample-app\n    env: {{clear: {{APP_MODE: job}}}}\n\
                 env:\n  secret: [DB_PASSWORD]\nproxy:\n  healthcheck: {{path: /up, interval: 1, timeout: 5}}\n\
                 asset_path: /assets\nerror_pages_path: public\nretain_containers: 1\n\
                 boot: {{limit: 1, wait: 1}}\n{HASTY}"
            ),
        )?;
        fs::create_dir_all(project.dir().join("public")).context("make a directory")?;
        project.write("public/503.html", "<h1>back soon</h1>\n")?;
        project.push(fleet, &["v1", "v2", "v3"], |image| image)?;
        for hook in ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"] {
            project.hook(hook, "$KAMAL_VERSION $KAMAL_HOSTS")?;
        }
        Ok(Self { fleet, points, stage, stages: 1, project })
    }

    /// The same hosts as if nobody had ever deployed to them, with a controller and agents that know nothing.
    pub(crate) fn anew(self) -> Result<Self> {
        let Self { fleet, points, stage, stages, project } = self;
        drop(stage);
        for host in fleet.hosts() {
            clear(host)?;
            host.docker(&["network", "rm", "kamal"])?.ok()?;
            let label = format!("label=service={APP}");
            let images = host.docker(&["images", "-q", "--filter", &label])?.ok()?.stdout;
            let images: BTreeSet<&str> = images.split_whitespace().collect();
            let images: Vec<&str> = images.into_iter().collect();
            host.docker(&[&["rmi", "-f"], images.as_slice()].concat())?.ok()?;
        }
        let stage = Stage::set(fleet, &format!("{APP}-{stages}"), PORT + stages)?;
        Ok(Self { fleet, points, stage, stages: stages + 1, project })
    }

    /// An operation in which nobody is killed.
    pub(crate) fn reference(&mut self, operation: &Operation) -> Result<Reference> {
        let serves = self.serves()?;
        self.play(operation, &Kills::default())?;
        let points = self.points.reached();
        Ok(Reference { serves, hosts: self.hosts()?, hooks: self.project.hook_lines(), points })
    }

    /// Whether containers of the app run.
    fn serves(&self) -> Result<bool> {
        Ok(!containers(self.fleet.host(1), &format!("{APP}-web"), false)?.is_empty())
    }

    /// An operation in which some are: what is left must be what the reference left.
    pub(crate) fn replay(
        &mut self,
        operation: &Operation,
        reference: &Reference,
        kills: &Kills,
    ) -> Result<()> {
        let begun = Instant::now();
        let what = || format!("{operation:?}, killed: {kills}");
        ensure!(self.serves()? == reference.serves, "it does not begin as before");
        let loads = if reference.serves { self.loads(kills)? } else { Vec::new() };
        let outcome = self.play(operation, kills).and_then(|()| self.is_as(reference));
        let served = Self::served(loads, kills);
        println!("    {}: {:.1} s", what(), begun.elapsed().as_secs_f32());
        outcome.and(served).with_context(what)
    }

    /// Load on each host. Where its Engine dies connections stay, as new ones are refused while it comes back.
    fn loads(&self, kills: &Kills) -> Result<Vec<Load>> {
        let one = |(number, address): (usize, String)| {
            let url = format!("http://{address}/echo");
            let spec = LoadSpec { duration_ms: 300_000, ..LoadSpec::mixed(&url) };
            let every = if kills.engine(number) { 0 } else { spec.new_connection_every };
            Load::start(self.fleet, &LoadSpec { new_connection_every: every, ..spec })
        };
        (1..).zip(self.fleet.addresses()).map(one).collect()
    }

    /// Ends loads; nothing was lost, or where an Engine died no more than that costs.
    fn served(loads: Vec<Load>, kills: &Kills) -> Result<()> {
        for (number, load) in (1..).zip(loads) {
            if kills.engine(number) {
                served_on(load)?;
            } else {
                none_lost(vec![load])?;
            }
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<String>> {
        let hub = self.fleet.hub().address();
        self.fleet.hosts().iter().map(|host| snapshot(host, &hub)).collect()
    }

    fn is_as(&self, reference: &Reference) -> Result<()> {
        let hooks = self.project.hook_lines();
        ensure!(hooks == reference.hooks, "hooks ran as {hooks:?}, not {:?}", reference.hooks);
        no_lock(self.fleet, APP)?;
        let mut differs = String::new();
        wait_until("every host is as if nobody had been killed", LIMIT / 2, || {
            differs.clear();
            for (number, (expected, found)) in (1..).zip(reference.hosts.iter().zip(self.hosts()?))
            {
                if let Some(lines) = difference(expected, &found, &[Allowed::AUDIT_LOG])? {
                    differs.push_str(&format!("host {number}:\n{lines}\n"));
                }
            }
            Ok(differs.is_empty().then_some(()))
        })
        .with_context(|| differs.clone())
    }

    /// An operation to its end, which is success, whoever is killed meanwhile.
    pub(crate) fn play(&mut self, operation: &Operation, kills: &Kills) -> Result<()> {
        drop(self.points.reached());
        let _ = fs::remove_file(self.project.dir().join("hooks.log"));
        let addresses = self.fleet.addresses();
        let traps: Vec<(&Kill, Trap)> =
            kills.0.iter().map(|kill| (kill, self.points.trap(kill.is_at(&addresses)))).collect();
        let (fleet, project) = (self.fleet, &self.project);
        // Agents that were killed a moment ago are waited for.
        let args = [operation.0, &["--wait", "30"]].concat();
        let mut cli = self.stage.controller.cli_start("admin", project.dir(), &args)?;
        let controller = Mutex::new(&mut self.stage.controller);
        thread::scope(|scope| {
            let mut dying = Vec::new();
            let mut client = None;
            for (kill, trap) in traps {
                if kill.program == Program::Client {
                    client = Some(trap);
                    continue;
                }
                let controller = &controller;
                dying.push(scope.spawn(move || {
                    dies(fleet, controller, kill.program, &trap)
                        .with_context(|| format!("kill {kill}"))
                }));
            }
            let served = serve(&mut cli, client, &controller, project);
            let killed = dying.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow!("a thread that kills panicked"))?
            });
            match (served, killed) {
                (Err(served), Err(killed)) => Err(served.context(format!("{killed:#}"))),
                (served, killed) => served.and(killed),
            }
        })
    }
}

/// An Engine that comes back makes its iptables rules anew, and while it does, neither clients nor the proxy of its host get
/// new connections through: that costs requests whatever dhow does. For no longer may nothing have answered.
fn served_on(load: Load) -> Result<()> {
    let report = load.finish()?;
    let gap = report.longest_gap.ms();
    ensure!(report.sent > 0 && gap < RULES_MS, "nothing answered for {gap} ms: {report:?}");
    let most = report.sent / 10;
    ensure!(report.failed() < most, "{} failed: {:?}", report.failed(), report.failures);
    Ok(())
}

type Shared<'a, 'b> = Mutex<&'a mut Controller<'b>>;

/// `kill -9` at the point, and what a service manager does next.
fn dies(fleet: &Fleet, controller: &Shared<'_, '_>, program: Program, trap: &Trap) -> Result<()> {
    let held = trap.wait(LIMIT)?;
    match program {
        Program::Agent(number) => {
            let agent = Agent::of(fleet.host(number));
            agent.kill()?;
            drop(held);
            agent.run()
        }
        Program::Engine(number) => {
            fleet.host(number).engine_kill()?;
            drop(held);
            fleet.host(number).engine_start()
        }
        Program::Controller => {
            let mut controller = controller.lock().unwrap_or_else(PoisonError::into_inner);
            controller.kill()?;
            drop(held);
            controller.run()
        }
        Program::Client => bail!("a client is killed by who started it"),
    }
}

/// Waits for the client; where it is killed, a person attaches to what it left.
fn serve(
    cli: &mut Process,
    trap: Option<Trap>,
    controller: &Shared<'_, '_>,
    project: &Project,
) -> Result<()> {
    let Some(trap) = trap else {
        let status = cli.wait(LIMIT * 2)?;
        ensure!(status.success(), "the client ended with {status}");
        return Ok(());
    };
    let held = trap.wait(LIMIT).context("kill the client")?;
    cli.signal(Signal::KILL)?;
    cli.wait(LIMIT)?;
    drop(held);
    let command = |args: &[&str]| -> Result<Output> {
        let mut command = {
            let controller = controller.lock().unwrap_or_else(PoisonError::into_inner);
            controller.cli_command("admin", project.dir())?
        };
        run(command.args(args), LIMIT * 2)
    };
    let mut said = String::new();
    wait_until("a person has attached to the end", LIMIT, || {
        // Where the controller is away as well, they try again.
        let list = command(&["rollout", "list", "--json", "-n", "1"])?;
        if !list.success() {
            said = list.text();
            return Ok(None);
        }
        let attached = command(&["rollout", "attach", &first_id(&list)?])?;
        said = attached.text();
        Ok(attached.success().then_some(()))
    })
    .with_context(|| said.clone())
}

fn first_id(list: &Output) -> Result<String> {
    let list: serde_json::Value =
        serde_json::from_str(&list.stdout).context("read the list of rollouts")?;
    list[0]["id"].as_str().map(str::to_owned).context("there is no rollout")
}

/// The id of the newest rollout.
pub(crate) fn newest(controller: &Controller<'_>, project: &Project) -> Result<String> {
    first_id(&controller.cli(project.dir(), &["rollout", "list", "--json", "-n", "1"])?.ok()?)
}
