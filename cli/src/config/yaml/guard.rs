//! Texts that libyaml-safer 0.3 answers with a panic, made into texts that mean the same. PURE.

use libyaml_safer::{Scanner, TokenData};

/// How many bytes may be scanned to tell tags from text that looks like one.
const MAX_SCANNED: usize = 512 << 10;

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
///
/// # Errors
///
/// The byte at which too much looks like a tag to find out what is one.
pub(super) fn guard(text: &str) -> Result<Guarded, u64> {
    let mut safe = String::with_capacity(text.len() + 1);
    let (mut inserted, mut scanned, mut tag, mut flow) = (Vec::new(), 0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            '!' => tag = true,
            '[' | '{' => flow = true,
            ',' if tag && flow => {
                scanned = scanned.saturating_add(safe.len());
                if scanned > MAX_SCANNED {
                    return Err(at as u64);
                }
                if ends_in_tag(&safe) {
                    inserted.push(safe.len() as u64);
                    safe.push(' ');
                }
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
    Ok(Guarded { text: safe, inserted, length: text.len() as u64, unended })
}

/// Whether `text` ends with a tag within brackets: before a comma libyaml allows that, its port
/// panics.
fn ends_in_tag(text: &str) -> bool {
    let ended = format!("{text}\n");
    let mut input = ended.as_bytes();
    let mut scanner = Scanner::new();
    scanner.set_input(&mut input);
    let mut depth = 0_usize;
    while let Some(Ok(token)) = scanner.next() {
        match token.data {
            TokenData::FlowSequenceStart | TokenData::FlowMappingStart => depth += 1,
            TokenData::FlowSequenceEnd | TokenData::FlowMappingEnd => {
                depth = depth.saturating_sub(1);
            }
            TokenData::Tag { .. } if token.end_mark.index == text.len() as u64 => return depth > 0,
            TokenData::StreamEnd => return false,
            _ => {}
        }
    }
    false
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
        assert_eq!(json("{a: !, b: one}"), "\"a\"=\"\"|\"b\"=\"one\"");
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
        let guarded = guard("[!, !, x]").unwrap();
        assert_eq!(guarded.text, "[! , ! , x]\n");
        assert_eq!(guarded.text.find('x').map(|at| guarded.original(at as u64)), Some(7));
        assert_eq!(guarded.original(12), 9);
    }

    #[test]
    fn a_flood_of_tags_is_refused() {
        assert!(guard(&format!("[{}", "!,".repeat(2_000))).is_err());
    }
}
