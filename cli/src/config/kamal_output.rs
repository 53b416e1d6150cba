//! What `kamal config` prints, byte for byte.
//!
//! In: a config and a version. Out: YAML with symbols as keys, in Kamal's order; what is unset is
//! left out. Sections that Kamal prints as they were read come from the merged tree.

use std::collections::HashMap;

use super::model::{Config, Logging, Placement};
use super::yaml::emit::emit;
use super::yaml::{Map, Node, NodeId, Span, Value};

/// The text, beginning `---`, with a newline at its end.
///
/// # Errors
///
/// None that a config could cause; libyaml's own are passed on.
pub fn render(config: &Config, version: &str) -> Result<String, libyaml_safer::Error> {
    let mut build = Build { next: FIRST_ID, tags: HashMap::new() };
    let repository = config.repository();
    let roles = config.roles.iter().map(|role| role.name.clone()).collect();
    let accessories = config.raw.get("accessories").cloned();
    let entries = [
        ("roles", Some(build.texts(roles))),
        ("hosts", Some(build.hosts(config))),
        ("primary_host", config.primary_host().map(|host| build.host(config, host))),
        ("version", Some(build.text(version))),
        ("repository", Some(build.text(&repository))),
        ("absolute_image", Some(build.text(&format!("{repository}:{version}")))),
        ("service_with_version", Some(build.text(&format!("{}-{version}", config.service)))),
        ("volume_args", Some(build.volume_args(config))),
        ("ssh_options", Some(build.ssh_options(config))),
        ("sshkit", Some(build.section(config, "sshkit"))),
        ("builder", Some(build.section(config, "builder"))),
        ("accessories", accessories),
        ("logging", Some(build.logging_args(&config.logging))),
    ];
    let root = build.map(entries);
    emit(&root, &build.tags)
}

/// Ids of nodes made here; nodes of files have smaller ones.
const FIRST_ID: u32 = 0x4000_0000;

struct Build {
    next: u32,
    /// Maps that Kamal prints as Ruby objects.
    tags: HashMap<NodeId, String>,
}

impl Build {
    fn node(&mut self, value: Value) -> Node {
        self.next += 1;
        Node { value, span: Span::default(), id: NodeId(self.next) }
    }

    fn text(&mut self, text: &str) -> Node {
        self.node(Value::String(text.to_owned()))
    }

    fn texts(&mut self, texts: Vec<String>) -> Node {
        let items = texts.iter().map(|text| self.text(text)).collect();
        self.node(Value::List(items))
    }

    /// A map with symbols as keys, without the values that are not there.
    fn map<const N: usize>(&mut self, entries: [(&str, Option<Node>); N]) -> Node {
        let mut map = Map::default();
        for (name, value) in entries {
            if let Some(value) = value {
                let key = self.node(Value::Symbol(name.to_owned()));
                map.insert(key, value);
            }
        }
        self.node(Value::Map(map))
    }

    fn section(&mut self, config: &Config, name: &str) -> Node {
        let empty = Value::Map(Map::default());
        config.raw.get(name).cloned().unwrap_or_else(|| self.node(empty))
    }

    fn hosts(&mut self, config: &Config) -> Node {
        let mut items: Vec<Node> =
            config.app_hosts().into_iter().map(|host| self.host(config, host)).collect();
        for accessory in &config.accessories {
            let named = config
                .raw
                .get("accessories")
                .and_then(Node::as_map)
                .and_then(|map| map.get(&accessory.name)?.as_map()?.get("hosts")?.as_list());
            let odd =
                named.filter(|hosts| !hosts.iter().all(|h| matches!(h.value, Value::String(_))));
            let hosts: Vec<Node> = match (&accessory.placement, odd) {
                // Kamal takes an accessory's host with a tag, or a number, for a host as it is.
                (Placement::Hosts(_), Some(hosts)) => {
                    hosts.iter().map(|host| self.copy(host)).collect()
                }
                _ => config
                    .accessory_hosts(accessory)
                    .iter()
                    .map(|host| self.host(config, host))
                    .collect(),
            };
            for host in hosts {
                if !items.contains(&host) {
                    items.push(host);
                }
            }
        }
        self.node(Value::List(items))
    }

    /// The same as another object, so that it is written out once more.
    fn copy(&mut self, node: &Node) -> Node {
        let value = match &node.value {
            Value::List(items) => Value::List(items.iter().map(|item| self.copy(item)).collect()),
            Value::Map(map) => {
                let mut copy = Map::default();
                for entry in &map.entries {
                    copy.insert(self.copy(&entry.key), self.copy(&entry.value));
                }
                Value::Map(copy)
            }
            scalar => scalar.clone(),
        };
        self.node(value)
    }

    /// A host as it was read: one that YAML takes for a number is printed as a number.
    fn host(&mut self, config: &Config, host: &str) -> Node {
        let mut values = Vec::new();
        if let Some(servers) = config.raw.get("servers") {
            host_values(servers, &mut values);
        }
        for entry in
            config.raw.get("accessories").and_then(Node::as_map).iter().flat_map(|m| &m.entries)
        {
            let placed = entry
                .value
                .as_map()
                .into_iter()
                .flat_map(|map| [map.get("host"), map.get("hosts")]);
            placed.flatten().for_each(|node| host_values(node, &mut values));
        }
        match values.into_iter().find(|node| node.to_text() == host) {
            Some(node) => node.clone(),
            None => self.text(host),
        }
    }

    fn volume_args(&mut self, config: &Config) -> Node {
        let volumes = config.raw.get("volumes").and_then(Node::as_list).unwrap_or_default();
        let args = volumes.iter().flat_map(|volume| [self.text("--volume"), volume.clone()]);
        let args = args.collect();
        self.node(Value::List(args))
    }

    /// `key_data` is left out: Kamal prints the keys themselves.
    fn ssh_options(&mut self, config: &Config) -> Node {
        let empty = Map::default();
        let ssh = config.raw.get("ssh").and_then(Node::as_map).unwrap_or(&empty);
        let own = |name: &str| ssh.get(name).cloned();
        let level = own("log_level");
        let entries = [
            ("user", own("user").or_else(|| Some(self.text("root")))),
            ("port", own("port").or_else(|| Some(self.node(Value::Int(22))))),
            ("proxy", self.ssh_proxy(ssh)),
            ("keepalive", Some(self.node(Value::Bool(true)))),
            ("keepalive_interval", Some(self.node(Value::Int(30)))),
            ("keys_only", own("keys_only")),
            ("keys", own("keys")),
            ("config", own("config")),
            ("log_level", level.or_else(|| Some(self.node(Value::Symbol("fatal".into()))))),
        ];
        self.map(entries)
    }

    /// Kamal prints the Ruby object that it made of the jump host or the command.
    fn ssh_proxy(&mut self, ssh: &Map) -> Option<Node> {
        let mut object = Map::default();
        let mut field = |this: &mut Self, name: &str, value: Value| {
            let (key, value) = (this.text(name), this.node(value));
            object.insert(key, value);
        };
        let class = if let Some(proxy) = ssh.get("proxy").filter(|node| node.is_truthy()) {
            let jump = proxy.to_text();
            let jump = if jump.contains('@') { jump } else { format!("root@{jump}") };
            field(self, "jump_proxies", Value::String(jump));
            "Jump"
        } else {
            let command = ssh.get("proxy_command").filter(|node| node.is_truthy())?;
            field(self, "command_line_template", command.value.clone());
            field(self, "command_line", Value::Null);
            field(self, "timeout", Value::Int(60));
            "Command"
        };
        let node = self.node(Value::Map(object));
        self.tags.insert(node.id, format!("!ruby/object:Net::SSH::Proxy::{class}"));
        Some(node)
    }

    fn logging_args(&mut self, logging: &Logging) -> Node {
        let mut args = Vec::new();
        let named = logging.driver.as_ref().is_some_and(|driver| !driver.trim().is_empty());
        if !named && logging.options.is_empty() {
            args.extend(["--log-opt".to_owned(), "max-size=\"10m\"".to_owned()]);
        } else if let Some(driver) = &logging.driver {
            args.extend(["--log-driver".to_owned(), shell_quoted(driver)]);
        }
        for (name, node) in &logging.options {
            args.push("--log-opt".to_owned());
            args.push(if node.as_bool() == Some(false) {
                format!("{name}=false")
            } else if node.is_blank() {
                name.clone()
            } else {
                format!("{name}={}", shell_quoted(&node.to_text()))
            });
        }
        self.texts(args)
    }
}

/// What stands for a host and is no text: in lists, and as keys of maps with tags.
fn host_values<'n>(node: &'n Node, values: &mut Vec<&'n Node>) {
    match &node.value {
        Value::String(_) => {}
        Value::List(items) => items.iter().for_each(|item| host_values(item, values)),
        Value::Map(map) => {
            for entry in &map.entries {
                if !matches!(entry.key.value, Value::String(_)) {
                    values.push(&entry.key);
                }
                host_values(&entry.value, values);
            }
        }
        _ => values.push(node),
    }
}

/// Kamal's quoting for the remote shell: stretches of ASCII as Ruby's `dump` writes them, with
/// `` ` `` and `$` escaped, but for `${…}`; other characters stand outside the quotes.
fn shell_quoted(text: &str) -> String {
    let mut out = String::new();
    let characters: Vec<char> = text.chars().collect();
    let mut quoted = false;
    for (index, c) in characters.iter().enumerate() {
        if c.is_ascii() != quoted {
            out.push('"');
            quoted = !quoted;
        }
        let next = characters.get(index + 1);
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '`' => out.push_str("\\`"),
            '$' => {
                let rest = &characters[index + 1..];
                let ascii = rest.iter().take_while(|c| c.is_ascii());
                let closed = ascii.take_while(|c| **c != '}').count();
                let kept = next == Some(&'{') && rest.get(closed) == Some(&'}');
                out.push_str(if kept { "$" } else { "\\$" });
            }
            '#' if matches!(next, Some('{' | '$' | '@')) => out.push_str("\\#"),
            c if c.is_ascii_control() => {
                out.push_str(&format!("\\x{:02X}", u32::from(*c)));
            }
            c => out.push(*c),
        }
    }
    if quoted {
        out.push('"');
    }
    out
}
