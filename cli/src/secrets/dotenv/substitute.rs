//! Backslashes, `$(command)` and `$NAME` in a value.

use secrecy::zeroize::Zeroizing;

use super::{Command, Failure, MAX_VALUE, Pairs, World};

/// Drops each backslash that does not stand before a `$`: `\\([^$])` becomes `\1`.
pub(super) fn unescape(value: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(value.len()));
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next)) if *next != '$' => {
                out.push(*next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// Replaces each `$(command)` by what the command prints, each `\$(…)` by `$(…)`. Parentheses in a
/// command nest; a backslash before one hides it; an empty pair makes the whole no command.
pub(super) fn commands(
    value: &str,
    pairs: &Pairs,
    world: &mut dyn World,
) -> Result<Zeroizing<String>, Failure> {
    if !value.contains("$(") {
        return Ok(Zeroizing::new(value.to_owned()));
    }
    let closing = closing_parentheses(value);
    let mut out = Zeroizing::new(String::with_capacity(value.len()));
    let mut rest_at = 0;
    for (dollar, _) in value.match_indices("$(") {
        if dollar < rest_at {
            continue; // inside a command that ran already
        }
        let Some(close) = closing[dollar + 1] else { continue };
        let escaped = value[rest_at..dollar].ends_with('\\');
        push(&mut out, &value[rest_at..dollar - usize::from(escaped)])?;
        rest_at = close + 1;
        if escaped {
            push(&mut out, &value[dollar..rest_at])?;
            continue;
        }
        let written = &value[dollar + 2..close];
        let expanded = variables(written, pairs, world)?;
        let command = Command { written, expanded: &expanded };
        let printed = world.command(&command).map_err(Failure::World)?;
        push(&mut out, &printed)?;
    }
    push(&mut out, &value[rest_at..])?;
    Ok(out)
}

/// For the position of each `(`, where its `)` is, if it has one and holds something.
///
/// One pass for all of them keeps `$($($(…` linear. That a backslash hides the character after it
/// does not depend on where one starts to read, as every start is a `(` behind a `$`.
fn closing_parentheses(value: &str) -> Vec<Option<usize>> {
    let bytes = value.as_bytes();
    let mut closing = vec![None; bytes.len()];
    let mut open = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            // A backslash at the end of a line hides nothing and fits nowhere in a command.
            b'\\' if matches!(bytes.get(at + 1), None | Some(b'\n')) => open.clear(),
            b'\\' => at += 1,
            b'(' => open.push(at),
            b')' => match open.pop() {
                Some(start) if start + 1 == at => open.clear(),
                Some(start) => closing[start] = Some(at),
                None => {}
            },
            _ => {}
        }
        at += 1;
    }
    closing
}

/// Replaces `$NAME` and `${NAME}`: an earlier name of the file, else a variable of the environment,
/// else nothing. `\$` becomes `$`. Braces need not balance: `$A}` loses its brace, as in dotenv.
pub(super) fn variables(
    value: &str,
    pairs: &Pairs,
    world: &dyn World,
) -> Result<Zeroizing<String>, Failure> {
    let mut out = Zeroizing::new(String::with_capacity(value.len()));
    let mut rest = value;
    while let Some(dollar) = rest.find('$') {
        let after = &rest[dollar + 1..];
        if after.starts_with('(') {
            push(&mut out, &rest[..=dollar])?;
            rest = after;
            continue;
        }
        let (name, end) = variable_name(after);
        let whole = &rest[dollar..dollar + 1 + end];
        if rest[..dollar].ends_with('\\') {
            push(&mut out, &rest[..dollar - 1])?;
            push(&mut out, whole)?;
        } else {
            push(&mut out, &rest[..dollar])?;
            match (name, pairs.get(name)) {
                ("", _) => push(&mut out, whole)?,
                (_, Some(known)) => push(&mut out, known)?,
                (_, None) => {
                    push(&mut out, &Zeroizing::new(world.variable(name).unwrap_or_default()))?;
                }
            }
        }
        rest = &rest[dollar + 1 + end..];
    }
    push(&mut out, rest)?;
    Ok(out)
}

/// The name after a `$` and the bytes it takes with its braces.
fn variable_name(after: &str) -> (&str, usize) {
    let open = usize::from(after.starts_with('{'));
    let inner = &after[open..];
    let length =
        inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let close = usize::from(inner[length..].starts_with('}'));
    (&inner[..length], open + length + close)
}

fn push(out: &mut Zeroizing<String>, text: &str) -> Result<(), Failure> {
    if out.len() + text.len() > MAX_VALUE {
        return Err(Failure::TooLong);
    }
    out.push_str(text);
    Ok(())
}
