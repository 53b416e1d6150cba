//! Checks the merged tree against the schema, in Kamal's order and with Kamal's words.
//!
//! In: the tree. Out: all problems; the first is the one Kamal reports. Where a value has the
//! wrong type, nothing below it is looked at, as there would be nothing to say but noise.

mod cross;
pub(crate) mod sections;
mod shape;

use std::collections::HashSet;

use super::diagnostic::{Code, Diagnostic, ErrorClass, MAX_TOLD, nearest};
use super::schema::{ROOT, Section, legacy_hint};
use super::yaml::{Map, Node, Span};

pub(crate) use cross::cross_check;
pub(crate) use sections::validate;

/// Collects problems while it knows the key path.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    problems: Vec<Diagnostic>,
    /// Takes the place of problems beyond the limit.
    beyond: Option<Diagnostic>,
    path: Vec<String>,
    /// Plain scalars that are read as the schema wants them: no surprise there.
    expected: HashSet<Span>,
}

impl Checker {
    /// The problems in order, and the places where a surprising reading is the wanted one.
    pub(crate) fn finish(self) -> (Vec<Diagnostic>, HashSet<Span>) {
        (self.problems, self.expected)
    }

    fn context(&self) -> String {
        self.path.join("/")
    }

    /// Runs `body` one level deeper. Kamal leaves empty names out of the context.
    fn within<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_owned());
        let result = body(self);
        self.path.pop();
        result
    }

    /// Runs `body` at another path, as Kamal does where it validates a section by itself.
    fn rooted<T>(&mut self, path: &[&str], body: impl FnOnce(&mut Self) -> T) -> T {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        let before = std::mem::replace(&mut self.path, path);
        let result = body(self);
        self.path = before;
        result
    }

    /// Reports `cause` in the present context.
    fn report(&mut self, code: Code, cause: &str, span: Option<Span>) -> &mut Diagnostic {
        let context = self.context();
        let message = if context.is_empty() { cause.into() } else { format!("{context}: {cause}") };
        self.push(Diagnostic::new(code, message).at_maybe(span).path(context))
    }

    /// Adds a problem unless the very same was reported before (Kamal checks some values twice).
    fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        let index = self
            .problems
            .iter()
            .position(|known| known.message == diagnostic.message && known.span == diagnostic.span);
        match index {
            Some(index) => &mut self.problems[index],
            None if self.problems.len() >= MAX_TOLD => self.beyond.insert(diagnostic),
            None => {
                self.problems.push(diagnostic);
                let last = self.problems.len() - 1;
                &mut self.problems[last]
            }
        }
    }

    /// Reports a wrong type; `types` as Kamal lists them, `a string or a hash`.
    fn wrong_type(&mut self, types: &str, node: &Node) {
        let hint = if node.is_null() {
            Some(
                "an empty key is not the same as no key: leave it out or give it a value"
                    .to_owned(),
            )
        } else {
            type_hint(types, node)
        };
        let problem = self.report(Code::WrongType, &format!("should be {types}"), Some(node.span));
        problem.hint = hint;
    }

    /// Kamal names all unknown keys of a map in one message; here each has its own, with its place.
    fn unknown_keys(&mut self, map: &Map, section: &Section, extensions: bool) {
        let known = |key: &Node| match &key.value {
            super::yaml::Value::String(name) => section.key(name).is_some(),
            // The root's keys are turned into symbols by Kamal, so `:service` is `service` there.
            super::yaml::Value::Symbol(name) => extensions && section.key(name).is_some(),
            _ => false,
        };
        let unknown: Vec<&Node> = map
            .entries
            .iter()
            .map(|entry| &entry.key)
            .filter(|key| !known(key))
            .filter(|key| !(extensions && key.to_text().starts_with("x-")))
            .collect();
        let names: Vec<String> = unknown.iter().map(|key| key.to_text()).collect();
        let context = self.context();
        for (index, (key, name)) in unknown.iter().zip(&names).enumerate().take(MAX_TOLD) {
            let is_legacy = legacy_hint(&context, name).is_some();
            let code = if is_legacy { Code::LegacyKey } else { Code::UnknownKey };
            let hint = unknown_hint(&context, name, section);
            let problem = self.report(code, &format!("unknown key: {name}"), Some(key.span));
            problem.hint = hint;
            if index == 0 && names.len() > 1 {
                let all = format!("unknown keys: {}", names.join(", "));
                let all = if context.is_empty() { all } else { format!("{context}: {all}") };
                problem.kamal = Some(all);
            }
        }
    }
}

fn unknown_hint(context: &str, name: &str, section: &Section) -> Option<String> {
    if let Some(hint) = legacy_hint(context, name) {
        return Some(hint.to_owned());
    }
    if let Some(near) = nearest(name, section.keys.iter().map(|key| key.name)) {
        return Some(format!("did you mean `{near}`?"));
    }
    if name.starts_with("x-") {
        return Some("`x-` keys are allowed at the root only".into());
    }
    if !context.is_empty() && ROOT.key(name).is_some() {
        return Some(format!("`{name}` is a key of the root: is it indented too far?"));
    }
    None
}

fn type_hint(types: &str, node: &Node) -> Option<String> {
    use super::yaml::Value;
    match (&node.value, types) {
        (Value::Date(_) | Value::Time(_), _) => Some("this is read as a date: quote it".into()),
        (Value::String(text), "an integer") if text.parse::<i64>().is_ok() => {
            Some("a quoted number is text: leave the quotes out".into())
        }
        (Value::String(text), "a boolean")
            if matches!(text.as_str(), "true" | "false" | "y" | "n") =>
        {
            Some("write true or false, without quotes".into())
        }
        (Value::String(_), "an array") => Some("write it as a list: `- …` or `[…]`".into()),
        (Value::Map(map), "a string") if map.entries.len() == 1 => {
            Some("`a: b` is a map: quote the text if it holds a colon and a space".into())
        }
        _ => None,
    }
}

/// A cross check's problem, of a class other than Kamal's usual one.
pub(crate) fn argument(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::Invalid, message).class(ErrorClass::Argument)
}
