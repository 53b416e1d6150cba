//! Several Docker hosts on one machine.
//!
//! ```text
//!   hub namespace: bridge 10.77.N.1/24, registry :5000, controller, clients, load
//!      │ veth        │ veth
//!   host 1        host 2 …   own net, mount, pid, uts, ipc namespaces, /root, /run, /var/lib/docker;
//!   10.77.N.11    10.77.N.12 dockerd, agent, optionally sshd; killing process 1 is a power cut
//! ```
//!
//! Always true: a fleet lives in a [slot](slot) no other fleet uses, and taking it down starts from
//! the slot's names alone, so it works the same for a fleet whose process was killed.

mod binaries;
mod breakpoints;
mod host;
mod hub;
mod logs;
mod options;
mod programs;
mod require;
pub mod run;
mod slot;
mod sweep;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

pub use binaries::{binary, workspace_root};
pub use breakpoints::{Breakpoints, Held, Trap};
pub use host::Host;
pub use hub::{Hub, REGISTRY_USER};
pub use logs::{LogMark, take_logs_of_dropped_fleets};
pub use options::FleetOptions;
pub use programs::{Agent, Controller};
pub use slot::{CLAIMS, clean, root};

use run::{must, wait_until};
use slot::Slot;

/// A running fleet. Dropping it ends and removes everything, unless `DHOW_KEEP=1` is set.
#[derive(Debug)]
pub struct Fleet {
    // Dropped in this order: the slot's lock is freed last.
    hosts: Vec<Host>,
    hub: Option<Hub>,
    options: FleetOptions,
    down: bool,
    slot: Slot,
}

impl Fleet {
    /// Brings up `hosts` plain hosts; see [`Fleet::start_with`].
    ///
    /// # Errors
    ///
    /// As [`Fleet::start_with`].
    pub fn start(hosts: usize) -> Result<Self> {
        Self::start_with(FleetOptions::hosts(hosts))
    }

    /// Brings up a fleet and waits until every Engine answers and the proxy's image is loaded.
    ///
    /// # Errors
    ///
    /// One message: what the machine lacks, or which part did not come up and the tail of its log.
    /// Nothing is left behind then.
    pub fn start_with(options: FleetOptions) -> Result<Self> {
        if options.hosts == 0 || options.hosts > 64 {
            bail!("a fleet has 1 to 64 hosts, not {}", options.hosts);
        }
        let root = root();
        fs::create_dir_all(&root).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => anyhow!(
                "a fleet needs root: {} cannot be written. Run it with sudo",
                root.display()
            ),
            _ => anyhow!("cannot create {}: {error}", root.display()),
        })?;
        require(&root)?;
        let slot = Slot::take(&root)?;
        let hosts =
            (1..=options.hosts).map(|number| Host::new(slot.names(), number, &options)).collect();
        let mut fleet = Self { hosts, hub: None, options, down: false, slot };
        // On an error the value is dropped, which takes down what has come up so far.
        fleet.bring_up()?;
        Ok(fleet)
    }

    fn bring_up(&mut self) -> Result<()> {
        for sub in ["logs", "bin", "ssh"] {
            let dir = self.dir().join(sub);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        fs::write(self.dir().join("bin/init.sh"), include_str!("fleet/init.sh"))
            .context("write the hosts' init")?;
        fs::write(self.dir().join("pid"), std::process::id().to_string())
            .context("write the owner's process id")?;
        let proxy = if self.options.proxy_image {
            Some(dhow_test_images::proxy_image().context("the proxy's image")?)
        } else {
            None
        };
        if self.options.sshd {
            self.make_ssh_keys()?;
        }
        let names = self.slot.names();
        self.hub = Some(Hub::start(names, self.options.registry_password.as_deref())?);
        // At the same time: most of a host's start is waiting for its Engine.
        thread::scope(|scope| {
            let boots: Vec<_> = self
                .hosts
                .iter()
                .map(|host| {
                    let proxy = proxy.as_deref();
                    scope.spawn(move || -> Result<()> {
                        host.boot()?;
                        host.wait_ready()?;
                        proxy.map_or(Ok(()), |archive| host.load(archive))
                    })
                })
                .collect();
            for boot in boots {
                boot.join().map_err(|_| anyhow!("a thread that boots a host panicked"))??;
            }
            Ok(())
        })
    }

    fn make_ssh_keys(&self) -> Result<()> {
        let dir = self.dir().join("ssh");
        for name in ["id_ed25519", "host_ed25519"] {
            let path = dir.join(name);
            let args: [&std::ffi::OsStr; 8] = [
                "-q".as_ref(),
                "-t".as_ref(),
                "ed25519".as_ref(),
                "-N".as_ref(),
                "".as_ref(),
                "-C".as_ref(),
                "dhow-tests".as_ref(),
                "-f".as_ref(),
            ];
            must("ssh-keygen", &[&args[..], &[path.as_os_str()]].concat())?;
        }
        fs::copy(dir.join("id_ed25519.pub"), dir.join("authorized_keys"))
            .context("authorise the fleet's key")?;
        Ok(())
    }

    /// The fleet's directory: `logs`, `h1`, `h2`, …, `registry`, `ssh`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.slot.names().dir()
    }

    /// The socket at which its programs ask whether to go on; see [`Breakpoints`].
    fn breakpoints(&self) -> PathBuf {
        breakpoints::socket(self.dir())
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &FleetOptions {
        &self.options
    }

    /// The hub.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a fleet that `start_with` gave out has one")]
    pub fn hub(&self) -> &Hub {
        self.hub.as_ref().expect("the hub is there from the start to the drop")
    }

    /// All hosts, the first at index 0.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Host `number`, counted from 1 as in its name `hN`.
    ///
    /// # Panics
    ///
    /// When the fleet has no such host.
    #[must_use]
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// The addresses of all hosts, in order.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.hosts.iter().map(Host::address).collect()
    }

    /// The private key that logs in to the hosts as root, where the fleet has `sshd`.
    #[must_use]
    pub fn ssh_key(&self) -> PathBuf {
        self.dir().join("ssh/id_ed25519")
    }

    /// Waits until the host's app answers with 200 on `path` of its port 80.
    ///
    /// # Errors
    ///
    /// When it does not within `limit`.
    pub fn wait_serving(&self, host: usize, path: &str, limit: Duration) -> Result<()> {
        let url = format!("http://{}{path}", self.host(host).address());
        wait_until(&format!("{url} answers 200"), limit, || {
            let spec = crate::load::LoadSpec { count: 1, ..crate::load::LoadSpec::new(&url) };
            Ok((crate::load::run(self, &spec)?.ok == 1).then_some(()))
        })
    }

    /// Ends and removes everything, and says if that fails; dropping the fleet only prints it.
    ///
    /// # Errors
    ///
    /// When something of the fleet stays behind; the message names it.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        self.down = true;
        sweep::sweep(self.slot.names())
    }

    /// Leaves everything running when the value is dropped, as `DHOW_KEEP=1` does.
    ///
    /// # Errors
    ///
    /// When the marker cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        fs::write(self.slot.names().keep_marker(), "").context("mark the fleet as kept")?;
        self.down = true;
        eprintln!("fleet kept: directory {}", self.dir().display());
        eprintln!("  enter host 1: target/debug/dhow-fleet enter {} 1", self.slot.names().number());
        eprintln!("  remove it:    make fleet-clean");
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.down && !self.slot.names().keep_marker().exists() {
            return;
        }
        let wanted = std::env::var_os("DHOW_KEEP").is_some_and(|value| value == "1");
        if self.down || (wanted && self.keep().is_ok()) {
            // Dropping a host or the hub would end its programs.
            std::mem::take(&mut self.hosts).into_iter().for_each(std::mem::forget);
            std::mem::forget(self.hub.take());
            return;
        }
        // Not taken down in order: what it logged may say why, and is gone in a moment.
        if let Ok(logs) = self.logs_since(&LogMark::default()) {
            logs::remember(self.dir(), logs);
        }
        if let Err(error) = self.take_down() {
            eprintln!("could not remove the fleet in {}: {error:#}", self.dir().display());
        }
    }
}

/// Checks the machine once per process: the answer does not change, and it costs half a second.
fn require(root: &Path) -> Result<()> {
    static CHECKED: OnceLock<Result<(), String>> = OnceLock::new();
    let checked = CHECKED.get_or_init(|| require::check(root).map_err(|error| error.to_string()));
    checked.clone().map_err(|message| anyhow!(message))
}

/// Gives a command that enters host `host` of the running fleet in slot `number`, without owning it.
///
/// # Errors
///
/// When there is no such host.
pub fn enter_running(number: u8, host: usize) -> Result<std::process::Command> {
    let names = slot::Names::new(&root(), number);
    sweep::enter(&names.host_namespace(host))
        .with_context(|| format!("no host {host} in fleet {number}"))
}
