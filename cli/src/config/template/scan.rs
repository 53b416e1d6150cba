//! Cuts a template into text and tags, with the rules of ERB's trim mode `-`.

use std::borrow::Cow;

use super::comments::Comments;
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
        comments.skip_to(end, mark == Some(b'='));
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
