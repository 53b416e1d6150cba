//! One table of Psych's rules: what a plain scalar is for Ruby.
//!
//! The order of the tests is that of Psych's scalar scanner; it decides cases such as `1:30`
//! (an integer in base 60), `1_000`, `014` (octal) and `0o14` (text).

use super::node::Value;
use regex::Regex;
use std::sync::LazyLock;

/// The patterns; each is compiled on first use.
struct Patterns {
    word: Regex,
    time: Regex,
    date: Regex,
    base60: Regex,
    base60_float: Regex,
    float: Regex,
    integer: Regex,
}

#[expect(clippy::unwrap_used, reason = "the patterns are constants, compiled by every test run")]
static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    Patterns {
    // Ruby's `\s` is ASCII, `^` and `$` match at every line.
    word: Regex::new(r"(?m)^[^0-9.:\-]?[\p{Alphabetic}_ \t\r\n\f\x0b!@#$%\^&*(){}<>|/\\~;=]+")
        .unwrap(),
    time: Regex::new(
        r"(?m)^-?[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t\r\n\f\x0b]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t\r\n\f\x0b]*(?:Z|[-+][0-9]{1,2}:?(?:[0-9]{2})?))?$",
    )
    .unwrap(),
    date: Regex::new(r"(?m)^[0-9]{4}-(?:1[012]|0[0-9]|[0-9])-(?:[12][0-9]|3[01]|0[0-9]|[0-9])$")
        .unwrap(),
    base60: Regex::new(r"(?m)^[-+]?[0-9][0-9_]*(:[0-5]?[0-9]){1,2}$").unwrap(),
    base60_float: Regex::new(r"(?m)^[-+]?[0-9][0-9_]*(:[0-5]?[0-9]){1,2}\.[0-9_]*$").unwrap(),
    float: Regex::new(r"(?m)^(?:[-+]?([0-9][0-9_,]*)?\.[0-9]*([eE][+-][0-9]+)?)$").unwrap(),
    integer: Regex::new(
        r"(?m)^(?:[-+]?0b[_,]*[01][01_,]*|[-+]?0[_,]*[0-7][0-7_,]*|[-+]?(?:0|[1-9](?:[0-9]|,[0-9]|_[0-9])*)|[-+]?0x[_,]*[0-9a-fA-F][0-9a-fA-F_,]*)$",
    )
    .unwrap(),
}
});

/// Resolves a plain scalar.
#[must_use]
pub fn resolve(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    let patterns = &*PATTERNS;
    if patterns.word.is_match(text) {
        return word(text);
    }
    if patterns.time.is_match(text) {
        return time(text);
    }
    if patterns.date.is_match(text) {
        return date(text);
    }
    match text.to_ascii_lowercase().as_str() {
        ".inf" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" => return Value::Float(f64::NAN),
        _ => {}
    }
    if text.len() > 1 && text.starts_with(':') && !text[1..].starts_with('\n') {
        return Value::Symbol(symbol(text));
    }
    if patterns.base60.is_match(text) {
        return base60(text);
    }
    if patterns.base60_float.is_match(text) {
        return base60_float(text);
    }
    if patterns.float.is_match(text) {
        return float(text);
    }
    if patterns.integer.is_match(text) {
        return integer(text).map_or_else(|| Value::String(text.into()), Value::Int);
    }
    Value::String(text.into())
}

/// Why a plain scalar is likely to surprise its author; `None` for the usual cases.
///
/// `value` is what [`resolve`] gave for `text`.
#[must_use]
pub fn surprise(text: &str, value: &Value) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    match value {
        Value::Bool(is) if matches!(lower.as_str(), "yes" | "no" | "on" | "off") => {
            Some(format!("`{text}` is read as the boolean {is}; quote it to keep the text"))
        }
        Value::Int(number) => {
            let digits = text.trim_start_matches(['-', '+']);
            if digits.contains(':') {
                return Some(format!(
                    "`{text}` is read as {number} (base 60); quote it to keep the text"
                ));
            }
            let octal = digits.len() > 1
                && digits.starts_with('0')
                && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
            octal.then(|| {
                format!("`{text}` is read as octal, that is {number}; quote it to keep the text")
            })
        }
        Value::Float(number) if text.contains(':') => Some(format!(
            "`{text}` is read as the number {number} (base 60); quote it to keep the text"
        )),
        Value::Date(_) | Value::Time(_) => {
            Some(format!("`{text}` is read as a date; quote it to keep the text"))
        }
        _ => None,
    }
}

fn word(text: &str) -> Value {
    // Psych looks at the first letter to save work; the outcome is the same without.
    if text.chars().count() > 5 {
        return Value::String(text.into());
    }
    match text.to_ascii_lowercase().as_str() {
        "~" | "null" => Value::Null,
        "yes" | "true" | "on" => Value::Bool(true),
        "no" | "false" | "off" => Value::Bool(false),
        _ => Value::String(text.into()),
    }
}

fn symbol(text: &str) -> String {
    let rest = &text[1..];
    for quote in ['"', '\''] {
        if let Some(inner) = rest.strip_prefix(quote)
            && let Some(end) = inner.rfind(['"', '\''])
        {
            let inner = &inner[..end];
            return inner.strip_prefix(':').unwrap_or(inner).to_owned();
        }
    }
    rest.to_owned()
}

fn date(text: &str) -> Value {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<i16>().unwrap_or(0));
    let (year, month, day) =
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let valid = i8::try_from(month)
        .ok()
        .zip(i8::try_from(day).ok())
        .is_some_and(|(month, day)| jiff::civil::Date::new(year, month, day).is_ok());
    if valid { Value::Date(text.into()) } else { Value::String(text.into()) }
}

fn time(text: &str) -> Value {
    let digits: Vec<u32> = text
        .trim_start_matches('-')
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().unwrap_or(0))
        .collect();
    let valid = matches!(digits.as_slice(), [_, 1..=12, 1..=31, 0..=24, 0..=59, 0..=60, ..]);
    if valid { Value::Time(text.into()) } else { Value::String(text.into()) }
}

/// Ruby's `String#to_i`: leading digits with single underscores, else 0.
fn leading_int(text: &str) -> i128 {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let mut number: i128 = 0;
    let mut last_underscore = true;
    for byte in digits.bytes() {
        match byte {
            b'0'..=b'9' => {
                number = number.saturating_mul(10).saturating_add(i128::from(byte - b'0'));
                last_underscore = false;
            }
            b'_' if !last_underscore => last_underscore = true,
            _ => break,
        }
    }
    sign * number
}

fn base60(text: &str) -> Value {
    // `h:m` counts as hours and minutes, as in Psych: the exponents are 2, 1, 0.
    let mut total: i128 = 0;
    for (index, part) in text.split(':').enumerate() {
        let weight: i128 = [3600, 60, 1].get(index).copied().unwrap_or(60);
        total = total.saturating_add(leading_int(part).saturating_mul(weight));
    }
    Value::Int(total)
}

fn base60_float(text: &str) -> Value {
    let mut total = 0.0;
    for (index, part) in text.split(':').enumerate() {
        let weight = [3600.0, 60.0, 1.0].get(index).copied().unwrap_or(60.0);
        total += part.replace('_', "").trim_end_matches('.').parse::<f64>().unwrap_or(0.0) * weight;
    }
    Value::Float(total)
}

fn float(text: &str) -> Value {
    if matches!(text, "." | "-." | "+.") {
        return Value::String(text.into());
    }
    let cleaned: String = text.chars().filter(|c| !matches!(c, ',' | '_')).collect();
    match cleaned.parse::<f64>() {
        Ok(number) => Value::Float(number),
        Err(_) => Value::String(text.into()),
    }
}

fn integer(text: &str) -> Option<i128> {
    let cleaned: String = text.chars().filter(|c| !matches!(c, ',' | '_')).collect();
    let (negative, digits) = match cleaned.as_bytes().first() {
        Some(b'-') => (true, &cleaned[1..]),
        Some(b'+') => (false, &cleaned[1..]),
        _ => (false, cleaned.as_str()),
    };
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        i128::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse()
    }
    .ok()?;
    Some(if negative { -magnitude } else { magnitude })
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
            ("2024-01-31 10:00:00", Value::Time("2024-01-31 10:00:00".into())),
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
