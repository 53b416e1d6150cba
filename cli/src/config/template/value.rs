//! Values of a template, and the methods of them that dhow knows; each answers as Ruby's does.

use super::syntax::{Expr, Problem};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    pub(super) fn truthy(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    /// Ruby's `to_s`. A list comes out as Ruby inspects it, which happens to be YAML.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::inspect).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let held = match self {
            Self::Nil | Self::Bool(_) | Self::Int(_) => 0,
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(Self::size).sum(),
        };
        size_of::<Self>() + held
    }

    fn inspect(&self) -> String {
        match self {
            Self::Nil => "nil".into(),
            Self::Text(text) => inspected(text),
            Self::Bool(_) | Self::Int(_) | Self::List(_) => self.to_text(),
        }
    }

    fn blank(&self) -> bool {
        match self {
            Self::Nil | Self::Bool(false) => true,
            Self::Text(text) => text.trim().is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Bool(true) | Self::Int(_) => false,
        }
    }
}

/// A text as Ruby writes it in a list.
fn inspected(text: &str) -> String {
    let mut out = String::from("\"");
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '#' if matches!(rest.peek(), Some('{' | '$' | '@')) => out.push_str("\\#"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The item of a list; counted from the end where `at` is negative.
pub(super) fn item(items: &[Value], at: i64) -> Value {
    let index = if at < 0 { items.len() as i64 + at } else { at };
    usize::try_from(index).ok().and_then(|at| items.get(at)).cloned().unwrap_or(Value::Nil)
}

/// The value of `of.method(arguments)`; `expr` is where that stands.
pub(super) fn method_call(
    expr: &Expr,
    of: Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Problem> {
    let value = match (&of, method, arguments) {
        (_, "to_s", []) => Value::Text(of.to_text()),
        (_, "presence", []) => {
            if of.blank() {
                Value::Nil
            } else {
                of
            }
        }
        (_, "present?", []) => Value::Bool(!of.blank()),
        (_, "blank?", []) => Value::Bool(of.blank()),
        (_, "nil?", []) => Value::Bool(of == Value::Nil),
        (Value::Text(text), "empty?", []) => Value::Bool(text.is_empty()),
        (Value::List(items), "empty?", []) => Value::Bool(items.is_empty()),
        (Value::Nil, "to_i", []) => Value::Int(0),
        (Value::Int(_), "to_i", []) => of,
        (Value::Text(text), "to_i", []) => Value::Int(
            leading_int(text).ok_or_else(|| Problem::of(expr, "the number is too large"))?,
        ),
        (Value::Nil, "to_a", []) => Value::List(Vec::new()),
        (Value::Text(text), _, _) => return text_method(expr, text, method, arguments),
        (Value::List(items), "join", []) => Value::Text(join(items, "")),
        (Value::List(items), "join", [Value::Text(between)]) => Value::Text(join(items, between)),
        (Value::List(items), "first", []) => item(items, 0),
        (Value::List(items), "last", []) => item(items, -1),
        (Value::List(items), "include?", [wanted]) => Value::Bool(items.contains(wanted)),
        (Value::Nil, _, _) => {
            let mut problem = Problem::of(expr, format!("`.{method}` of nothing (nil)"));
            problem.hint = Some(
                "is an environment variable not set? give a default: `ENV.fetch(\"X\", \"…\")`"
                    .into(),
            );
            return Err(problem);
        }
        _ => return Err(Problem::ruby(expr, &format!(".{method}"))),
    };
    Ok(value)
}

fn text_method(
    expr: &Expr,
    text: &str,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Problem> {
    let result = match (method, arguments) {
        // Not the white space of Unicode, as Ruby has it.
        ("strip", []) => text.trim_matches(|c| c == '\0' || is_space(c)).to_owned(),
        ("chomp", []) => {
            let cut = text.strip_suffix('\n').unwrap_or(text);
            cut.strip_suffix('\r').unwrap_or(cut).to_owned()
        }
        ("upcase", []) => text.to_uppercase(),
        // Each character by itself: Ruby knows no sigma at the end of a word.
        ("downcase", []) => text.chars().flat_map(char::to_lowercase).collect(),
        ("split", []) => return Ok(split(text, " ")),
        ("split", [Value::Text(separator)]) if !separator.is_empty() => {
            return Ok(split(text, separator));
        }
        ("start_with?", [Value::Text(prefix)]) => {
            return Ok(Value::Bool(text.starts_with(prefix.as_str())));
        }
        ("end_with?", [Value::Text(suffix)]) => {
            return Ok(Value::Bool(text.ends_with(suffix.as_str())));
        }
        ("include?", [Value::Text(part)]) => return Ok(Value::Bool(text.contains(part.as_str()))),
        _ => return Err(Problem::ruby(expr, &format!(".{method}"))),
    };
    Ok(Value::Text(result))
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Ruby's `split`: empty parts at the end are dropped; a single space splits at any white space.
fn split(text: &str, separator: &str) -> Value {
    let mut parts: Vec<&str> = if separator == " " {
        text.split(is_space).filter(|part| !part.is_empty()).collect()
    } else {
        text.split(separator).collect()
    };
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    Value::List(parts.into_iter().map(|part| Value::Text(part.to_owned())).collect())
}

/// Ruby's `join`: a list within the list is joined likewise.
fn join(items: &[Value], between: &str) -> String {
    let text = |item: &Value| match item {
        Value::List(items) => join(items, between),
        other => other.to_text(),
    };
    let texts: Vec<String> = items.iter().map(text).collect();
    texts.join(between)
}

/// Ruby's `to_i`: what is no digit ends the number, but for one `_` between two digits.
fn leading_int(text: &str) -> Option<i64> {
    let text = text.trim_start_matches(is_space);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (mut number, mut before) = (0_i64, '_');
    for c in digits.chars() {
        match c.to_digit(10) {
            Some(digit) => number = number.checked_mul(10)?.checked_add(sign * i64::from(digit))?,
            None if c == '_' && before != '_' => {}
            None => break,
        }
        before = c;
    }
    Some(number)
}
