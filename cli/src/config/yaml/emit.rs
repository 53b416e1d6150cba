//! Writes a tree as Ruby's `to_yaml` does.
//!
//! The layout (indentation, folding at 80 columns, quoting that the syntax needs) is libyaml's, of
//! which libyaml-safer is a port; which style a text gets is Psych's choice, made here.

use std::collections::HashMap;
use std::sync::LazyLock;

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};
use regex::Regex;

use super::node::{Node, NodeId, Value, float_text};
use super::scalar;

/// Stands for null while libyaml writes; it writes nothing at all for an empty plain scalar, where
/// the libyaml of Kamal's Ruby leaves the space behind the colon.
const NULL: &str = "\u{e000}null\u{e000}";

/// The document, beginning `---`. `tags` names the Ruby class of maps that are objects.
///
/// Nothing is written as an anchor and aliases, though Psych would: Kamal copies what it prints.
///
/// # Errors
///
/// None that a tree could cause; libyaml's own are passed on.
pub fn emit(root: &Node, tags: &HashMap<NodeId, String>) -> Result<String, libyaml_safer::Error> {
    let mut output = Vec::new();
    {
        let mut emitter = Emitter::new();
        emitter.set_output_string(&mut output);
        emitter.set_unicode(true);
        emitter.emit(Event::stream_start(Encoding::Utf8))?;
        emitter.emit(Event::document_start(None, &[], false))?;
        let mut writer = Writer { emitter, tags };
        writer.node(root)?;
        writer.emitter.emit(Event::document_end(true))?;
        writer.emitter.emit(Event::stream_end())?;
        writer.emitter.flush()?;
    }
    Ok(String::from_utf8_lossy(&output).replace(NULL, ""))
}

struct Writer<'w> {
    emitter: Emitter<'w>,
    tags: &'w HashMap<NodeId, String>,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) -> Result<(), libyaml_safer::Error> {
        match &node.value {
            Value::List(items) => {
                self.emitter.emit(Event::sequence_start(None, None, true, SequenceStyle::Block))?;
                for item in items {
                    self.node(item)?;
                }
                self.emitter.emit(Event::sequence_end())
            }
            Value::Map(map) => {
                let tag = self.tags.get(&node.id).map(String::as_str);
                let style = MappingStyle::Block;
                self.emitter.emit(Event::mapping_start(None, tag, tag.is_none(), style))?;
                for entry in &map.entries {
                    self.node(&entry.key)?;
                    self.node(&entry.value)?;
                }
                self.emitter.emit(Event::mapping_end())
            }
            Value::String(text) => self.text(text),
            Value::Null => self.plain(NULL),
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

    fn plain(&mut self, text: &str) -> Result<(), libyaml_safer::Error> {
        self.emitter.emit(Event::scalar(None, None, text, true, false, ScalarStyle::Any))
    }

    fn text(&mut self, text: &str) -> Result<(), libyaml_safer::Error> {
        if text == "<<" {
            // Tagged, or it would be read as a merge key.
            let tag = Some("tag:yaml.org,2002:str");
            let style = ScalarStyle::SingleQuoted;
            return self.emitter.emit(Event::scalar(None, tag, text, false, false, style));
        }
        let style = style(text);
        self.emitter.emit(Event::scalar(None, None, text, true, true, style))
    }
}

#[expect(clippy::unwrap_used, reason = "the pattern is constant, compiled by every test run")]
static PUNCTUATED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(?m)^\W[^"]*$"#).unwrap());

#[expect(clippy::unwrap_used, reason = "the pattern is constant, compiled by every test run")]
static NEARLY_OCTAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^0[0-7]*[89]").unwrap());

/// Psych's choice for a string; a number that is octal but for an 8 or 9 is quoted to be safe.
fn style(text: &str) -> ScalarStyle {
    let inner_break = text.char_indices().any(|(at, c)| c == '\n' && at + 1 < text.len());
    if inner_break {
        return ScalarStyle::Literal;
    }
    if matches!(text, "y" | "Y" | "n" | "N") {
        return ScalarStyle::DoubleQuoted;
    }
    if PUNCTUATED.is_match(text) {
        return ScalarStyle::DoubleQuoted;
    }
    if !matches!(scalar::resolve(text), Value::String(_)) || NEARLY_OCTAL.is_match(text) {
        return ScalarStyle::SingleQuoted;
    }
    ScalarStyle::Plain
}

#[cfg(test)]
mod tests {
    use super::super::read::{SourceMap, read};
    use super::*;

    fn round(text: &str) -> String {
        emit(&read(text, 0, &SourceMap::default()).unwrap().0.unwrap(), &HashMap::new()).unwrap()
    }

    #[test]
    fn texts_get_the_style_psych_gives_them() {
        assert_eq!(
            round("[a b, '1', 'true', '', '--volume', \"a\\nb\\n\", 'y', ':x', '<<', 1.5, on, ~]"),
            "---\n- a b\n- '1'\n- 'true'\n- ''\n- \"--volume\"\n- |\n  a\n  b\n- \"y\"\n- \":x\"\n- !!str '<<'\n- 1.5\n- true\n- \n"
        );
    }

    #[test]
    fn empty_containers_are_written_in_flow_style() {
        assert_eq!(round("{a: {}, b: []}"), "---\na: {}\nb: []\n");
    }
}
