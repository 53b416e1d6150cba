//! Literals: numbers, and texts in all their quotes.

use super::super::syntax::{Expr, Kind, Part, Problem};
use super::Parser;

impl Parser<'_> {
    pub(super) fn number(&mut self) -> Result<Kind, Problem> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(digits.len());
        let length = rest.len() - digits.len() + end;
        let text = rest[..length].replace('_', "");
        let number = text.parse().map_err(|_| self.unsupported())?;
        self.at += length;
        Ok(Kind::Int(number))
    }

    /// `%x(…)`, `%(…)`, `%q(…)`, `%Q(…)`, `%w(…)`, with any brackets.
    pub(super) fn percent(&mut self) -> Result<Kind, Problem> {
        let rest = &self.rest()[1..];
        let letter = rest.chars().next().filter(|c| matches!(c, 'x' | 'q' | 'Q' | 'w'));
        let open = rest[letter.map_or(0, char::len_utf8)..].chars().next();
        let Some((open, close)) = open.and_then(brackets) else { return Err(self.unsupported()) };
        self.at += 1 + letter.map_or(0, char::len_utf8) + open.len_utf8();
        let nested = (open != close).then_some(open);
        let parts = self.text(nested, close, !matches!(letter, Some('q' | 'w')))?;
        Ok(match letter {
            Some('x') => Kind::Command(parts),
            Some('w') => {
                let words = parts.iter().flat_map(|part| match part {
                    Part::Literal(text) => text.split_whitespace().collect(),
                    Part::Value(_) => Vec::new(),
                });
                let (start, end) = (self.place(), self.place());
                let text = |word: &str| Kind::Text(vec![Part::Literal(word.to_owned())]);
                Kind::List(words.map(|word| Expr { kind: text(word), start, end }).collect())
            }
            _ => Kind::Text(parts),
        })
    }

    /// The rest of a string up to `close`; `nested` opens a bracket that has to be closed first.
    pub(super) fn text(
        &mut self,
        nested: Option<char>,
        close: char,
        escapes: bool,
    ) -> Result<Vec<Part>, Problem> {
        let start = self.place();
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut depth = 0_usize;
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(Problem::new(
                    "this string is not closed",
                    start.saturating_sub(1),
                    start,
                ));
            };
            self.at += c.len_utf8();
            match c {
                c if c == close && depth == 0 => break,
                c if c == close => {
                    depth -= 1;
                    literal.push(c);
                }
                c if Some(c) == nested => {
                    depth += 1;
                    literal.push(c);
                }
                '\\' => {
                    let Some(next) = self.rest().chars().next() else { continue };
                    self.at += next.len_utf8();
                    literal.push_str(&unescape(next, close, escapes));
                }
                '#' if escapes && self.rest().starts_with('{') => {
                    self.at += 1;
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                    let value = self.expression()?;
                    self.expect("}")?;
                    parts.push(Part::Value(value));
                }
                c => literal.push(c),
            }
        }
        parts.push(Part::Literal(literal));
        Ok(parts)
    }
}

fn brackets(open: char) -> Option<(char, char)> {
    match open {
        '(' => Some(('(', ')')),
        '[' => Some(('[', ']')),
        '{' => Some(('{', '}')),
        '<' => Some(('<', '>')),
        '|' | '!' | '/' => Some((open, open)),
        _ => None,
    }
}

/// What a backslash and `next` mean in a string that ends with `close`.
fn unescape(next: char, close: char, escapes: bool) -> String {
    if !escapes {
        return if next == close || next == '\\' { next.into() } else { format!("\\{next}") };
    }
    match next {
        'n' => "\n".into(),
        't' => "\t".into(),
        'r' => "\r".into(),
        'e' => "\u{1b}".into(),
        '0' => "\0".into(),
        's' => " ".into(),
        '\n' => String::new(),
        other => other.into(),
    }
}
