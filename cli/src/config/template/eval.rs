//! Evaluates expressions; the only effects are reading variables and running commands.

use std::collections::BTreeMap;
use std::io;

use super::super::outside::{COMMAND_SECONDS, Outside};
use super::syntax::{Expr, Kind, Part, Problem, Statement};

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

    fn inspect(&self) -> String {
        match self {
            Self::Nil => "nil".into(),
            Self::Text(text) => format!("{text:?}"),
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

/// Evaluates in one environment; keeps variables.
pub(super) struct Evaluator<'a> {
    env: &'a [(String, String)],
    outside: &'a dyn Outside,
    variables: BTreeMap<String, Value>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(env: &'a [(String, String)], outside: &'a dyn Outside) -> Self {
        Self { env, outside, variables: BTreeMap::new() }
    }

    /// Runs a statement that is no branch.
    pub(super) fn run(&mut self, statement: &Statement) -> Result<Value, Problem> {
        match statement {
            Statement::Assign { name, value } => {
                let value = self.value(value)?;
                self.variables.insert(name.clone(), value.clone());
                Ok(value)
            }
            Statement::Expression(expr) => self.value(expr),
            Statement::Require => Ok(Value::Bool(true)),
            Statement::If { condition, .. } | Statement::Elsif(condition) => {
                Err(fail(condition, "`if` cannot be used in `<%= %>`; write `condition ? a : b`"))
            }
            Statement::Else | Statement::End => Ok(Value::Nil),
        }
    }

    pub(super) fn value(&mut self, expr: &Expr) -> Result<Value, Problem> {
        Ok(match &expr.kind {
            Kind::Nil => Value::Nil,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(number) => Value::Int(*number),
            Kind::Text(parts) => Value::Text(self.text(parts)?),
            Kind::Command(parts) => {
                let command = self.text(parts)?;
                Value::Text(self.command(&command, expr)?)
            }
            Kind::List(items) => {
                Value::List(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Kind::Variable(name) => match self.variables.get(name) {
                Some(value) => value.clone(),
                None => {
                    return Err(fail(
                        expr,
                        format!("`{name}` is Ruby that dhow does not evaluate"),
                    ));
                }
            },
            Kind::Env(name) => {
                let name = self.value(name)?.to_text();
                self.env_var(&name).map_or(Value::Nil, Value::Text)
            }
            Kind::Constant(name) => constant(name, expr)?,
            Kind::Call { of, method, arguments, safe } => {
                return self.call(expr, of, method, arguments, *safe);
            }
            Kind::Index { of, index } => {
                let (of_value, index) = (self.value(of)?, self.value(index)?);
                match (of_value, index) {
                    (Value::List(items), Value::Int(at)) => item(&items, at),
                    _ => return Err(fail(expr, "only an item of a list can be taken by `[…]`")),
                }
            }
            Kind::Not(value) => Value::Bool(!self.value(value)?.truthy()),
            Kind::Binary { operator, left, right } => {
                return self.binary(expr, operator, left, right);
            }
            Kind::Ternary { condition, yes, no } => {
                let chosen = if self.value(condition)?.truthy() { yes } else { no };
                self.value(chosen)?
            }
        })
    }

    fn binary(
        &mut self,
        expr: &Expr,
        operator: &str,
        left: &Expr,
        right: &Expr,
    ) -> Result<Value, Problem> {
        let left = self.value(left)?;
        match operator {
            "||" => {
                if left.truthy() {
                    Ok(left)
                } else {
                    self.value(right)
                }
            }
            "&&" => {
                if left.truthy() {
                    self.value(right)
                } else {
                    Ok(left)
                }
            }
            "==" => Ok(Value::Bool(left == self.value(right)?)),
            "!=" => Ok(Value::Bool(left != self.value(right)?)),
            _ => match (left, self.value(right)?) {
                (Value::Text(a), Value::Text(b)) => Ok(Value::Text(a + &b)),
                (Value::Int(a), Value::Int(b)) => a
                    .checked_add(b)
                    .map(Value::Int)
                    .ok_or_else(|| fail(expr, "the sum is too large")),
                _ => Err(fail(expr, "only two texts or two numbers can be added")),
            },
        }
    }

    fn text(&mut self, parts: &[Part]) -> Result<String, Problem> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Value(expr) => text.push_str(&self.value(expr)?.to_text()),
            }
        }
        Ok(text)
    }

    fn env_var(&self, name: &str) -> Option<String> {
        let own = self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        own.or_else(|| self.outside.var(name))
    }

    /// Runs a command as Ruby's backticks do: the exit status is not looked at, but a command that
    /// is not there is an error.
    fn command(&self, command: &str, at: &Expr) -> Result<String, Problem> {
        let shown: String = command.chars().take(80).collect();
        let failed = |cause: String| {
            let mut problem = fail(at, format!("the command `{shown}` {cause}"));
            problem.hint = Some("run it in a shell to see what it says".into());
            problem
        };
        let output = self.outside.shell(command, self.env).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => {
                failed(format!("took longer than {COMMAND_SECONDS} seconds"))
            }
            io::ErrorKind::FileTooLarge => failed("printed more than 4 MiB".into()),
            _ => failed(format!("could not be run: {error}")),
        })?;
        if output.status == Some(127) {
            return Err(failed("was not found".into()));
        }
        let text = String::from_utf8(output.stdout)
            .map_err(|_| failed("printed something that is not UTF-8 text".into()))?;
        if text.contains('\0') {
            return Err(failed("printed something that is not text".into()));
        }
        Ok(text)
    }

    fn call(
        &mut self,
        expr: &Expr,
        of: &Expr,
        method: &str,
        arguments: &[Expr],
        safe: bool,
    ) -> Result<Value, Problem> {
        if let Kind::Constant(name) = &of.kind {
            return self.constant_call(expr, name, method, arguments);
        }
        let receiver = self.value(of)?;
        if safe && receiver == Value::Nil {
            return Ok(Value::Nil);
        }
        let arguments: Vec<Value> =
            arguments.iter().map(|argument| self.value(argument)).collect::<Result<_, _>>()?;
        method_call(expr, receiver, method, &arguments)
    }

    fn constant_call(
        &mut self,
        expr: &Expr,
        constant: &str,
        method: &str,
        arguments: &[Expr],
    ) -> Result<Value, Problem> {
        match (constant, method, arguments) {
            ("ENV", "fetch", [name]) => {
                let name = self.value(name)?.to_text();
                self.env_var(&name).map(Value::Text).ok_or_else(|| {
                    let mut problem =
                        fail(expr, format!("the environment variable {name} is not set"));
                    problem.key_error = Some(format!("key not found: {name:?}"));
                    problem.hint =
                        Some(format!("set it, or give a default: `ENV.fetch(\"{name}\", \"…\")`"));
                    problem
                })
            }
            ("ENV", "fetch", [name, default]) => {
                let name = self.value(name)?.to_text();
                match self.env_var(&name) {
                    Some(value) => Ok(Value::Text(value)),
                    None => self.value(default),
                }
            }
            ("ENV", "key?" | "has_key?" | "include?", [name]) => {
                let name = self.value(name)?.to_text();
                Ok(Value::Bool(self.env_var(&name).is_some()))
            }
            ("Kamal::Utils", "docker_arch", []) => {
                let output = self.command("docker info --format '{{.Architecture}}'", expr)?;
                Ok(Value::Text(match output.trim() {
                    "aarch64" => "arm64".into(),
                    "x86_64" => "amd64".into(),
                    other => other.to_owned(),
                }))
            }
            _ => Err(fail(
                expr,
                format!("`{constant}.{method}` is Ruby that dhow does not evaluate"),
            )),
        }
    }
}

fn fail(expr: &Expr, message: impl Into<String>) -> Problem {
    Problem::new(message, expr.start, expr.end)
}

fn constant(name: &str, expr: &Expr) -> Result<Value, Problem> {
    Ok(match name {
        // Of the Ruby in which Kamal 2.11 is shipped; files use it to name an image's tag.
        "RUBY_VERSION" => Value::Text("3.3.7".into()),
        "RUBY_ENGINE" => Value::Text("ruby".into()),
        _ => return Err(fail(expr, format!("`{name}` is Ruby that dhow does not evaluate"))),
    })
}

fn item(items: &[Value], at: i64) -> Value {
    let index = if at < 0 { items.len() as i64 + at } else { at };
    usize::try_from(index).ok().and_then(|at| items.get(at)).cloned().unwrap_or(Value::Nil)
}

fn method_call(
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
        (Value::Text(text), "to_i", []) => Value::Int(leading_int(text)),
        (Value::Nil, "to_a", []) => Value::List(Vec::new()),
        (Value::Text(text), _, _) => return text_method(expr, text, method, arguments),
        (Value::List(items), "join", []) => Value::Text(join(items, "")),
        (Value::List(items), "join", [Value::Text(between)]) => Value::Text(join(items, between)),
        (Value::List(items), "first", []) => item(items, 0),
        (Value::List(items), "last", []) => item(items, -1),
        (Value::List(items), "include?", [wanted]) => Value::Bool(items.contains(wanted)),
        (Value::Nil, _, _) => {
            let mut problem = fail(expr, format!("`.{method}` of nothing (nil)"));
            problem.hint = Some(
                "is an environment variable not set? give a default: `ENV.fetch(\"X\", \"…\")`"
                    .into(),
            );
            return Err(problem);
        }
        _ => return Err(fail(expr, format!("`.{method}` is Ruby that dhow does not evaluate"))),
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
        ("strip", []) => text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned(),
        ("chomp", []) => {
            let cut = text.strip_suffix('\n').unwrap_or(text);
            cut.strip_suffix('\r').unwrap_or(cut).to_owned()
        }
        ("upcase", []) => text.to_uppercase(),
        ("downcase", []) => text.to_lowercase(),
        ("split", []) => {
            let words = text.split_whitespace().map(|word| Value::Text(word.to_owned()));
            return Ok(Value::List(words.collect()));
        }
        ("split", [Value::Text(separator)]) if !separator.is_empty() => {
            return Ok(Value::List(split(text, separator)));
        }
        ("start_with?", [Value::Text(prefix)]) => {
            return Ok(Value::Bool(text.starts_with(prefix.as_str())));
        }
        ("end_with?", [Value::Text(suffix)]) => {
            return Ok(Value::Bool(text.ends_with(suffix.as_str())));
        }
        ("include?", [Value::Text(part)]) => return Ok(Value::Bool(text.contains(part.as_str()))),
        _ => return Err(fail(expr, format!("`.{method}` is Ruby that dhow does not evaluate"))),
    };
    Ok(Value::Text(result))
}

/// Ruby's `split`: empty parts at the end are dropped; a single space splits at any white space.
fn split(text: &str, separator: &str) -> Vec<Value> {
    if separator == " " {
        return text.split_whitespace().map(|word| Value::Text(word.to_owned())).collect();
    }
    let mut parts: Vec<&str> = text.split(separator).collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    parts.into_iter().map(|part| Value::Text(part.to_owned())).collect()
}

fn join(items: &[Value], between: &str) -> String {
    let texts: Vec<String> = items.iter().map(Value::to_text).collect();
    texts.join(between)
}

fn leading_int(text: &str) -> i64 {
    let text = text.trim_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut number = 0_i64;
    for c in digits.chars() {
        match c.to_digit(10) {
            Some(digit) => number = number.saturating_mul(10).saturating_add(i64::from(digit)),
            None if c == '_' => {}
            None => break,
        }
    }
    if text.starts_with('-') { -number } else { number }
}
