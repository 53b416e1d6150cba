//! The tree of spanned nodes that everything in the config is read from.

use std::fmt::Write as _;

/// Where a node stands: file number and byte offsets into that file's text as written (before
/// template evaluation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Index of the file in [`Sources`](crate::config::source::Sources).
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// One after the last byte; never before `start`.
    pub end: u32,
}

/// Identity of a node: an alias gives the same one as its anchor, as Ruby gives the same object.
///
/// Only the emitter needs it: Psych writes an object that occurs twice as an anchor and an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it stands.
    pub span: Span,
    /// Which object it is.
    pub id: NodeId,
}

/// What Ruby would hold after reading.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `nil`.
    Null,
    /// `true` or `false`, also from `yes`, `on`, `no`, `off`.
    Bool(bool),
    /// An integer of any notation Ruby knows.
    Int(i128),
    /// A float.
    Float(f64),
    /// Text.
    String(String),
    /// `:name`.
    Symbol(String),
    /// A date; not text for Ruby.
    Date(String),
    /// A point in time; not text for Ruby.
    Time(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// Any text may be a secret, so only what kind of value it is.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bool(value) => write!(f, "Bool({value})"),
            Self::Int(_) => f.write_str("Int"),
            Self::Float(_) => f.write_str("Float"),
            Self::String(_) => f.write_str("String"),
            Self::Symbol(_) => f.write_str("Symbol"),
            Self::Date(_) => f.write_str("Date"),
            Self::Time(_) => f.write_str("Time"),
            Self::List(items) => f.debug_tuple("List").field(items).finish(),
            Self::Map(map) => f.debug_tuple("Map").field(&map.entries).finish(),
        }
    }
}

/// A mapping in the order of first insertion; a later equal key replaces the value only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// Pairs in order.
    pub entries: Vec<Entry>,
}

/// One pair of a [`Map`].
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key; usually text, but Ruby allows anything.
    pub key: Node,
    /// The value.
    pub value: Node,
}

impl PartialEq for Node {
    /// Compares values only: two nodes at different places may be equal.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Map {
    /// The value under the text key `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// The pair under the text key `name`.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.as_text() == Some(name))
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Inserts as a Ruby hash does: an equal key keeps its place and gets the new value.
    ///
    /// Gives back whether the key was there before.
    pub fn insert(&mut self, key: Node, value: Node) -> bool {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key.value == key.value) {
            entry.key.span = key.span;
            entry.value = value;
            return true;
        }
        self.entries.push(Entry { key, value });
        false
    }
}

impl Node {
    /// The text of a string node; no other type is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The mapping, if it is one.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The items, if it is a sequence.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The integer, if it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i128> {
        match self.value {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// Whether Ruby takes it for true: everything but `nil` and `false`.
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        !matches!(self.value, Value::Null | Value::Bool(false))
    }

    /// Whether Rails calls it blank: nil, false, white space only, or empty.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match &self.value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.trim().is_empty(),
            Value::Symbol(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Bool(true)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::Time(_) => false,
        }
    }

    /// What Ruby's `to_s` gives; containers come out as `inspect` would show them, roughly.
    #[must_use]
    pub fn to_text(&self) -> String {
        match &self.value {
            Value::Null => String::new(),
            Value::Bool(value) => value.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => float_text(*number),
            Value::String(text) | Value::Symbol(text) | Value::Date(text) | Value::Time(text) => {
                text.clone()
            }
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(Node::inspect).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Map(map) => {
                let pairs: Vec<String> = map
                    .entries
                    .iter()
                    .map(|entry| format!("{}=>{}", entry.key.inspect(), entry.value.inspect()))
                    .collect();
                format!("{{{}}}", pairs.join(", "))
            }
        }
    }

    fn inspect(&self) -> String {
        match &self.value {
            Value::Null => "nil".into(),
            Value::String(text) => format!("{text:?}"),
            Value::Symbol(text) => format!(":{text}"),
            _ => self.to_text(),
        }
    }
}

/// Ruby's `Float#to_s`: scientific outside 1e-4 … 1e16, always with a fraction.
#[must_use]
pub fn float_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0.0" } else { "0.0" }.into();
    }
    let magnitude = number.abs();
    if (1e-4..1e16).contains(&magnitude) {
        let mut text = format!("{number}");
        if !text.contains('.') {
            text.push_str(".0");
        }
        return text;
    }
    // Rust writes `1e20`, Ruby `1.0e+20`.
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mut out = String::from(mantissa);
    if !mantissa.contains('.') {
        out.push_str(".0");
    }
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "e{sign}{:02}", exponent.abs());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_ruby_prints_them() {
        for (number, text) in [
            (1.5, "1.5"),
            (100.0, "100.0"),
            (1e16, "1.0e+16"),
            (1.5e20, "1.5e+20"),
            (0.0001, "0.0001"),
            (0.00001, "1.0e-05"),
            (-2.0, "-2.0"),
        ] {
            assert_eq!(float_text(number), text);
        }
    }
}
