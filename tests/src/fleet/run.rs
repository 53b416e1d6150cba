//! Runs other programs: with a deadline, in their own process group, with a readable error.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How often a condition that nothing announces is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// What a finished program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout, invalid UTF-8 replaced.
    pub stdout: String,
    /// What it wrote to stderr, invalid UTF-8 replaced.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
    what: String,
}

impl Output {
    /// Whether it exited with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit status; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// stdout and stderr, one after the other.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Passes the output on if the program succeeded.
    ///
    /// # Errors
    ///
    /// Otherwise names the program, its exit status and the last lines it wrote.
    pub fn ok(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        bail!("{} failed ({}):\n{}", self.what, self.status, tail(&self.text(), 30));
    }
}

/// The last `lines` lines of `text`, each indented.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Shows a command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs `command` to its end and gives its output, whatever the exit status.
///
/// # Errors
///
/// When it cannot be started, or is not done within `limit`; then its process group is killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    run_with_input(command, &[], limit)
}

/// As [`run`], with `input` on its stdin.
///
/// # Errors
///
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let what = describe(command);
    let started = Instant::now();
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start {what}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read all of it says why by its exit status.
        let _ = stdin.write_all(input);
    }
    let status = wait(&mut child, limit)?;
    if status.is_none() {
        kill_group(&child);
        child.wait().with_context(|| format!("reap {what}"))?;
    }
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let Some(status) = status else {
        let said = tail(&format!("{stdout}{stderr}"), 30);
        bail!("{what} was not done within {} s:\n{said}", limit.as_secs_f32());
    };
    Ok(Output { status, stdout, stderr, elapsed: started.elapsed(), what })
}

/// Runs `program` with `args` and expects success within 60 s.
pub(crate) fn must<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output> {
    run(Command::new(program).args(args), Duration::from_secs(60))?.ok()
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What arrived before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits until `child` ends; `None` when it has not after `limit`.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("wait for a program")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL.min(Duration::from_millis(5)));
    }
}

fn kill_group(child: &Child) {
    if let Some(pid) = pid(child.id()) {
        // It may have ended by itself.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// The first child of process `id`, if it has one.
pub(crate) fn only_child(id: u32) -> Result<Option<u32>> {
    match std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")) {
        Ok(children) => Ok(children.split_whitespace().next().and_then(|word| word.parse().ok())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("list the children of process {id}")),
    }
}

/// A process id as rustix wants it.
pub(crate) fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Looks again and again until `condition` gives something.
///
/// # Errors
///
/// When `condition` fails, or gives nothing within `limit`; `what` names it.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain until {what}", limit.as_secs_f32());
        }
        thread::sleep(POLL);
    }
}

/// A program that keeps running, with its output in a log file. Dropping it kills its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    entered: bool,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to the file `log`.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let again = file.try_clone().context("share a log file")?;
        command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0);
        let child = command.spawn().with_context(|| format!("start {}", describe(command)))?;
        Ok(Self { name: name.to_owned(), child, ended: None, entered: false })
    }

    /// As [`Process::start`], for a command that is `nsenter --pid … PROGRAM`: `nsenter` then stays as
    /// the parent of PROGRAM, passes its exit status on, but no signals; those go to PROGRAM.
    pub(crate) fn start_entered(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let mut process = Self::start(name, command, log)?;
        process.entered = true;
        Ok(process)
    }

    /// The process id of what was started: `nsenter`'s, where that stays as the parent.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended =
                self.child.try_wait().with_context(|| format!("wait for {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Sends `signal` to the program's own process.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has ended already ({status})", self.name);
        }
        let Some(pid) = self.program_id()?.and_then(pid) else {
            bail!("{} has not started yet", self.name)
        };
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// The process id of the program itself, in the caller's pid namespace, even where it was started
    /// through `nsenter`; `None` as long as `nsenter` has not started it.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn program_id(&self) -> Result<Option<u32>> {
        if self.entered { only_child(self.child.id()) } else { Ok(Some(self.child.id())) }
    }

    /// Waits until it has ended by itself or by a signal sent before.
    ///
    /// # Errors
    ///
    /// When it has not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait_until(&format!("{name} has ended"), limit, || self.ended())
    }

    /// `kill -9`, also for what it started in its process group; waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            kill_group(&self.child);
            self.ended = self.child.wait().ok();
        }
    }

    /// SIGTERM, then waits; `kill -9` after `grace`.
    ///
    /// # Errors
    ///
    /// When it had to be killed.
    pub fn stop(&mut self, grace: Duration) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let ended = self.wait(grace);
        self.kill();
        ended.map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_with_what_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; sleep 1000 & wait"]);
        let error = run(&mut command, Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains("was not done within 0.2 s"), "{error}");
        assert!(error.contains("begun"), "{error}");
    }

    #[test]
    fn a_failure_names_the_program_and_its_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let error = run(&mut command, Duration::from_secs(5)).unwrap().ok().unwrap_err();
        assert_eq!(
            error.to_string(),
            "sh -c echo why >&2; exit 3 failed (exit status: 3):\n    why"
        );
    }

    #[test]
    fn input_reaches_the_program() {
        let output =
            run_with_input(&mut Command::new("cat"), b"hello", Duration::from_secs(5)).unwrap();
        assert_eq!(output.stdout, "hello");
    }

    #[test]
    fn a_process_ends_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let process = Process::start("sleeper", Command::new("sleep").arg("1000"), &log).unwrap();
        let proc = format!("/proc/{}", process.id());
        assert!(Path::new(&proc).exists());
        drop(process);
        assert!(!Path::new(&proc).exists());
    }
}
