//! Literals: numbers, and texts in all their quotes.

use super::super::syntax::{Expr, Kind, Part, Problem};
use super::Parser;

impl Parser<'_> {
    pub(super) fn number(&mut self) -> Result<Kind, Problem> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(digits.len());
        let (digits, after) = digits.split_at(end);
        let length = rest.len() - after.len();
        // Octal (`017`), hexadecimal, `1.5`, `1e3` and `2r` are other numbers than their digits.
        let is_other = (digits.len() > 1 && digits.starts_with('0'))
            || digits.ends_with('_')
            || digits.contains("__")
            || after.starts_with(|c: char| c.is_alphanumeric())
            || after
                .strip_prefix('.')
                .is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()));
        if is_other {
            return Err(self.unsupported());
        }
        let number = rest[..length].replace('_', "").parse().map_err(|_| self.unsupported())?;
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
        let begin = self.at;
        let parts = self.text(nested, close, !matches!(letter, Some('q' | 'w')))?;
        Ok(match letter {
            Some('x') => Kind::Command(parts),
            // A space with a backslash before it does not end a word.
            Some('w') if self.code[begin..self.at].contains('\\') => {
                self.at = begin;
                return Err(self.unsupported());
            }
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
                    let meant = if escapes {
                        self.escape(next)?
                    } else {
                        let is_escape = next == close || next == '\\' || Some(next) == nested;
                        if is_escape { next.into() } else { format!("\\{next}") }
                    };
                    self.at += next.len_utf8();
                    literal.push_str(&meant);
                }
                // A variable of Ruby's own.
                '#' if escapes && self.rest().starts_with(['$', '@']) => {
                    return Err(self.unsupported());
                }
                '#' if escapes && self.rest().starts_with('{') => {
                    self.at += 1;
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                    self.skip_blank();
                    if self.take("}") {
                        continue;
                    }
                    let value = self.whole()?;
                    self.expect("}")?;
                    parts.push(Part::Value(value));
                }
                c => literal.push(c),
            }
        }
        parts.push(Part::Literal(literal));
        Ok(parts)
    }

    /// What a backslash and `next`, which stands here, mean in a string with escapes.
    fn escape(&self, next: char) -> Result<String, Problem> {
        Ok(match next {
            'n' => "\n".into(),
            't' => "\t".into(),
            'r' => "\r".into(),
            'e' => "\u{1b}".into(),
            's' => " ".into(),
            'a' => "\u{7}".into(),
            'b' => "\u{8}".into(),
            'v' => "\u{b}".into(),
            'f' => "\u{c}".into(),
            '\n' => String::new(),
            // Characters by number.
            '0'..='7' | 'x' | 'u' | 'c' | 'C' | 'M' => {
                let (start, end) = (self.place() - 1, self.place() + next.len_utf8());
                return Err(Problem::outside(&format!("\\{next}"), start, end));
            }
            other => other.into(),
        })
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
