//! A line of `strace -f -y -xx` as a system call.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// A call that began or ended; a short one does both in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It began, and may take effect from now on. What is synced by it was written before.
    Began(Call),
    /// It returned this, with the number of the process that made it.
    Ended(Call),
}

/// A system call with its arguments as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) process: u32,
    pub(super) name: String,
    pub(super) args: Vec<String>,
    /// None while it has not returned.
    pub(super) result: Option<String>,
}

impl Call {
    /// What it returned as a number; below zero for a failure.
    pub(super) fn returned(&self) -> i64 {
        let text = self.result.as_deref().unwrap_or("-1");
        let digits = text.split(['<', ' ']).next().unwrap_or(text);
        digits.parse().unwrap_or(-1)
    }

    /// A number among the arguments.
    pub(super) fn number(&self, index: usize) -> Result<u64> {
        let text = self.args.get(index).map_or("", String::as_str);
        text.parse().with_context(|| format!("no number: {self:?}"))
    }

    /// The bytes of a string among the arguments.
    pub(super) fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let text = self.args.get(index).map_or("", String::as_str);
        quoted(text).with_context(|| format!("no whole string at {index}: {}", self.name))
    }

    /// The bytes of all pieces of a `writev`.
    pub(super) fn pieces(&self, index: usize) -> Result<Vec<u8>> {
        let text = self.args.get(index).map_or("", String::as_str);
        let pieces = text.split("iov_base=").skip(1);
        pieces
            .map(|piece| piece.split(", iov_len=").next().and_then(quoted))
            .collect::<Option<Vec<_>>>()
            .map(|pieces| pieces.concat())
            .with_context(|| format!("no whole pieces: {}", self.name))
    }

    /// Descriptor and path of an argument as `7<\x2f…>`; none where it is none, as for a path that is no file.
    pub(super) fn descriptor(&self, index: usize) -> Option<(i64, PathBuf)> {
        descriptor(self.args.get(index)?)
    }

    /// Descriptor and path of what it returned.
    pub(super) fn returned_descriptor(&self) -> Option<(i64, PathBuf)> {
        descriptor(self.result.as_deref()?)
    }

    /// An absolute path among the arguments; of `…at` calls with the folder in front.
    pub(super) fn path(&self, index: usize) -> Result<PathBuf> {
        let path = PathBuf::from(os_string(self.bytes(index)?));
        let folder = index.checked_sub(1).and_then(|before| descriptor(self.args.get(before)?));
        match folder {
            _ if path.is_absolute() => Ok(path),
            Some((_, folder)) => Ok(folder.join(path)),
            None => bail!("a relative path: {self:?}"),
        }
    }

    /// Whether an argument has a flag.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.args.iter().any(|arg| arg.split('|').any(|word| word == flag))
    }
}

fn os_string(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

fn descriptor(text: &str) -> Option<(i64, PathBuf)> {
    let (number, rest) = text.split_once('<')?;
    let path = unescaped(rest.split_once('>')?.0)?;
    // The working folder, which `…at` calls are relative to.
    let number = if number == "AT_FDCWD" { -100 } else { number.parse().ok()? };
    Some((number, PathBuf::from(os_string(path))))
}

/// `"\x2f…"`; none where it was cut short.
fn quoted(text: &str) -> Option<Vec<u8>> {
    unescaped(text.trim().strip_prefix('"')?.strip_suffix('"')?)
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<&str> = text.split("\\x").collect();
    let (first, bytes) = digits.split_first()?;
    let one = |digits: &&str| (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?;
    if first.is_empty() { bytes.iter().map(one).collect() } else { None }
}

/// Puts together what the tracer had to write in two parts, as another thread's call came between.
#[derive(Debug, Default)]
pub(super) struct Record {
    unfinished: BTreeMap<u32, String>,
}

impl Record {
    /// What a line tells; none for signals, exits and the last line where it was cut.
    pub(super) fn line(&mut self, line: &str) -> Result<Option<Event>> {
        let Some((process, rest)) = line.split_once(' ') else { return Ok(None) };
        let Ok(process) = process.parse::<u32>() else { return Ok(None) };
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            return Ok(None);
        }
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            self.unfinished.insert(process, begun.to_owned());
            return Ok(parse(process, begun).map(Event::Began));
        }
        let whole = match rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, after)) => {
                let Some(begun) = self.unfinished.remove(&process) else { return Ok(None) };
                format!("{begun}{after}")
            }
            None => rest.to_owned(),
        };
        let Some(call) = parse(process, &whole) else { return Ok(None) };
        if call.result.is_none() {
            return Ok(None);
        }
        Ok(Some(Event::Ended(call)))
    }
}

/// `name(arg, arg) = result`, or the beginning of it.
fn parse(process: u32, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (args, result) = match rest.rsplit_once(") = ") {
        Some((args, result)) => (args, Some(result.trim().to_owned())),
        // Aligned to a column where the call is short.
        None => match rest.rsplit_once(" = ") {
            Some((args, result)) if args.trim_end().ends_with(')') => {
                (args.trim_end().trim_end_matches(')'), Some(result.trim().to_owned()))
            }
            _ => (rest, None),
        },
    };
    Some(Call { process, name: name.to_owned(), args: split(args), result })
}

/// Arguments, at the commas that are in no brackets. Strings are hexadecimal and have none.
fn split(text: &str) -> Vec<String> {
    let mut args = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                args.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = args.last_mut() {
            last.push(c);
        }
    }
    args.iter().map(|arg| arg.trim().to_owned()).collect()
}
