//! A host's Docker Engine: its settings, start and end, what it is asked, and the disk it works on.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::Host;
use crate::fleet::require::PATH;
use crate::fleet::run::{Output, Process, run_with_input, wait_until};

impl Host {
    pub(super) fn daemon_config(&self) -> serde_json::Value {
        let mirror = self.options.registry_mirrors.get(self.number - 1);
        serde_json::json!({
            "registry-mirrors": mirror.into_iter().collect::<Vec<_>>(),
            "insecure-registries": [format!("{}:5000", self.names.hub_address())],
            "storage-driver": "overlay2",
            // Newer Engines would otherwise keep images elsewhere, and tags would look different.
            "features": {"containerd-snapshotter": false},
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": self.names.cgroup(self.number),
            "live-restore": self.options.live_restore,
            "log-level": "warn",
        })
    }

    pub(super) fn launch_dockerd(&self) -> Result<()> {
        let mut programs = self.programs();
        if programs.dockerd.is_some() {
            bail!("the Engine of {} is running already", self.name());
        }
        // One left by a killed Engine may name a process that is something else now.
        let _ = fs::remove_file(self.dir.join("run/docker.pid"));
        let config = self.dir.join("daemon.json");
        let mut command = self.enter_locked(&programs)?;
        command.args(["dockerd".as_ref(), "--config-file".as_ref(), config.as_os_str()]);
        let log = self.log("dockerd");
        programs.dockerd = Some(Process::start_entered("dockerd", &mut command, &log)?);
        Ok(())
    }

    /// Waits until the Engine answers.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        wait_until("its Docker Engine answers", Duration::from_secs(60), || {
            if let Some(dockerd) = self.programs().dockerd.as_mut()
                && let Some(status) = dockerd.ended()?
            {
                bail!("dockerd ended ({status})");
            }
            Ok(self.engine_answers().then_some(()))
        })
        .map_err(|error| self.did_not_come_up("dockerd", &error))
    }

    /// Whether the Docker Engine answers a ping.
    #[must_use]
    pub fn engine_answers(&self) -> bool {
        let ping = || -> std::io::Result<bool> {
            let mut socket = UnixStream::connect(self.docker_socket())?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            socket.set_write_timeout(Some(Duration::from_secs(2)))?;
            socket.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
            let mut answer = [0; 12];
            socket.read_exact(&mut answer)?;
            Ok(&answer[9..] == b"200")
        };
        ping().unwrap_or(false)
    }

    /// Starts the Engine and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it runs already or does not come up.
    pub fn engine_start(&self) -> Result<()> {
        self.launch_dockerd()?;
        self.wait_ready()
    }

    /// Stops the Engine as a service manager does. Containers stop too, unless the fleet has `live_restore`.
    ///
    /// # Errors
    ///
    /// When it does not run or takes longer than a minute.
    pub fn engine_stop(&self) -> Result<()> {
        let Some(mut dockerd) = self.programs().dockerd.take() else {
            bail!("the Engine of {} does not run", self.name());
        };
        dockerd.stop(Duration::from_secs(60))
    }

    /// `kill -9` of the Engine.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn engine_kill(&self) -> Result<()> {
        let Some(mut dockerd) = self.programs().dockerd.take() else {
            bail!("the Engine of {} does not run", self.name());
        };
        dockerd.signal(Signal::KILL)?;
        dockerd.wait(Duration::from_secs(20)).map(drop)
    }

    /// Runs the docker client of this machine against the host's Engine, whatever the exit status.
    ///
    /// # Errors
    ///
    /// When it is not done within two minutes.
    pub fn docker<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output> {
        self.docker_with_input(args, &[])
    }

    /// As [`Host::docker`], with `input` on its stdin.
    ///
    /// # Errors
    ///
    /// As [`Host::docker`].
    pub fn docker_with_input<S>(&self, args: &[S], input: &[u8]) -> Result<Output>
    where
        S: AsRef<OsStr>,
    {
        let mut command = Command::new("docker");
        command.env_clear().env("PATH", PATH).env("HOME", self.home());
        command.arg("-H").arg(format!("unix://{}", self.docker_socket().display())).args(args);
        run_with_input(&mut command, input, Duration::from_secs(120))
    }

    /// Loads a docker-archive into the Engine.
    ///
    /// # Errors
    ///
    /// When the Engine refuses it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let args = ["load".as_ref(), "-q".as_ref(), "-i".as_ref(), archive.as_os_str()];
        self.docker(&args)?.ok().map(drop)
    }

    /// Fills the data root's file system until `leave_kb` KiB are free.
    ///
    /// # Errors
    ///
    /// When the fleet was not started with `small_disk_mb`: this must not fill the machine's own disk.
    pub fn disk_full(&self, leave_kb: u64) -> Result<()> {
        if self.options.small_disk_mb.is_none() {
            bail!("{} has no small disk: start the fleet with small_disk_mb", self.name());
        }
        let script = format!(
            "free=$(df --output=avail -k /var/lib/docker | tail -n 1); \
             [ $free -le {leave_kb} ] || fallocate -l $((free - {leave_kb}))K /var/lib/docker/ballast"
        );
        self.exec(&["sh", "-c", &script])?.ok().map(drop)
    }

    /// Ends [`Host::disk_full`].
    ///
    /// # Errors
    ///
    /// When the host is off.
    pub fn disk_free(&self) -> Result<()> {
        self.exec(&["rm", "-f", "/var/lib/docker/ballast"])?.ok().map(drop)
    }
}
