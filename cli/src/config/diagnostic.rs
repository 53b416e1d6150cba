//! What is wrong with a config: for people, for programs, and in Kamal's words.
//!
//! Problems are listed in the order in which Kamal would meet them, so the first one is the one
//! that Kamal reports (and its only one).

use std::fmt::{self, Write as _};

use serde_json::json;

use super::source::Sources;
use super::yaml::Span;

/// What kind of problem; its text form is stable, for programs that read `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// A file is not there, not readable, not text, or too large.
    File,
    /// A template construct that is not supported, or that failed.
    Template,
    /// The text is no YAML.
    Syntax,
    /// A key that does not exist.
    UnknownKey,
    /// A key of Kamal 1, or of an earlier Kamal 2, that has a replacement.
    LegacyKey,
    /// A value of the wrong type.
    WrongType,
    /// A value that is missing.
    Missing,
    /// A value that cannot be.
    Invalid,
    /// Two settings that exclude each other.
    Conflict,
    /// The version cannot be found out.
    Version,
    /// A Docker option that cannot be expressed through the Engine API.
    Option,
    /// A value that is likely to be read otherwise than meant.
    Surprise,
    /// A setting that has no effect.
    Unused,
}

impl Code {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::File,
        Self::Template,
        Self::Syntax,
        Self::UnknownKey,
        Self::LegacyKey,
        Self::WrongType,
        Self::Missing,
        Self::Invalid,
        Self::Conflict,
        Self::Version,
        Self::Option,
        Self::Surprise,
        Self::Unused,
    ];

    /// The stable text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "config.file",
            Self::Template => "config.template",
            Self::Syntax => "config.syntax",
            Self::UnknownKey => "config.unknown_key",
            Self::LegacyKey => "config.legacy_key",
            Self::WrongType => "config.wrong_type",
            Self::Missing => "config.missing",
            Self::Invalid => "config.invalid",
            Self::Conflict => "config.conflict",
            Self::Version => "config.version",
            Self::Option => "config.option",
            Self::Surprise => "config.surprise",
            Self::Unused => "config.unused",
        }
    }
}

/// The Ruby class that Kamal names in front of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ErrorClass {
    /// Almost everything.
    #[default]
    Configuration,
    /// A few checks of arguments.
    Argument,
    /// A missing file, a missing repository.
    Runtime,
    /// The text is no YAML.
    Syntax,
    /// An alias without its anchor.
    Anchor,
    /// A variable that a template needs and that is not set.
    Key,
}

impl ErrorClass {
    /// Ruby's name of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "Kamal::ConfigurationError",
            Self::Argument => "ArgumentError",
            Self::Runtime => "RuntimeError",
            Self::Syntax => "Psych::SyntaxError",
            Self::Anchor => "Psych::AnchorNotDefined",
            Self::Key => "KeyError",
        }
    }
}

/// One problem, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind.
    pub code: Code,
    /// Kamal's class for it.
    pub class: ErrorClass,
    /// What is wrong, with Kamal's wording of context and cause where Kamal has one.
    pub message: String,
    /// Where; `None` when it is about something that is not there.
    pub span: Option<Span>,
    /// The key path, joined with `/` as Kamal does; empty for the root.
    pub path: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Kamal's message where it is not [`Self::message`].
    pub kamal: Option<String>,
}

impl Diagnostic {
    /// A problem of Kamal's usual class.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            class: ErrorClass::default(),
            message: message.into(),
            span: None,
            path: String::new(),
            hint: None,
            kamal: None,
        }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// Sets the place, if there is one.
    #[must_use]
    pub fn at_maybe(mut self, span: Option<Span>) -> Self {
        self.span = span.or(self.span);
        self
    }

    /// Sets the key path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets Kamal's class.
    #[must_use]
    pub fn class(mut self, class: ErrorClass) -> Self {
        self.class = class;
        self
    }
}

/// Problems told of one config, and warnings: nobody reads more, and each takes a look through its file.
pub const MAX_TOLD: usize = 200;

/// Problems (or warnings) with the files they stand in; never empty as an error.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// In Kamal's order.
    pub list: Vec<Diagnostic>,
    /// The files that spans refer to.
    pub sources: Sources,
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl Diagnostics {
    /// One problem.
    #[must_use]
    pub fn one(diagnostic: Diagnostic, sources: Sources) -> Self {
        Self { list: vec![diagnostic], sources }
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All problems with file, line, column, excerpt, caret and hint; ends with a newline.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        self.render_as("error", color)
    }

    /// The same as warnings.
    #[must_use]
    pub fn render_warnings(&self, color: bool) -> String {
        self.render_as("warning", color)
    }

    fn render_as(&self, word: &str, color: bool) -> String {
        let paint = Paint { color, accent: if word == "error" { "31" } else { "33" } };
        let mut out = String::new();
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            self.render_one(diagnostic, word, &paint, &mut out);
        }
        out
    }

    fn render_one(&self, diagnostic: &Diagnostic, word: &str, paint: &Paint, out: &mut String) {
        let message = printable(&diagnostic.message);
        let _ = writeln!(out, "{}: {}", paint.accent(word), bounded(&message));
        if let Some(place) = diagnostic.span.and_then(|span| self.sources.place(span)) {
            let number = place.line.to_string();
            let gutter = " ".repeat(number.len());
            let path = printable(&place.path);
            let _ = writeln!(out, "{gutter}--> {path}:{}:{}", place.line, place.column);
            let (excerpt, column) = shorten(&place.excerpt, place.column);
            let width = place.width.min(EXCERPT_WIDTH.saturating_sub(column - 1).max(1));
            let _ = writeln!(out, "{gutter} |");
            let _ = writeln!(out, "{number} | {excerpt}");
            let caret = paint.accent(&"^".repeat(width));
            let _ = writeln!(out, "{gutter} | {}{caret}", " ".repeat(column - 1));
        }
        if let Some(hint) = &diagnostic.hint {
            let _ = writeln!(out, "  = hint: {}", bounded(&printable(hint)));
        }
    }

    /// The first problem as Kamal prints it, on standard output, with its newline.
    #[must_use]
    pub fn kamal_error(&self, color: bool) -> String {
        let Some(first) = self.list.first() else { return String::new() };
        let message = first.kamal.as_ref().unwrap_or(&first.message);
        let text = format!("ERROR ({}): {message}", first.class.as_str());
        if color { format!("  \u{1b}[31m{text}\u{1b}[0m\n") } else { format!("  {text}\n") }
    }

    /// What Kamal's line leaves out, for standard error: all problems with their places and hints. Empty where
    /// there is no more to say.
    #[must_use]
    pub fn beside_kamal_error(&self, color: bool) -> String {
        let more = |problem: &Diagnostic| problem.span.is_some() || problem.hint.is_some();
        let says_more = self.list.len() > 1 || self.list.iter().any(more);
        if says_more { self.render(color) } else { String::new() }
    }

    /// All problems for programs: code, message, path, file, line, column, hint.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let list: Vec<serde_json::Value> = self
            .list
            .iter()
            .map(|diagnostic| {
                let place = diagnostic.span.and_then(|span| self.sources.place(span));
                json!({
                    "code": diagnostic.code.as_str(),
                    "message": diagnostic.message,
                    "path": diagnostic.path,
                    "file": place.as_ref().map(|place| &place.path),
                    "line": place.as_ref().map(|place| place.line),
                    "column": place.as_ref().map(|place| place.column),
                    "hint": diagnostic.hint,
                })
            })
            .collect();
        serde_json::Value::Array(list)
    }
}

/// An excerpt longer than this is cut around the column.
const EXCERPT_WIDTH: usize = 120;

/// A text longer than this, in characters, is cut: it repeats a value that no message needs whole.
const MESSAGE_WIDTH: usize = 1000;

/// The beginning and the end of a text.
fn bounded(text: &str) -> String {
    let length = text.chars().count();
    if length <= MESSAGE_WIDTH {
        return text.to_owned();
    }
    let (begin, end) = (MESSAGE_WIDTH / 2, length - MESSAGE_WIDTH / 4);
    let begin: String = text.chars().take(begin).collect();
    format!("{begin} … {}", text.chars().skip(end).collect::<String>())
}

/// A line for a terminal: cut around `column` (from 1), tabs and control characters made visible.
fn shorten(line: &str, column: usize) -> (String, usize) {
    let characters: Vec<char> =
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = if column > EXCERPT_WIDTH { column - EXCERPT_WIDTH / 2 } else { 0 };
    let end = characters.len().min(start + EXCERPT_WIDTH);
    let text: String = characters.get(start..end).unwrap_or(&[]).iter().collect();
    (text.trim_end().to_owned(), column - start)
}

/// Escapes control characters: what a file holds must not steer a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let keep = !c.is_control() || c == '\n';
            let escaped = if keep { String::from(c) } else { c.escape_default().to_string() };
            escaped.chars().collect::<Vec<char>>()
        })
        .collect()
}

struct Paint {
    color: bool,
    accent: &'static str,
}

impl Paint {
    fn accent(&self, text: &str) -> String {
        if self.color {
            format!("\u{1b}[1;{}m{text}\u{1b}[0m", self.accent)
        } else {
            text.to_owned()
        }
    }
}

/// The candidate nearest to `word`, when near enough to be a likely slip.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // An endless key is no slip, and the distance is quadratic.
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_problem_is_shown_where_it_stands() {
        let mut sources = Sources::default();
        let file = sources.add("config/deploy.yml".into(), "proxy:\n  app_prt: 3000\n".into());
        let problem = Diagnostic::new(Code::UnknownKey, "proxy: unknown key: app_prt")
            .at(Span { file, start: 9, end: 16 })
            .hint("did you mean `app_port`?");
        let problems = Diagnostics::one(problem, sources);
        expect![[r"
            error: proxy: unknown key: app_prt
             --> config/deploy.yml:2:3
              |
            2 |   app_prt: 3000
              |   ^^^^^^^
              = hint: did you mean `app_port`?
        "]]
        .assert_eq(&problems.render(false));
        assert_eq!(
            problems.kamal_error(true),
            "  \u{1b}[31mERROR (Kamal::ConfigurationError): proxy: unknown key: app_prt\u{1b}[0m\n"
        );
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("app_prt", ["host", "app_port"]), Some("app_port"));
        assert_eq!(nearest("imgae", ["image", "servers"]), Some("image"));
        assert_eq!(nearest("zzz", ["image", "ssh"]), None);
    }
}
