//! The rules of each section, in the order in which Kamal builds its objects.

use super::super::diagnostic::Code;
use super::super::schema::{
    ACCESSORY, BOOT, BUILDER, LOGGING, PROXY, REGISTRY, ROLE, ROOT, SSH, SSHKIT,
};
use super::super::yaml::{Map, Node, Value};
use super::Checker;

/// Checks everything that can be said section by section. `root` is the merged tree.
pub(crate) fn validate(checker: &mut Checker, root: &Map) {
    checker.unknown_keys(root, &ROOT, true);
    checker.values(root, &ROOT);
    let map = |name: &str| root.get(name).filter(|node| node.as_map().is_some());
    checker.servers(root);
    checker.rooted(&["registry"], |this| this.registry(map("registry")));
    for entry in entries(map("accessories")) {
        let name = entry.key.to_text();
        checker.rooted(&["accessories", &name], |this| this.accessory(&entry.value, root));
    }
    for entry in entries(map("aliases")) {
        let name = entry.key.to_text();
        checker.rooted(&["aliases", &name], |this| this.alias(&name, &entry.key, &entry.value));
    }
    if let Some(boot) = map("boot") {
        checker.rooted(&["boot"], |this| this.map(boot, &BOOT));
    }
    checker.rooted(&["builder"], |this| this.builder(root.get("builder")));
    if let Some(env) = map("env") {
        checker.rooted(&["env"], |this| this.env(env, true));
    }
    if let Some(tags) = map("env_tags") {
        checker.rooted(&["env_tags"], |this| this.env_tags(tags));
    }
    if let Some(logging) = map("logging") {
        checker.rooted(&["logging"], |this| this.map(logging, &LOGGING));
    }
    if let Some(output) = map("output") {
        checker.rooted(&["output"], |this| this.output(output));
    }
    if let Some(proxy) = root.get("proxy") {
        checker.rooted(&["proxy"], |this| this.proxy(proxy));
    }
    if let Some(ssh) = map("ssh") {
        checker.rooted(&["ssh"], |this| this.map(ssh, &SSH));
    }
    if let Some(sshkit) = map("sshkit") {
        checker.rooted(&["sshkit"], |this| this.map(sshkit, &SSHKIT));
    }
}

fn entries(node: Option<&Node>) -> impl Iterator<Item = &super::super::yaml::Entry> {
    node.and_then(Node::as_map).into_iter().flat_map(|map| &map.entries)
}

/// The name of the primary role.
pub(crate) fn primary_role(root: &Map) -> String {
    root.get("primary_role").map_or_else(|| "web".into(), Node::to_text)
}

impl Checker {
    fn servers(&mut self, root: &Map) {
        let Some(servers) = root.get("servers") else { return };
        match &servers.value {
            Value::List(_) => self.rooted(&["servers"], |this| this.hosts(servers)),
            Value::Map(map) => {
                let mut roles: Vec<_> = map.entries.iter().collect();
                roles.sort_by_key(|entry| entry.key.to_text());
                let primary = primary_role(root);
                for entry in roles {
                    let name = entry.key.to_text();
                    let is_primary = name == primary;
                    self.rooted(&["servers", &name], |this| {
                        if !matches!(entry.key.value, Value::String(_) | Value::Symbol(_)) {
                            this.report(
                                Code::WrongType,
                                "the name of a role should be a string",
                                Some(entry.key.span),
                            )
                            .hint = Some("quote it".into());
                        }
                        this.role(&entry.value, is_primary);
                    });
                }
            }
            _ => {}
        }
    }

    fn role(&mut self, node: &Node, _primary: bool) {
        match &node.value {
            Value::List(_) => self.hosts(node),
            Value::Map(map) => {
                self.map(node, &ROLE);
                self.labels(map);
                self.options(map);
                if let Some(env) = map.get("env").filter(|env| env.as_map().is_some()) {
                    self.within("env", |this| this.env(env, false));
                }
                if let Some(logging) = map.get("logging").filter(|node| node.as_map().is_some()) {
                    self.within("logging", |this| this.map(logging, &LOGGING));
                }
                if let Some(proxy) = map.get("proxy").filter(|node| node.as_map().is_some()) {
                    self.within("proxy", |this| this.proxy(proxy));
                }
            }
            _ => self.wrong_type("an array or a hash", node),
        }
    }

    fn labels(&mut self, map: &Map) {
        let Some(labels) = map.get("labels").and_then(Node::as_map) else { return };
        for entry in &labels.entries {
            let name = entry.key.to_text();
            if matches!(name.as_str(), "destination" | "role" | "service") {
                let cause = "invalid label. destination, role, and service are reserved labels";
                self.within("labels", |this| {
                    this.within(&name, |this| {
                        this.report(Code::Invalid, cause, Some(entry.key.span));
                    });
                });
            }
        }
    }

    /// `restart` as Kamal 2.12 has it; 2.11 refuses any.
    fn options(&mut self, map: &Map) {
        let Some(restart) =
            map.get("options").and_then(Node::as_map).and_then(|o| o.get("restart"))
        else {
            return;
        };
        // Without a policy there is none to look at, for either Kamal.
        if restart.is_null() {
            return;
        }
        let policy = restart.to_text();
        let known = match policy.split_once(':') {
            Some(("on-failure", count)) => count.parse::<u32>().is_ok(),
            Some(_) => false,
            None => {
                matches!(policy.as_str(), "no" | "always" | "unless-stopped" | "on-failure")
            }
        };
        // A bare `no` is false for YAML, and means the policy all the same.
        if known || restart.as_bool() == Some(false) {
            self.expected.insert(restart.span);
            return;
        }
        self.within("options", |this| {
            this.within("restart", |this| {
                let cause = "should be no, always, unless-stopped, on-failure or on-failure:N";
                this.report(Code::Invalid, cause, Some(restart.span));
            });
        });
    }

    fn registry(&mut self, node: Option<&Node>) {
        let empty = Map::default();
        let map = match node {
            Some(node) => node.as_map().unwrap_or(&empty),
            None => &empty,
        };
        if let Some(node) = node {
            self.map(node, &REGISTRY);
        }
        let server = map.get("server").map(Node::to_text).unwrap_or_default();
        if server
            .lines()
            .any(|line| line.starts_with("localhost:") || line.starts_with("localhost$"))
        {
            return;
        }
        for name in ["username", "password"] {
            self.within(name, |this| this.credential(map.get(name), node));
        }
    }

    fn credential(&mut self, value: Option<&Node>, registry: Option<&Node>) {
        let Some(value) = value.filter(|value| !value.is_blank()) else {
            let span = value.or(registry).map(|node| node.span);
            self.report(Code::Missing, "is required", span).hint = Some(
                "give a text, or a list with the name of a secret: `- KAMAL_REGISTRY_PASSWORD`"
                    .into(),
            );
            return;
        };
        let fits = match value.as_list() {
            Some([one]) => one.as_text().is_some(),
            Some(_) => false,
            None => value.as_text().is_some(),
        };
        if !fits {
            let cause = "should be a string or an array with one string (for secret lookup)";
            self.report(Code::WrongType, cause, Some(value.span));
        }
    }

    fn accessory(&mut self, node: &Node, root: &Map) {
        let Value::Map(map) = &node.value else {
            self.wrong_type("a hash", node);
            return;
        };
        self.map(node, &ACCESSORY);
        let placements = ["host", "hosts", "role", "roles", "tag", "tags"];
        let given: Vec<_> = map
            .entries
            .iter()
            .filter(|entry| entry.key.as_text().is_some_and(|key| placements.contains(&key)))
            .collect();
        if given.len() != 1 {
            let cause = "specify one of `host`, `hosts`, `role`, `roles`, `tag` or `tags`";
            let span = given.get(1).map_or(node.span, |entry| entry.key.span);
            let code = if given.is_empty() { Code::Missing } else { Code::Conflict };
            self.report(code, cause, Some(span));
        }
        self.labels(map);
        self.options(map);
        self.accessory_roles(map, root);
        if let Some(env) = map.get("env").filter(|env| env.as_map().is_some()) {
            self.within("env", |this| this.env(env, false));
        }
        if let Some(proxy) =
            map.get("proxy").filter(|node| node.as_map().is_some_and(|map| !map.is_empty()))
        {
            self.within("proxy", |this| this.proxy(proxy));
        }
        if let Some(registry) =
            map.get("registry").filter(|node| node.as_map().is_some_and(|map| !map.is_empty()))
        {
            self.within("registry", |this| this.registry(Some(registry)));
        }
    }

    fn accessory_roles(&mut self, map: &Map, root: &Map) {
        let one = map.get("role").filter(|role| super::shape::is_text(role));
        let listed = map.get("roles").and_then(Node::as_list);
        let known: Vec<String> = match root.get("servers").map(|node| &node.value) {
            Some(Value::List(_)) => vec!["web".into()],
            Some(Value::Map(map)) => map.entries.iter().map(|entry| entry.key.to_text()).collect(),
            _ => Vec::new(),
        };
        let missing = |role: &&Node| !known.contains(&role.to_text());
        // Kamal says `roles` of one, too, where it is listed.
        let mut word = "roles";
        let mut missed: Vec<&Node> = listed.into_iter().flatten().filter(missing).collect();
        if missed.is_empty() {
            (word, missed) = ("role", one.iter().copied().filter(missing).collect());
        }
        let Some(first) = missed.first() else { return };
        let names: Vec<String> = missed.iter().map(|role| role.to_text()).collect();
        let hint = super::nearest(&names[0], known.iter().map(String::as_str))
            .map(|near| format!("did you mean `{near}`?"));
        self.report(
            Code::Invalid,
            &format!("unknown {word} {}", names.join(", ")),
            Some(first.span),
        )
        .hint = hint;
    }

    fn alias(&mut self, name: &str, key: &Node, value: &Node) {
        self.text(value);
        let fits = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if !fits {
            let cause = format!(
                "Invalid alias name: '{name}'. Must only contain lowercase letters, alphanumeric, hyphens and underscores."
            );
            self.report(Code::Invalid, &cause, Some(key.span));
        } else if BUILT_IN.contains(&name) {
            let cause = format!("Alias '{name}' conflicts with a built-in command.");
            self.report(Code::Conflict, &cause, Some(key.span));
        }
    }

    fn builder(&mut self, node: Option<&Node>) {
        let empty = Map::default();
        let map = match node {
            Some(node) => match node.as_map() {
                Some(map) => map,
                None => return,
            },
            None => &empty,
        };
        if let Some(node) = node {
            self.map(node, &BUILDER);
        }
        let span = node.map(|node| node.span);
        if let Some(kind) =
            map.get("cache").and_then(Node::as_map).and_then(|cache| cache.get("type"))
            && kind.is_truthy()
            && !matches!(kind.as_text(), Some("gha" | "registry"))
        {
            self.report(
                Code::Invalid,
                &format!("Invalid cache type: {}", kind.to_text()),
                Some(kind.span),
            )
            .hint = Some("the types are `gha` and `registry`".into());
        }
        let arch = map.get("arch").filter(|arch| !arch.is_blank());
        if arch.is_none() {
            self.report(Code::Missing, "Builder arch not set", span).hint =
                Some("add `arch: amd64` (or `arm64`, or a list of both) under `builder:`".into());
        }
        if let (Some(pack), Some(arch)) = (map.get("pack"), arch)
            && arch.as_list().is_some_and(|items| items.len() > 1)
        {
            self.report(
                Code::Conflict,
                "buildpacks only support building for one arch",
                Some(pack.span),
            );
        }
        if let Some(local) = map.get("local").filter(|local| local.as_bool() == Some(false))
            && map.get("remote").is_none_or(Node::is_blank)
        {
            self.report(
                Code::Conflict,
                "Cannot disable local builds, no remote is set",
                Some(local.span),
            );
        }
    }

    pub(super) fn env(&mut self, node: &Node, tags_allowed: bool) {
        let Some(map) = node.as_map() else {
            self.wrong_type("a hash", node);
            return;
        };
        let special = ["clear", "secret", "tags"];
        let is_special = |key: &Node| key.as_text().is_some_and(|name| special.contains(&name));
        if !map.entries.iter().any(|entry| is_special(&entry.key)) {
            self.text_map(node);
            return;
        }
        self.unknown_keys(map, &super::super::schema::ENV, false);
        if let Some(clear) = map.get("clear") {
            self.within("clear", |this| this.text_map(clear));
        }
        if let Some(secret) = map.get("secret") {
            self.within("secret", |this| this.text_list(secret));
        }
        if let Some(entry) = map.entry("tags") {
            if tags_allowed {
                self.within("tags", |this| this.env_tags(&entry.value));
            } else {
                self.report(
                    Code::Invalid,
                    "tags are only allowed in the root env",
                    Some(entry.key.span),
                );
            }
        }
    }

    fn env_tags(&mut self, node: &Node) {
        let Some(map) = node.as_map() else {
            self.wrong_type("a hash", node);
            return;
        };
        for entry in &map.entries {
            self.within(&entry.key.to_text(), |this| this.env(&entry.value, false));
        }
    }

    fn output(&mut self, node: &Node) {
        self.map(node, &super::super::schema::OUTPUT);
        let Some(map) = node.as_map() else { return };
        for (logger, key, cause) in [
            ("otel", "endpoint", "OTel endpoint is required"),
            ("file", "path", "file path is required"),
        ] {
            let Some(settings) = map.get(logger).filter(|node| node.as_map().is_some()) else {
                continue;
            };
            if settings.as_map().and_then(|map| map.get(key)).is_none_or(Node::is_blank) {
                self.within(logger, |this| {
                    this.report(Code::Missing, cause, Some(settings.span));
                });
            }
        }
    }

    pub(super) fn proxy(&mut self, node: &Node) {
        let Some(map) = node.as_map() else {
            self.wrong_type("a hash", node);
            return;
        };
        self.map(node, &PROXY);
        self.proxy_rules(map);
    }

    /// The rules between the keys of a proxy section; also run on merged sections.
    pub(super) fn proxy_rules(&mut self, map: &Map) {
        let blank = |name: &str| map.get(name).is_none_or(Node::is_blank);
        // Beside `enabled`, `hosts` lists servers, not names (the transitional form).
        let names_missing = blank("host") && (blank("hosts") || map.get("enabled").is_some());
        if let Some(ssl) = map.get("ssl").filter(|ssl| ssl.is_truthy())
            && names_missing
        {
            self.report(Code::Missing, "Must set a host to enable automatic SSL", Some(ssl.span))
                .hint = Some("add `host: app.example.com`".into());
        }
        if let (Some(_), Some(entry)) = (map.get("host"), map.entry("hosts"))
            && map.get("enabled").is_none()
        {
            self.report(
                Code::Conflict,
                "Specify one of 'host' or 'hosts', not both",
                Some(entry.key.span),
            );
        }
        if let Some(ssl) = map.get("ssl").and_then(Node::as_map) {
            for (given, missing) in
                [("certificate_pem", "private_key_pem"), ("private_key_pem", "certificate_pem")]
            {
                let is_given = ssl.get(given).filter(|node| !node.is_blank());
                if let Some(node) = is_given
                    && ssl.get(missing).is_none_or(Node::is_blank)
                {
                    let cause =
                        format!("Missing {missing} setting (required when {given} is present)");
                    self.report(Code::Missing, &cause, Some(node.span));
                }
            }
        }
        let run = map.get("run").and_then(Node::as_map);
        if let Some(run) = run
            && let Some(publish) = run.get("publish").filter(|node| node.as_bool() == Some(false))
            && ["http_port", "https_port", "bind_ips"]
                .iter()
                .any(|key| run.get(key).is_some_and(|node| !node.is_blank()))
        {
            let cause = "Cannot set http_port, https_port or bind_ips when publish is false";
            self.report(Code::Conflict, cause, Some(publish.span));
        }
    }
}

/// Kamal's top-level commands, which no alias may shadow. (`help` and `tree` it does not catch.)
pub(crate) const BUILT_IN: &[&str] = &[
    "accessory",
    "app",
    "audit",
    "build",
    "config",
    "deploy",
    "details",
    "docs",
    "init",
    "lock",
    "proxy",
    "prune",
    "redeploy",
    "registry",
    "remove",
    "rollback",
    "secrets",
    "server",
    "setup",
    "upgrade",
    "version",
];
