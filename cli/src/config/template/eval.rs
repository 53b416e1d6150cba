//! Evaluates expressions; the only effects are reading variables and running commands.

use std::collections::BTreeMap;
use std::io;

use super::super::outside::{COMMAND_SECONDS, DOCKER_ARCH, Outside, platform};
use super::instead::instead;
use super::syntax::{Expr, Kind, Part, Problem, Statement};
use super::value::{Value, item, method_call};

/// About so many bytes of values may be made: a few assignments can double a text beyond any memory.
const MAX_VALUES: usize = 64 << 20;

/// A command without any of these is started by Ruby without a shell.
const SHELL_CHARACTERS: [char; 22] = [
    '*', '?', '{', '}', '[', ']', '<', '>', '(', ')', '~', '&', '|', '\\', '$', ';', '\'', '`',
    '"', '\n', '#', '=',
];

/// Evaluates in one environment; keeps variables.
pub(super) struct Evaluator<'a> {
    /// The template.
    source: &'a str,
    env: &'a [(String, String)],
    outside: &'a dyn Outside,
    /// By name; nothing where an assignment was met, but not carried out.
    variables: BTreeMap<String, Value>,
    /// By name; what an assignment in a comment failed with.
    lost: BTreeMap<String, Problem>,
    made: usize,
    /// Whether commands are run; in a YAML comment none is.
    pub(super) runs_commands: bool,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(
        source: &'a str,
        env: &'a [(String, String)],
        outside: &'a dyn Outside,
    ) -> Self {
        Self {
            source,
            env,
            outside,
            variables: BTreeMap::new(),
            lost: BTreeMap::new(),
            made: 0,
            runs_commands: true,
        }
    }

    /// An assignment was met: from here on the variable is known, with nothing in it if it had no value.
    pub(super) fn declare(&mut self, name: &str) {
        self.variables.entry(name.to_owned()).or_insert(Value::Nil);
    }

    /// An assignment failed, and the template goes on: what uses the variable fails likewise.
    pub(super) fn lose(&mut self, name: &str, problem: Problem) {
        self.lost.insert(name.to_owned(), problem);
    }

    /// Runs a statement that is no branch.
    pub(super) fn run(&mut self, statement: &Statement) -> Result<Value, Problem> {
        match statement {
            Statement::Assign { name, value } => {
                let value = self.value(value)?;
                self.variables.insert(name.clone(), value.clone());
                self.lost.remove(name);
                Ok(value)
            }
            Statement::Expression(expr) => self.value(expr),
            Statement::Require => Ok(Value::Bool(true)),
            Statement::If { condition, .. } | Statement::Elsif(condition) => Err(Problem::of(
                condition,
                "`if` cannot be used in `<%= %>`; write `condition ? a : b`",
            )),
            Statement::Else(place) | Statement::End(place) => {
                Err(Problem::new("only a value can be written by `<%= %>`", place.0, place.1))
            }
        }
    }

    pub(super) fn value(&mut self, expr: &Expr) -> Result<Value, Problem> {
        let value = self.made_by(expr)?;
        self.made = self.made.saturating_add(value.size());
        if self.made > MAX_VALUES {
            return Err(Problem::of(expr, "the values of this template are too large"));
        }
        Ok(value)
    }

    fn made_by(&mut self, expr: &Expr) -> Result<Value, Problem> {
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
            Kind::Variable(name) => match (self.lost.get(name), self.variables.get(name)) {
                (Some(problem), _) => return Err(problem.clone()),
                (None, Some(value)) => value.clone(),
                (None, None) => return Err(Problem::ruby(expr, name)),
            },
            Kind::Env(name) => {
                let name = self.name(name)?;
                self.env_var(&name).map_or(Value::Nil, Value::Text)
            }
            Kind::Constant(name) => constant(name, expr)?,
            Kind::Call { of, method, arguments, block, safe } => {
                return match (&of.kind, block) {
                    (Kind::Constant(name), _) if constant(name, of).is_err() => {
                        self.constant_call(expr, name, method, arguments, block.as_deref())
                    }
                    (_, Some(_)) => Err(Problem::ruby(expr, &format!(".{method} {{"))),
                    (_, None) => self.call(expr, of, method, arguments, *safe),
                };
            }
            Kind::Index { of, index } => {
                let (of_value, index) = (self.value(of)?, self.value(index)?);
                match (of_value, index) {
                    (Value::List(items), Value::Int(at)) => item(&items, at),
                    _ => {
                        let message = "only an item of a list can be taken by `[…]`";
                        let hint = Some(instead("["));
                        return Err(Problem { hint, ..Problem::of(expr, message) });
                    }
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
                    .ok_or_else(|| Problem::of(expr, "the sum is too large")),
                _ => Err(Problem::of(expr, "only two texts or two numbers can be added")),
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

    /// The name of an environment variable; Ruby takes nothing but a text for one.
    fn name(&mut self, expr: &Expr) -> Result<String, Problem> {
        match self.value(expr)? {
            Value::Text(name) => Ok(name),
            _ => Err(Problem::of(expr, "the name of an environment variable is a text")),
        }
    }

    fn env_var(&self, name: &str) -> Option<String> {
        let own = self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        // Without a destination Kamal takes the variable away, whoever has set it.
        own.or_else(|| self.outside.var(name).filter(|_| name != "KAMAL_DESTINATION"))
    }

    /// Runs a command as Ruby's backticks do: the exit status is not looked at, but a command that
    /// is not there is an error.
    fn command(&self, command: &str, at: &Expr) -> Result<String, Problem> {
        if !self.runs_commands {
            let mut problem = Problem::of(at, "a command in a YAML comment is not run");
            problem.hint = Some("take the tag out of the comment, or delete it".into());
            return Err(problem);
        }
        // As it is written: what is put into it may be a secret.
        let written = self.source.get(at.start..at.end).unwrap_or_default();
        let shown: String = written.chars().take(80).collect();
        let failed = |cause: String| {
            let mut problem = Problem::of(at, format!("the command {shown} {cause}"));
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
        // Ruby starts a plain command itself, and finds out; of any other only the shell knows.
        if output.status == Some(127) && !command.contains(SHELL_CHARACTERS) {
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
        block: Option<&Expr>,
    ) -> Result<Value, Problem> {
        match (constant, method, arguments) {
            ("ENV", "fetch", [name]) if block.is_some() => {
                let name = self.name(name)?;
                match (self.env_var(&name), block) {
                    (None, Some(block)) => self.value(block),
                    (value, _) => Ok(value.map_or(Value::Nil, Value::Text)),
                }
            }
            (_, _, _) if block.is_some() => {
                Err(Problem::ruby(expr, &format!("{constant}.{method} {{")))
            }
            ("ENV", "fetch", [name]) => {
                let name = self.name(name)?;
                self.env_var(&name).map(Value::Text).ok_or_else(|| {
                    let mut problem =
                        Problem::of(expr, format!("the environment variable {name} is not set"));
                    problem.key_error = Some(format!("key not found: {name:?}"));
                    problem.hint =
                        Some(format!("set it, or give a default: `ENV.fetch(\"{name}\", \"…\")`"));
                    problem
                })
            }
            ("ENV", "fetch", [name, default]) => {
                // As Ruby does, also where it is not needed.
                let (name, default) = (self.name(name)?, self.value(default)?);
                Ok(self.env_var(&name).map_or(default, Value::Text))
            }
            ("ENV", "key?" | "has_key?" | "include?", [name]) => {
                let name = self.name(name)?;
                Ok(Value::Bool(self.env_var(&name).is_some()))
            }
            ("Kamal::Utils", "docker_arch", []) => {
                let output = self.command(DOCKER_ARCH, expr)?;
                Ok(Value::Text(platform(output.trim()).to_owned()))
            }
            _ => Err(Problem::ruby(expr, &format!("{constant}.{method}"))),
        }
    }
}

fn constant(name: &str, expr: &Expr) -> Result<Value, Problem> {
    Ok(match name {
        // Of the Ruby in which Kamal 2.11 is shipped; files use it to name an image's tag.
        "RUBY_VERSION" => Value::Text("3.3.7".into()),
        "RUBY_ENGINE" => Value::Text("ruby".into()),
        _ => return Err(Problem::ruby(expr, name)),
    })
}
