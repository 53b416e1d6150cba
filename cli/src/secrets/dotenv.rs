//! Reads the text of a secrets file exactly as Kamal does: the grammar of the Ruby gem dotenv 3,
//! with Kamal's own command substitution.
//!
//! In: the text, the variables around it and somebody who runs commands ([`World`]). Out: names and
//! values in file order. Always true: time and memory are linear in the input and in what commands
//! print, whatever the text; a line that is no assignment is skipped without a word, as in dotenv.
//!
//! Nothing here reads a file or starts a program, so the room can be fuzzed and compiled alone.

mod line;
mod substitute;

use std::collections::HashMap;

use secrecy::{SecretString, zeroize::Zeroizing};

use line::Assignment;

/// Longest value a secret may have, in bytes. An env-file line or an environment variable of this
/// size is refused by Linux anyway (128 KiB each); the limit stops `B=$A$A` chains from doubling.
pub const MAX_VALUE: usize = 1024 * 1024;

/// Bytes that all values of one file may have together.
pub const MAX_TOTAL: usize = 16 * 1024 * 1024;

/// What a secrets file may ask of the world around it.
pub trait World {
    /// The variable `name` of the process environment, for `$NAME` that the file has not set.
    fn variable(&self, name: &str) -> Option<String>;

    /// What `$(command)` stands for, without the newline at its end.
    ///
    /// # Errors
    ///
    /// Whatever makes the file unusable: a deadline passed, output that is no text.
    fn command(&mut self, command: &Command<'_>) -> Result<Zeroizing<String>, WorldError>;
}

/// A `$(command)` of the file.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// As the file has it: the form for messages, as it holds no values.
    pub written: &'a str,
    /// With its variables replaced: the form to run.
    pub expanded: &'a str,
}

/// Why the world could not answer; its text names the command but never what it printed.
pub type WorldError = Box<dyn std::error::Error + Send + Sync>;

/// Why a secrets file cannot be used. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum DotenvError {
    /// The file is no text.
    #[error("line {line}: not valid UTF-8{}", if *.utf16 { " (it looks like UTF-16; save it as UTF-8)" } else { "" })]
    NotUtf8 {
        /// Where the first bad byte is.
        line: usize,
        /// Whether it begins with the byte order mark of UTF-16.
        utf16: bool,
    },
    /// `export NAME` of a name without a value; Kamal stops here as well.
    #[error("line {line}: Line \"export {name}\" has an unset variable")]
    UnsetExport {
        /// The line of the name.
        line: usize,
        /// The name.
        name: String,
    },
    /// A value grew beyond [`MAX_VALUE`], or all of them beyond [`MAX_TOTAL`].
    #[error("line {line}: the value of {name} is too long (more than {limit} bytes)")]
    TooLong {
        /// The line of the name.
        line: usize,
        /// The name.
        name: String,
        /// The limit that was passed, in bytes.
        limit: usize,
    },
    /// A command could not be carried out.
    #[error("line {line}: {name}")]
    Command {
        /// The line of the name whose value has the command.
        line: usize,
        /// The name.
        name: String,
        /// What went wrong.
        #[source]
        source: WorldError,
    },
}

/// The names and values of one file, each name once, at the place where it was first set.
#[derive(Default)]
pub struct Pairs {
    values: Vec<(String, Zeroizing<String>)>,
    index: HashMap<String, usize>,
    bytes: usize,
}

impl Pairs {
    /// The value of `name`.
    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|at| self.values[*at].1.as_str())
    }

    fn set(&mut self, name: &str, value: Zeroizing<String>) {
        self.bytes += value.len();
        if let Some(at) = self.index.get(name) {
            let old = std::mem::replace(&mut self.values[*at].1, value);
            self.bytes -= old.len();
            return;
        }
        self.index.insert(name.to_owned(), self.values.len());
        self.values.push((name.to_owned(), value));
    }

    /// Names and values in file order.
    pub fn into_values(self) -> impl Iterator<Item = (String, SecretString)> {
        self.values.into_iter().map(|(name, value)| (name, SecretString::from(value.as_str())))
    }
}

/// Turns the bytes of a file into text: a byte order mark is dropped.
///
/// # Errors
///
/// [`DotenvError::NotUtf8`] with the line of the first bad byte.
pub fn decode(bytes: &[u8]) -> Result<&str, DotenvError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|bad| DotenvError::NotUtf8 {
        line: 1 + bytes[..bad.valid_up_to()].iter().filter(|byte| **byte == b'\n').count(),
        utf16: bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff"),
    })
}

/// Reads the assignments of `text` one after another, running each command once, in order.
///
/// # Errors
///
/// [`DotenvError`]; the first one ends the reading, as in Kamal.
pub fn parse(text: &str, world: &mut dyn World) -> Result<Pairs, DotenvError> {
    // One form of line break, as the grammar knows only one.
    let text = Zeroizing::new(text.replace("\r\n", "\n").replace('\r', "\n"));
    let mut pairs = Pairs::default();
    for assignment in line::assignments(&text) {
        let line = || 1 + text[..assignment.name_at].matches('\n').count();
        let name = assignment.name;
        if assignment.export && assignment.value.is_none() {
            if pairs.get(name).is_none() {
                return Err(DotenvError::UnsetExport { line: line(), name: name.to_owned() });
            }
            continue;
        }
        let value = value_of(&assignment, &pairs, world).map_err(|failure| match failure {
            Failure::TooLong => {
                DotenvError::TooLong { line: line(), name: name.to_owned(), limit: MAX_VALUE }
            }
            Failure::World(source) => {
                DotenvError::Command { line: line(), name: name.to_owned(), source }
            }
        })?;
        pairs.set(name, value);
        if pairs.bytes > MAX_TOTAL {
            return Err(DotenvError::TooLong {
                line: line(),
                name: name.to_owned(),
                limit: MAX_TOTAL,
            });
        }
    }
    Ok(pairs)
}

/// Why one value could not be made.
enum Failure {
    TooLong,
    World(WorldError),
}

/// The steps of dotenv, in its order: quotes off, line breaks, backslashes, commands, variables.
///
/// Variables come last, so a `$word` that a command printed is replaced too. That damages secrets
/// with a `$` in them, but it is how the same file reads in Kamal.
fn value_of(
    assignment: &Assignment<'_>,
    pairs: &Pairs,
    world: &mut dyn World,
) -> Result<Zeroizing<String>, Failure> {
    // Ruby's `strip` counts NUL as white space.
    let raw = assignment.value.unwrap_or_default().trim_matches(|c| is_space(c) || c == '\0');
    let (quote, inner) = unquote(raw);
    if quote == Some('\'') {
        return Ok(Zeroizing::new(inner.to_owned()));
    }
    let mut value = Zeroizing::new(inner.to_owned());
    if quote == Some('"') {
        value = expand_line_breaks(&value, pairs, world);
    }
    let value = substitute::unescape(&value);
    let value = substitute::commands(&value, pairs, world)?;
    substitute::variables(&value, pairs, world)
}

/// White space of Ruby's `\s` and `strip`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Takes a pair of equal quotes off, whatever lies between them.
fn unquote(raw: &str) -> (Option<char>, &str) {
    for quote in ['\'', '"'] {
        if let Some(inner) = raw.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return (Some(quote), inner);
        }
    }
    (None, raw)
}

/// `\n` stays two characters, unless the file or the environment asks for the ways of dotenv 2.
fn expand_line_breaks(value: &str, pairs: &Pairs, world: &dyn World) -> Zeroizing<String> {
    const MODE: &str = "DOTENV_LINEBREAK_MODE";
    let mode = pairs.get(MODE).map(str::to_owned).or_else(|| world.variable(MODE));
    let expanded = match mode.as_deref() {
        Some("legacy") => value.replace("\\n", "\n").replace("\\r", "\r"),
        // One more backslash, which the unescaping that follows takes off again.
        Some(_) | None => value.replace("\\n", "\\\\n").replace("\\r", "\\\\r"),
    };
    Zeroizing::new(expanded)
}

#[cfg(test)]
mod tests;
