//! Checks between sections, in Kamal's order. They run after the sections' own.

use std::path::Path;

use dhow_proto::model::kamal::COMPATIBLE_VERSION;

use super::super::diagnostic::{Code, Diagnostic, ErrorClass};
use super::super::merge::merged;
use super::super::model::{Config, Role, Tls};
use super::super::outside::{Outside, docker_arch};
use super::super::yaml::{Map, Node, Span};
use super::{Checker, argument};

/// Runs all cross checks.
pub(crate) fn cross_check(checker: &mut Checker, config: &Config, outside: &dyn Outside) {
    let check = Cross { config, root: &config.raw };
    check.required(checker);
    check.roles(checker);
    check.version(checker);
    check.limits(checker);
    check.hooks(checker, outside);
    check.tls(checker);
    check.local_registry(checker, outside);
    check.proxy_runs(checker);
    check.hooks_output(checker);
    check.ssh(checker);
    check.dhow(checker);
}

struct Cross<'a> {
    config: &'a Config,
    root: &'a Map,
}

impl Cross<'_> {
    fn key_span(&self, key: &str) -> Option<Span> {
        self.root.entry(key).map(|entry| entry.key.span)
    }

    fn value_span(&self, key: &str) -> Option<Span> {
        self.root.get(key).map(|node| node.span)
    }

    fn required(&self, checker: &mut Checker) {
        if self.root.get("require_destination").is_some_and(Node::is_truthy)
            && self.config.destination.is_none()
        {
            checker.push(
                argument("You must specify a destination")
                    .at_maybe(self.key_span("require_destination"))
                    .path("require_destination")
                    .hint("name it with `-d`, for instance `-d staging`"),
            );
        }
        for (key, value) in [("service", &self.config.service), ("image", &self.config.image)] {
            if value.trim().is_empty() && !checker.is_reported(key) {
                checker.push(
                    Diagnostic::new(
                        Code::Missing,
                        format!("Missing required configuration for {key}"),
                    )
                    .at_maybe(self.value_span(key))
                    .path(key),
                );
            }
        }
    }

    fn roles(&self, checker: &mut Checker) {
        if checker.is_reported("servers") {
            return;
        }
        let span = self.key_span("servers");
        let error = |message: String| {
            Diagnostic::new(Code::Missing, message).at_maybe(span).path("servers")
        };
        let Some(servers) = self.root.get("servers") else {
            if self.config.accessories.is_empty() {
                checker.push(error("No servers or accessories specified".into()));
            }
            return;
        };
        let name = &self.config.primary_role;
        let Some(primary) = self.config.primary() else {
            let known = self.config.roles.iter().map(|role| role.name.as_str());
            let hint = match super::nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name one of the roles with `primary_role:`".to_owned(),
            };
            checker.push(
                error(format!("The primary_role {name} isn't defined"))
                    .at_maybe(self.value_span("primary_role"))
                    .hint(hint),
            );
            return;
        };
        let place = |role: &Role| {
            servers.as_map().and_then(|map| map.entry(&role.name)).map(|entry| entry.key.span)
        };
        if primary.hosts.is_empty() {
            checker.push(
                error(format!("No servers specified for the {name} primary_role"))
                    .at_maybe(place(primary)),
            );
        }
        if self.root.get("allow_empty_roles").is_some_and(Node::is_truthy) {
            return;
        }
        for role in self.config.roles.iter().filter(|role| role.hosts.is_empty()) {
            if role.name != *name {
                checker.push(
                    error(format!(
                        "No servers specified for the {} role. You can ignore this with allow_empty_roles: true",
                        role.name
                    ))
                    .at_maybe(place(role)),
                );
            }
        }
    }

    fn version(&self, checker: &mut Checker) {
        let Some(node) = self.root.get("minimum_version") else { return };
        if checker.is_reported("minimum_version") {
            return;
        }
        let wanted = node.to_text();
        let Some(parts) = gem_version(&wanted) else {
            checker.push(
                argument(format!("Malformed version number string {wanted}"))
                    .at(node.span)
                    .path("minimum_version"),
            );
            return;
        };
        let ours = gem_version(COMPATIBLE_VERSION).unwrap_or_default();
        if compare_versions(&parts, &ours) == std::cmp::Ordering::Greater {
            checker.push(
                Diagnostic::new(
                    Code::Invalid,
                    format!(
                        "Current version is {COMPATIBLE_VERSION}, minimum required is {wanted}"
                    ),
                )
                .at(node.span)
                .path("minimum_version"),
            );
        }
    }

    fn limits(&self, checker: &mut Checker) {
        if self.config.retain_containers < 1 {
            checker.push(
                Diagnostic::new(Code::Invalid, "Must retain at least 1 container")
                    .at_maybe(self.value_span("retain_containers"))
                    .path("retain_containers"),
            );
        }
        // Kamal lets a text of several lines pass when one of them fits; nothing could be made of it.
        let service = &self.config.service;
        let fits = service.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !service.trim().is_empty() && !fits {
            let message =
                "Service name can only include alphanumeric characters, hyphens, and underscores";
            checker.push(
                Diagnostic::new(Code::Invalid, message)
                    .at_maybe(self.value_span("service"))
                    .path("service"),
            );
        }
    }

    fn hooks(&self, checker: &mut Checker, outside: &dyn Outside) {
        let folder = outside.current_dir().join(&self.config.hooks_path);
        for name in ["pre-traefik-reboot", "post-traefik-reboot"] {
            if outside.exists(&folder.join(name)) {
                let path = Path::new(&self.config.hooks_path).join(name);
                checker.push(
                    Diagnostic::new(
                        Code::LegacyKey,
                        format!(
                            "Found {}, these should be renamed to (pre|post)-proxy-reboot",
                            path.display()
                        ),
                    )
                    .path("hooks_path"),
                );
            }
        }
    }

    /// The place where a role says it wants TLS.
    fn tls_span(&self, role: &Role) -> Option<Span> {
        let own = self
            .root
            .get("servers")
            .and_then(Node::as_map)
            .and_then(|servers| servers.get(&role.name))
            .and_then(Node::as_map)
            .and_then(|own| own.get("proxy"));
        let of = |proxy: Option<&Node>| proxy?.as_map()?.get("ssl").map(|node| node.span);
        of(own).or_else(|| of(self.root.get("proxy")))
    }

    fn tls(&self, checker: &mut Checker) {
        let proxied =
            || self.config.roles.iter().filter_map(|role| Some((role, role.proxy.as_ref()?)));
        for (role, proxy) in proxied() {
            self.merged_proxy(checker, role);
            let count = role.hosts.len();
            if proxy.tls == Tls::Automatic && count > 1 {
                checker.push(
                    Diagnostic::new(
                        Code::Conflict,
                        format!(
                            "SSL is only supported on a single server unless you provide custom certificates, found {count} servers for role {}",
                            role.name
                        ),
                    )
                    .at_maybe(self.tls_span(role))
                    .path(format!("servers/{}", role.name)),
                );
            }
        }
        let names: Vec<&String> = proxied()
            .filter(|(_, proxy)| proxy.tls != Tls::Off)
            .flat_map(|(_, proxy)| &proxy.hosts)
            .collect();
        let mut twice: Vec<&str> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) && !twice.contains(&name.as_str()) {
                twice.push(name);
            }
        }
        if !twice.is_empty() {
            let message =
                format!("Different roles can't share the same host for SSL: {}", twice.join(", "));
            checker.push(
                Diagnostic::new(Code::Conflict, message)
                    .at_maybe(self.key_span("proxy").or(self.key_span("servers")))
                    .path("proxy"),
            );
        }
    }

    /// The merged section of a role is checked again, in Kamal's context `proxy`.
    fn merged_proxy(&self, checker: &mut Checker, role: &Role) {
        let own = self
            .root
            .get("servers")
            .and_then(Node::as_map)
            .and_then(|servers| servers.get(&role.name))
            .and_then(Node::as_map)
            .and_then(|own| own.get("proxy"))
            .filter(|own| own.as_map().is_some());
        if own.is_none() || checker.is_reported("proxy") {
            return;
        }
        let merged = merged(self.root.get("proxy"), own);
        checker.rooted(&["proxy"], |this| this.proxy_rules(&merged));
    }

    fn local_registry(&self, checker: &mut Checker, outside: &dyn Outside) {
        let builder = &self.config.builder;
        let Some(remote) = &builder.remote else { return };
        if !self.config.registry.is_local() || remote.starts_with("ssh://") {
            return;
        }
        // The remote builder is for what this machine does not build itself.
        let own = builder.local.then(|| docker_arch(outside)).flatten();
        if builder.arches.iter().all(|arch| Some(arch) == own.as_ref()) {
            return;
        }
        let message =
            "Local registry with remote builder requires an SSH URL (e.g., ssh://user@host)";
        let span = self
            .root
            .get("builder")
            .and_then(Node::as_map)
            .and_then(|map| map.get("remote"))
            .map(|node| node.span);
        checker
            .push(Diagnostic::new(Code::Conflict, message).at_maybe(span).path("builder/remote"));
    }

    /// Kamal 2.12's rule: equal sections on one host are no conflict.
    fn proxy_runs(&self, checker: &mut Checker) {
        let config = self.config;
        for host in config.all_hosts() {
            let roles = config
                .roles
                .iter()
                .filter(|role| role.hosts.iter().any(|tagged| tagged.host == host))
                .filter_map(|role| role.proxy.as_ref()?.run.as_ref());
            let accessories = config
                .accessories
                .iter()
                .filter(|accessory| config.accessory_hosts(accessory).contains(&host))
                .filter_map(|accessory| accessory.proxy.as_ref()?.run.as_ref());
            let mut runs = roles.chain(accessories);
            let Some(first) = runs.next() else { continue };
            if runs.any(|run| run != first) {
                checker.push(
                    Diagnostic::new(
                        Code::Conflict,
                        format!("Conflicting proxy run configurations for host {host}"),
                    )
                    .at_maybe(self.key_span("servers"))
                    .path("proxy/run")
                    .hint("a host has one proxy: give all its roles the same `proxy: run:`, best at the root"),
                );
            }
        }
    }

    fn hooks_output(&self, checker: &mut Checker) {
        let Some(node) = self.root.get("hooks_output") else { return };
        if checker.is_reported("hooks_output") {
            return;
        }
        let known = |node: &Node| matches!(node.to_text().as_str(), "quiet" | "verbose");
        let error = |value: &Node, of: String| {
            Diagnostic::new(
                Code::Invalid,
                format!(
                    "Invalid hooks_output '{}'{of}, must be one of: quiet, verbose",
                    value.to_text()
                ),
            )
            .at(value.span)
            .path("hooks_output")
        };
        match node.as_map() {
            Some(map) => {
                for entry in map.entries.iter().filter(|entry| !known(&entry.value)) {
                    let of = format!(" for hook '{}'", entry.key.to_text());
                    checker.push(error(&entry.value, of));
                }
            }
            // A number or a boolean is ignored by Kamal, so it is no error here either.
            None if known(node)
                || matches!(
                    node.value,
                    super::super::yaml::Value::Bool(_)
                        | super::super::yaml::Value::Int(_)
                        | super::super::yaml::Value::Float(_)
                ) => {}
            None => {
                checker.push(error(node, String::new()));
            }
        }
    }

    fn ssh(&self, checker: &mut Checker) {
        let level =
            self.root.get("ssh").and_then(Node::as_map).and_then(|ssh| ssh.get("log_level"));
        let Some(level) = level.filter(|_| !checker.is_reported("ssh")) else { return };
        let name = level.to_text();
        if !["debug", "info", "warn", "error", "fatal", "unknown"]
            .contains(&name.to_ascii_lowercase().as_str())
        {
            checker.push(
                argument(format!("invalid log level: {name}")).at(level.span).path("ssh/log_level"),
            );
        }
    }

    /// `x-dhow`, which Kamal ignores and dhow therefore checks last.
    fn dhow(&self, checker: &mut Checker) {
        let Some(node) = self.root.get("x-dhow") else { return };
        let Some(map) = node.as_map() else {
            checker.rooted(&["x-dhow"], |this| this.wrong_type("a hash", node));
            return;
        };
        let allowed: [(&str, &[&str]); 2] =
            [("failure_policy", &["stop", "rollback"]), ("env_escaping", &["exact", "kamal"])];
        for entry in &map.entries {
            let key = entry.key.to_text();
            let Some((_, words)) = allowed.iter().find(|(name, _)| *name == key) else {
                let hint = super::nearest(&key, allowed.iter().map(|(name, _)| *name))
                    .map(|near| format!("did you mean `{near}`?"));
                checker.rooted(&["x-dhow"], |this| {
                    this.report(
                        Code::UnknownKey,
                        &format!("unknown key: {key}"),
                        Some(entry.key.span),
                    )
                    .hint = hint;
                });
                continue;
            };
            if !words.contains(&entry.value.to_text().as_str()) {
                checker.rooted(&["x-dhow", &key], |this| {
                    let cause = format!("should be {}", words.join(" or "));
                    this.report(Code::Invalid, &cause, Some(entry.value.span));
                });
            }
        }
    }
}

impl Checker {
    /// Whether something was said about a root key, so that a later check would only repeat it.
    fn is_reported(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| {
            problem.class == ErrorClass::Configuration
                && (problem.path == key
                    || problem.path.strip_prefix(key).is_some_and(|rest| rest.starts_with('/')))
        })
    }
}

/// A part of a gem version: numbers sort above letters (pre-releases).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Letters(String),
    Number(u64),
}

/// Splits a version as RubyGems does; `None` when it is malformed.
fn gem_version(text: &str) -> Option<Vec<Part>> {
    let text = text.trim().replace('-', ".pre.");
    if text.is_empty() {
        return Some(vec![Part::Number(0)]);
    }
    let mut parts = Vec::new();
    for (index, piece) in text.split('.').enumerate() {
        let alphanumeric = !piece.is_empty() && piece.bytes().all(|b| b.is_ascii_alphanumeric());
        if !alphanumeric || (index == 0 && !piece.bytes().all(|b| b.is_ascii_digit())) {
            return None;
        }
        let mut rest = piece;
        while let Some(first) = rest.bytes().next() {
            let digits = first.is_ascii_digit();
            let end = rest.bytes().position(|b| b.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (head, tail) = rest.split_at(end);
            parts.push(if digits {
                Part::Number(head.parse().unwrap_or(u64::MAX))
            } else {
                Part::Letters(head.to_owned())
            });
            rest = tail;
        }
    }
    Some(parts)
}

fn compare_versions(a: &[Part], b: &[Part]) -> std::cmp::Ordering {
    let zero = Part::Number(0);
    (0..a.len().max(b.len()))
        .map(|index| a.get(index).unwrap_or(&zero).cmp(b.get(index).unwrap_or(&zero)))
        .find(|order| order.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::super::super::load::{LoadOptions, load};
    use super::super::super::outside::fake::FakeOutside;
    use super::*;
    use std::cmp::Ordering;

    /// Only what this machine does not build itself goes to the remote builder.
    #[test]
    fn a_local_registry_needs_ssh_to_the_builder_that_is_used() {
        let refused = |builder: &str, arch: Option<&str>| {
            let text = format!(
                "service: shop\nservers: [h]\nregistry: {{server: 'localhost:5000'}}\nbuilder: {builder}\n"
            );
            let mut outside = FakeOutside::default().file("config/deploy.yml", &text);
            if let Some(arch) = arch {
                let command = "docker info --format '{{.Architecture}}' 2>/dev/null";
                outside = outside.with_command(command, &format!("{arch}\n"));
            }
            let problems = load(&LoadOptions::default(), &outside).err();
            problems.is_some_and(|problems| problems.to_string().contains("requires an SSH URL"))
        };
        let tcp = "{arch: amd64, remote: 'tcp://b'}";
        assert!(!refused(tcp, Some("x86_64")));
        assert!(refused(tcp, Some("aarch64")));
        assert!(refused(tcp, None), "without Docker nothing is built here");
        assert!(!refused("{arch: arm64, remote: 'tcp://b'}", Some("aarch64")));
        assert!(refused("{arch: [amd64, arm64], remote: 'tcp://b'}", Some("x86_64")));
        assert!(refused("{arch: amd64, local: false, remote: 'tcp://b'}", Some("x86_64")));
        assert!(!refused("{arch: amd64, local: false, remote: 'ssh://b'}", None));
        assert!(!refused("{arch: amd64}", None));
    }

    #[test]
    fn versions_compare_as_rubygems_compares_them() {
        let order = |a, b| compare_versions(&gem_version(a).unwrap(), &gem_version(b).unwrap());
        assert_eq!(order("2.11.0", "2.12.0"), Ordering::Less);
        assert_eq!(order("2.12", "2.12.0"), Ordering::Equal);
        assert_eq!(order("2.12.0.rc1", "2.12.0"), Ordering::Less);
        assert_eq!(order("3", "2.12.0"), Ordering::Greater);
        assert!(gem_version("a.b").is_none());
        assert!(gem_version("1..2").is_none());
    }
}
