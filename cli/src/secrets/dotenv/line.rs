//! Finds the assignments in a text.
//!
//! dotenv describes a line with one backtracking regular expression:
//!
//! ```text
//! (?:^|\A)\s*(?<export>export\s+)?(?<key>[\w.]+)
//! (?:(?:\s*=\s*?|:\s+?)(?<value>\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|[^\#\n]+)?)?
//! \s*(?:\#.*)?(?:$|\z)
//! ```
//!
//! This is the same by hand, in linear time. Mind that `\s` spans lines: `A=`, line break, `'x'` is
//! an assignment, and so is `A:`, line break, `x`.

use super::is_space;

/// One `name = value` as it stands in the text, with quotes, escapes and white space.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment<'a> {
    /// Whether the word `export` stands before the name.
    pub(super) export: bool,
    /// Letters, digits, `_` and `.`.
    pub(super) name: &'a str,
    /// Where the name begins, in bytes.
    pub(super) name_at: usize,
    /// `None` when nothing stands after the name or its separator.
    pub(super) value: Option<&'a str>,
}

/// All assignments of `text`, in order. Line breaks must be `\n`.
pub(super) fn assignments(text: &str) -> impl Iterator<Item = Assignment<'_>> {
    // Always at the beginning of a line.
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = skip_space(text, at);
            if start >= text.len() {
                return None;
            }
            let found = assignment(text, start);
            // A failed line is skipped; a match ends where a line ends.
            let from = found.as_ref().map_or(start, |(_, end)| *end);
            at = text[from..].find('\n').map_or(text.len(), |offset| from + offset + 1);
            if let Some((assignment, _)) = found {
                return Some(assignment);
            }
        }
    })
}

/// The assignment whose first word begins at `start`, and where the match ends.
fn assignment(text: &str, start: usize) -> Option<(Assignment<'_>, usize)> {
    let exported = text[start..]
        .strip_prefix("export")
        .filter(|rest| rest.starts_with(is_space))
        .and_then(|rest| named(text, skip_space(text, text.len() - rest.len()), true));
    // `export = 1` and a lone `export` are names like any other.
    exported.or_else(|| named(text, start, false))
}

/// An assignment whose name begins at `name_at`.
fn named(text: &str, name_at: usize, export: bool) -> Option<(Assignment<'_>, usize)> {
    let length = text[name_at..]
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        .unwrap_or(text.len() - name_at);
    let name_end = name_at + length;
    if length == 0 {
        return None;
    }
    let (value, end) = match separator(text, name_end) {
        Some(value_at) => value(text, value_at),
        None => (None, tail(text, name_end)?),
    };
    Some((Assignment { export, name: &text[name_at..name_end], name_at, value }, end))
}

/// Where the text after `=` or `: ` begins.
fn separator(text: &str, at: usize) -> Option<usize> {
    let equals = skip_space(text, at);
    if text[equals..].starts_with('=') {
        return Some(equals + 1);
    }
    let after = text[at..].strip_prefix(':')?;
    after.starts_with(is_space).then_some(at + 2)
}

/// The value that begins at `at`, and where the match ends. Always succeeds: what is not quoted
/// well is taken up to the end of the line or a `#`.
fn value(text: &str, at: usize) -> (Option<&str>, usize) {
    let quoted = quoted(text, at, '\'').or_else(|| quoted(text, at, '"'));
    let (value, value_end) = match quoted {
        Some(end) => (Some(&text[at..end]), end),
        None => {
            let length = text[at..].find(['#', '\n']).unwrap_or(text.len() - at);
            ((length > 0).then(|| &text[at..at + length]), at + length)
        }
    };
    (value, tail(text, value_end).unwrap_or(value_end))
}

/// The end of a value in `quote`s, after white space: the first quote without a backslash before it
/// or, if something stands behind that one, the last earlier quote behind which nothing stands.
fn quoted(text: &str, at: usize, quote: char) -> Option<usize> {
    let open = skip_space(text, at);
    let body = text[open..].strip_prefix(quote)?;
    let body_at = open + 1;
    let mut escaped = Vec::new();
    let mut candidate = None;
    for (offset, _) in body.match_indices(quote) {
        let end = body_at + offset + 1;
        if body[..offset].ends_with('\\') {
            escaped.push(end);
        } else {
            candidate = Some(end);
            break;
        }
    }
    candidate.into_iter().chain(escaped.into_iter().rev()).find(|end| tail(text, *end).is_some())
}

/// Where a match ends when only white space and a comment follow `at` up to the end of a line;
/// following empty lines, and one comment after them, belong to the match.
fn tail(text: &str, at: usize) -> Option<usize> {
    let next = skip_space(text, at);
    let rest = &text[next..];
    if rest.is_empty() {
        return Some(next);
    }
    if rest.starts_with('#') {
        return Some(next + rest.find('\n').unwrap_or(rest.len()));
    }
    text[at..next].rfind('\n').map(|offset| at + offset)
}

fn skip_space(text: &str, at: usize) -> usize {
    text[at..].find(|c: char| !is_space(c)).map_or(text.len(), |offset| at + offset)
}
