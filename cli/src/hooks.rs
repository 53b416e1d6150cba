//! Runs the project's hooks on this machine: files named as Kamal names them, without extension.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use dhow_proto::model::secrets::Secrets;
use dhow_proto::wire;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Hooks that a rollout may ask for.
pub const ROLLOUT_HOOKS: [&str; 6] = [
    "pre-deploy",
    "pre-app-boot",
    "post-app-boot",
    "post-deploy",
    "pre-proxy-reboot",
    "post-proxy-reboot",
];

/// Why a hook could not be run.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The file is not there any more.
    #[error("hook {0} is not there")]
    Missing(PathBuf),
    /// It cannot be started.
    #[error("hook {path} could not be started: {source}; is it executable?")]
    Start {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its end could not be learnt.
    #[error("hook {path} was lost")]
    Lost {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The hooks there are in a directory, with the digests of their content. A missing directory has none.
pub fn find(directory: &Path, names: &[&str]) -> Vec<wire::HookFile> {
    names
        .iter()
        .filter_map(|name| {
            let content = std::fs::read(directory.join(name)).ok()?;
            Some(wire::HookFile {
                name: (*name).to_owned(),
                digest: Sha256::digest(content).to_vec().into(),
            })
        })
        .collect()
}

/// A hook that was started.
pub struct RunningHook {
    child: Child,
    path: PathBuf,
}

/// A piece of a hook's output.
#[derive(Debug)]
pub struct Output {
    /// Bytes as written.
    pub data: Vec<u8>,
    /// Whether from standard error.
    pub stderr: bool,
}

impl RunningHook {
    /// Starts a hook in the project's directory with Kamal's variables, and the secrets where Kamal gives them.
    ///
    /// # Errors
    ///
    /// [`HookError::Missing`], [`HookError::Start`] (also for a file that is not executable, as Kamal fails).
    pub fn start(
        directory: &Path,
        project: &Path,
        name: &str,
        env: &BTreeMap<String, String>,
        secrets: Option<&Secrets>,
    ) -> Result<Self, HookError> {
        let path =
            std::path::absolute(directory.join(name)).unwrap_or_else(|_| directory.join(name));
        if !path.exists() {
            return Err(HookError::Missing(path));
        }
        let mut command = Command::new(&path);
        command.current_dir(project).envs(env);
        for (name, value) in secrets.iter().flat_map(|s| s.iter()) {
            command.env(name, value.expose_secret());
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(false);
        match command.spawn() {
            Ok(child) => Ok(Self { child, path }),
            Err(source) => Err(HookError::Start { path, source }),
        }
    }

    /// Waits for the end, passing output on as it comes; its exit code, 128 + signal where one ended it.
    ///
    /// # Errors
    ///
    /// [`HookError::Lost`].
    pub async fn wait(mut self, output: mpsc::Sender<Output>) -> Result<i32, HookError> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let copy = |stream: Option<_>, stderr| pass_on(stream, stderr, output.clone());
        let out = copy(
            stdout.map(Box::new).map(|s| s as Box<dyn tokio::io::AsyncRead + Send + Unpin>),
            false,
        );
        let err = copy(
            stderr.map(Box::new).map(|s| s as Box<dyn tokio::io::AsyncRead + Send + Unpin>),
            true,
        );
        let (status, (), ()) = tokio::join!(self.child.wait(), out, err);
        let status = status.map_err(|source| HookError::Lost { path: self.path, source })?;
        #[cfg(unix)]
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        #[cfg(not(unix))]
        let signal: Option<i32> = None;
        Ok(status.code().or(signal.map(|s| 128 + s)).unwrap_or(1))
    }
}

async fn pass_on(
    stream: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>,
    stderr: bool,
    output: mpsc::Sender<Output>,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 8192];
    while let Ok(n) = stream.read(&mut buffer).await
        && n > 0
    {
        if output.send(Output { data: buffer[..n].to_vec(), stderr }).await.is_err() {
            // Nobody reads any more; the hook must still be able to write to its end.
            continue;
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn hook(text: &str, mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pre-deploy");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        dir
    }

    #[tokio::test]
    async fn a_hook_sees_its_variables_and_its_exit_code_is_told() {
        let dir = hook("#!/bin/sh\necho to $KAMAL_HOSTS\nexit 3\n", 0o755);
        let env = BTreeMap::from([("KAMAL_HOSTS".to_owned(), "a,b".to_owned())]);
        let running = RunningHook::start(dir.path(), dir.path(), "pre-deploy", &env, None).unwrap();
        let (sender, mut receiver) = mpsc::channel(8);
        assert_eq!(running.wait(sender).await.unwrap(), 3);
        assert_eq!(receiver.recv().await.unwrap().data, b"to a,b\n");
    }

    #[tokio::test]
    async fn a_hook_that_is_not_executable_fails() {
        let dir = hook("#!/bin/sh\n", 0o644);
        let started =
            RunningHook::start(dir.path(), dir.path(), "pre-deploy", &BTreeMap::new(), None);
        assert!(matches!(started, Err(HookError::Start { .. })));
    }

    #[test]
    fn hooks_are_found_by_name_and_content() {
        let dir = hook("x", 0o755);
        let found = find(dir.path(), &ROLLOUT_HOOKS);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].digest.as_ref(), Sha256::digest("x").as_slice());
    }
}
