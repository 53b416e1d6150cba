//! What a fleet is made of.

/// Settings of a fleet. `FleetOptions::default()` is one host with everything plain.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// How many hosts, 1 to 64; default 1.
    pub hosts: usize,
    /// Whether each host has an sshd, which real Kamal needs; default no.
    pub sshd: bool,
    /// Size in MiB of a file system of its own for each Engine's data root, so that it can be filled;
    /// default none: the machine's disk.
    pub small_disk_mb: Option<u32>,
    /// Password of the registry's user `fleet`; default none: the registry asks for nothing.
    pub registry_password: Option<String>,
    /// Whether containers survive their Engine; default no, as Docker's own default.
    pub live_restore: bool,
    /// Registry mirror of each host's Engine, in order; default none. Docker asks it for images of Docker Hub alone.
    pub registry_mirrors: Vec<String>,
    /// Whether the proxy's image (`DHOW_PROXY_IMAGE`, or the stand-in) is loaded into each Engine; default yes.
    pub proxy_image: bool,
    /// `DHOW_LOG` of the agent, the controller and the CLI; default `info`.
    pub log: String,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            hosts: 1,
            sshd: false,
            small_disk_mb: None,
            registry_password: None,
            live_restore: false,
            registry_mirrors: Vec::new(),
            proxy_image: true,
            log: "info".to_owned(),
        }
    }
}

impl FleetOptions {
    /// Plain hosts, `hosts` of them.
    #[must_use]
    pub fn hosts(hosts: usize) -> Self {
        Self { hosts, ..Self::default() }
    }
}
