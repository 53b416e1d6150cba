//! One table of all keys of `deploy.yml`.
//!
//! It drives the check for unknown keys and wrong types, the suggestions, the JSON Schema, and the
//! table of keys in the documentation; so none of them can disagree with another.

pub mod json;
mod proxy;
mod root;
mod sections;
pub mod table;

pub use proxy::PROXY;
pub use root::ROOT;
pub use sections::{
    ACCESSORY, BOOT, BUILDER, ENV, LOGGING, OUTPUT, PATH_MAP, REGISTRY, ROLE, SSH, SSHKIT,
};

/// What a value has to look like. The names of types are Kamal's.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Text, a symbol, a number or a boolean.
    Text,
    /// An integer.
    Integer,
    /// A boolean.
    Boolean,
    /// A list of texts.
    TextList,
    /// A text or a list of texts (`builder.arch`).
    TextOrList,
    /// A map of anything.
    AnyMap,
    /// A map of texts.
    TextMap,
    /// A map with known keys.
    Map(&'static Section),
    /// A list of hosts, each with tags or without.
    Hosts,
    /// Hosts, or roles by name.
    Servers,
    /// A map from a free name to a section.
    Named(&'static Section),
    /// `env`, in either form.
    Env,
    /// Env by tag, the old spelling `env_tags`.
    EnvTags,
    /// A map from a free name to a text.
    Aliases,
    /// `user`-like: a text, or a list with the name of a secret.
    Credential,
    /// A boolean or a map (`proxy.ssl`).
    Ssl(&'static Section),
    /// A boolean, a text or a list of texts (`ssh.config`).
    SshConfig,
    /// Files and directories of an accessory.
    Paths,
    /// A word or a map of words.
    HooksOutput,
    /// A role's `proxy`: a boolean or the section.
    ProxyOrBoolean(&'static Section),
}

/// Which programs know a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Kamal 2.11 and later.
    Kamal,
    /// Kamal 2.12 and later.
    Kamal212,
    /// An old or transitional form that dhow accepts and Kamal 2 does not.
    Dhow,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// What holds without it; empty when there is nothing to say.
    pub default: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Which programs know it.
    pub known: Known,
}

/// A map with known keys.
#[derive(Debug)]
pub struct Section {
    /// Its title.
    pub name: &'static str,
    /// The keys in the order of the documentation.
    pub keys: &'static [Key],
}

impl Section {
    /// The key `name`.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A key that Kamal 2.11 knows, without a default.
const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, default: "", about, known: Known::Kamal }
}

impl Key {
    const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn known(self, known: Known) -> Self {
        Self { known, ..self }
    }
}

/// A key that had its day: where it stood, and what to write now.
pub struct Legacy {
    /// The path of the map it stood in, `*` for any name; empty for the root.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// What to write now.
    pub hint: &'static str,
}

/// Keys of earlier versions. They are refused; each with its replacement named.
pub const LEGACY: &[Legacy] = &[
    legacy(
        "",
        "stop_wait_time",
        "use `drain_timeout` (time to finish requests) or `stop_timeout` (time to stop) instead",
    ),
    legacy("", "readiness_timeout", "use `deploy_timeout` instead"),
    legacy("", "traefik", "kamal-proxy has replaced Traefik; use `proxy` instead"),
    legacy(
        "",
        "healthcheck",
        "use `proxy: healthcheck:` instead, and `proxy: app_port:` for its port",
    ),
    legacy("", "require_ssl", "use `proxy: ssl: true` instead"),
    legacy("proxy", "deploy_timeout", "use the root key `deploy_timeout` instead"),
    legacy("proxy", "drain_timeout", "use the root key `drain_timeout` instead"),
    legacy("proxy", "readiness_timeout", "use the root key `deploy_timeout` instead"),
    legacy("proxy", "stop_wait_time", "use the root key `drain_timeout` instead"),
    legacy(
        "servers/*",
        "traefik",
        "kamal-proxy has replaced Traefik; use `proxy: true` or `proxy: false` instead",
    ),
    legacy("servers/*", "healthcheck", "use `proxy: healthcheck:` under the role instead"),
    legacy("builder", "multiarch", "use `arch`, a word or a list, instead"),
];

const fn legacy(section: &'static str, name: &'static str, hint: &'static str) -> Legacy {
    Legacy { section, name, hint }
}

/// What to write instead of the old key `name` in the map at `path`.
#[must_use]
pub fn legacy_hint(path: &str, name: &str) -> Option<&'static str> {
    let matches = |section: &str| match section.strip_suffix("/*") {
        Some(prefix) => path
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| !rest.contains('/')),
        // A role's or an accessory's proxy has the same old keys as the root's.
        None if section == "proxy" => path == "proxy" || path.ends_with("/proxy"),
        None => path == section,
    };
    LEGACY.iter().find(|old| old.name == name && matches(old.section)).map(|old| old.hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_keys_name_their_replacement() {
        assert!(legacy_hint("", "stop_wait_time").unwrap().contains("drain_timeout"));
        assert!(legacy_hint("servers/web/proxy", "deploy_timeout").unwrap().contains("root key"));
        assert!(legacy_hint("servers/web", "traefik").unwrap().contains("proxy"));
        assert!(legacy_hint("ssh", "traefik").is_none());
    }
}
