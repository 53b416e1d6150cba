//! Parses the Ruby of tags: a small part of its expressions.

mod library;
mod literal;

use super::instead::instead;
use super::syntax::{Expr, Kind, Part, Problem, Statement};
use library::is_standard_library;

/// Nesting deeper than this is refused.
const MAX_DEPTH: usize = 50;

/// A statement with more operators, methods and indices than this is refused: each makes its tree one deeper,
/// however flat it is written.
const MAX_LINKS: usize = 200;

/// Parses the code of a tag that begins at byte `offset` of the template.
pub(super) fn parse(code: &str, offset: usize) -> Result<Vec<Statement>, Problem> {
    let mut parser = Parser { code, at: 0, offset, depth: 0, links: 0, bare: false };
    let mut statements = Vec::new();
    loop {
        parser.skip_separators();
        if parser.rest().is_empty() {
            return Ok(statements);
        }
        parser.links = 0;
        statements.push(parser.statement()?);
        parser.skip_spaces();
        let rest = parser.rest();
        if !(rest.is_empty() || rest.starts_with([';', '\n', '\r', '#'])) {
            return Err(parser.unsupported());
        }
    }
}

/// The variable that the code of a tag assigns, as far as its beginning tells.
pub(super) fn assigned(code: &str) -> Option<&str> {
    let end = code.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    let (name, rest) = code.split_at(end);
    let rest = rest.trim_start_matches([' ', '\t']);
    // `||=`, `&&=` and `+=` too.
    let rest = rest.trim_start_matches(['|', '&', '+', '-', '*']);
    let assigns = rest.starts_with('=') && !rest.starts_with("==") && !rest.starts_with("=~");
    (assigns && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')).then_some(name)
}

/// Whether code, of the subset or not, opens what an `end` in another tag closes.
pub(super) fn opens_block(code: &str) -> bool {
    let mut words = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '|'));
    let opens = ["if", "unless", "case", "while", "until", "for", "begin"];
    let first = words.next().unwrap_or_default();
    // `do |a, b|` or `do`, at the end.
    let head = match code.strip_suffix('|') {
        Some(rest) => rest.rsplit_once('|').map_or("", |(head, _)| head.trim_end()),
        None => code,
    };
    let does = head.split_whitespace().next_back() == Some("do");
    does || (opens.contains(&first) && code.split_whitespace().next_back() != Some("end"))
}

struct Parser<'a> {
    code: &'a str,
    at: usize,
    offset: usize,
    depth: usize,
    /// Operators, methods and indices of the statement so far.
    links: usize,
    /// Whether arguments may stand without parentheses here: not in what an operator joins, nor in other arguments.
    bare: bool,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.code[self.at..]
    }

    fn place(&self) -> usize {
        self.offset + self.at
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(message, self.place(), self.place() + 1)
    }

    /// What stands here is Ruby, but not of the subset.
    fn unsupported(&self) -> Problem {
        let rest = self.rest();
        let end = rest.find(['\n', ';']).unwrap_or(rest.len());
        let shown: String = rest[..end].trim_end().chars().take(40).collect();
        if shown.is_empty() {
            return self.problem("the expression ends too early");
        }
        Problem::outside(&shown, self.place(), self.place() + shown.len())
    }

    fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn skip_blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn skip_separators(&mut self) {
        loop {
            let trimmed = self.rest().trim_start_matches([' ', '\t', '\n', '\r', ';']);
            self.at = self.code.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            let line = trimmed.find('\n').unwrap_or(trimmed.len());
            self.at += line;
        }
    }

    /// Takes `token` if it stands here.
    fn take(&mut self, token: &str) -> bool {
        if self.rest().starts_with(token) {
            self.at += token.len();
            return true;
        }
        false
    }

    fn expect(&mut self, token: &str) -> Result<(), Problem> {
        self.skip_blank();
        if self.take(token) {
            Ok(())
        } else if self.rest().is_empty() {
            Err(self.problem(format!("expected `{token}` here")))
        } else {
            Err(self.unsupported())
        }
    }

    fn word(&self) -> &'a str {
        let rest = self.rest();
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &rest[..end] }
    }

    fn statement(&mut self) -> Result<Statement, Problem> {
        let word = self.word();
        match word {
            "if" | "unless" | "elsif" => {
                self.at += word.len();
                let condition = self.whole()?;
                self.skip_spaces();
                if self.word() == "then" {
                    self.at += "then".len();
                }
                Ok(match word {
                    "elsif" => Statement::Elsif(condition),
                    _ => Statement::If { condition, negated: word == "unless" },
                })
            }
            "else" | "end" => {
                let start = self.place();
                self.at += word.len();
                let place = (start, self.place());
                Ok(if word == "end" { Statement::End(place) } else { Statement::Else(place) })
            }
            "require" => self.require(),
            _ => self.assignment_or_expression(word),
        }
    }

    /// `require "…"`: what Ruby brings with it has nothing that dhow evaluates; anything else may set
    /// variables that the rest of the file needs.
    fn require(&mut self) -> Result<Statement, Problem> {
        let (start, rest) = (self.place(), self.rest());
        self.at += "require".len();
        let what = self.whole()?;
        let known = match &what.kind {
            Kind::Text(parts) => match parts.as_slice() {
                [Part::Literal(name)] => is_standard_library(name),
                _ => false,
            },
            _ => false,
        };
        if known {
            return Ok(Statement::Require);
        }
        let shown = &rest[..self.place() - start];
        Err(Problem::outside(shown, start, self.place()))
    }

    fn assignment_or_expression(&mut self, word: &str) -> Result<Statement, Problem> {
        if word.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') {
            let after = self.rest()[word.len()..].trim_start_matches([' ', '\t']);
            if after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=~") {
                self.at = self.code.len() - after.len() + 1;
                let value = self.whole()?;
                return Ok(Statement::Assign { name: word.to_owned(), value });
            }
        }
        self.whole().map(Statement::Expression)
    }

    /// An expression that stands alone: a statement, a condition, what parentheses hold.
    fn whole(&mut self) -> Result<Expr, Problem> {
        let outer = std::mem::replace(&mut self.bare, true);
        let value = self.expression();
        self.bare = outer;
        value
    }

    /// An expression that is a part of another.
    fn part(&mut self) -> Result<Expr, Problem> {
        let outer = std::mem::replace(&mut self.bare, false);
        let value = self.expression();
        self.bare = outer;
        value
    }

    fn expression(&mut self) -> Result<Expr, Problem> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.problem("nested too deeply"));
        }
        let condition = self.binary(0)?;
        self.skip_spaces();
        let result = if self.rest().starts_with('?') {
            self.at += 1;
            let yes = self.part()?;
            self.expect(":")?;
            let no = self.part()?;
            let (start, end) = (condition.start, no.end);
            let kind = Kind::Ternary {
                condition: Box::new(condition),
                yes: Box::new(yes),
                no: Box::new(no),
            };
            Expr { kind, start, end }
        } else {
            condition
        };
        self.depth -= 1;
        Ok(result)
    }

    /// Operators from the weakest: `||`, `&&`, `==` and `!=`, `+`.
    fn binary(&mut self, level: usize) -> Result<Expr, Problem> {
        const LEVELS: [&[&str]; 4] = [&["||"], &["&&"], &["==", "!="], &["+"]];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            self.skip_spaces();
            // `||=`, `+=` and `===` are others.
            let is_here = |operator: &&&str| {
                self.rest().strip_prefix(**operator).is_some_and(|rest| !rest.starts_with('='))
            };
            let Some(operator) = operators.iter().find(is_here) else { return Ok(left) };
            self.link()?;
            self.at += operator.len();
            self.skip_blank();
            let outer = std::mem::replace(&mut self.bare, false);
            let right = self.binary(level + 1)?;
            self.bare = outer;
            let (start, end) = (left.start, right.end);
            let kind = Kind::Binary { operator, left: Box::new(left), right: Box::new(right) };
            left = Expr { kind, start, end };
        }
    }

    fn link(&mut self) -> Result<(), Problem> {
        self.links += 1;
        if self.links > MAX_LINKS {
            Err(self.problem("this expression is too long"))
        } else {
            Ok(())
        }
    }

    fn unary(&mut self) -> Result<Expr, Problem> {
        self.skip_blank();
        let start = self.place();
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.problem("nested too deeply"));
            }
            let value = self.unary()?;
            self.depth -= 1;
            let end = value.end;
            return Ok(Expr { kind: Kind::Not(Box::new(value)), start, end });
        }
        let mut value = self.primary()?;
        loop {
            if self.rest().starts_with('[') {
                self.link()?;
                self.at += 1;
                let index = self.part()?;
                self.skip_blank();
                if !self.take("]") {
                    let hint = Some(instead("["));
                    return Err(Problem { hint, ..self.unsupported() });
                }
                let kind = match &value.kind {
                    Kind::Constant(name) if name == "ENV" => Kind::Env(Box::new(index)),
                    _ => Kind::Index { of: Box::new(value), index: Box::new(index) },
                };
                value = Expr { kind, start, end: self.place() };
                continue;
            }
            let safe = self.rest().starts_with("&.");
            if !(safe || self.is_method_dot()) {
                return Ok(value);
            }
            self.link()?;
            self.skip_blank();
            self.at += if safe { 2 } else { 1 };
            value = self.call(value, safe)?;
        }
    }

    /// A dot, also on the next line, but no range.
    fn is_method_dot(&self) -> bool {
        let rest = self.rest().trim_start();
        rest.starts_with('.') && !rest.starts_with("..")
    }

    fn call(&mut self, of: Expr, safe: bool) -> Result<Expr, Problem> {
        let start = of.start;
        let mut method = self.word().to_owned();
        if method.is_empty() {
            return Err(self.unsupported());
        }
        self.at += method.len();
        let rest = self.rest();
        if rest.starts_with('?') || (rest.starts_with('!') && !rest.starts_with("!=")) {
            method.push_str(&rest[..1]);
            self.at += 1;
        }
        let mut arguments = Vec::new();
        if self.take("(") {
            arguments = self.arguments(")")?;
        } else if self.bare && self.is_bare_argument() {
            arguments = self.bare_arguments()?;
        }
        let mut block = None;
        // `ENV.fetch("X") { "default" }`: the block is a default.
        if method == "fetch" && self.rest().trim_start_matches([' ', '\t']).starts_with('{') {
            self.skip_spaces();
            self.at += 1;
            block = Some(Box::new(self.whole()?));
            self.expect("}")?;
        }
        let kind = Kind::Call { of: Box::new(of), method, arguments, block, safe };
        Ok(Expr { kind, start, end: self.place() })
    }

    /// Whether an argument without parentheses follows: `ENV.fetch "X"`.
    fn is_bare_argument(&self) -> bool {
        let argument = self.rest().trim_start_matches([' ', '\t']);
        argument.len() < self.rest().len()
            && (argument.starts_with(['"', '\'', '(', '`'])
                || argument.strip_prefix('%').is_some_and(|it| !it.starts_with([' ', '=']))
                || argument.starts_with(|c: char| c.is_ascii_digit())
                || argument.starts_with("ENV"))
    }

    fn bare_arguments(&mut self) -> Result<Vec<Expr>, Problem> {
        let mut arguments = Vec::new();
        loop {
            arguments.push(self.part()?);
            self.skip_spaces();
            if !self.take(",") {
                return Ok(arguments);
            }
        }
    }

    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, Problem> {
        let mut arguments = Vec::new();
        self.skip_blank();
        while !self.take(close) {
            arguments.push(self.part()?);
            self.skip_blank();
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
            self.skip_blank();
        }
        Ok(arguments)
    }

    fn primary(&mut self) -> Result<Expr, Problem> {
        let start = self.place();
        let kind = self.primary_kind()?;
        Ok(Expr { kind, start, end: self.place() })
    }

    fn primary_kind(&mut self) -> Result<Kind, Problem> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Err(self.unsupported()) };
        match first {
            '"' => {
                self.at += 1;
                self.text(None, '"', true).map(Kind::Text)
            }
            '\'' => {
                self.at += 1;
                self.text(None, '\'', false).map(Kind::Text)
            }
            '`' => {
                self.at += 1;
                self.text(None, '`', true).map(Kind::Command)
            }
            '%' => self.percent(),
            '(' => {
                self.at += 1;
                let inner = self.whole()?;
                self.expect(")")?;
                Ok(inner.kind)
            }
            '[' => {
                self.at += 1;
                self.arguments("]").map(Kind::List)
            }
            '0'..='9' | '-' => self.number(),
            _ => self.name(),
        }
    }

    fn name(&mut self) -> Result<Kind, Problem> {
        let word = self.word();
        match word {
            "" | "if" | "unless" | "end" | "else" | "elsif" | "do" | "def" | "while" | "case" => {
                return Err(self.unsupported());
            }
            "nil" => {
                self.at += word.len();
                return Ok(Kind::Nil);
            }
            "true" | "false" => {
                self.at += word.len();
                return Ok(Kind::Bool(word == "true"));
            }
            _ => {}
        }
        if word.starts_with(|c: char| c.is_ascii_uppercase()) {
            let mut name = String::new();
            loop {
                let part = self.word();
                self.at += part.len();
                name.push_str(part);
                if !self.take("::") {
                    return Ok(Kind::Constant(name));
                }
                name.push_str("::");
            }
        }
        let after = &self.rest()[word.len()..];
        if after.starts_with(['(', '"', '\'', '{', '?', '!'])
            || after.trim_start().starts_with(['"', '\'', '{'])
        {
            return Err(self.unsupported());
        }
        self.at += word.len();
        Ok(Kind::Variable(word.to_owned()))
    }
}
