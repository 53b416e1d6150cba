//! What loading a config asks of the world: files, environment, git, the commands a file names.

use std::io;
use std::path::{Path, PathBuf};

/// What a program that ran has left.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// Exit status; `None` after a signal.
    pub status: Option<i32>,
    /// Standard output; not necessarily text.
    pub stdout: Vec<u8>,
}

/// What a command prints may be a secret.
impl std::fmt::Debug for CommandOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CommandOutput({:?}, {} bytes)", self.status, self.stdout.len())
    }
}

/// The world, behind a seam: the rest of the config is pure.
pub trait Outside {
    /// An environment variable.
    fn var(&self, name: &str) -> Option<String>;

    /// Reads a file of at most `limit` bytes; a larger one is [`io::ErrorKind::FileTooLarge`].
    ///
    /// # Errors
    ///
    /// As reading a file fails; a directory is [`io::ErrorKind::IsADirectory`], a device
    /// [`io::ErrorKind::InvalidInput`], a pipe without an end [`io::ErrorKind::TimedOut`].
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;

    /// Whether there is a file or directory.
    fn exists(&self, path: &Path) -> bool;

    /// Names in a directory, sorted.
    ///
    /// # Errors
    ///
    /// As listing fails.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// The working directory, absolute.
    fn current_dir(&self) -> PathBuf;

    /// Runs a command line through a shell, with further environment. Output is bounded.
    ///
    /// # Errors
    ///
    /// As starting fails; [`io::ErrorKind::TimedOut`] when the command takes longer than
    /// [`COMMAND_SECONDS`], [`io::ErrorKind::FileTooLarge`] when it prints more than 4 MiB.
    fn shell(&self, command: &str, env: &[(String, String)]) -> io::Result<CommandOutput>;

    /// Runs git in the working directory, without prompts and locks.
    ///
    /// # Errors
    ///
    /// As starting fails, [`io::ErrorKind::NotFound`] where there is no git.
    fn git(&self, args: &[&str]) -> io::Result<CommandOutput>;
}

/// How long a command of a template may run.
pub const COMMAND_SECONDS: u64 = 60;

/// What Docker calls the architecture of this machine, in the words of image platforms; `None` where there is
/// no Docker to ask.
pub(crate) fn docker_arch(outside: &dyn Outside) -> Option<String> {
    let output = outside.shell(&format!("{DOCKER_ARCH} 2>/dev/null"), &[]).ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(platform(text.trim()).to_owned()).filter(|arch| !arch.is_empty())
}

/// How Docker is asked for the architecture of this machine.
pub(crate) const DOCKER_ARCH: &str = "docker info --format '{{.Architecture}}'";

/// An architecture as the kernel names it, in the words of image platforms.
pub(crate) fn platform(arch: &str) -> &str {
    match arch {
        "aarch64" => "arm64",
        "x86_64" => "amd64",
        other => other,
    }
}

/// How long a pipe in a file's place may take to be written to its end.
pub(crate) const PIPE_SECONDS: u64 = 60;

pub use system::SystemOutside;

pub(crate) mod system {
    use std::io::{self, Read};
    use std::os::unix::fs::FileTypeExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{COMMAND_SECONDS, CommandOutput, Outside, PIPE_SECONDS};

    /// More output than this of a command is cut; values are small.
    const MAX_OUTPUT: u64 = 4 << 20;

    /// The real world.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct SystemOutside;

    impl Outside for SystemOutside {
        fn var(&self, name: &str) -> Option<String> {
            std::env::var(name).ok()
        }

        fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
            read_file(path, limit, Duration::from_secs(PIPE_SECONDS))
        }

        fn exists(&self, path: &Path) -> bool {
            path.exists()
        }

        fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(directory)? {
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        }

        fn current_dir(&self) -> PathBuf {
            std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
        }

        fn shell(&self, command: &str, env: &[(String, String)]) -> io::Result<CommandOutput> {
            let mut process = Command::new("/bin/sh");
            process.arg("-c").arg(command);
            process.envs(env.iter().map(|(name, value)| (name, value)));
            let output = run(process, Duration::from_secs(COMMAND_SECONDS))?;
            // Half a value is none.
            if output.stdout.len() as u64 >= MAX_OUTPUT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(output)
        }

        fn git(&self, args: &[&str]) -> io::Result<CommandOutput> {
            let mut process = Command::new("git");
            process.arg("--no-optional-locks").args(args);
            process.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").stderr(Stdio::null());
            run(process, Duration::from_secs(COMMAND_SECONDS))
        }
    }

    /// Reads a file, or a pipe, as a shell's `<(…)` is one and some password managers give secrets through one. A pipe
    /// has to be at its end within `wait`; devices and sockets, which have none, are refused.
    pub(crate) fn read_file(path: &Path, limit: u64, wait: Duration) -> io::Result<Vec<u8>> {
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if kind.is_file() {
            return read_bounded(path, limit);
        }
        if !kind.is_fifo() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let path = path.to_owned();
        let (sender, receiver) = mpsc::sync_channel(1);
        // A thread of its own, for opening and reading have no deadline.
        std::thread::spawn(move || {
            let _ = sender.send(read_bounded(&path, limit));
        });
        receiver.recv_timeout(wait).unwrap_or_else(|_| {
            let message = format!(
                "it is not a regular file but a pipe, and was not written to its end within {} seconds",
                wait.as_secs()
            );
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }

    fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::open(path)?;
        if file.metadata()?.len() > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::new();
        // The size of a pipe or a growing file is not known beforehand.
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    /// Runs to the end or to the deadline; standard error passes through, as with Ruby's backticks.
    fn run(mut process: Command, deadline: Duration) -> io::Result<CommandOutput> {
        // Without a terminal it gets a group of its own, so that what it started ends with it. With one, the
        // terminal's own interrupt has to reach it.
        if std::fs::File::open("/dev/tty").is_err() {
            process.process_group(0);
        }
        let mut child = process.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (id, stdout) = (child.id(), child.stdout.take());
        let (sender, receiver) = mpsc::sync_channel(1);
        // A thread of its own, for reading and waiting have no deadline; it ends when the process has ended.
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.map_or(Ok(0), |out| out.take(MAX_OUTPUT).read_to_end(&mut bytes));
            if bytes.len() as u64 >= MAX_OUTPUT {
                let _ = sender.send(Ok(CommandOutput { status: None, stdout: bytes }));
                let _ = child.wait();
                return;
            }
            let ended = read.and_then(|_| child.wait());
            let output = ended.map(|s| CommandOutput { status: s.code(), stdout: bytes });
            let _ = sender.send(output);
        });
        match receiver.recv_timeout(deadline) {
            Ok(Ok(output)) if output.stdout.len() as u64 >= MAX_OUTPUT => {
                end(id);
                Ok(output)
            }
            Ok(output) => output,
            Err(_) => {
                end(id);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Kills the process, with its group where it has one.
    fn end(id: u32) {
        let line = format!("kill -KILL -{id} 2>/dev/null || kill -KILL {id}");
        let _ = Command::new("/bin/sh").arg("-c").arg(line).stdin(Stdio::null()).status();
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::time::Instant;

        fn shell(line: &str, deadline: Duration) -> io::Result<CommandOutput> {
            let mut process = Command::new("/bin/sh");
            process.arg("-c").arg(line);
            run(process, deadline)
        }

        fn pipe(folder: &Path) -> PathBuf {
            let path = folder.join("pipe");
            let made = Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
            path
        }

        #[test]
        fn a_pipe_is_read_to_its_end_but_not_waited_for_without_one() {
            let folder = tempfile::tempdir().unwrap();
            let path = pipe(folder.path());
            let error = read_file(&path, 10, Duration::from_millis(50)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(error.to_string().contains("is not a regular file but a pipe"), "{error}");
        }

        #[test]
        fn what_is_written_to_a_pipe_is_read_up_to_the_limit() {
            let folder = tempfile::tempdir().unwrap();
            let path = pipe(folder.path());
            let read = |text: &'static str| {
                let path = path.clone();
                let writer = std::thread::spawn({
                    let path = path.clone();
                    move || std::fs::write(path, text)
                });
                let read = read_file(&path, 5, Duration::from_secs(30)).map_err(|e| e.kind());
                let _ = writer.join();
                read
            };
            assert_eq!(read("12345"), Ok(b"12345".to_vec()));
            assert_eq!(read("123456"), Err(io::ErrorKind::FileTooLarge));
        }

        #[test]
        fn a_device_is_refused() {
            let error = SystemOutside.read(Path::new("/dev/zero"), 5).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file");
        }

        #[test]
        fn a_command_that_hangs_is_ended_with_what_it_started() {
            let begun = Instant::now();
            for line in ["sleep 60; echo", "exec >&-; sleep 60"] {
                let error = shell(line, Duration::from_millis(200)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{line}");
            }
            assert!(begun.elapsed() < Duration::from_secs(30));
        }

        #[test]
        fn endless_output_is_cut_off() {
            let output = shell("yes", Duration::from_secs(30)).unwrap();
            assert_eq!((output.status, output.stdout.len() as u64), (None, MAX_OUTPUT));
        }

        #[test]
        fn status_and_output_come_back() {
            let output = shell("printf 'a\\000b'; exit 3", Duration::from_secs(30)).unwrap();
            assert_eq!(output, CommandOutput { status: Some(3), stdout: b"a\0b".to_vec() });
        }
    }
}

/// A world in memory, for tests.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, Default)]
    pub(crate) struct FakeOutside {
        pub(crate) vars: BTreeMap<String, String>,
        pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
        pub(crate) commands: BTreeMap<String, String>,
        pub(crate) git: BTreeMap<String, String>,
    }

    impl FakeOutside {
        pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
            self.files.insert(Path::new("/app").join(path), text.as_bytes().to_vec());
            self
        }

        pub(crate) fn with_var(mut self, name: &str, value: &str) -> Self {
            self.vars.insert(name.into(), value.into());
            self
        }

        pub(crate) fn with_command(mut self, command: &str, output: &str) -> Self {
            self.commands.insert(command.into(), output.into());
            self
        }

        pub(crate) fn with_git(mut self, args: &str, output: &str) -> Self {
            self.git.insert(args.into(), output.into());
            self
        }
    }

    impl Outside for FakeOutside {
        fn var(&self, name: &str) -> Option<String> {
            self.vars.get(name).cloned()
        }

        fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
            let bytes = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
            if bytes.len() as u64 > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(bytes.clone())
        }

        fn exists(&self, path: &Path) -> bool {
            self.files.keys().any(|file| file.starts_with(path))
        }

        fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
            let names: Vec<String> = self
                .files
                .keys()
                .filter(|file| file.parent() == Some(directory))
                .filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()))
                .collect();
            if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
        }

        fn current_dir(&self) -> PathBuf {
            PathBuf::from("/app")
        }

        fn shell(&self, command: &str, _env: &[(String, String)]) -> io::Result<CommandOutput> {
            let stdout = self.commands.get(command).ok_or(io::ErrorKind::TimedOut)?;
            Ok(CommandOutput { status: Some(0), stdout: stdout.clone().into_bytes() })
        }

        fn git(&self, args: &[&str]) -> io::Result<CommandOutput> {
            Ok(match self.git.get(&args.join(" ")) {
                Some(text) => CommandOutput { status: Some(0), stdout: text.clone().into_bytes() },
                None => CommandOutput { status: Some(128), stdout: Vec::new() },
            })
        }
    }
}
