//! The keys at the top of the file.

use super::sections::{ACCESSORY, BOOT, BUILDER, LOGGING, OUTPUT, REGISTRY, SSH, SSHKIT};
use super::{Key, Known, PROXY, Section, Shape, key};

/// The root.
pub static ROOT: Section = Section { name: "root", keys: KEYS };

const KEYS: &[Key] = &[
    key("service", Shape::Text, "Name of the app; prefix of its containers. Required"),
    key("image", Shape::Text, "Image without the registry's host. Required")
        .or("`service` with a local registry"),
    key("labels", Shape::TextMap, "Labels of the app containers of all roles"),
    key(
        "volumes",
        Shape::TextList,
        "Volumes of the app containers of all roles, as `docker run --volume` takes them",
    ),
    key(
        "registry",
        Shape::Map(&REGISTRY),
        "Where the image is pushed to and pulled from. Required",
    ),
    key(
        "servers",
        Shape::Servers,
        "Hosts, or roles with their hosts. Required unless there are accessories",
    ),
    key("env", Shape::Env, "Environment of the app containers of all roles"),
    key("env_tags", Shape::EnvTags, "Old spelling of `env: tags:`").known(Known::Dhow),
    key(
        "asset_path",
        Shape::Text,
        "Path of the assets in the image, `PATH[:OPTIONS]`; kept reachable across deploys for proxied roles",
    ),
    key("hooks_path", Shape::Text, "Folder of the hooks").or("`.kamal/hooks`"),
    key("hooks_output", Shape::HooksOutput, "`quiet` or `verbose`, for all hooks or by hook"),
    key("secrets_path", Shape::Text, "Base name of the secrets files").or("`.kamal/secrets`"),
    key("error_pages_path", Shape::Text, "Folder with `4xx.html`, `5xx.html` files for the proxy"),
    key("require_destination", Shape::Boolean, "Whether a destination has to be given").or("false"),
    key("primary_role", Shape::Text, "The role that boots first").or("`web`"),
    key(
        "allow_empty_roles",
        Shape::Boolean,
        "Whether roles other than the primary one may have no host",
    )
    .or("false"),
    key("retain_containers", Shape::Integer, "How many old containers are kept for a rollback")
        .or("5"),
    key("minimum_version", Shape::Text, "The oldest Kamal that may read this file"),
    key(
        "readiness_delay",
        Shape::Integer,
        "Seconds that a container without health check has to stay up, roles without proxy",
    )
    .or("7"),
    key(
        "deploy_timeout",
        Shape::Integer,
        "Seconds within which a new container has to become healthy",
    )
    .or("30"),
    key("drain_timeout", Shape::Integer, "Seconds that running requests get to finish").or("30"),
    key("stop_timeout", Shape::Integer, "Seconds between SIGTERM and SIGKILL, all roles")
        .known(Known::Kamal212)
        .or("10 behind the proxy, else `drain_timeout`"),
    key("run_directory", Shape::Text, "Where the app's files are kept on a host").or("`.kamal`"),
    key(
        "ssh",
        Shape::Map(&SSH),
        "SSH, for `server bootstrap` only; `ssh.user` also names the home directory",
    ),
    key("builder", Shape::Map(&BUILDER), "How the image is built. Required for its `arch`"),
    key("accessories", Shape::Named(&ACCESSORY), "Other services: databases, caches, …"),
    key("proxy", Shape::ProxyOrBoolean(&PROXY), "How requests reach the app"),
    key("sshkit", Shape::Map(&SSHKIT), "Limits of SSH connections, for `server bootstrap` only"),
    key("boot", Shape::Map(&BOOT), "How many hosts boot at once"),
    key("logging", Shape::Map(&LOGGING), "Docker's log driver, for app and accessories"),
    key("output", Shape::Map(&OUTPUT), "Where the log of a command is sent besides")
        .known(Known::Kamal212),
    key("aliases", Shape::Aliases, "Short names for command lines"),
];
