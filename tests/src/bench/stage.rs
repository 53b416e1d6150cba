//! Where figures are taken: a fleet with a controller, an agent on every host, and the same app under several names,
//! each deployed by one deployer only.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::floor::Target;
use crate::fleet::run::wait_until;
use crate::fleet::{Agent, Controller, REGISTRY_USER};
use crate::{Fleet, FleetOptions, Project, ProjectSpec, kamal};

/// Stopped containers that each app keeps: few, so that every measured deploy also prunes.
const RETAIN: usize = 2;

/// The controller's port in the hub.
const PORT: u16 = 7401;

/// A fleet of three hosts as figures need it.
///
/// # Errors
///
/// As [`Fleet::start_with`].
pub(super) fn fleet() -> Result<Fleet> {
    Fleet::start_with(FleetOptions { sshd: true, ..FleetOptions::hosts(3) })
}

/// A fleet at work.
pub(super) struct Stage<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) controller: Controller<'a>,
}

/// An app, and the last version that was made of it.
pub(super) struct App {
    pub(super) project: Project,
    hosts: Vec<usize>,
    host_name: String,
    version: usize,
}

/// What a program took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    /// User and system time.
    pub(super) cpu: Duration,
}

impl<'a> Stage<'a> {
    pub(super) fn set(fleet: &'a Fleet) -> Result<Self> {
        let controller = Controller::start(fleet, "bench", PORT)?;
        controller.login("admin")?;
        for host in fleet.hosts() {
            Agent::start(&controller, host)?;
        }
        wait_until("every host is online", Duration::from_secs(20), || {
            let list = controller.cli(fleet.dir(), &["host", "list", "--json"])?.ok()?;
            let online = list.stdout.matches("\"online\":true").count();
            Ok((online == fleet.hosts().len()).then_some(()))
        })?;
        Ok(Self { fleet, controller })
    }

    /// An app called `name` on the hosts, which nobody has deployed yet.
    pub(super) fn app(&self, name: &str, hosts: &[usize]) -> Result<App> {
        let host_name = format!("{name}.test");
        let project = ProjectSpec::new(self.fleet, name, hosts)
            .host_name(&host_name)
            .env("COLOUR", "blue")
            .secret("DB_PASSWORD", "s3cret")
            .yaml(&format!("retain_containers: {RETAIN}"))
            .write(self.fleet)?;
        Ok(App { project, hosts: hosts.to_vec(), host_name, version: 0 })
    }

    /// Makes a version that no host has run, and has every host of the app pull it.
    pub(super) fn next_version(&self, app: &mut App) -> Result<String> {
        app.version += 1;
        let version = format!("v{}", app.version);
        app.project.push(self.fleet, &[&version], |image| image)?;
        let image = format!("{}/{}:{version}", self.fleet.hub().registry(), app.project.service());
        std::thread::scope(|scope| {
            let pulls: Vec<_> = app
                .hosts
                .iter()
                .map(|number| {
                    let image = &image;
                    scope.spawn(move || {
                        self.fleet.host(*number).docker(&["pull", "-q", image])?.ok().map(drop)
                    })
                })
                .collect();
            pulls.into_iter().try_for_each(|pull| {
                pull.join().map_err(|_| anyhow!("a thread that pulls panicked"))?
            })
        })?;
        Ok(version)
    }

    /// `dhow ARGS` in the app's project; it must succeed.
    pub(super) fn dhow(&self, app: &App, args: &[&str]) -> Result<Cost> {
        let mut command = self.controller.cli_command("admin", app.project.dir())?;
        command.env("DHOW_LOG", "warn").args(args);
        measured(command)
    }

    /// `kamal ARGS` in the app's project; it must succeed.
    pub(super) fn kamal(&self, app: &App, args: &[&str]) -> Result<Cost> {
        let mut command = kamal::command(self.fleet, &app.project)?;
        command.args(args);
        measured(command)
    }

    /// The app as the floor deploys it; somebody must have set it up.
    pub(super) fn targets(&self, app: &App) -> Vec<Target> {
        let hub = self.fleet.hub();
        let password = hub.registry_password().unwrap_or("fleet");
        let login = serde_json::json!({
            "username": REGISTRY_USER, "password": password, "serveraddress": hub.registry(),
        });
        let target = |number: &usize| Target {
            socket: self.fleet.host(*number).docker_socket(),
            login: format!("X-Registry-Auth: {}\r\n", base64url(login.to_string().as_bytes())),
            service: app.project.service().to_owned(),
            repository: format!("{}/{}", hub.registry(), app.project.service()),
            host_name: app.host_name.clone(),
            retain: RETAIN,
        };
        app.hosts.iter().map(target).collect()
    }

    /// TCP payload that host `number` has exchanged with the controller over connections that are open now.
    pub(super) fn wire_bytes(&self, number: usize) -> Result<u64> {
        let to = self.controller.address();
        let said = self.fleet.host(number).exec(&["ss", "-tinH", "dst", &to])?.ok()?.stdout;
        let mut bytes = 0;
        for word in said.split_whitespace() {
            // Acknowledged, not sent: a segment that is sent again is no more payload.
            let count = word.strip_prefix("bytes_acked:").or(word.strip_prefix("bytes_received:"));
            bytes += count.map_or(Ok(0), str::parse::<u64>).context("a count of `ss`")?;
        }
        ensure!(bytes > 0, "`ss` knows no connection to {to}: {said}");
        Ok(bytes)
    }
}

/// The words of `base64url` with padding, as `X-Registry-Auth` has it.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        let word = word << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

/// bash tells real, user and system time of a command in milliseconds, on the last line of stderr.
const TIMED: &str = r#"TIMEFORMAT='%R %U %S'; time "$@""#;

/// Runs a command that enters the hub to its end and tells what it took, from inside the hub.
fn measured(command: Command) -> Result<Cost> {
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let entered = words.iter().position(|word| word == "--").context("a command in the hub")? + 1;
    let mut timed = Command::new(command.get_program());
    timed.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    timed.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
    timed.args(&words[..entered]).args(["timeout", "300", "bash", "-c", TIMED, "time"]);
    timed.args(&words[entered..]).stdin(Stdio::null());
    let begun = Instant::now();
    let output = timed.output().context("run a command that is measured")?;
    let outside = begun.elapsed();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let what = words[entered..].join(" ".as_ref());
    ensure!(
        output.status.success(),
        "{} failed ({}):\n{}{stderr}",
        what.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    let times = stderr.lines().last().unwrap_or_default().split(' ').map(str::parse::<f64>);
    let times: Vec<f64> = times.collect::<Result<_, _>>().context("what bash says of its time")?;
    let [real, user, system] = times[..] else {
        return Err(anyhow!("bash says {} times", times.len()));
    };
    let cost =
        Cost { wall: Duration::from_secs_f64(real), cpu: Duration::from_secs_f64(user + system) };
    ensure!(cost.wall <= outside, "bash says {real} s of what took {outside:?}");
    Ok(cost)
}

/// What the agent of host `number` wrote into its log after the first `from` bytes.
pub(super) fn agent_log(fleet: &Fleet, number: usize, from: usize) -> Result<String> {
    let path = fleet.dir().join(format!("logs/h{number}-agent.log"));
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes[from.min(bytes.len())..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded_and_url_safe() {
        assert_eq!(base64url(b""), "");
        assert_eq!(base64url(b"f"), "Zg==");
        assert_eq!(base64url(b"fo"), "Zm8=");
        assert_eq!(base64url(b"foo\xff\xfe"), "Zm9v__4=");
    }

    #[test]
    fn what_is_measured_runs_behind_the_door_and_tells_its_time() {
        // `env` stands in for nsenter: what follows `--` is the program.
        let mut command = Command::new("env");
        command.env("PATH", "/usr/bin:/bin").args(["--", "sleep", "0.1"]);
        let cost = measured(command).unwrap();
        assert!(cost.wall >= Duration::from_millis(100) && cost.cpu < cost.wall, "{cost:?}");
        let mut command = Command::new("env");
        command.env("PATH", "/usr/bin:/bin").args(["--", "sh", "-c", "echo why >&2; exit 3"]);
        let error = measured(command).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains("exit status: 3"), "{error}");
    }
}
