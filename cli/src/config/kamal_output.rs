//! What `kamal config` prints, byte for byte.
//!
//! In: a config and a version. Out: YAML with symbols as keys, in Kamal's order; what is unset is
//! left out. Sections that Kamal prints as they were read come from the merged tree.

use std::collections::HashMap;

use super::model::{Config, Logging};
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
        ("hosts", Some(build.texts(config.all_hosts()))),
        ("primary_host", config.primary_host().map(|host| build.text(host))),
        ("version", Some(build.text(version))),
        ("repository", Some(build.text(&repository))),
        ("absolute_image", Some(build.text(&format!("{repository}:{version}")))),
        ("service_with_version", Some(build.text(&format!("{}-{version}", config.service)))),
        ("volume_args", Some(build.volume_args(&config.volumes))),
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

    fn volume_args(&mut self, volumes: &[String]) -> Node {
        let args = volumes.iter().flat_map(|volume| ["--volume".to_owned(), volume.clone()]);
        self.texts(args.collect())
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
        if logging.driver.is_none() && logging.options.is_empty() {
            args.extend(["--log-opt".to_owned(), "max-size=\"10m\"".to_owned()]);
        }
        if let Some(driver) = &logging.driver {
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

/// Kamal's quoting for the remote shell: Ruby's `dump`, with `` ` `` and `$` escaped, but `${`.
fn shell_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    let characters: Vec<char> = text.chars().collect();
    for (index, c) in characters.iter().enumerate() {
        let next = characters.get(index + 1);
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{1b}' => out.push_str("\\e"),
            '`' => out.push_str("\\`"),
            '$' if next != Some(&'{') => out.push_str("\\$"),
            '#' if matches!(next, Some('{' | '$' | '@')) => out.push_str("\\#"),
            c if c.is_ascii_control() => {
                out.push_str(&format!("\\x{:02X}", u32::from(*c)));
            }
            c => out.push(*c),
        }
    }
    out.push('"');
    out
}
