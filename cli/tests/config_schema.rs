//! The JSON Schema against the corpus, and the documentation's table of keys.

#[path = "config_corpus/corpus.rs"]
#[allow(dead_code, reason = "no test needs all of it")]
mod corpus;

use std::fmt::Write as _;
use std::path::Path;

use dhow::config::Code;
use dhow::config::schema::{json::schema, table};
use dhow::config::yaml::{Node, SourceMap, Value, read};
use serde_json::{Map, Value as Json, json};

/// The tree of a case's own file; `None` for templates, whose text is no YAML yet, and for files
/// that are none.
fn tree(name: &str) -> Option<Node> {
    let text = std::fs::read_to_string(corpus::file(name, "yml")).unwrap_or_default();
    if text.contains("<%") {
        return None;
    }
    read(text.trim_start_matches('\u{feff}'), 0, &SourceMap::default()).ok()?.0
}

fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(number) => json!(*number as i64),
        Value::Float(number) => json!(number),
        Value::String(text) | Value::Symbol(text) => json!(text),
        // No JSON type stands for a date; as an object it is no text, as for Kamal.
        Value::Date(text) | Value::Time(text) => json!({ "date": text }),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => {
            let pairs = map.entries.iter().map(|e| (e.key.to_text(), to_json(&e.value)));
            Json::Object(pairs.collect::<Map<String, Json>>())
        }
    }
}

/// Whether `value` fits `rule`: the part of JSON Schema that our schema uses.
fn fits(value: &Json, rule: &Json, root: &Json) -> bool {
    let Some(rule) = rule.as_object() else { return rule.as_bool().unwrap_or(true) };
    rule.iter().all(|(word, argument)| word_fits(value, word, argument, rule, root))
}

fn word_fits(
    value: &Json,
    word: &str,
    argument: &Json,
    rule: &Map<String, Json>,
    root: &Json,
) -> bool {
    let count = |limit: &Json| limit.as_u64().map(|limit| limit as usize).unwrap_or(usize::MAX);
    let object = value.as_object();
    let array = value.as_array();
    match word {
        "$schema" | "title" | "description" | "$defs" | "patternProperties" => true,
        "$ref" => {
            let path = argument.as_str().and_then(|path| path.strip_prefix('#'));
            fits(value, root.pointer(path.expect("a path")).expect("a definition"), root)
        }
        "type" => match argument {
            Json::Array(types) => types.iter().any(|one| is_type(value, one)),
            one => is_type(value, one),
        },
        "enum" => argument.as_array().is_some_and(|all| all.contains(value)),
        "anyOf" => argument.as_array().is_some_and(|all| all.iter().any(|r| fits(value, r, root))),
        "not" => !fits(value, argument, root),
        "required" => argument.as_array().is_some_and(|names| {
            names
                .iter()
                .all(|name| object.is_some_and(|o| o.contains_key(name.as_str().unwrap_or(""))))
        }),
        "properties" => object.is_none_or(|object| {
            object.iter().all(|(key, value)| argument.get(key).is_none_or(|r| fits(value, r, root)))
        }),
        "additionalProperties" => object.is_none_or(|object| {
            let known = |key: &str| {
                rule.get("properties").is_some_and(|all| all.get(key).is_some())
                    || (rule.contains_key("patternProperties") && key.starts_with("x-"))
            };
            object.iter().all(|(key, value)| known(key) || fits(value, argument, root))
        }),
        "propertyNames" => object.is_none_or(|object| {
            // The one pattern in use: names of aliases.
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            object.keys().all(|key| !key.is_empty() && key.chars().all(fits))
        }),
        "minProperties" => object.is_none_or(|object| object.len() >= count(argument)),
        "maxProperties" => object.is_none_or(|object| object.len() <= count(argument)),
        "items" => array.is_none_or(|items| items.iter().all(|item| fits(item, argument, root))),
        "minItems" => array.is_none_or(|items| items.len() >= count(argument)),
        "maxItems" => array.is_none_or(|items| items.len() <= count(argument)),
        "minLength" => value.as_str().is_none_or(|text| text.len() >= count(argument)),
        other => panic!("the schema uses `{other}`, which this test does not know"),
    }
}

fn is_type(value: &Json, name: &Json) -> bool {
    match name.as_str().unwrap_or("") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("unknown type {other}"),
    }
}

/// How dhow's own output for a case begins.
fn outcome(name: &str) -> String {
    corpus::deliberate(name).map_or_else(|| corpus::recorded(name), |(_, output)| output)
}

#[test]
fn the_schema_accepts_what_is_right_and_refuses_wrong_keys_and_types() {
    let schema = schema();
    let (mut accepted, mut refused) = (0, 0);
    for name in corpus::names() {
        // A destination may bring in or repair what the base file lacks or has.
        // And names of keys are text for JSON whatever they are for YAML.
        if corpus::destination(&name).is_some() || name == "diff-role-number" {
            continue;
        }
        let Some(tree) = tree(&name) else { continue };
        let fits = fits(&to_json(&tree), &schema, &schema);
        let outcome = outcome(&name);
        if outcome.starts_with("exit: 0") {
            assert!(fits, "{name} is right, and the schema refuses it");
            accepted += 1;
        } else if ["unknown key", "should be a", "should be an"].iter().any(|w| outcome.contains(w))
        {
            assert!(!fits, "{name} is wrong, and the schema accepts it");
            refused += 1;
        }
    }
    assert!(accepted > 60 && refused > 60, "{accepted} accepted, {refused} refused");
}

/// Whether a key path of the table occurs in a tree; capitals in the path stand for any name.
fn occurs(node: &Node, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    let any = first.chars().all(|c| c.is_ascii_uppercase());
    match &node.value {
        Value::Map(map) => map
            .entries
            .iter()
            .filter(|entry| any || entry.key.to_text() == *first)
            .any(|entry| occurs(&entry.value, rest)),
        Value::List(items) if any => items.iter().any(|item| occurs(item, rest)),
        _ => false,
    }
}

/// The documentation's tables: every key with the cases that cover it, every difference.
fn tables() -> String {
    let names = corpus::names();
    let trees: Vec<(&String, Node)> =
        names.iter().filter_map(|name| Some((name, tree(name)?))).collect();
    let mut text = String::from(
        "| key | type | default | Kamal | covered by |\n| --- | --- | --- | --- | --- |\n",
    );
    for row in table::rows() {
        let path: Vec<&str> = row.path.split('/').collect();
        let covering: Vec<String> = trees
            .iter()
            .filter(|(name, tree)| !name.starts_with("bad-") && occurs(tree, &path))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        assert!(!covering.is_empty(), "no case of the corpus has the key {}", row.path);
        let shown = covering[..covering.len().min(3)].join(", ");
        let more = if covering.len() > 3 {
            format!(" and {} more", covering.len() - 3)
        } else {
            String::new()
        };
        let default = if row.key.default.is_empty() { "–" } else { row.key.default };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} | {shown}{more} |",
            row.path,
            row.key.shape.words(),
            row.key.known.words()
        );
    }
    text.push_str(
        "\n### Where reading differs from Kamal 2.11\n\n| case | difference |\n| --- | --- |\n",
    );
    for name in &names {
        if let Some((reason, _)) = corpus::deliberate(name) {
            let _ = writeln!(text, "| `{name}` | {reason} |");
        }
    }
    text
}

const BEGIN: &str =
    "<!-- begin: made by cli/tests/config_schema.rs; DHOW_UPDATE=1 writes it anew -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn the_documentation_lists_every_key_with_the_cases_that_cover_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the mark of the beginning");
    let (present, after) = rest.split_once(END).expect("the page has the mark of the end");
    let tables = tables();
    if std::env::var_os("DHOW_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(present, tables, "run this test with DHOW_UPDATE=1");
}

#[test]
fn the_documentation_lists_every_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = std::fs::read_to_string(path).unwrap();
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `config.")?.split_once('`'))
        .map(|(code, _)| code)
        .collect();
    let codes = Code::ALL.map(|code| code.as_str().trim_start_matches("config."));
    assert_eq!(listed, codes);
}
