//! One table of Psych's rules: what a plain scalar is for Ruby.
//!
//! The order of the tests is that of Psych's scalar scanner; it decides cases such as `1:30`
//! (an integer in base 60), `1_000`, `014` (octal) and `0o14` (text).

mod number;
mod timestamp;

use super::node::Value;

/// Resolves a plain scalar.
#[must_use]
pub fn resolve(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    if text.contains('\n') || looks_like_word(text) {
        return word(text);
    }
    if let Some(value) = timestamp::time(text).or_else(|| timestamp::date(text)) {
        return value;
    }
    match text.to_ascii_lowercase().as_str() {
        ".inf" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" => return Value::Float(f64::NAN),
        _ => {}
    }
    if text.len() > 1 && text.starts_with(':') {
        return Value::Symbol(symbol(text));
    }
    number::number(text).unwrap_or_else(|| Value::String(text.into()))
}

/// Whether Psych takes the text for a word at first sight: a letter or punctuation that begins no
/// number, at the first place or behind one character.
fn looks_like_word(text: &str) -> bool {
    let is_word = |c: char| {
        c.is_alphabetic()
            || matches!(c, ' ' | '\t' | '\r' | '\x0c' | '\x0b' | '_' | '!' | '@' | '#' | '$' | '%')
            || matches!(c, '^' | '&' | '*' | '(' | ')' | '{' | '}' | '<' | '>' | '|' | '/' | '\\')
            || matches!(c, '~' | ';' | '=')
    };
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return false };
    let begins_number = first.is_ascii_digit() || matches!(first, '.' | ':' | '-');
    is_word(first) || (!begins_number && characters.next().is_some_and(is_word))
}

/// Why a plain scalar is likely to surprise its author; `None` for the usual cases.
///
/// `value` is what [`resolve`] gave for `text`.
#[must_use]
pub fn surprise(text: &str, value: &Value, shown: bool) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let reading = match value {
        Value::Bool(is) if matches!(lower.as_str(), "yes" | "no" | "on" | "off") => {
            format!("the boolean {is}")
        }
        Value::Int(number) => {
            let digits = text.trim_start_matches(['-', '+']);
            let octal = digits.len() > 1
                && digits.starts_with('0')
                && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
            match (digits.contains(':'), octal) {
                (true, _) if shown => format!("{number} (base 60)"),
                (true, _) => "a number (base 60)".into(),
                (false, true) if shown => format!("octal, that is {number}"),
                (false, true) => "octal".into(),
                (false, false) => return None,
            }
        }
        Value::Float(number) if text.contains(':') && shown => {
            format!("the number {number} (base 60)")
        }
        Value::Float(_) if text.contains(':') => "a number (base 60)".into(),
        Value::Date(_) | Value::Time(_) => "a date".into(),
        _ => return None,
    };
    let what = if shown { format!("`{text}`") } else { "this value".into() };
    Some(format!("{what} is read as {reading}; quote it to keep the text"))
}

fn word(text: &str) -> Value {
    if text.chars().count() > 5 {
        return Value::String(text.into());
    }
    // Ruby's `^` and `$` match at every line; only with a line break does that make a difference.
    let lines: Vec<&str> = text.split('\n').collect();
    let foreign = |line: &str| {
        line.chars().next().is_some_and(|c| !"ytonf~".contains(c.to_ascii_lowercase()))
    };
    let broken = lines[..lines.len() - 1].iter().any(|line| line.is_empty());
    if broken || lines.iter().any(|line| foreign(line)) {
        return Value::String(text.into());
    }
    let any = |words: &[&str]| {
        lines.iter().any(|line| words.iter().any(|word| line.eq_ignore_ascii_case(word)))
    };
    if text == "~" || any(&["null"]) {
        Value::Null
    } else if any(&["yes", "true", "on"]) {
        Value::Bool(true)
    } else if any(&["no", "false", "off"]) {
        Value::Bool(false)
    } else {
        Value::String(text.into())
    }
}

fn symbol(text: &str) -> String {
    let rest = &text[1..];
    for quote in ['"', '\''] {
        if let Some(inner) = rest.strip_prefix(quote)
            && let Some(end) = inner.rfind(quote)
        {
            let inner = &inner[..end];
            return inner.strip_prefix(':').unwrap_or(inner).to_owned();
        }
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_get_the_types_psych_gives_them() {
        let text = |text: &str| Value::String(text.into());
        for (input, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("null", Value::Null),
            ("Null", Value::Null),
            ("yes", Value::Bool(true)),
            ("On", Value::Bool(true)),
            ("off", Value::Bool(false)),
            ("y", text("y")),
            ("n", text("n")),
            ("014", Value::Int(12)),
            ("0o14", text("0o14")),
            ("0x1F", Value::Int(31)),
            ("0b101", Value::Int(5)),
            ("1_000", Value::Int(1000)),
            ("1,000", Value::Int(1000)),
            ("089", text("089")),
            ("12:30:45", Value::Int(45045)),
            ("1:30", Value::Int(5400)),
            ("1e3", text("1e3")),
            ("1.0e+3", Value::Float(1000.0)),
            ("1.5", Value::Float(1.5)),
            (".5", Value::Float(0.5)),
            (".", text(".")),
            (".inf", Value::Float(f64::INFINITY)),
            ("1.2.3", text("1.2.3")),
            ("10.0.0.1", text("10.0.0.1")),
            (":verbose", Value::Symbol("verbose".into())),
            (":\"a b\"", Value::Symbol("a b".into())),
            ("2024-01-31", Value::Date("2024-01-31".into())),
            ("2024-02-31", text("2024-02-31")),
            ("2024-1-5", Value::Date("2024-01-05".into())),
            ("2024-01-31 10:00:00", Value::Time("2024-01-31 10:00:00.000000000 +00:00".into())),
            ("2024-1-1t1:00:00.5Z", Value::Time("2024-01-01 01:00:00.500000000 Z".into())),
            (
                "2024-01-31 10:00:00 -530",
                Value::Time("2024-01-31 10:00:00.000000000 -05:30".into()),
            ),
            ("2024-01-31 25:00:00", text("2024-01-31 25:00:00")),
            ("true\n", Value::Bool(true)),
            ("1\n", text("1\n")),
            ("0_7", Value::Int(7)),
            ("0_", text("0_")),
            ("1,,0", text("1,,0")),
            ("1_", text("1_")),
            ("1:60", text("1:60")),
            ("1:30.5", Value::Float(5430.0)),
            ("1.e+3", Value::Float(1000.0)),
            ("0b", text("0b")),
            (":'a:b'c", Value::Symbol("a:b".into())),
            ("30s", text("30s")),
            ("512m", text("512m")),
            ("127.0.0.1:3306:3306", text("127.0.0.1:3306:3306")),
            ("3306:3306", text("3306:3306")),
            ("-1", Value::Int(-1)),
            ("+5", Value::Int(5)),
            ("<<", text("<<")),
        ] {
            assert_eq!(resolve(input), value, "{input}");
        }
    }
}
