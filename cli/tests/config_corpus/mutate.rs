//! Configs that nobody would write: those of the corpus, changed at random in a few places.

use dhow::config::yaml::{Map, Node, NodeId, SourceMap, Span, Value, read};

/// A small generator of numbers (splitmix64): the same seed gives the same configs everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("it is below a usize")
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Values that stand for any other.
const VALUES: &[&str] = &[
    "~",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "300",
    "1.5",
    "''",
    "' '",
    "text",
    "'a b'",
    "'1'",
    "yes",
    ":symbol",
    "2024-01-02",
    "50%",
    "localhost:5000",
    "[]",
    "[a]",
    "[1]",
    "[~]",
    "['']",
    "[a, b]",
    "[a, a]",
    "[[a]]",
    "[{a: b}]",
    "[{a: [b, c]}]",
    "[{a: ~}]",
    "{}",
    "{a: b}",
    "{a: ~}",
    "{a: 1}",
    "{a: true}",
    "{a: [b]}",
    "{a: {b: c}}",
    "{1: 2}",
    "{hosts: [h1]}",
    "{clear: {A: 1}}",
    "{secret: [A]}",
    "{web: [h1]}",
    "{web: ~}",
    "{server: 'localhost:5000'}",
    "'{}'",
    "\"a\\nb\"",
    "\"a\\n\"",
    "é",
    "0600",
    "'$A'",
    "1_000",
    "12:30",
];

/// Keys that stand for any other.
const KEYS: &[&str] = &[
    "zzz",
    "x-any",
    "a",
    "1",
    "true",
    ":hosts",
    "''",
    "host",
    "hosts",
    "role",
    "roles",
    "tag",
    "tags",
    "env",
    "clear",
    "secret",
    "proxy",
    "ssl",
    "labels",
    "options",
    "cmd",
    "service",
    "image",
    "registry",
    "server",
    "username",
    "password",
    "servers",
    "builder",
    "arch",
    "remote",
    "local",
    "accessories",
    "aliases",
    "boot",
    "limit",
    "wait",
    "logging",
    "driver",
    "ssh",
    "sshkit",
    "volumes",
    "files",
    "directories",
    "network",
    "port",
    "asset_path",
    "primary_role",
    "allow_empty_roles",
    "retain_containers",
    "minimum_version",
    "require_destination",
    "hooks_output",
    "run",
    "http_port",
    "publish",
    "healthcheck",
    "path",
    "path_prefix",
    "app_port",
    "cache",
    "type",
    "pack",
    "log_level",
    "config",
    "keys",
    "user",
    "web",
    "workers",
    "deploy_timeout",
];

/// The tree of a text that is known to be right.
pub(crate) fn parsed(text: &str) -> Node {
    read(text, 0, &SourceMap::default()).expect("it is YAML").0.expect("it holds something")
}

fn any(texts: &[&str], random: &mut Random) -> Node {
    let text: &&str = random.pick(texts);
    parsed(text)
}

/// Changes one place of the tree; `donors` are other trees to take parts from.
pub(crate) fn mutate(root: &mut Node, donors: &[Node], random: &mut Random) {
    let places = count(root);
    let mut place = random.below(places);
    let node = nth(root, &mut place).expect("it is one of those counted");
    match random.below(10) {
        0 | 1 => node.value = any(VALUES, random).value,
        2 => node.value = Value::Null,
        3 => node.value = Value::List(vec![node.clone()]),
        4 => {
            let donor = random.pick(donors);
            let mut place = random.below(count(donor));
            let mut donor = donor.clone();
            node.value =
                nth(&mut donor, &mut place).expect("it is one of those counted").value.clone();
        }
        _ => match &mut node.value {
            Value::Map(map) => in_map(map, donors, random),
            Value::List(items) => in_list(items, random),
            _ => node.value = any(VALUES, random).value,
        },
    }
}

fn in_map(map: &mut Map, donors: &[Node], random: &mut Random) {
    let at = random.below(map.entries.len());
    match random.below(6) {
        0 if !map.entries.is_empty() => {
            map.entries.remove(at);
        }
        1 if !map.entries.is_empty() => map.entries[at].key = any(KEYS, random),
        2 if !map.entries.is_empty() => map.entries.swap(0, at),
        // A section of another config, whole or in place of the same one.
        3 | 4 => {
            if let Value::Map(donor) = &random.pick(donors).value {
                let entry = random.pick(&donor.entries).clone();
                map.insert(entry.key, entry.value);
            }
        }
        _ => {
            map.insert(any(KEYS, random), any(VALUES, random));
        }
    }
    // Two equal keys would be read as one.
    let mut once = Map::default();
    for entry in std::mem::take(&mut map.entries) {
        once.insert(entry.key, entry.value);
    }
    *map = once;
}

fn in_list(items: &mut Vec<Node>, random: &mut Random) {
    let at = random.below(items.len());
    match random.below(4) {
        0 if !items.is_empty() => {
            items.remove(at);
        }
        1 if !items.is_empty() => items.push(items[at].clone()),
        2 => items.clear(),
        _ => items.push(any(VALUES, random)),
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(map) => map.entries.iter().map(|entry| count(&entry.value)).sum(),
        _ => 0,
    }
}

/// The node at a place in the order of [`count`].
fn nth<'a>(node: &'a mut Node, place: &mut usize) -> Option<&'a mut Node> {
    if *place == 0 {
        return Some(node);
    }
    *place -= 1;
    match &mut node.value {
        Value::List(items) => items.iter_mut().find_map(|item| nth(item, place)),
        Value::Map(map) => map.entries.iter_mut().find_map(|entry| nth(&mut entry.value, place)),
        _ => None,
    }
}

/// The tree as YAML, on one line for each root key.
pub(crate) fn written(root: &Node) -> String {
    let Value::Map(map) = &root.value else { return format!("{}\n", flow(root)) };
    if map.entries.is_empty() {
        return "{}\n".into();
    }
    let line = |entry: &dhow::config::yaml::Entry| {
        format!("{}: {}\n", flow(&entry.key), flow(&entry.value))
    };
    map.entries.iter().map(line).collect()
}

fn flow(node: &Node) -> String {
    match &node.value {
        Value::Null => "~".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        // JSON's escapes are YAML's.
        Value::String(text) => serde_json::to_string(text).expect("text is JSON"),
        Value::Symbol(name) => format!(":{name}"),
        Value::Date(text) | Value::Time(text) => text.clone(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Map(map) => {
            let pair =
                |e: &dhow::config::yaml::Entry| format!("{}: {}", flow(&e.key), flow(&e.value));
            format!("{{{}}}", map.entries.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A map of a few of another map's pairs, for a destination.
pub(crate) fn some_of(root: &Node, random: &mut Random) -> Node {
    let mut some = Map::default();
    if let Value::Map(map) = &root.value {
        for _ in 0..=random.below(3) {
            let entry = random.pick(&map.entries).clone();
            some.insert(entry.key, entry.value);
        }
    }
    Node { value: Value::Map(some), span: Span::default(), id: NodeId(0) }
}
