//! The config as types: what all commands read.
//!
//! Built from a tree that was validated; a value of the wrong type is treated as absent here, so
//! that building never fails and the checks between sections can run beside the type errors.

pub(crate) mod build;

pub use accessory::{Accessory, PathMount, Placement};
pub use proxy::{Proxy, ProxyRun, Tls};

mod accessory;
mod proxy;

use std::fmt;

use super::yaml::{Map, Node};

/// A whole config.
#[derive(Clone)]
pub struct Config {
    /// `-d`.
    pub destination: Option<String>,
    /// Prefix of containers.
    pub service: String,
    /// Without the registry's host.
    pub image: String,
    /// Where the image is.
    pub registry: Registry,
    /// The role that boots first.
    pub primary_role: String,
    /// By name, as Kamal orders them.
    pub roles: Vec<Role>,
    /// In the file's order.
    pub accessories: Vec<Accessory>,
    /// Root labels.
    pub labels: Vec<(String, String)>,
    /// Root volumes, as `docker run --volume` takes them.
    pub volumes: Vec<String>,
    /// Root env.
    pub env: Env,
    /// Env by host tag, `env: tags:` and `env_tags:` together.
    pub env_tags: Vec<(String, Env)>,
    /// Root logging.
    pub logging: Logging,
    /// The root's proxy section; not necessarily used by a role.
    pub proxy: Option<Proxy>,
    /// Hosts named under `proxy: {enabled: true, hosts: […]}`; `None` without `enabled`.
    pub proxy_transition: Option<Vec<String>>,
    /// Boot groups.
    pub boot: Boot,
    /// How the image is built.
    pub builder: Builder,
    /// SSH.
    pub ssh: Ssh,
    /// Root asset path.
    pub asset_path: Option<String>,
    /// Folder of hooks.
    pub hooks_path: String,
    /// Whose output is shown.
    pub hooks_output: HooksOutput,
    /// Base name of the secrets files.
    pub secrets_path: String,
    /// Folder of error pages.
    pub error_pages_path: Option<String>,
    /// Old containers kept.
    pub retain_containers: i128,
    /// Seconds.
    pub readiness_delay: i128,
    /// Seconds.
    pub deploy_timeout: i128,
    /// Seconds.
    pub drain_timeout: i128,
    /// Seconds; `None`: Docker's 10, or the drain time of roles without proxy.
    pub stop_timeout: Option<i128>,
    /// Where the app's files are; `None`: `.kamal`.
    pub run_directory: Option<String>,
    /// Short names for command lines, in the file's order.
    pub aliases: Vec<(String, String)>,
    /// Where logs are sent besides.
    pub output: Output,
    /// `x-dhow`: settings that only dhow has.
    pub dhow: DhowSettings,
    /// The merged tree, for what is printed as it was written.
    pub raw: Map,
}

/// Any value of a config may be a secret that a template took from elsewhere: only names are shown.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("service", &self.service)
            .field("destination", &self.destination)
            .field("roles", &self.roles)
            .field("accessories", &self.accessories)
            .field("registry", &self.registry)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// `x-dhow:` settings, which Kamal ignores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DhowSettings {
    /// `failure_policy: rollback`: a failed rollout takes every touched host back.
    pub rollback_on_failure: bool,
    /// `env_escaping: kamal`: secrets reach containers in Kamal's distorted form.
    pub kamal_env_escaping: bool,
}

/// `registry:`, of the root or of an accessory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Empty: Docker Hub.
    pub server: String,
    /// Who logs in; `None` with a local registry.
    pub username: Option<Credential>,
    /// With what.
    pub password: Option<Credential>,
}

impl Registry {
    /// Whether it is one that `registry setup` starts on this machine: `localhost:PORT`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.server.starts_with("localhost:")
    }
}

/// A user name or password.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// As written in the file.
    Clear(String),
    /// The name of a secret.
    Secret(String),
}

/// Clear values may be passwords (`<%= %x(aws ecr get-login-password) %>`).
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear(_) => f.write_str("Clear([REDACTED])"),
            Self::Secret(name) => write!(f, "Secret({name:?})"),
        }
    }
}

/// One role.
#[derive(Clone)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// In the file's order, no host twice.
    pub hosts: Vec<TaggedHost>,
    /// A shell-like command line.
    pub cmd: Option<String>,
    /// `docker run` options.
    pub options: Map,
    /// The role's own env.
    pub env: Env,
    /// The role's own labels.
    pub labels: Vec<(String, String)>,
    /// Merged over the root's.
    pub logging: Logging,
    /// Merged over the root's; `None`: not behind the proxy.
    pub proxy: Option<Proxy>,
    /// Own or the root's.
    pub asset_path: Option<String>,
    /// Own or the root's, seconds.
    pub stop_timeout: Option<i128>,
}

/// Without command line, options and labels, which may hold secrets.
impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role")
            .field("name", &self.name)
            .field("hosts", &self.hosts)
            .field("env", &self.env)
            .field("proxy", &self.proxy.is_some())
            .finish_non_exhaustive()
    }
}

/// A host and its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedHost {
    /// As the config spells it.
    pub host: String,
    /// In order.
    pub tags: Vec<String>,
}

/// Environment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env {
    /// Clear variables; `None`: blank, thus unset in the container.
    pub clear: Vec<(String, Option<String>)>,
    /// `(variable, secret)`.
    pub secret: Vec<(String, String)>,
}

/// Names only: a clear value may be a secret all the same.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("clear", &names(&self.clear))
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

impl Env {
    /// `over` laid over `self`: later values win, the first position is kept.
    #[must_use]
    pub fn merged(&self, over: &Self) -> Self {
        let mut merged = self.clone();
        for (name, value) in &over.clear {
            put(&mut merged.clear, name, value.clone());
        }
        for (name, secret) in &over.secret {
            put(&mut merged.secret, name, secret.clone());
        }
        merged
    }
}

fn put<V>(list: &mut Vec<(String, V)>, name: &str, value: V) {
    match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value,
        None => list.push((name.to_owned(), value)),
    }
}

/// The names of pairs.
fn names<V>(pairs: &[(String, V)]) -> Vec<&str> {
    pairs.iter().map(|(name, _)| name.as_str()).collect()
}

/// `logging:`.
#[derive(Clone, Default, PartialEq)]
pub struct Logging {
    /// `None`: the engine's.
    pub driver: Option<String>,
    /// In the file's order.
    pub options: Vec<(String, Node)>,
}

/// Options of a log driver may hold a token.
impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").field("driver", &self.driver).finish_non_exhaustive()
    }
}

/// `boot:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// As written: a count or a percentage.
    pub limit: Option<String>,
    /// Seconds after each group.
    pub wait: i128,
    /// Roles of one host at once.
    pub parallel_roles: bool,
}

/// `builder:`.
#[derive(Clone, Default)]
pub struct Builder {
    /// At least one.
    pub arches: Vec<String>,
    /// Docker endpoint.
    pub remote: Option<String>,
    /// Whether to build here.
    pub local: bool,
    /// Buildpacks: builder and packs.
    pub pack: Option<(String, Vec<String>)>,
    /// Type, options, image.
    pub cache: Option<BuildCache>,
    /// `None`: a clone of the repository.
    pub context: Option<String>,
    /// `Dockerfile` by default.
    pub dockerfile: String,
    /// Stage.
    pub target: Option<String>,
    /// Build arguments; `None`: taken from the environment.
    pub args: Vec<(String, Option<String>)>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// SSH agent for the build.
    pub ssh: Option<String>,
    /// `docker-container` by default.
    pub driver: String,
    /// Attestation.
    pub provenance: Option<String>,
    /// Attestation.
    pub sbom: Option<bool>,
}

/// A build argument may be a token, and so may what a URL holds.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("arches", &self.arches)
            .field("args", &names(&self.args))
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

/// `builder.cache:`.
#[derive(Clone, PartialEq, Eq)]
pub struct BuildCache {
    /// `gha` or `registry`.
    pub kind: String,
    /// Comma list.
    pub options: Option<String>,
    /// Image of the registry cache.
    pub image: Option<String>,
}

/// Options of a cache may hold keys.
impl fmt::Debug for BuildCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildCache").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// `ssh:` and `sshkit:`, of which dhow uses little.
#[derive(Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Names the home directory that paths are relative to; empty where none is given: then the agent's own setting
    /// counts, which is root's home unless it says otherwise.
    pub user: String,
    /// Port.
    pub port: String,
    /// Jump host.
    pub proxy: Option<String>,
    /// Command that connects.
    pub proxy_command: Option<String>,
    /// Only the named keys.
    pub keys_only: Option<bool>,
    /// Key files.
    pub keys: Vec<String>,
    /// Names of secrets with keys.
    pub key_data: Vec<String>,
    /// Client configuration.
    pub config: SshConfig,
    /// Forward the agent.
    pub forward_agent: Option<bool>,
    /// Connections opened at once.
    pub max_concurrent_starts: i128,
}

/// Keys may be given as they are.
impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh")
            .field("user", &self.user)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// `ssh.config:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SshConfig {
    /// What the SSH client does by itself.
    #[default]
    Default,
    /// None.
    Off,
    /// These files.
    Files(Vec<String>),
}

/// `hooks_output:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HooksOutput {
    /// For hooks not named; `None`: as `-v` and `-q` say.
    pub all: Option<HookVerbosity>,
    /// By hook.
    pub by_hook: Vec<(String, HookVerbosity)>,
}

impl HooksOutput {
    /// Whether a hook's output is shown where neither `-v` nor `-q` says.
    pub fn shows(&self, hook: &str) -> bool {
        let own = self.by_hook.iter().find(|(name, _)| name == hook).map(|(_, said)| *said);
        own.or(self.all) == Some(HookVerbosity::Verbose)
    }
}

/// Whether a hook's output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookVerbosity {
    /// Never.
    Quiet,
    /// Always.
    Verbose,
}

/// `output:`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// OTLP endpoint.
    pub otel_endpoint: Option<String>,
    /// Folder of log files.
    pub file_path: Option<String>,
}

/// An endpoint may hold a token.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("file_path", &self.file_path).finish_non_exhaustive()
    }
}

impl Config {
    /// The primary role, unless the app has accessories only.
    #[must_use]
    pub fn primary(&self) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == self.primary_role)
    }

    /// The role of this name.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// Hosts of all roles by name of the role, no host twice.
    #[must_use]
    pub fn app_hosts(&self) -> Vec<&str> {
        let mut hosts = Vec::new();
        for role in &self.roles {
            for tagged in &role.hosts {
                if !hosts.contains(&tagged.host.as_str()) {
                    hosts.push(tagged.host.as_str());
                }
            }
        }
        hosts
    }

    /// Hosts of all roles, then of accessories, no host twice.
    #[must_use]
    pub fn all_hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.app_hosts().into_iter().map(str::to_owned).collect();
        for host in self.accessories.iter().flat_map(|accessory| self.accessory_hosts(accessory)) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }

    /// Hosts of proxied roles that still run Traefik: those that the transitional
    /// `proxy: {enabled: true, hosts: […]}` does not list. None without it.
    #[must_use]
    pub fn hosts_with_traefik(&self) -> Vec<&str> {
        let Some(moved) = &self.proxy_transition else { return Vec::new() };
        let mut hosts = Vec::new();
        let proxied = self.roles.iter().filter(|role| role.proxy.is_some());
        for host in proxied.flat_map(|role| &role.hosts).map(|tagged| tagged.host.as_str()) {
            if !moved.iter().any(|moved| moved == host) && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }

    /// First host of the primary role.
    #[must_use]
    pub fn primary_host(&self) -> Option<&str> {
        self.primary()?.hosts.first().map(|tagged| tagged.host.as_str())
    }

    /// `[server/]image`.
    #[must_use]
    pub fn repository(&self) -> String {
        if self.registry.server.is_empty() {
            self.image.clone()
        } else {
            format!("{}/{}", self.registry.server, self.image)
        }
    }

    /// The effective environment of a role on one of its hosts: root, role, then tags in order.
    #[must_use]
    pub fn role_env(&self, role: &Role, host: &TaggedHost) -> Env {
        let mut env = self.env.merged(&role.env);
        for tag in &host.tags {
            if let Some((_, tagged)) = self.env_tags.iter().find(|(name, _)| name == tag) {
                env = env.merged(tagged);
            }
        }
        env
    }
}
