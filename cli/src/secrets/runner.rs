//! Runs the programs that secrets come from: shell commands of a secrets file and the vendors'
//! command line programs.
//!
//! In: an [`Invocation`]. Out: exit code and standard output. Always true: it ends by the deadline,
//! keeps at most [`MAX_OUTPUT`] bytes, and no error or `Debug` shows output or a secret variable.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// Bytes a program may print; a vault's answer is some kilobytes.
pub const MAX_OUTPUT: usize = 4 * 1024 * 1024;

/// Time a command may take: long enough for a slow vault, short enough that a CI job says why.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Time a login may take, as somebody may have to type a password or look for a phone.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(300);

/// One program to run. Standard input is the caller's, so that a vault can ask for a password.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Name or path of the program; a name is looked up in `PATH`.
    pub program: String,
    /// Its arguments, passed without a shell.
    pub args: Vec<String>,
    /// Variables for it alone, besides the caller's environment.
    pub env: Vec<(String, SecretString)>,
    /// What messages call it; never with a value in it.
    pub shown: String,
    /// Whether its standard error is thrown away, as for a mere "is it installed?".
    pub quiet: bool,
    /// When it is ended.
    pub deadline: Duration,
}

impl Invocation {
    /// `program` with `args`, shown by its name and first argument, with the usual deadline.
    pub fn new<S: Into<String>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        let first = args.first().map(|first| format!(" {first}")).unwrap_or_default();
        Self {
            program: program.to_owned(),
            shown: format!("{program}{first}"),
            args,
            env: Vec::new(),
            quiet: false,
            deadline: DEADLINE,
        }
    }

    /// A line for the shell, shown as `written`. The line travels in a variable that the shell
    /// drops before it begins, because everybody on the machine may read arguments.
    pub fn shell(written: &str, line: &str) -> Self {
        const LINE: &str = "DHOW_COMMAND_LINE";
        let script = format!("__dhow=${LINE}; unset {LINE}; eval \"$__dhow\"");
        Self {
            env: vec![(LINE.to_owned(), SecretString::from(line))],
            shown: written.to_owned(),
            ..Self::new("sh", ["-c".to_owned(), script])
        }
    }

    /// The same without what it prints to standard error.
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// The same with time for a person to answer.
    pub fn asking(self) -> Self {
        Self { deadline: LOGIN_DEADLINE, ..self }
    }

    /// The same with a variable.
    pub fn with_env(mut self, name: &str, value: SecretString) -> Self {
        self.env.push((name.to_owned(), value));
        self
    }
}

/// What a program left behind.
#[derive(Clone)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: Zeroizing<Vec<u8>>,
}

impl Output {
    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// What it printed, as text.
    ///
    /// # Errors
    ///
    /// [`RunError::Binary`] when it is not UTF-8 or has a NUL byte, which no variable can hold.
    pub fn text(&self, shown: &str) -> Result<&str, RunError> {
        std::str::from_utf8(&self.stdout)
            .ok()
            .filter(|text| !text.contains('\0'))
            .ok_or_else(|| RunError::Binary { shown: shown.to_owned() })
    }
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such program.
    #[error("could not find the program `{program}`")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be started or read.
    #[error("could not run `{shown}`")]
    Start {
        /// What was run.
        shown: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It did not end in time and was killed.
    #[error("`{shown}` did not end within {} s", deadline.as_secs())]
    TimedOut {
        /// What was run.
        shown: String,
        /// The time it had.
        deadline: Duration,
    },
    /// It printed more than [`MAX_OUTPUT`] and was killed.
    #[error("`{shown}` printed more than {} MiB", MAX_OUTPUT / 1024 / 1024)]
    TooMuch {
        /// What was run.
        shown: String,
    },
    /// It printed bytes that are no text.
    #[error("`{shown}` printed binary data; a secret must be UTF-8 text without NUL bytes")]
    Binary {
        /// What was run.
        shown: String,
    },
}

/// Somebody who runs programs.
pub trait Runner: Send + Sync {
    /// Runs `invocation` to its end.
    ///
    /// # Errors
    ///
    /// [`RunError`]; an exit code other than 0 is no error here.
    fn run(&self, invocation: &Invocation) -> Result<Output, RunError>;
}

/// Runs programs as children of this process.
#[derive(Clone, Debug, Default)]
pub struct ProcessRunner {
    /// Where they run; `None`: where this process does.
    pub directory: Option<PathBuf>,
    /// Variables over those of this process, `PATH` among them if need be.
    pub env: Vec<(String, String)>,
    /// Variables of this process that they do not get.
    pub without: Vec<String>,
}

impl Runner for ProcessRunner {
    fn run(&self, invocation: &Invocation) -> Result<Output, RunError> {
        let child = self.command(invocation).spawn().map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                return RunError::Missing { program: invocation.program.clone() };
            }
            RunError::Start { shown: invocation.shown.clone(), source }
        })?;
        collect(child, invocation)
    }
}

impl ProcessRunner {
    fn command(&self, invocation: &Invocation) -> Command {
        let mut command = Command::new(&invocation.program);
        command
            .args(&invocation.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(invocation.env.iter().map(|(name, value)| (name, value.expose_secret())))
            .stdout(Stdio::piped());
        for name in &self.without {
            command.env_remove(name);
        }
        if invocation.quiet {
            command.stderr(Stdio::null());
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if !has_terminal() {
            command.process_group(0);
        }
        command
    }
}

/// Whether this process has a terminal, from which a child may want to read a password. Then the
/// child must stay in our process group, or the terminal would stop it.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Reads the child's output and waits for it, on a thread that the deadline can leave behind.
fn collect(mut child: Child, invocation: &Invocation) -> Result<Output, RunError> {
    let pid = Pid::from_child(&child);
    let stdout = child.stdout.take();
    // Room for both messages: the thread never waits for us.
    let (sender, receiver) = mpsc::sync_channel(2);
    std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::new());
        let read = stdout
            .map_or(Ok(0), |stdout| stdout.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut bytes));
        if bytes.len() > MAX_OUTPUT {
            // The receiver kills the child, which the `wait` below then reaps.
            let _ = sender.send(Ok(Ended { code: None, stdout: bytes }));
            let _ = child.wait();
            return;
        }
        let ended = read.and_then(|_| child.wait());
        let _ = sender.send(ended.map(|status| Ended { code: status.code(), stdout: bytes }));
    });
    let shown = || invocation.shown.clone();
    match receiver.recv_timeout(invocation.deadline) {
        Ok(Ok(ended)) if ended.stdout.len() > MAX_OUTPUT => {
            kill(pid);
            Err(RunError::TooMuch { shown: shown() })
        }
        Ok(Ok(Ended { code, stdout })) => Ok(Output { code, stdout }),
        Ok(Err(source)) => Err(RunError::Start { shown: shown(), source }),
        Err(_) => {
            kill(pid);
            Err(RunError::TimedOut { shown: shown(), deadline: invocation.deadline })
        }
    }
}

/// What the reading thread reports.
struct Ended {
    code: Option<i32>,
    stdout: Zeroizing<Vec<u8>>,
}

/// Ends a child and what it started: its group where it has one of its own, else its children.
fn kill(pid: Pid) {
    if rustix::process::kill_process_group(pid, Signal::KILL).is_ok() {
        return;
    }
    // With a terminal it shares our group, and a shell's death would leave its command behind.
    // Without `pkill` on the machine that is what happens.
    let _ = Command::new("pkill")
        .args(["-KILL", "-P", &pid.as_raw_nonzero().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

#[cfg(test)]
mod tests;
