//! Events with positions become a tree.

use std::collections::HashMap;

use libyaml_safer::{ErrorKind, Event, EventData, Parser, ScalarStyle};

use super::super::made::Made;
use super::guard::{Guarded, guard};
use super::node::{Map, Node, NodeId, Span, Value};
use super::scalar;
use super::source_map::SourceMap;

/// Nesting deeper than this is refused; configs need about ten levels.
pub const MAX_DEPTH: usize = 100;

/// Nodes of a document, those that aliases repeat included. A large config has some thousands.
pub const MAX_NODES: usize = 200_000;

/// Keys of one map; each is compared with those before it. No config has so many.
pub const MAX_KEYS: usize = 5_000;

/// Why a text is no YAML for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// What is wrong.
    pub message: String,
    /// Psych's message, where Psych has one.
    pub psych: Option<String>,
    /// Whether an alias has no anchor; another error class for Ruby.
    pub is_alias: bool,
    /// Where.
    pub span: Span,
}

/// A scalar that Ruby reads otherwise than most people expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surprise {
    /// Where.
    pub span: Span,
    /// What happens, and what to write instead.
    pub message: String,
}

/// Reads the first document of `text`; `None` when there is none.
///
/// # Errors
///
/// [`ReadError`] for a text that is no YAML, or one that exceeds a budget.
pub fn read(
    text: &str,
    file: u16,
    map: &SourceMap,
) -> Result<(Option<Node>, Vec<Surprise>), ReadError> {
    read_noting(text, file, map, &mut Made::default())
}

/// The same, and notes the scalars that a template made, in whole or in part.
///
/// # Errors
///
/// As [`read`].
pub fn read_noting(
    text: &str,
    file: u16,
    map: &SourceMap,
    made: &mut Made,
) -> Result<(Option<Node>, Vec<Surprise>), ReadError> {
    let guarded = guard(text);
    let mut input = guarded.text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut input);
    let mut reader = Reader {
        parser,
        guarded: &guarded,
        file,
        map,
        anchors: HashMap::new(),
        nodes: 0,
        surprises: Vec::new(),
        made,
    };
    let root = reader.document()?;
    Ok((root, reader.surprises))
}

struct Reader<'a, 'r, 'b> {
    parser: Parser<&'b mut &'r [u8]>,
    guarded: &'a Guarded,
    file: u16,
    map: &'a SourceMap,
    /// Anchored nodes with their size, so that an alias can be charged before it is copied.
    anchors: HashMap<String, (Node, usize)>,
    nodes: usize,
    surprises: Vec<Surprise>,
    made: &'a mut Made,
}

impl Reader<'_, '_, '_> {
    fn document(&mut self) -> Result<Option<Node>, ReadError> {
        loop {
            let event = self.next()?;
            match event.data {
                EventData::StreamStart { .. } | EventData::DocumentStart { .. } => {}
                EventData::StreamEnd | EventData::DocumentEnd { .. } => return Ok(None),
                _ => return self.node(event, 0).map(Some),
            }
        }
    }

    fn next(&mut self) -> Result<Event, ReadError> {
        self.parser.parse().map_err(|error| {
            // libyaml's scanner gives the place of the problem for the context's where it has none.
            let scanned = error.problem_mark().filter(|_| error.kind() == ErrorKind::Scanner);
            let mark = error.context_mark().or(scanned).unwrap_or_default();
            let index = error.problem_mark().map_or(0, |mark| mark.index);
            let start = self.source(index);
            let message = match error.context() {
                Some(context) => format!("{} {context}", error.problem()),
                None => error.problem().to_owned(),
            };
            ReadError {
                psych: Some(format!(
                    "(<unknown>): {message} at line {} column {}",
                    mark.line + 1,
                    mark.column + 1
                )),
                is_alias: false,
                message: format!("not valid YAML: {message}"),
                span: Span { file: self.file, start, end: start.saturating_add(1) },
            }
        })
    }

    fn source(&self, index: u64) -> u32 {
        self.map.source(u32::try_from(self.guarded.original(index)).unwrap_or(u32::MAX))
    }

    fn span(&self, event: &Event) -> Span {
        let start = self.source(event.start_mark.index);
        let last = event.end_mark.index.saturating_sub(1).max(event.start_mark.index);
        let end = self.source(last).saturating_add(1);
        let end = if event.end_mark.index == event.start_mark.index { start } else { end };
        Span { file: self.file, start, end: end.max(start) }
    }

    /// Whether the file shows it. What a template made may be a secret, and is not repeated in messages.
    fn is_shown(&self, event: &Event) -> bool {
        let index = |index| u32::try_from(self.guarded.original(index)).unwrap_or(u32::MAX);
        self.map.is_copied(index(event.start_mark.index), index(event.end_mark.index))
    }

    fn charge(&mut self, count: usize, span: Span) -> Result<(), ReadError> {
        self.nodes = self.nodes.saturating_add(count);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        Err(ReadError {
            message: format!(
                "the document has more than {MAX_NODES} nodes once aliases are expanded"
            ),
            psych: None,
            is_alias: false,
            span,
        })
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, ReadError> {
        let span = self.span(&event);
        let shown = self.is_shown(&event);
        if depth > MAX_DEPTH {
            return Err(ReadError {
                message: format!("nested more than {MAX_DEPTH} levels deep"),
                psych: None,
                is_alias: false,
                span,
            });
        }
        self.charge(1, span)?;
        let before = self.nodes;
        let id = NodeId(u32::from(self.file) << 24 | u32::try_from(before).unwrap_or(u32::MAX));
        match event.data {
            EventData::Alias { anchor } => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    let anchor = if shown { &anchor } else { "it stands in this value" };
                    return Err(ReadError {
                        message: format!("unknown alias: {anchor}"),
                        psych: shown
                            .then(|| format!("An alias referenced an unknown anchor: {anchor}")),
                        is_alias: true,
                        span,
                    });
                };
                let (node, size) = (node.clone(), *size);
                self.charge(size, span)?;
                // The alias is where the value is used, so that is where errors point.
                Ok(Node { span, ..node })
            }
            EventData::Scalar { anchor, tag, value, style, quoted_implicit, .. } => {
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let value = if block {
                    self.guarded.block_scalar(value, event.end_mark.index)
                } else {
                    value
                };
                if !shown {
                    self.made.note(&value);
                }
                let value = self.scalar(value, tag.as_deref(), quoted_implicit, span, shown)?;
                if !shown && !matches!(value, Value::String(_)) {
                    // A number is told in another notation than it was given in.
                    self.made.note(&Node { value: value.clone(), span, id }.to_text());
                }
                self.anchored(anchor, Node { value, span, id }, before)
            }
            EventData::SequenceStart { tag: Some(tag), .. }
            | EventData::MappingStart { tag: Some(tag), .. }
                if makes_object(&tag) =>
            {
                Err(unsupported(&tag, span, shown))
            }
            EventData::SequenceStart { anchor, .. } => {
                let (items, end) = self.sequence(depth)?;
                let span = Span { end: end.max(span.end), ..span };
                self.anchored(anchor, Node { value: Value::List(items), span, id }, before)
            }
            EventData::MappingStart { anchor, .. } => {
                let (map, end) = self.mapping(depth)?;
                let span = Span { end: end.max(span.end), ..span };
                self.anchored(anchor, Node { value: Value::Map(map), span, id }, before)
            }
            EventData::StreamStart { .. }
            | EventData::StreamEnd
            | EventData::DocumentStart { .. }
            | EventData::DocumentEnd { .. }
            | EventData::SequenceEnd
            | EventData::MappingEnd => Err(ReadError {
                message: "not valid YAML".into(),
                psych: None,
                is_alias: false,
                span,
            }),
        }
    }

    fn anchored(
        &mut self,
        anchor: Option<String>,
        node: Node,
        before: usize,
    ) -> Result<Node, ReadError> {
        if let Some(anchor) = anchor {
            let size = self.nodes - before + 1;
            // The kept copy costs memory too: anchors nested in each other would add up.
            self.charge(size, node.span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<(Vec<Node>, u32), ReadError> {
        let mut items = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::SequenceEnd) {
                return Ok((items, self.span(&event).end));
            }
            items.push(self.node(event, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<(Map, u32), ReadError> {
        let mut map = Map::default();
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::MappingEnd) {
                return Ok((map, self.span(&event).end));
            }
            let merge = is_merge_key(&event);
            let shown = self.is_shown(&event);
            let key = self.node(event, depth + 1)?;
            let event = self.next()?;
            let alias = matches!(event.data, EventData::Alias { .. });
            let value = self.node(event, depth + 1)?;
            // A list is merged where it is written out, not where it is an alias.
            let merge = merge && !(alias && value.as_list().is_some());
            let (span, name) = (key.span, key.to_text());
            let too_many = || ReadError {
                message: format!("a map with more than {MAX_KEYS} keys"),
                psych: None,
                is_alias: false,
                span,
            };
            if merge && merge_into(&mut map, &value).map_err(|TooMany| too_many())? {
                continue;
            }
            if map.entries.len() >= MAX_KEYS {
                return Err(too_many());
            }
            if map.insert(key, value) && !merge {
                let name = if shown { format!("`{name}`") } else { "this key".into() };
                self.surprises.push(Surprise {
                    span,
                    message: format!("{name} is given twice in this map; the last one wins"),
                });
            }
        }
    }

    fn scalar(
        &mut self,
        text: String,
        tag: Option<&str>,
        quoted: bool,
        span: Span,
        shown: bool,
    ) -> Result<Value, ReadError> {
        if quoted {
            return Ok(Value::String(text));
        }
        match tag {
            None => {}
            Some("tag:yaml.org,2002:str" | "!str" | "!ruby/string") => {
                return Ok(Value::String(text));
            }
            Some("!ruby/symbol" | "!ruby/sym") => return Ok(Value::Symbol(text)),
            Some("tag:yaml.org,2002:float" | "!float") => {
                return Ok(match scalar::resolve(&text) {
                    #[expect(clippy::cast_precision_loss, reason = "what Ruby's Float() does")]
                    Value::Int(number) => Value::Float(number as f64),
                    other => other,
                });
            }
            Some(tag) if makes_object(tag) => return Err(unsupported(tag, span, shown)),
            // Any other tag: Psych resolves the text as if it were plain.
            Some(_) => return Ok(scalar::resolve(&text)),
        }
        let value = scalar::resolve(&text);
        if let Some(message) = scalar::surprise(&text, &value, shown) {
            self.surprises.push(Surprise { span, message });
        }
        Ok(value)
    }
}

/// Whether Ruby makes something of it that a config has no use for. Ruby's own texts, lists and maps are
/// not meant.
fn makes_object(tag: &str) -> bool {
    let plain = ["!ruby/hash", "!ruby/array", "!ruby/string", "!ruby/symbol", "!ruby/sym"];
    (tag.starts_with("!ruby/") && !plain.contains(&tag))
        || [":binary", ":omap"].iter().any(|end| tag.ends_with(end))
        || tag == "!binary"
}

fn unsupported(tag: &str, span: Span, shown: bool) -> ReadError {
    let tag = tag.replacen("tag:yaml.org,2002:", "!!", 1);
    let tag = if shown { &tag } else { "of this value" };
    let message = format!("the tag {tag} is not supported");
    ReadError { message, psych: None, is_alias: false, span }
}

/// A `<<` merges unless it is tagged as text. Psych looks at the value only: a quoted one merges.
fn is_merge_key(event: &Event) -> bool {
    matches!(
        &event.data,
        EventData::Scalar { value, tag, .. }
            if value == "<<" && tag.as_deref() != Some("tag:yaml.org,2002:str")
    )
}

/// A map has more than [`MAX_KEYS`] keys.
struct TooMany;

/// Merges as Psych does: in place, so that a merge *after* a key overrides it.
///
/// False when `value` is nothing that can be merged; Ruby then keeps `<<` as an ordinary key.
fn merge_into(map: &mut Map, value: &Node) -> Result<bool, TooMany> {
    match &value.value {
        Value::Map(other) => {
            insert_all(map, other)?;
            Ok(true)
        }
        Value::List(items) if items.iter().all(|item| item.as_map().is_some()) => {
            // Earlier maps win over later ones; the order of keys is that of the reversed list.
            let mut merged = Map::default();
            for other in items.iter().rev().filter_map(Node::as_map) {
                insert_all(&mut merged, other)?;
            }
            insert_all(map, &merged)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn insert_all(map: &mut Map, other: &Map) -> Result<(), TooMany> {
    for entry in &other.entries {
        map.insert(entry.key.clone(), entry.value.clone());
        if map.entries.len() > MAX_KEYS {
            return Err(TooMany);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        read(text, 0, &SourceMap::default()).unwrap().0.unwrap()
    }

    fn error(text: &str) -> String {
        read(text, 0, &SourceMap::default()).unwrap_err().message
    }

    #[test]
    fn a_merge_key_overrides_what_stands_before_it_and_yields_to_what_follows() {
        let root = tree("a: &a {x: 1, y: 2}\nb: {x: 0, <<: *a, y: 3}\n");
        let b = root.as_map().unwrap().get("b").unwrap().as_map().unwrap();
        assert_eq!(b.get("x").unwrap().as_int(), Some(1));
        assert_eq!(b.get("y").unwrap().as_int(), Some(3));
    }

    #[test]
    fn positions_are_bytes_of_the_file() {
        let root = tree("é: 1\nname: shop\n");
        let entry = root.as_map().unwrap().entry("name").unwrap();
        assert_eq!((entry.key.span.start, entry.key.span.end), (6, 10));
        assert_eq!((entry.value.span.start, entry.value.span.end), (12, 16));
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            let items = vec![below; 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(error(&text).contains("more than 200000 nodes"));
    }

    /// Each key is compared with those before it, also where it comes by a merge.
    #[test]
    fn merged_keys_are_counted() {
        let keys = |name: &str| -> String {
            (0..3_000).map(|index| format!("{name}{index}: 1, ")).collect()
        };
        let maps = format!("a: &a {{{}}}\nb: &b {{{}}}\n", keys("a"), keys("b"));
        for merge in ["{<<: *a, <<: *b}", "{<<: [*a, *b]}", "{b9999: 1, <<: [*a], <<: *b}"] {
            let text = format!("{maps}c: {merge}\n");
            assert_eq!(error(&text), "a map with more than 5000 keys", "{merge}");
        }
        tree(&format!("{maps}c: {{<<: [*a, *a], <<: *a}}\n"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(error(&"[".repeat(100_000)).contains("levels deep"));
        assert!(error(&"- ".repeat(100_000)).contains("levels deep"));
    }

    #[test]
    fn what_ruby_makes_objects_of_is_refused() {
        for text in ["!ruby/object {a: 1}", "!ruby/struct [a]", "!ruby/range 1..2", "!!binary aGk="]
        {
            let tag = text.split(' ').next().unwrap();
            assert_eq!(error(&format!("a: {text}\n")), format!("the tag {tag} is not supported"));
        }
        assert_eq!(error("!!omap [a: 1]"), "the tag !!omap is not supported");
        tree("a: !ruby/hash {b: !ruby/array [c, !foo d]}\n");
    }

    /// As Psych, which names the place of the context where the parser knows one.
    #[test]
    fn a_wrong_sign_is_told_with_its_place() {
        let found = read("a: b\nc: d: e\n", 0, &SourceMap::default()).unwrap_err();
        assert_eq!(found.span.start, 9);
        assert!(found.psych.unwrap().ends_with("in this context at line 2 column 5"));
    }

    #[test]
    fn an_unfinished_list_says_so() {
        assert!(error("a: [1,\n").contains("not valid YAML"), "{}", error("a: [1,\n"));
        assert_eq!(error("a: *b\n"), "unknown alias: b");
    }
}
