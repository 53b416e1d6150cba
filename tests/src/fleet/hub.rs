//! The network namespace in the middle: bridge, registry, and where controller and clients run.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::require::PATH;
use super::run::{Output, Process, must, run, run_with_input, tail, wait_until};
use super::slot::Names;

/// The registry's user name, where it asks for one.
pub const REGISTRY_USER: &str = "fleet";

/// The hub of a fleet.
#[derive(Debug)]
pub struct Hub {
    names: Names,
    password: Option<String>,
    _registry: Process,
}

impl Hub {
    /// Makes the namespace and starts the registry in it.
    pub(crate) fn start(names: &Names, password: Option<&str>) -> Result<Self> {
        let namespace = names.hub_namespace();
        must("ip", &["netns", "add", &namespace])?;
        must("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        must("ip", &["-n", &namespace, "link", "add", "br0", "type", "bridge"])?;
        let address = format!("{}/24", names.hub_address());
        must("ip", &["-n", &namespace, "address", "add", &address, "dev", "br0"])?;
        must("ip", &["-n", &namespace, "link", "set", "br0", "up"])?;
        let dir = names.dir().join("registry");
        fs::create_dir_all(&dir).context("create the registry's directory")?;
        let config = dir.join("config.yml");
        fs::write(&config, registry_config(names, &dir, password)?)
            .context("write the registry's settings")?;
        let log = names.dir().join("logs/registry.log");
        let mut command = enter(names);
        command.args(["docker-registry".as_ref(), "serve".as_ref(), config.as_os_str()]);
        let mut registry = Process::start("registry", &mut command, &log)?;
        wait_until("the registry listens", Duration::from_secs(20), || {
            if let Some(status) = registry.ended()? {
                bail!("the registry ended ({status})");
            }
            listens(&registry, 5000).map(|yes| yes.then_some(()))
        })
        .map_err(|error| {
            let log = tail(&fs::read_to_string(&log).unwrap_or_default(), 20);
            anyhow::anyhow!("the registry did not come up: {error:#}; it said:\n{log}")
        })?;
        Ok(Self {
            names: names.clone(),
            password: password.map(str::to_owned),
            _registry: registry,
        })
    }

    /// Its address in the fleet's network.
    #[must_use]
    pub fn address(&self) -> String {
        self.names.hub_address()
    }

    /// Its network namespace, below `/run/netns`.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.names.hub_namespace()
    }

    /// Where images are pushed to and pulled from: `address:port`.
    #[must_use]
    pub fn registry(&self) -> String {
        format!("{}:5000", self.address())
    }

    /// The registry's password, if it asks for one.
    #[must_use]
    pub fn registry_password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// A command that runs in the hub's network, with only `PATH` set; append program and arguments.
    #[must_use]
    pub fn enter(&self) -> Command {
        enter(&self.names)
    }

    /// Runs a program in the hub's network, whatever its exit status.
    ///
    /// # Errors
    ///
    /// When it cannot be started or takes longer than two minutes.
    pub fn exec<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Output> {
        run(self.enter().args(words), Duration::from_secs(120))
    }

    /// Pushes every image of a docker-archive into the registry, under the names it has there
    /// (`sample:v1` becomes `ADDRESS:5000/sample:v1`).
    ///
    /// # Errors
    ///
    /// When the archive cannot be read or the registry refuses.
    pub fn push(&self, archive: &Path) -> Result<()> {
        for reference in dhow_test_images::image_ids(archive)?.keys() {
            let mut command = self.enter();
            // Its own credentials file: skopeo would otherwise use those of the person who runs this.
            command.env("REGISTRY_AUTH_FILE", self.auth_file()?);
            command.args([
                "skopeo",
                "copy",
                "--quiet",
                "--insecure-policy",
                "--dest-tls-verify=false",
            ]);
            command.arg(format!("docker-archive:{}:{reference}", archive.display()));
            command.arg(format!("docker://{}/{reference}", self.registry()));
            run(&mut command, Duration::from_secs(120))?.ok()?;
        }
        Ok(())
    }

    fn auth_file(&self) -> Result<PathBuf> {
        let path = self.names.dir().join("registry/auth.json");
        if path.exists() {
            return Ok(path);
        }
        fs::write(&path, "{}").context("write the registry's credentials")?;
        if let Some(password) = &self.password {
            let mut command = self.enter();
            command.env("REGISTRY_AUTH_FILE", &path);
            command.args(["skopeo", "login", "--tls-verify=false", "--password-stdin"]);
            command.args(["--username", REGISTRY_USER, &self.registry()]);
            run_with_input(&mut command, password.as_bytes(), Duration::from_secs(30))?.ok()?;
        }
        Ok(path)
    }
}

fn enter(names: &Names) -> Command {
    let mut command = Command::new("nsenter");
    // Not `ip netns exec`, which mounts /sys anew.
    command.env_clear().env("PATH", PATH);
    command.arg(format!("--net=/run/netns/{}", names.hub_namespace())).arg("--");
    command
}

/// Whether something listens on the TCP port in the network namespace of `process`.
pub(crate) fn listens(process: &Process, port: u16) -> Result<bool> {
    let table = format!("/proc/{}/net/tcp", process.id());
    let table = fs::read_to_string(&table).with_context(|| format!("read {table}"))?;
    let local = format!(":{port:04X}");
    Ok(table.lines().any(|line| {
        let mut words = line.split_whitespace();
        // Columns: slot, local address, remote address, state; 0A is LISTEN.
        words.nth(1).is_some_and(|word| word.ends_with(&local)) && words.nth(1) == Some("0A")
    }))
}

fn registry_config(names: &Names, dir: &Path, password: Option<&str>) -> Result<String> {
    let mut config = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n  \
         delete: {{enabled: true}}\nhttp: {{addr: \"{}:5000\"}}\n",
        dir.display(),
        names.hub_address()
    );
    if let Some(password) = password {
        let mut command = Command::new("htpasswd");
        // The cheapest cost bcrypt has: each request of a test pays it.
        command.env("PATH", PATH).args(["-niB", "-C", "4", REGISTRY_USER]);
        let line =
            run_with_input(&mut command, password.as_bytes(), Duration::from_secs(10))?.ok()?;
        let path = dir.join("htpasswd");
        fs::write(&path, line.stdout.trim_end()).context("write the registry's password file")?;
        config
            .push_str(&format!("auth:\n  htpasswd: {{realm: fleet, path: {}}}\n", path.display()));
    }
    Ok(config)
}
