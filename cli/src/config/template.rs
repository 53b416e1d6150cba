//! The subset of ERB that `deploy.yml` files use, evaluated without Ruby.
//!
//! In: a template. Out: its text, and which byte of it came from where, so that errors in the YAML
//! still point into the file. Always true: nothing is run but the commands the file itself names,
//! and a construct outside the subset is an error at its place, never a guess.
//!
//! The subset: `ENV["X"]`, `ENV.fetch`, strings with interpolation, backticks and `%x()`, numbers,
//! lists, a handful of methods, `||`, `&&`, `!`, `==`, `!=`, `?:`, variables, `if`, `unless`,
//! `elsif`, `else`, `end`, `require` (ignored), comments and the trim mode `-`.

mod align;
mod comments;
mod eval;
mod expr;
mod instead;
mod scan;
mod syntax;
mod value;

pub(crate) use align::align;

use super::diagnostic::{Code, Diagnostic, ErrorClass};
use super::outside::Outside;
use super::yaml::{SourceMap, Span};
use eval::Evaluator;
use scan::{Piece, Tag};
use syntax::{Problem, Statement};
use value::Value;

/// A template's result, and which byte came from where.
#[derive(Clone, Default)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// From bytes of the text to bytes of the template.
    pub map: SourceMap,
}

/// The text may hold secrets.
impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendered").field("map", &self.map).finish_non_exhaustive()
    }
}

/// More text than this is not a config; a command may print anything.
const MAX_RENDERED: usize = 16 << 20;

/// Renders the text of file number `file`. `env` comes before the environment: it holds
/// `KAMAL_DESTINATION`, or an accessory's variables.
///
/// # Errors
///
/// The construct that is not supported, or the command that failed, at its place.
pub fn render(
    text: &str,
    file: u16,
    env: &[(String, String)],
    outside: &dyn Outside,
) -> Result<Rendered, Box<Diagnostic>> {
    if !text.contains("<%") {
        return Ok(Rendered { text: text.to_owned(), map: SourceMap::default() });
    }
    let failed = |problem: Problem| {
        let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        let span = Span { file, start: at(problem.start), end: at(problem.end) };
        let hint = problem.hint.unwrap_or_else(|| instead::instead(""));
        let mut diagnostic = Diagnostic::new(Code::Template, problem.message).at(span).hint(hint);
        if let Some(words) = problem.key_error {
            diagnostic = Diagnostic { kamal: Some(words), ..diagnostic.class(ErrorClass::Key) };
        }
        Box::new(diagnostic)
    };
    let pieces = scan::scan(text).map_err(&failed)?;
    let mut renderer = Renderer {
        out: Rendered::default(),
        evaluator: Evaluator::new(text, env, outside),
        branches: Vec::new(),
        unknown_at: 0,
    };
    for piece in &pieces {
        renderer.piece(piece).map_err(&failed)?;
    }
    match renderer.branches.first() {
        Some(branch) => {
            Err(failed(Problem::new("this `if` has no `end`", branch.start, branch.start + 2)))
        }
        None => Ok(renderer.out),
    }
}

/// An open `if` or `unless`.
struct Branch {
    /// Where it began.
    start: usize,
    /// Whether what it stands in is written.
    outer: bool,
    /// Whether the part at hand is written, as far as this `if` goes.
    active: bool,
    /// Whether some part was, so that `else` is not.
    taken: bool,
    /// Whether it is an `unless`, which has no `elsif`.
    negated: bool,
    /// Whether its `else` was met, after which only `end` can come.
    last: bool,
    /// Why nobody knows what is to be written, for one in a comment; comments alone can then be left out.
    unknown: Option<Problem>,
}

struct Renderer<'a> {
    out: Rendered,
    evaluator: Evaluator<'a>,
    branches: Vec<Branch>,
    /// Which branch, if any, was the last of which nobody knows what is to be written.
    unknown_at: usize,
}

impl Renderer<'_> {
    fn active(&self) -> bool {
        self.branches.last().is_none_or(|branch| branch.outer && branch.active)
    }

    fn write(&mut self, text: &str, source: usize, copied: bool) -> Result<(), Problem> {
        if self.out.text.len() + text.len() > MAX_RENDERED {
            return Err(Problem::new("the rendered file is too large", source, source + 1));
        }
        let place = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        self.out.map.pieces.push((place(self.out.text.len()), place(source), copied));
        self.out.text.push_str(text);
        Ok(())
    }

    fn piece(&mut self, piece: &Piece<'_>) -> Result<(), Problem> {
        match piece {
            Piece::Text { text, start } => {
                if let Some(problem) = self.unknown()
                    && !is_comment(text)
                {
                    return Err(problem.clone());
                }
                if self.active() {
                    self.write(text, *start, true)?;
                }
                Ok(())
            }
            Piece::Tag(tag) if tag.in_comment => {
                let depth = self.branches.len();
                if let Err(problem) = self.tag(tag) {
                    self.commented(tag, problem, depth == self.branches.len());
                } else if let (Some(name), Some(problem)) =
                    (expr::assigned(tag.code.trim()), self.unknown())
                {
                    let problem = problem.clone();
                    self.evaluator.lose(name, problem);
                }
                Ok(())
            }
            Piece::Tag(tag) => match self.unknown() {
                Some(problem) => Err(problem.clone()),
                None => self.tag(tag),
            },
        }
    }

    fn unknown(&self) -> Option<&Problem> {
        // Those within it are not written anyway, so there is one at a time.
        self.branches.get(self.unknown_at).and_then(|branch| branch.unknown.as_ref())
    }

    /// ERB in a YAML comment never fails by itself: only what depends on it does, and stands outside the comment.
    fn commented(&mut self, tag: &Tag<'_>, problem: Problem, unopened: bool) {
        let code = tag.code.trim();
        let last = self.branches.len().saturating_sub(1);
        if let Some(name) = expr::assigned(code) {
            if self.active() {
                self.evaluator.lose(name, problem);
            }
        } else if expr::opens_block(code) && !tag.output && unopened {
            let outer = self.active();
            if outer {
                self.unknown_at = self.branches.len();
            }
            self.branches.push(Branch {
                start: tag.start,
                outer,
                active: false,
                taken: true,
                negated: false,
                last: false,
                unknown: outer.then_some(problem),
            });
        } else if code.starts_with("elsif")
            && let Some(branch) = self.branches.last_mut()
        {
            if branch.outer {
                branch.unknown = Some(problem);
                self.unknown_at = last;
            }
            branch.active = false;
            branch.taken = true;
        }
    }

    fn tag(&mut self, tag: &Tag<'_>) -> Result<(), Problem> {
        let statements = expr::parse(&tag.code, tag.code_start)?;
        for statement in &statements {
            if let Statement::Assign { name, .. } = statement {
                self.evaluator.declare(name);
            }
        }
        self.evaluator.runs_commands = !tag.in_comment;
        if tag.output {
            if !self.active() {
                return Ok(());
            }
            let mut last = Value::Nil;
            for statement in &statements {
                last = self.evaluator.run(statement)?;
            }
            return self.write(&last.to_text(), tag.start, false);
        }
        for statement in &statements {
            self.statement(statement, tag)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement, tag: &Tag<'_>) -> Result<(), Problem> {
        let stray = |word: &str| Problem::new(format!("`{word}` without `if`"), tag.start, tag.end);
        match statement {
            Statement::If { condition, negated } => {
                let outer = self.active();
                let holds = outer && self.evaluator.value(condition)?.truthy() != *negated;
                // Inside a part that is not written nothing is evaluated, and no `else` is taken.
                self.branches.push(Branch {
                    start: tag.start,
                    outer,
                    active: holds,
                    taken: holds || !outer,
                    negated: *negated,
                    last: false,
                    unknown: None,
                });
                Ok(())
            }
            Statement::Elsif(condition) => {
                let branch = self.branches.last_mut().ok_or_else(|| stray("elsif"))?;
                if branch.last || branch.negated {
                    let message = "`elsif` after `else` or `unless`";
                    return Err(Problem::new(message, tag.start, tag.end));
                }
                if branch.taken {
                    branch.active = false;
                    return Ok(());
                }
                let holds = self.evaluator.value(condition)?.truthy();
                branch.active = holds;
                branch.taken = holds;
                Ok(())
            }
            Statement::Else(_) => {
                let branch = self.branches.last_mut().ok_or_else(|| stray("else"))?;
                if branch.last {
                    return Err(Problem::new("a second `else`", tag.start, tag.end));
                }
                branch.active = !branch.taken;
                branch.taken = true;
                branch.last = true;
                Ok(())
            }
            Statement::End(_) => {
                self.branches.pop().ok_or_else(|| stray("end"))?;
                Ok(())
            }
            Statement::Assign { .. } | Statement::Expression(_) | Statement::Require => {
                if self.active() {
                    self.evaluator.run(statement)?;
                }
                Ok(())
            }
        }
    }
}

/// Whether a text that follows a tag in a comment is nothing but the rest of that line and more comments.
fn is_comment(text: &str) -> bool {
    text.lines().skip(1).map(str::trim_start).all(|line| line.is_empty() || line.starts_with('#'))
}

#[cfg(test)]
mod tests;
