//! Programs that outlive the demo, known by process id and start time; and the load, which does not.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Signal, kill_process};
use tokio::sync::oneshot;

use super::Settings;
use crate::fleet::run::{pid, wait_until};
use crate::load::{LoadReport, LoadSpec};

/// What a program is given to stop by itself.
const GRACE: Duration = Duration::from_secs(20);

fn records(settings: &Settings) -> PathBuf {
    settings.dir.join("programs")
}

/// Notes its own process id and birth in the file that is its first argument, and becomes the program that the others name.
const NOTED: &str = r#"note=$1; shift; printf "%s %s" $$ "$(cut -d " " -f 22 /proc/$$/stat)" > "$note" && exec "$@""#;

/// Starts a program in a session of its own, so that it outlives this one and its terminal. It is noted before it runs: whoever
/// ends the demo at any moment leaves no program that nobody knows of.
pub(super) fn start(settings: &Settings, name: &str, command: &Command) -> Result<()> {
    let log = settings.dir.join(format!("logs/{name}.log"));
    let file = fs::File::options().create(true).append(true).open(&log);
    let file = file.with_context(|| format!("open {}", log.display()))?;
    let again = file.try_clone().context("share a log file")?;
    fs::create_dir_all(records(settings)).context("create the directory of programs")?;
    let record = records(settings).join(name);
    let mut own = Command::new("setsid");
    own.args(["sh", "-c", NOTED, "sh"]).arg(&record);
    own.arg(command.get_program()).args(command.get_args());
    own.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    own.current_dir("/").stdin(Stdio::null()).stdout(file).stderr(again);
    let mut child = own.spawn().with_context(|| format!("start {name}"))?;
    wait_until(&format!("{name} is noted"), GRACE, || {
        if noted(&record) == Some(child.id()) {
            return Ok(Some(()));
        }
        match child.try_wait().with_context(|| format!("wait for {name}"))? {
            Some(status) => bail!("{name} ended at once ({status}); see {}", log.display()),
            None => Ok(None),
        }
    })
}

/// When a process began, in clock ticks since the machine's start: with its id it names a process for good.
fn born(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name is in parentheses and may hold anything; state is the third field, this the 22nd.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// True while the program that was noted runs.
pub(super) fn runs(settings: &Settings, name: &str) -> bool {
    noted(&records(settings).join(name)).is_some()
}

fn noted(record: &Path) -> Option<u32> {
    let text = fs::read_to_string(record).ok()?;
    let (id, since) = text.split_once(' ')?;
    let id = id.parse().ok()?;
    (born(id)? == since.parse::<u64>().ok()?).then_some(id)
}

/// Ends every program that was noted, the agent first: it would bring back what is removed.
pub(super) fn stop_all(settings: &Settings) -> Result<()> {
    for name in ["agent", "controller", "registry"] {
        let record = records(settings).join(name);
        let Some(id) = noted(&record) else { continue };
        let Some(process) = pid(id) else { continue };
        kill_process(process, Signal::TERM).with_context(|| format!("stop {name} ({id})"))?;
        let ended = || Ok(noted(&record).is_none().then_some(()));
        if wait_until(&format!("{name} has ended"), GRACE, ended).is_err() {
            kill_process(process, Signal::KILL).with_context(|| format!("kill {name} ({id})"))?;
            wait_until(&format!("{name} has ended"), GRACE, ended)?;
        }
    }
    Ok(())
}

/// The first port from `first` on that nothing uses on this machine.
pub(super) fn free_port(first: u16) -> Result<u16> {
    // Any address: what listens on one of them would be in the way of a published port.
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    (first..first.saturating_add(200))
        .find(free)
        .with_context(|| format!("no port from {first} on is free"))
}

/// A load sent from a thread of this process.
pub(super) struct Background {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<LoadReport>>,
}

impl Background {
    pub(super) fn load(spec: LoadSpec) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the load")?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(super::send(spec, async {
                // The other end goes away only with the demo.
                let _ = stopped.await;
            }))
        });
        Ok(Self { stop, thread })
    }

    /// Sends no further requests, waits for those on the way, and gives what all of them saw.
    pub(super) fn finish(self) -> Result<LoadReport> {
        if self.stop.send(()).is_err() {
            bail!("the load ended by itself");
        }
        self.thread.join().map_err(|_| anyhow!("the load panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> Settings {
        fs::create_dir_all(dir.join("logs")).unwrap();
        Settings {
            dir: dir.to_owned(),
            docker_host: "unix:///nowhere".to_owned(),
            programs: PathBuf::new(),
            app: None,
            stand_in: None,
            proxy: None,
        }
    }

    #[test]
    fn a_program_is_stopped_by_its_id_and_only_while_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let mut command = Command::new("sleep");
        command.arg("1000");
        start(&settings, "agent", &command).unwrap();
        // Noted by itself, under the name it goes on with.
        let id = noted(&records(&settings).join("agent")).unwrap();
        wait_until("it is the program", GRACE, || {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap();
            Ok((name == "sleep\n").then_some(()))
        })
        .unwrap();
        assert!(runs(&settings, "agent"));
        // The same number with another birth is another process: it must live.
        let record = records(&settings).join("agent");
        let text = fs::read_to_string(&record).unwrap();
        let (id, _) = text.split_once(' ').unwrap();
        fs::write(&record, format!("{id} 1")).unwrap();
        stop_all(&settings).unwrap();
        assert!(born(id.parse().unwrap()).is_some());
        fs::write(&record, &text).unwrap();
        stop_all(&settings).unwrap();
        assert!(born(id.parse().unwrap()).is_none());
    }

    #[test]
    fn a_program_that_cannot_start_is_told_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let told = start(&settings, "registry", &Command::new("/nowhere/registry"));
        if let Err(error) = told {
            assert!(error.to_string().contains("logs/registry.log"), "{error}");
        }
        wait_until("it has ended", GRACE, || Ok((!runs(&settings, "registry")).then_some(())))
            .unwrap();
        let log = fs::read_to_string(dir.path().join("logs/registry.log")).unwrap();
        assert!(log.contains("/nowhere/registry"), "{log}");
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(free_port(port).unwrap() > port);
    }
}
