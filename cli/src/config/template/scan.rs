//! Cuts a template into text and tags, with the rules of ERB's trim mode `-`.

use std::borrow::Cow;

use super::syntax::Problem;

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text that is copied.
    Text { text: &'a str, start: usize },
    /// A tag.
    Tag(Tag<'a>),
}

/// `<% code %>` or `<%= code %>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    /// Between the marks; `%%>` has become `%>`.
    pub(super) code: Cow<'a, str>,
    /// Where the code begins.
    pub(super) code_start: usize,
    /// Where the tag begins.
    pub(super) start: usize,
    /// One after its end.
    pub(super) end: usize,
    /// Whether its value is written.
    pub(super) output: bool,
    /// Whether it stands in a YAML comment.
    pub(super) in_comment: bool,
}

/// Cuts the text.
pub(super) fn scan(text: &str) -> Result<Vec<Piece<'_>>, Problem> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut comments = Comments::new(text);
    while let Some(found) = text[at..].find("<%") {
        let start = at + found;
        if text[start..].starts_with("<%%") {
            // `<%%` is a literal `<%`.
            push_text(&mut pieces, text, at, start + 2);
            at = start + 3;
            continue;
        }
        let mut code_start = start + 2;
        let mut text_end = start;
        let mark = text.as_bytes().get(code_start).copied();
        match mark {
            Some(b'=' | b'#') => code_start += 1,
            // `<%-` takes the white space before it with it, back to a newline or another tag.
            Some(b'-') => {
                code_start += 1;
                let indented = text[at..start].trim_end_matches([' ', '\t']);
                if indented.is_empty() || indented.ends_with('\n') {
                    text_end = at + indented.len();
                }
            }
            _ => {}
        }
        push_text(&mut pieces, text, at, text_end);
        let Some(length) = find_end(&text[code_start..]) else {
            return Err(Problem::new("this `<%` has no `%>`", start, start + 2));
        };
        let mut code_end = code_start + length;
        let mut end = code_end + 2;
        if text[code_start..code_end].ends_with('-') {
            code_end -= 1;
            // `-%>` takes the newline with it.
            let rest = &text[end..];
            end += if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) };
        }
        let in_comment = comments.holds(start);
        comments.skip_to(end);
        if mark != Some(b'#') {
            pieces.push(Piece::Tag(Tag {
                code: without_escapes(&text[code_start..code_end]),
                code_start,
                start,
                end: code_start + length + 2,
                output: mark == Some(b'='),
                in_comment,
            }));
        }
        at = end;
    }
    push_text(&mut pieces, text, at, text.len());
    Ok(pieces)
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str, start: usize, end: usize) {
    if start < end {
        pieces.push(Piece::Text { text: &text[start..end], start });
    }
}

fn without_escapes(code: &str) -> Cow<'_, str> {
    if code.contains("%%>") { code.replace("%%>", "%>").into() } else { code.into() }
}

/// The first `%>` that is not `%%>`.
fn find_end(code: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + code[from..].find("%>")?;
        if !code[..at].ends_with('%') {
            return Some(at);
        }
        from = at + 2;
    }
}

/// Finds YAML comments, reading on from tag to tag: a line with a thousand tags is read once.
struct Comments<'a> {
    text: &'a str,
    /// Read up to here.
    at: usize,
    line_start: usize,
    quote: Option<char>,
    before: char,
    /// A `#` stood in this line, outside quotes and after white space.
    hash: bool,
    /// Whether this line belongs to a block of text, where a `#` is nothing special.
    block: Option<bool>,
}

impl<'a> Comments<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, line_start: 0, quote: None, before: ' ', hash: false, block: None }
    }

    /// Whether the place `at`, which is not before the last one, lies in a comment.
    fn holds(&mut self, at: usize) -> bool {
        let part = &self.text[self.at..at];
        for (offset, c) in part.char_indices() {
            match (self.quote, c) {
                (_, '\n') => {
                    let line_start = self.at + offset + 1;
                    *self = Self { line_start, at: self.at, ..Self::new(self.text) };
                    continue;
                }
                (Some(open), c) if c == open => self.quote = None,
                (Some(_), _) => {}
                // An apostrophe within a word is no quote.
                (None, '"' | '\'') if !self.before.is_alphanumeric() => self.quote = Some(c),
                (None, '#') if self.before.is_whitespace() => self.hash = true,
                (None, _) => {}
            }
            self.before = c;
        }
        self.at = at;
        let (before, line) = self.text[..at].split_at(self.line_start);
        self.hash && !*self.block.get_or_insert_with(|| in_block(before, line))
    }

    /// Goes over a tag: what is in it is Ruby.
    fn skip_to(&mut self, at: usize) {
        self.at = at;
        self.before = '>';
    }
}

/// How many lines a block is looked for; more could take for ever.
const BLOCK_LINES: usize = 200;

/// Whether a line that begins with `line` belongs to a block (`key: |`) that begins in `before`.
fn in_block(before: &str, line: &str) -> bool {
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let own = indent(line);
    // Upwards, from parent to parent; the line below a block's head is the first of its text.
    let (mut limit, mut below) = (own, own);
    let lines = before.rsplit('\n').take(BLOCK_LINES).map(str::trim_end);
    for line in lines.filter(|line| !line.is_empty()) {
        let this = indent(line);
        if this < limit {
            if is_head(line) {
                return own >= below;
            }
            limit = this;
        }
        below = this;
    }
    false
}

/// Whether a block of text begins below this line.
fn is_head(line: &str) -> bool {
    let last = line.rsplit([' ', '\t']).next().unwrap_or_default();
    last.starts_with(['|', '>']) && last[1..].chars().all(|c| matches!(c, '+' | '-' | '1'..='9'))
}
