//! Templates: what containers of a unit look like on every host, as documents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::name::ImageRef;

/// An environment variable. Without a value, the variable is unset, also where the image sets it
/// (Docker's meaning of a bare `KEY`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Name, without `=`.
    pub name: String,
    /// Clear value, delivered as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Options of the Docker Engine that dhow itself decides nothing on: Docker's own words, in the form of the body of
/// `POST /containers/create`. Only keys of [`ENGINE_OPTIONS`] are allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineOptions {
    /// Top-level keys of the create body (`User`, `Healthcheck`, …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, serde_json::Value>,
    /// Keys of `HostConfig` (`Memory`, `Ulimits`, …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_config: BTreeMap<String, serde_json::Value>,
    /// Aliases and addresses on the first network: keys of `EndpointsConfig.<network>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoint: BTreeMap<String, serde_json::Value>,
    /// Networks beside the first, connected before the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// `platform=` of the create call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

impl EngineOptions {
    /// True where nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `docker run --log-driver/--log-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Empty: the Engine's default driver.
    #[serde(default)]
    pub driver: String,
    /// Options of the driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl LogConfig {
    /// True where nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `--restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Never.
    No,
    /// Always, also after a stop and an Engine restart.
    Always,
    /// Kamal's default: not after a stop.
    UnlessStopped,
    /// After a failure, at most so many times (0: no limit).
    OnFailure(u32),
}

/// A volume or bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mount {
    /// `SRC:DST[:OPTS]` as Docker takes it: a named volume or an absolute host path.
    Bind(String),
    /// `SRC:DST[:OPTS]` whose source is relative to the home (Kamal's `$PWD/...`); the agent makes it absolute.
    HomeBind(String),
    /// An anonymous volume at this path.
    Anonymous(String),
}

/// What a container is created from; the agent adds name, hostname, secrets and `KAMAL_*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerTemplate {
    /// Always a tag (`REPO:VER`): prune and Kamal read it.
    pub image: ImageRef,
    /// None: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Clear variables in order; a later one of the same name wins.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Custom labels (not `service`, `role`, `destination`, which the agent sets first; root labels may override them as Kamal's do).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Network to live in: `kamal`, or an accessory's own.
    pub network: String,
    /// Restart policy.
    pub restart: Restart,
    /// Log driver and options.
    pub log: LogConfig,
    /// Volumes in order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Everything else.
    #[serde(default, skip_serializing_if = "EngineOptions::is_empty")]
    pub options: EngineOptions,
}

/// How a service is routed: the options of `kamal-proxy deploy`. Unset ones are left to kamal-proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyTarget {
    /// Port of the container.
    pub app_port: u16,
    /// Names routed; empty: every name no other service has.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `--tls`.
    #[serde(default)]
    pub tls: bool,
    /// True where certificate and key come as sealed files (`apps-config/APP/tls/ROLE`).
    #[serde(default)]
    pub custom_certificate: bool,
    /// `--health-check-path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_interval_s: Option<u64>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_timeout_s: Option<u64>,
    /// `--target-timeout`, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_timeout_s: Option<u64>,
    /// `--buffer-requests`.
    pub buffer_requests: bool,
    /// `--buffer-responses`.
    pub buffer_responses: bool,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer_memory: Option<i64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_request_body: Option<i64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_response_body: Option<i64>,
    /// `--path-prefix` each.
    #[serde(default)]
    pub path_prefixes: Vec<String>,
    /// `--strip-path-prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_path_prefix: Option<bool>,
    /// `--forward-headers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_headers: Option<bool>,
    /// `--tls-redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_redirect: Option<bool>,
    /// `--log-request-header` each.
    #[serde(default)]
    pub log_request_headers: Vec<String>,
    /// `--log-response-header` each.
    #[serde(default)]
    pub log_response_headers: Vec<String>,
    /// True where error pages of the version are passed.
    #[serde(default)]
    pub error_pages: bool,
}

/// Waits of a role, in seconds as the config has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Time to become healthy.
    pub deploy_s: u64,
    /// Time for requests in flight; grace of the stop for roles without proxy.
    pub drain_s: u64,
    /// Second look at a role without proxy and healthcheck.
    pub readiness_delay_s: u64,
    /// Grace of every stop where set, before Docker's or the drain time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_s: Option<u64>,
}

/// One role of an app, the same for every host with the same tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleTemplate {
    /// The container.
    pub container: ContainerTemplate,
    /// None: not behind the proxy, readiness is polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyTarget>,
    /// Waits.
    pub timeouts: Timeouts,
    /// `PATH[:mount options]` bridged between versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset_path: Option<String>,
    /// True where secrets are written to containers in Kamal's distorted form (`x-dhow.env_escaping: kamal`).
    #[serde(default)]
    pub kamal_env_escaping: bool,
}

impl Document for RoleTemplate {
    const KIND: &'static str = "role template";
}

/// What `proxy.run.options` say about kamal-proxy's container beside [`EngineOptions`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyContainer {
    /// Variables in order; a later one of the same name wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Volumes, after the proxy's own two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// None: as Kamal starts it, not after a stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Driver and options; `max-size` is [`ProxyTemplate::log_max_size`] unless it is given here.
    #[serde(default, skip_serializing_if = "LogConfig::is_empty")]
    pub log: LogConfig,
}

impl ProxyContainer {
    /// True where nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How kamal-proxy's container is started (`proxy.run`). Where a host has boot config files and no app of it
/// names `proxy.run`, those files apply instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyTemplate {
    /// `[registry/]repository:version`.
    pub image: ImageRef,
    /// False: nothing is published (another proxy in front).
    pub publish: bool,
    /// Host port.
    pub http_port: u16,
    /// Host port.
    pub https_port: u16,
    /// Addresses to publish on; empty: all.
    #[serde(default)]
    pub bind_ips: Vec<String>,
    /// `max-size` of the log; empty: no limit given.
    pub log_max_size: String,
    /// Exposed and passed to kamal-proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
    /// `--debug`.
    #[serde(default)]
    pub debug: bool,
    /// True where the config has a `proxy.run` section: boot config files of the host are then ignored.
    pub explicit: bool,
    /// Everything else.
    #[serde(default, skip_serializing_if = "EngineOptions::is_empty")]
    pub options: EngineOptions,
    /// Everything else that is no engine option.
    #[serde(default, skip_serializing_if = "ProxyContainer::is_empty")]
    pub container: ProxyContainer,
}

impl Document for ProxyTemplate {
    const KIND: &'static str = "proxy template";
}

/// A file an accessory mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessoryFile {
    /// Path below the accessory's directory (the container path).
    pub path: String,
    /// Content; none where it is rendered with secrets and comes sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<super::document::BlobRef>,
    /// Octal, as `chmod` takes it.
    pub mode: String,
    /// `chown` argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// A directory an accessory mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessoryDirectory {
    /// Host path: relative to the home, or absolute.
    pub path: String,
    /// Octal; none leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `chown` argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// An accessory on any of its hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessoryTemplate {
    /// Container name, `service` label and host directory.
    pub service: String,
    /// The container.
    pub container: ContainerTemplate,
    /// None: not behind the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyTarget>,
    /// Waits.
    pub timeouts: Timeouts,
    /// Files, uploaded before every boot.
    #[serde(default)]
    pub files: Vec<AccessoryFile>,
    /// Directories.
    #[serde(default)]
    pub directories: Vec<AccessoryDirectory>,
}

impl Document for AccessoryTemplate {
    const KIND: &'static str = "accessory template";
}

/// Keys of [`EngineOptions::config`] and [`EngineOptions::host_config`] that an agent passes on. Not among them is what
/// dhow decides (image, env, labels, binds, restart, network mode).
pub const ENGINE_OPTIONS: (&[&str], &[&str]) = (
    &[
        "Domainname",
        "Entrypoint",
        "ExposedPorts",
        "Healthcheck",
        "Hostname",
        "OpenStdin",
        "StopSignal",
        "StopTimeout",
        "Tty",
        "User",
        "WorkingDir",
    ],
    &[
        "Annotations",
        "BlkioDeviceReadBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceWriteIOps",
        "BlkioWeight",
        "CapAdd",
        "CapDrop",
        "CgroupParent",
        "CgroupnsMode",
        "CpuPeriod",
        "CpuQuota",
        "CpuRealtimePeriod",
        "CpuRealtimeRuntime",
        "CpuShares",
        "CpusetCpus",
        "CpusetMems",
        "DeviceCgroupRules",
        "DeviceRequests",
        "Devices",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "ExtraHosts",
        "GroupAdd",
        "Init",
        "IpcMode",
        "Isolation",
        "MaskedPaths",
        "Memory",
        "MemoryReservation",
        "MemorySwap",
        "MemorySwappiness",
        "Mounts",
        "NanoCpus",
        "OomKillDisable",
        "OomScoreAdj",
        "PidMode",
        "PidsLimit",
        "PortBindings",
        "Privileged",
        "PublishAllPorts",
        "ReadonlyPaths",
        "ReadonlyRootfs",
        "Runtime",
        "SecurityOpt",
        "ShmSize",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
        "UTSMode",
        "Ulimits",
        "UsernsMode",
        "VolumeDriver",
        "VolumesFrom",
    ],
);
