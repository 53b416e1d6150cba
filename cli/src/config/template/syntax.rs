//! What the Ruby of tags is made of: statements, expressions, and what is wrong with them.

use super::instead::instead;

/// What is wrong, and where in the template (bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) hint: Option<String>,
    /// What Ruby says, where it raises a `KeyError`.
    pub(super) key_error: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, start: usize, end: usize) -> Self {
        Self {
            message: message.into(),
            start,
            end: end.max(start + 1),
            hint: None,
            key_error: None,
        }
    }

    /// Something is wrong with `expr`.
    pub(super) fn of(expr: &Expr, message: impl Into<String>) -> Self {
        Self::new(message, expr.start, expr.end)
    }

    /// `construct`, in `expr`, is Ruby but not of the subset.
    pub(super) fn ruby(expr: &Expr, construct: &str) -> Self {
        Self::outside(construct, expr.start, expr.end)
    }

    /// `construct` is Ruby but not of the subset.
    pub(super) fn outside(construct: &str, start: usize, end: usize) -> Self {
        let message = format!("`{construct}` is Ruby that dhow does not evaluate");
        Self { hint: Some(instead(construct)), ..Self::new(message, start, end) }
    }
}

/// One statement of a tag.
#[derive(Debug, PartialEq)]
pub(super) enum Statement {
    If {
        condition: Expr,
        negated: bool,
    },
    Elsif(Expr),
    /// With where it stands.
    Else((usize, usize)),
    /// With where it stands.
    End((usize, usize)),
    Assign {
        name: String,
        value: Expr,
    },
    Expression(Expr),
    /// `require "…"`: nothing to do.
    Require,
}

/// An expression and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expr {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Nil,
    Bool(bool),
    Int(i64),
    /// Literal parts and interpolations.
    Text(Vec<Part>),
    /// A command for the shell.
    Command(Vec<Part>),
    List(Vec<Expr>),
    Variable(String),
    /// `ENV[…]`.
    Env(Box<Expr>),
    /// `RUBY_VERSION`, `Kamal::Utils`, `ENV`.
    Constant(String),
    Call {
        of: Box<Expr>,
        method: String,
        arguments: Vec<Expr>,
        /// What `{ … }` after it gives; evaluated only where it is asked for.
        block: Option<Box<Expr>>,
        safe: bool,
    },
    Index {
        of: Box<Expr>,
        index: Box<Expr>,
    },
    Not(Box<Expr>),
    Binary {
        operator: &'static str,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Ternary {
        condition: Box<Expr>,
        yes: Box<Expr>,
        no: Box<Expr>,
    },
}

/// A piece of a string.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Literal(String),
    Value(Expr),
}
