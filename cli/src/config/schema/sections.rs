//! The sections below the root, but the proxy's.

use super::{Key, Known, PROXY, Section, Shape, key};

/// One role under `servers`.
pub static ROLE: Section = Section { name: "role", keys: ROLE_KEYS };
/// `env` in its long form.
pub static ENV: Section = Section { name: "env", keys: ENV_KEYS };
/// `registry`.
pub static REGISTRY: Section = Section { name: "registry", keys: REGISTRY_KEYS };
/// `builder`.
pub static BUILDER: Section = Section { name: "builder", keys: BUILDER_KEYS };
/// One accessory.
pub static ACCESSORY: Section = Section { name: "accessory", keys: ACCESSORY_KEYS };
/// A file or directory of an accessory, written as a map.
pub static PATH_MAP: Section = Section { name: "file or directory", keys: PATH_KEYS };
/// `boot`.
pub static BOOT: Section = Section { name: "boot", keys: BOOT_KEYS };
/// `logging`.
pub static LOGGING: Section = Section { name: "logging", keys: LOGGING_KEYS };
/// `output`.
pub static OUTPUT: Section = Section { name: "output", keys: OUTPUT_KEYS };
/// `ssh`.
pub static SSH: Section = Section { name: "ssh", keys: SSH_KEYS };
/// `sshkit`.
pub static SSHKIT: Section = Section { name: "sshkit", keys: SSHKIT_KEYS };

static PACK: Section = Section {
    name: "builder.pack",
    keys: &[
        key("builder", Shape::Text, "Image of the Cloud Native Buildpacks builder"),
        key("buildpacks", Shape::TextList, "Buildpacks in order"),
    ],
};

static CACHE: Section = Section {
    name: "builder.cache",
    keys: &[
        key("type", Shape::Text, "`gha` or `registry`"),
        key("options", Shape::Text, "Options of the cache, separated by commas"),
        key("image", Shape::Text, "Image of the registry cache").or("`IMAGE-build-cache`"),
    ],
};

static OTEL: Section = Section {
    name: "output.otel",
    keys: &[
        key("endpoint", Shape::Text, "Address of an OTLP/HTTP collector").known(Known::Kamal212)
    ],
};

static FILE: Section = Section {
    name: "output.file",
    keys: &[key("path", Shape::Text, "Folder for one log file a command").known(Known::Kamal212)],
};

const ROLE_KEYS: &[Key] = &[
    key("hosts", Shape::Hosts, "Hosts of the role, each with tags or without").or("none"),
    key("cmd", Shape::Text, "Command of the container").or("the image's"),
    key("options", Shape::AnyMap, "Further `docker run` options"),
    key("env", Shape::Env, "Environment, over the root's"),
    key("labels", Shape::TextMap, "Labels, over the root's"),
    key("logging", Shape::Map(&LOGGING), "Log driver, merged over the root's"),
    key(
        "proxy",
        Shape::ProxyOrBoolean(&PROXY),
        "Whether the role is behind the proxy, and how; merged over the root's",
    )
    .or("on for the primary role, off for others"),
    key("asset_path", Shape::Text, "Path of the assets").or("the root's"),
    key("stop_timeout", Shape::Integer, "Seconds between SIGTERM and SIGKILL")
        .known(Known::Kamal212)
        .or("the root's"),
];

const ENV_KEYS: &[Key] = &[
    key("clear", Shape::TextMap, "Variables by name"),
    key("secret", Shape::TextList, "Names of secrets, `NAME` or `NAME:SECRET`"),
    key("tags", Shape::EnvTags, "Environment by host tag; at the root only"),
];

const REGISTRY_KEYS: &[Key] = &[
    key("server", Shape::Text, "Host of the registry; `localhost:PORT` is a local one")
        .or("Docker Hub"),
    key("username", Shape::Credential, "User name, or a list with the name of a secret. Required"),
    key("password", Shape::Credential, "Password, or a list with the name of a secret. Required"),
];

const BUILDER_KEYS: &[Key] = &[
    key("arch", Shape::TextOrList, "Architecture or architectures. Required"),
    key("remote", Shape::Text, "Docker endpoint that builds other architectures"),
    key("local", Shape::Boolean, "Whether to build here at all").or("true"),
    key("pack", Shape::Map(&PACK), "Build with Cloud Native Buildpacks"),
    key("cache", Shape::Map(&CACHE), "Where build layers are cached"),
    key("context", Shape::Text, "Build context").or("a clone of the git repository"),
    key("dockerfile", Shape::Text, "Dockerfile").or("`Dockerfile`"),
    key("target", Shape::Text, "Stage of the Dockerfile").or("the last"),
    key("args", Shape::AnyMap, "Build arguments"),
    key("secrets", Shape::TextList, "Names of secrets given to the build"),
    key("ssh", Shape::Text, "SSH agent or keys given to the build"),
    key("driver", Shape::Text, "Buildx driver").or("`docker-container`"),
    key("provenance", Shape::Text, "Provenance attestation"),
    key("sbom", Shape::Boolean, "SBOM attestation"),
];

const ACCESSORY_KEYS: &[Key] = &[
    key("service", Shape::Text, "Name of the container and of its directory").or("`SERVICE-NAME`"),
    key("image", Shape::Text, "Image; with its registry unless `registry` is given"),
    key("registry", Shape::Map(&REGISTRY), "Registry of the image"),
    key("host", Shape::Text, "The host; one of six ways of placing"),
    key("hosts", Shape::Hosts, "The hosts"),
    key("role", Shape::Text, "The role whose hosts it runs on"),
    key("roles", Shape::TextList, "The roles"),
    key("tag", Shape::Text, "The tag of the hosts it runs on"),
    key("tags", Shape::TextList, "The tags"),
    key("cmd", Shape::Text, "Command of the container").or("the image's"),
    key("port", Shape::Text, "Port published on the host, `[IP:]HOST:CONTAINER`"),
    key("labels", Shape::TextMap, "Labels"),
    key("options", Shape::AnyMap, "Further `docker run` options"),
    key("env", Shape::Env, "Environment"),
    key("files", Shape::Paths, "Files copied to the host and mounted"),
    key("directories", Shape::Paths, "Directories made on the host and mounted"),
    key("volumes", Shape::TextList, "Volumes as `docker run --volume` takes them"),
    key("network", Shape::Text, "Docker network").or("`kamal`"),
    key("proxy", Shape::Map(&PROXY), "How requests reach it").or("not behind the proxy"),
];

const PATH_KEYS: &[Key] = &[
    key("local", Shape::Text, "Path in the project, or on the host for a directory"),
    key("remote", Shape::Text, "Path in the container"),
    key("mode", Shape::Text, "Permissions, quoted: `\"0640\"`").or("`755` for files"),
    key("owner", Shape::Text, "`USER:GROUP`"),
    key("options", Shape::Text, "Mount options"),
];

const BOOT_KEYS: &[Key] = &[
    key("limit", Shape::Text, "How many hosts boot at once: a number, or `25%`").or("all"),
    key("wait", Shape::Integer, "Seconds between two groups of hosts"),
    key("parallel_roles", Shape::Boolean, "Whether the roles of one host boot at once").or("false"),
];

const LOGGING_KEYS: &[Key] = &[
    key("driver", Shape::Text, "Docker log driver").or("the engine's"),
    key("options", Shape::AnyMap, "Its options").or("`max-size: 10m` without a driver"),
];

const OUTPUT_KEYS: &[Key] = &[
    key("otel", Shape::Map(&OTEL), "An OpenTelemetry collector").known(Known::Kamal212),
    key("file", Shape::Map(&FILE), "Log files").known(Known::Kamal212),
];

const SSH_KEYS: &[Key] = &[
    key("user", Shape::Text, "User").or("`root`"),
    key("port", Shape::Text, "Port").or("22"),
    key("proxy", Shape::Text, "Jump host"),
    key("proxy_command", Shape::Text, "Command that connects"),
    key("log_level", Shape::Text, "`debug`, `info`, `warn`, `error` or `fatal`").or("`fatal`"),
    key("keys_only", Shape::Boolean, "Whether only the keys named here are tried"),
    key("keys", Shape::TextList, "Key files"),
    key("key_data", Shape::TextList, "Names of secrets that hold keys"),
    key("config", Shape::SshConfig, "SSH client configuration: whether, or which files"),
    key("forward_agent", Shape::Boolean, "Whether the agent is forwarded").known(Known::Kamal212),
];

const SSHKIT_KEYS: &[Key] = &[
    key("max_concurrent_starts", Shape::Integer, "Connections opened at once").or("30"),
    key("pool_idle_timeout", Shape::Integer, "Seconds an idle connection is kept").or("900"),
    key("dns_retries", Shape::Integer, "Repeats of a failed name look-up").or("3"),
];
