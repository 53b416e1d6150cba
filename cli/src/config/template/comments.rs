//! Finds YAML comments in a template, reading on from tag to tag.
//!
//! Always true: each byte is read once. Where it cannot be told, a place counts as no comment: then
//! everything is evaluated, as Kamal does anyway.

/// What a line begins and the next ones go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// Neither of them.
    Plain,
    /// A quoted text.
    Quote(char),
    /// A block of text (`key: |`), whose lines have at least so many spaces; the first line raises it.
    Block { indent: usize, begun: bool },
}

/// The state of reading.
pub(super) struct Comments<'a> {
    text: &'a str,
    /// Read up to here.
    at: usize,
    line_start: usize,
    within: Within,
    /// A quote within a plain text of this line.
    quote: Option<char>,
    /// A backslash stood in double quotes.
    escaped: bool,
    /// Spaces at the beginning of the line.
    indent: usize,
    /// Whether something stood in the line that is written.
    content: bool,
    before: char,
    /// The last character that is no space.
    solid: Option<char>,
    /// Where a `#` stood in this line, outside quotes and after white space.
    hash: Option<usize>,
}

impl<'a> Comments<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            line_start: 0,
            within: Within::Plain,
            quote: None,
            escaped: false,
            indent: 0,
            content: false,
            before: ' ',
            solid: None,
            hash: None,
        }
    }

    /// Whether the place `at`, which is not before the last one, lies in a comment.
    pub(super) fn holds(&mut self, at: usize) -> bool {
        let text: &'a str = self.text;
        let mut characters = text[self.at..at].char_indices().peekable();
        while let Some((offset, c)) = characters.next() {
            if c == '\n' {
                self.end_line(self.at + offset);
                continue;
            }
            let doubled = characters.peek().is_some_and(|(_, next)| *next == c);
            if self.character(c, self.at + offset, doubled) {
                characters.next();
            }
        }
        self.at = at;
        self.hash.is_some()
    }

    /// Goes over a tag, whose inside is Ruby; `written` where its value becomes a part of the text.
    pub(super) fn skip_to(&mut self, at: usize, written: bool) {
        self.at = at;
        if written {
            self.begin_content();
            self.before = '>';
            self.solid = Some('>');
            self.escaped = false;
        } else if !self.content && self.text[..at].ends_with('\n') {
            // `-%>` took the newline of a line that is nothing but the tag.
            self.line_start = at;
            self.indent = 0;
        }
    }

    fn end_line(&mut self, at: usize) {
        let line = &self.text[self.line_start..self.hash.unwrap_or(at)];
        if self.within == Within::Plain
            && let Some(explicit) = head(line)
        {
            let root = line.starts_with("---");
            let indent = if root { 0 } else { self.indent + explicit.unwrap_or(1) };
            self.within = Within::Block { indent, begun: explicit.is_some() };
        }
        let (text, within) = (self.text, self.within);
        *self = Self { line_start: at + 1, at: self.at, within, ..Self::new(text) };
    }

    /// The first thing of a line tells whether a block goes on.
    fn begin_content(&mut self) {
        if std::mem::replace(&mut self.content, true) {
            return;
        }
        if let Within::Block { indent, begun } = self.within {
            self.within = if self.indent < indent {
                Within::Plain
            } else if begun {
                self.within
            } else {
                Within::Block { indent: self.indent, begun: true }
            };
        }
    }

    /// Takes one character; gives whether the next one, which is the same, belongs to it.
    fn character(&mut self, c: char, at: usize, doubled: bool) -> bool {
        if !self.content && c == ' ' {
            self.indent += 1;
            return false;
        }
        if !c.is_whitespace() {
            self.begin_content();
        }
        let mut pair = false;
        match (self.within, self.quote, c) {
            (Within::Block { .. }, _, _) => {}
            (Within::Quote(_), _, _) if self.escaped => self.escaped = false,
            (Within::Quote('"'), _, '\\') => self.escaped = true,
            // Two apostrophes are one.
            (Within::Quote('\''), _, '\'') if doubled => pair = true,
            (Within::Quote(open), _, _) => {
                if open == c {
                    self.within = Within::Plain;
                }
            }
            (Within::Plain, _, _) if self.hash.is_some() => {}
            (Within::Plain, Some(open), _) => {
                if open == c {
                    self.quote = None;
                }
            }
            (Within::Plain, None, '"' | '\'') if self.begins_value() => {
                self.within = Within::Quote(c);
            }
            // An apostrophe within a word is no quote.
            (Within::Plain, None, '"' | '\'') if !self.before.is_alphanumeric() => {
                self.quote = Some(c);
            }
            (Within::Plain, None, '#') if self.before.is_whitespace() => self.hash = Some(at),
            (Within::Plain, None, _) => {}
        }
        self.before = c;
        if !c.is_whitespace() {
            self.solid = Some(c);
        }
        pair
    }

    /// Whether a value may begin here: a quote then goes on over the lines.
    fn begins_value(&self) -> bool {
        match self.solid {
            None | Some('[' | '{' | ',') => true,
            Some(':') => true,
            Some('-' | '?') => self.before.is_whitespace(),
            Some(_) => false,
        }
    }
}

/// Whether a block of text begins below this line, and the indentation where it is given.
fn head(line: &str) -> Option<Option<usize>> {
    let last = line.trim_end().rsplit([' ', '\t']).next().unwrap_or_default();
    let signs = last.strip_prefix(['|', '>'])?;
    let is_sign = |c: char| matches!(c, '+' | '-' | '1'..='9');
    if !signs.chars().all(is_sign) {
        return None;
    }
    Some(signs.chars().find_map(|c| c.to_digit(10)).map(|digit| digit as usize))
}
