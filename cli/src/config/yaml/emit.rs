//! Writes a tree as Ruby's `to_yaml` does.
//!
//! The layout (indentation, folding at 80 columns, quoting that the syntax needs) is libyaml's, of
//! which libyaml-safer is a port; which style a text gets is Psych's choice, made here.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};
use regex::Regex;

use super::node::{Node, NodeId, Value, float_text};
use super::scalar;

/// The document, beginning `---`.
///
/// A list or map that occurs twice (by [`NodeId`]) is written once with an anchor, then as aliases.
///
/// # Errors
///
/// None that a tree could cause; libyaml's own are passed on.
pub fn emit(root: &Node) -> Result<String, libyaml_safer::Error> {
    let mut output = Vec::new();
    {
        let mut emitter = Emitter::new();
        emitter.set_output_string(&mut output);
        emitter.set_unicode(true);
        emitter.emit(Event::stream_start(Encoding::Utf8))?;
        emitter.emit(Event::document_start(None, &[], false))?;
        let mut writer = Writer { emitter, repeated: repeated(root), names: HashMap::new() };
        writer.node(root)?;
        writer.emitter.emit(Event::document_end(true))?;
        writer.emitter.emit(Event::stream_end())?;
        writer.emitter.flush()?;
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

struct Writer<'w> {
    emitter: Emitter<'w>,
    repeated: HashSet<NodeId>,
    /// Anchors given so far; Psych numbers them from 1 in order of appearance.
    names: HashMap<NodeId, String>,
}

/// Containers that occur more than once.
fn repeated(root: &Node) -> HashSet<NodeId> {
    fn walk(node: &Node, seen: &mut HashSet<NodeId>, twice: &mut HashSet<NodeId>) {
        let first = match &node.value {
            Value::List(_) | Value::Map(_) => seen.insert(node.id),
            _ => return,
        };
        if !first {
            twice.insert(node.id);
            return;
        }
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| walk(item, seen, twice)),
            Value::Map(map) => map.entries.iter().for_each(|entry| {
                walk(&entry.key, seen, twice);
                walk(&entry.value, seen, twice);
            }),
            _ => {}
        }
    }
    let mut twice = HashSet::new();
    walk(root, &mut HashSet::new(), &mut twice);
    twice
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) -> Result<(), libyaml_safer::Error> {
        match &node.value {
            Value::List(items) => {
                let Some(anchor) = self.anchor(node)? else { return Ok(()) };
                let anchor = anchor.as_deref();
                self.emitter.emit(Event::sequence_start(
                    anchor,
                    None,
                    true,
                    SequenceStyle::Block,
                ))?;
                for item in items {
                    self.node(item)?;
                }
                self.emitter.emit(Event::sequence_end())
            }
            Value::Map(map) => {
                let Some(anchor) = self.anchor(node)? else { return Ok(()) };
                let anchor = anchor.as_deref();
                self.emitter.emit(Event::mapping_start(anchor, None, true, MappingStyle::Block))?;
                for entry in &map.entries {
                    self.node(&entry.key)?;
                    self.node(&entry.value)?;
                }
                self.emitter.emit(Event::mapping_end())
            }
            Value::String(text) => self.text(text),
            Value::Null => self.plain(""),
            Value::Bool(value) => self.plain(if *value { "true" } else { "false" }),
            Value::Int(number) => self.plain(&number.to_string()),
            Value::Float(number) => self.plain(&match float_text(*number).as_str() {
                "NaN" => ".nan".to_owned(),
                "Infinity" => ".inf".to_owned(),
                "-Infinity" => "-.inf".to_owned(),
                text => text.to_owned(),
            }),
            Value::Symbol(name) => self.plain(&format!(":{name}")),
            Value::Date(text) | Value::Time(text) => self.plain(text),
        }
    }

    /// Writes an alias where the node was written before: then there is nothing left to do, `None`.
    /// Otherwise the anchor it needs, if any.
    fn anchor(&mut self, node: &Node) -> Result<Option<Option<String>>, libyaml_safer::Error> {
        if !self.repeated.contains(&node.id) {
            return Ok(Some(None));
        }
        if let Some(name) = self.names.get(&node.id) {
            self.emitter.emit(Event::alias(name))?;
            return Ok(None);
        }
        let name = (self.names.len() + 1).to_string();
        self.names.insert(node.id, name.clone());
        Ok(Some(Some(name)))
    }

    fn plain(&mut self, text: &str) -> Result<(), libyaml_safer::Error> {
        self.emitter.emit(Event::scalar(None, None, text, true, false, ScalarStyle::Any))
    }

    fn text(&mut self, text: &str) -> Result<(), libyaml_safer::Error> {
        let style = style(text);
        self.emitter.emit(Event::scalar(None, None, text, true, true, style))
    }
}

#[expect(clippy::unwrap_used, reason = "the pattern is constant, compiled by every test run")]
static PUNCTUATED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(?m)^\W[^"]*$"#).unwrap());

#[expect(clippy::unwrap_used, reason = "the pattern is constant, compiled by every test run")]
static OCTAL_FLOAT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^0[0-7]*\.[0-9]").unwrap());

/// Psych's choice for a string.
fn style(text: &str) -> ScalarStyle {
    let inner_break = text.char_indices().any(|(at, c)| c == '\n' && at + 1 < text.len());
    if inner_break {
        return ScalarStyle::Literal;
    }
    if text == "<<" {
        return ScalarStyle::SingleQuoted;
    }
    if matches!(text, "y" | "Y" | "n" | "N") {
        return ScalarStyle::DoubleQuoted;
    }
    if PUNCTUATED.is_match(text) {
        return ScalarStyle::DoubleQuoted;
    }
    if !matches!(scalar::resolve(text), Value::String(_)) || OCTAL_FLOAT.is_match(text) {
        return ScalarStyle::SingleQuoted;
    }
    ScalarStyle::Plain
}

#[cfg(test)]
mod tests {
    use super::super::read::{SourceMap, read};
    use super::*;

    fn round(text: &str) -> String {
        emit(&read(text, 0, &SourceMap::default()).unwrap().0.unwrap()).unwrap()
    }

    #[test]
    fn texts_get_the_style_psych_gives_them() {
        assert_eq!(
            round("[a b, '1', 'true', '', '--volume', \"a\\nb\\n\", 'y', ':x', 1.5, on, ~]"),
            "---\n- a b\n- '1'\n- 'true'\n- ''\n- \"--volume\"\n- |\n  a\n  b\n- \"y\"\n- \":x\"\n- 1.5\n- true\n-\n"
        );
    }

    #[test]
    fn a_map_that_occurs_twice_becomes_an_anchor_and_an_alias() {
        assert_eq!(round("{a: &x {b: 1}, c: *x}"), "---\na: &1\n  b: 1\nc: *1\n");
    }

    #[test]
    fn empty_containers_are_written_in_flow_style() {
        assert_eq!(round("{a: {}, b: []}"), "---\na: {}\nb: []\n");
    }
}
