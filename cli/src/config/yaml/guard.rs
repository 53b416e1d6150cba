//! Texts that libyaml-safer 0.3 answers with a panic, made into texts that mean the same. PURE.

use libyaml_safer::{Scanner, TokenData};

/// A text that is safe to parse.
#[derive(Debug)]
pub(super) struct Guarded {
    /// What to parse.
    pub(super) text: String,
    /// Where a blank was put in, ascending, as bytes of `text`.
    inserted: Vec<u64>,
    /// Length of the text as given.
    length: u64,
    /// The last line as given, where a line break was put after it.
    unended: Option<String>,
}

impl Guarded {
    /// The byte of the given text for byte `index` of the guarded one.
    pub(super) fn original(&self, index: u64) -> u64 {
        let before = self.inserted.partition_point(|&at| at < index);
        index.saturating_sub(before as u64).min(self.length)
    }

    /// The value of a block scalar that ends at `end`: the line break put after it is no part of it.
    pub(super) fn block_scalar(&self, mut value: String, end: u64) -> String {
        let Some(last) = self.unended.as_deref().filter(|_| end >= self.text.len() as u64) else {
            return value;
        };
        let Some(rest) = value.strip_suffix('\n') else { return value };
        let line = rest.rsplit('\n').next().unwrap_or_default();
        // A last line of blanks is content only where it is indented deeper than the scalar.
        let content = !line.is_empty() && line.trim().is_empty() && last.ends_with(line);
        if !last.trim().is_empty() || content || rest.ends_with('\n') {
            value.pop();
        }
        value
    }
}

/// Makes a text safe.
pub(super) fn guard(text: &str) -> Guarded {
    let (mut safe, mut inserted) = (String::with_capacity(text.len() + 1), Vec::new());
    let (mut tag, mut flow) = (false, false);
    for c in text.chars() {
        match c {
            '!' => tag = true,
            '[' | '{' => flow = true,
            // `!<tag:yaml.org,2002:str>`: that comma is part of the tag. Others with one are refused.
            ',' if tag && flow && !safe.ends_with("!<tag:yaml.org") => {
                inserted.push(safe.len() as u64);
                safe.push(' ');
            }
            c if c.is_whitespace() => tag = false,
            _ => {}
        }
        safe.push(c);
    }
    // A block scalar that the end of the file ends.
    let ended = safe.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
    let unended = (!ended && !safe.is_empty()).then(|| {
        let last = safe.rsplit(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).next();
        last.unwrap_or_default().to_owned()
    });
    if unended.is_some() {
        safe.push('\n');
    }
    if !inserted.is_empty() {
        (safe, inserted) = without_needless(&safe, &inserted);
    }
    Guarded { text: safe, inserted, length: text.len() as u64, unended }
}

/// Takes out the blanks behind what only looks like a tag: it may stand within quotes.
///
/// A blank before a comma changes no structure, so the text can be scanned with all of them in it.
fn without_needless(safe: &str, inserted: &[u64]) -> (String, Vec<u64>) {
    let (tag_ends, scanned) = tag_ends(safe);
    let mut text = String::with_capacity(safe.len());
    let (mut kept, mut from) = (Vec::new(), 0);
    for &at in inserted {
        // What follows an error is not read in any case.
        if at >= scanned || tag_ends.binary_search(&at).is_ok() {
            kept.push(at - (from - text.len()) as u64);
            continue;
        }
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        text.push_str(&safe[from..at]);
        from = at + 1;
    }
    text.push_str(&safe[from..]);
    (text, kept)
}

/// Where tags within brackets end, and how far the text could be scanned.
fn tag_ends(text: &str) -> (Vec<u64>, u64) {
    let mut input = text.as_bytes();
    let mut scanner = Scanner::new();
    scanner.set_input(&mut input);
    let (mut ends, mut scanned, mut depth) = (Vec::new(), 0, 0_usize);
    while let Some(Ok(token)) = scanner.next() {
        scanned = token.end_mark.index;
        match token.data {
            TokenData::FlowSequenceStart | TokenData::FlowMappingStart => depth += 1,
            TokenData::FlowSequenceEnd | TokenData::FlowMappingEnd => {
                depth = depth.saturating_sub(1);
            }
            TokenData::Tag { .. } if depth > 0 => ends.push(scanned),
            TokenData::StreamEnd => return (ends, u64::MAX),
            _ => {}
        }
    }
    (ends, scanned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::{SourceMap, Value, read};

    fn json(text: &str) -> String {
        match read(text, 0, &SourceMap::default()) {
            Ok((Some(node), _)) => show(&node.value),
            other => format!("{other:?}"),
        }
    }

    fn show(value: &Value) -> String {
        match value {
            Value::List(items) => {
                items.iter().map(|item| show(&item.value)).collect::<Vec<_>>().join("|")
            }
            Value::Map(map) => {
                let pair = |e: &crate::config::yaml::Entry| {
                    format!("{}={}", show(&e.key.value), show(&e.value.value))
                };
                map.entries.iter().map(pair).collect::<Vec<_>>().join("|")
            }
            Value::String(text) => format!("{text:?}"),
            Value::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_block_scalar_may_end_with_the_file() {
        assert_eq!(json(">\n r"), "\"r\"");
        assert_eq!(json("a: |\n  x\n  y"), "\"a\"=\"x\\ny\"");
        assert_eq!(json("a: |\n  x\n"), "\"a\"=\"x\\n\"");
        assert_eq!(json("a: |+\n  x"), "\"a\"=\"x\"");
        assert_eq!(json("a: |\n  x\n  "), "\"a\"=\"x\\n\"");
        assert_eq!(json("a: |\n  x\n# end"), "\"a\"=\"x\\n\"");
    }

    #[test]
    fn a_tag_may_stand_before_a_comma() {
        assert_eq!(json("{a: !, b: one}"), "\"a\"=Null|\"b\"=\"one\"");
        assert_eq!(json("[!!str, x, !!str,y]"), "\"\"|\"x\"|\"\"|\"y\"");
        assert_eq!(json("[!<tag:yaml.org,2002:str>, x]"), "\"\"|\"x\"");
    }

    #[test]
    fn what_only_looks_like_a_tag_stays() {
        assert_eq!(json("[\"a !, b\", 'x !,']"), "\"a !, b\"|\"x !,\"");
        assert_eq!(json("a: [x]\nb: hello !, you\n"), "\"a\"=\"x\"|\"b\"=\"hello !, you\"");
        assert_eq!(json("- [x]\n- |\n  !, y\n"), "\"x\"|\"!, y\\n\"");
        assert!(json("[]\n--- !, x\n").is_empty());
    }

    #[test]
    fn places_are_those_of_the_given_text() {
        let guarded = guard("[!, '!,', !, x]");
        assert_eq!(guarded.text, "[! , '!,', ! , x]\n");
        assert_eq!(guarded.text.find('x').map(|at| guarded.original(at as u64)), Some(13));
        assert_eq!(guarded.original(20), 15);
    }

    #[test]
    fn a_tag_within_a_key_of_brackets_is_one() {
        assert_eq!(json("{a: !x, b: 1}: v"), "\"a\"=Null|\"b\"=1=\"v\"");
        // Found by the fuzzer: the text is no YAML, which shows only behind the comma.
        assert_eq!(json("[a !<,!b,c]"), "\"a !<\"|Null|\"c\"");
        let broken = "servers:]{web: 6}\nun\\known: 1\n{app_prt: !3, ssl: !ma}, x: y\n";
        assert!(json(broken).starts_with("Err("), "{}", json(broken));
    }

    #[test]
    fn a_flood_of_tags_is_no_burden() {
        let flood = format!("[{}]", "!,".repeat(50_000));
        assert_eq!(json(&flood).matches("Null").count(), 50_000);
    }
}
