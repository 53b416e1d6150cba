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
    let text = unescape(&String::from_utf8_lossy(&output).replace(NULL, ""));
    // The port of libyaml marks the end after any text that keeps its line breaks, libyaml only
    // after one that is the last thing written.
    Ok(text.strip_suffix("...\n").map_or_else(|| text.clone(), str::to_owned))
}

/// First of the ten characters that stand for `\UXXXXXXXX` while libyaml writes: its port takes
/// characters beyond the first plane for printable, libyaml does not.
const ESCAPED: char = '\u{f8f0}';
/// The hexadecimal digit 0; the others follow.
const DIGITS: u32 = 0xf8d0;

/// Puts stand-ins for what libyaml escapes and its port does not.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if u32::from(c) < 0x1_0000 {
            out.push(c);
            continue;
        }
        out.extend([ESCAPED, ESCAPED]);
        let digits = (0..8).rev().map(|at| (u32::from(c) >> (4 * at)) & 0xf);
        out.extend(digits.filter_map(|digit| char::from_u32(DIGITS + digit)));
    }
    out
}

/// The escapes for the stand-ins.
fn unescape(text: &str) -> String {
    if !text.contains(ESCAPED) {
        return text.to_owned();
    }
    let digit = |c: char| {
        let digit = u32::from(c).checked_sub(DIGITS).and_then(|digit| char::from_digit(digit, 16));
        digit.map_or(c, |digit| digit.to_ascii_uppercase())
    };
    text.replace(&[ESCAPED, ESCAPED].iter().collect::<String>(), "\\U").chars().map(digit).collect()
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
                    if entry.key.is_null() {
                        // As a key it cannot be plain; Psych's event then asks for the tag `!`.
                        let style = ScalarStyle::SingleQuoted;
                        self.emitter.emit(Event::scalar(None, None, "", true, false, style))?;
                    } else {
                        self.node(&entry.key)?;
                    }
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
        let escaped = escape(text);
        let style =
            if escaped.len() == text.len() { style(text) } else { ScalarStyle::DoubleQuoted };
        self.emitter.emit(Event::scalar(None, None, &escaped, true, true, style))
    }
}

/// Psych's choice for a string; a number that is octal but for an 8 or 9 is quoted to be safe.
fn style(text: &str) -> ScalarStyle {
    // A break that is neither the last character nor followed by nothing but the last break.
    let inner_break =
        text.char_indices().any(|(at, c)| c == '\n' && !matches!(&text[at + 1..], "" | "\n"));
    if inner_break {
        return ScalarStyle::Literal;
    }
    if matches!(text, "y" | "Y" | "n" | "N") {
        return ScalarStyle::DoubleQuoted;
    }
    // An empty line begins with its line break, which is no word character either.
    if text.starts_with('\n') || text.ends_with("\n\n") || text.split('\n').any(is_punctuated) {
        return ScalarStyle::DoubleQuoted;
    }
    if !matches!(scalar::resolve(text), Value::String(_)) || is_nearly_octal(text) {
        return ScalarStyle::SingleQuoted;
    }
    ScalarStyle::Plain
}

/// Whether a line begins with no letter, digit or underscore, and holds no double quote behind that.
fn is_punctuated(line: &str) -> bool {
    let mut characters = line.chars();
    let Some(first) = characters.next() else { return false };
    let is_word = if first.is_ascii() {
        first.is_ascii_alphanumeric() || first == '_'
    } else {
        WORD.is_match(first.encode_utf8(&mut [0; 4]))
    };
    !is_word && !characters.as_str().contains('"')
}

/// What Unicode calls part of a word. Texts that begin with ASCII do without, as it takes long to
/// build.
#[expect(clippy::unwrap_used, reason = "the pattern is constant, compiled by every test run")]
static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\w").unwrap());

/// `0`, octal digits, then an 8 or 9.
fn is_nearly_octal(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('0') else { return false };
    rest.trim_start_matches(|c| matches!(c, '0'..='7')).starts_with(['8', '9'])
}

#[cfg(test)]
mod tests {
    use super::super::{SourceMap, read};
    use super::*;

    #[test]
    fn what_libyaml_escapes_is_escaped() {
        assert_eq!(round("[\"a \u{1F600}\", x]"), "---\n- \"a \\U0001F600\"\n- x\n");
        assert_eq!(round("{a: \"x\\n\\n\\n\", b: z}"), "---\na: |+\n  x\n\n\nb: z\n");
        assert_eq!(round("{~: x}"), "---\n! '': x\n");
    }

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
