//! Cuts a template into text and tags, with the rules of ERB's trim mode `-`.

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
    /// Between the marks.
    pub(super) code: &'a str,
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
            // `<%-` at the start of a line takes the indentation with it.
            Some(b'-') => {
                code_start += 1;
                let indented = text[at..start].trim_end_matches([' ', '\t']);
                let line_start = indented.is_empty() && (at == 0 || text[..at].ends_with('\n'));
                if indented.ends_with('\n') || line_start {
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
        if mark != Some(b'#') {
            pieces.push(Piece::Tag(Tag {
                code: &text[code_start..code_end],
                code_start,
                start,
                end: code_start + length + 2,
                output: mark == Some(b'='),
                in_comment: in_comment(text, start),
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

/// Whether a `#` stands before `at` in its line, outside quotes and after white space.
fn in_comment(text: &str, at: usize) -> bool {
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let mut quote = None;
    let mut before = ' ';
    for c in text[line_start..at].chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            // An apostrophe within a word is no quote.
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (None, '#') if before.is_whitespace() => return true,
            (None, _) => {}
        }
        before = c;
    }
    false
}
