//! What differs between two snapshots, for people to read.

use anyhow::{Context as _, Result};
use regex::Regex;

/// A difference that is meant to be: lines that match are left out on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// A regular expression for whole lines.
    pub pattern: &'static str,
    /// Why it may differ.
    pub reason: &'static str,
}

impl Allowed {
    /// The one label that dhow's containers have and Kamal's have not.
    pub const INTENT_LABEL: Self = Self {
        pattern: r".*/Config\.Labels\.dhow\.intent = .*",
        reason: "dhow tells its own containers by it",
    };
    /// Who did something: Kamal writes the user of the client, dhow the name in a certificate.
    pub const AUDIT_LOG: Self =
        Self { pattern: r"file/[^ ]*-audit\.log:.*", reason: "the audit log says who did it" };
}

/// The lines only one snapshot has, `-` for `left` and `+` for `right`; `None` when they agree.
///
/// # Errors
///
/// When the pattern of an allowed difference is none.
pub fn difference(left: &str, right: &str, allowed: &[Allowed]) -> Result<Option<String>> {
    let mut patterns = Vec::new();
    for allowed in allowed {
        let pattern = format!("^(?:{})$", allowed.pattern);
        patterns.push(Regex::new(&pattern).with_context(|| format!("read {pattern}"))?);
    }
    let kept = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !patterns.iter().any(|p| p.is_match(line)));
        lines.map(str::to_owned).collect()
    };
    let (left, right) = (kept(left), kept(right));
    let mut out = Vec::new();
    // Both are sorted, so walking them side by side finds the differences.
    let (mut a, mut b) = (left.iter().peekable(), right.iter().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x == y => {
                a.next();
                b.next();
            }
            (Some(x), Some(y)) if x < y => out.extend(a.next().map(|line| format!("- {line}"))),
            (_, Some(_)) => out.extend(b.next().map(|line| format!("+ {line}"))),
            (Some(_), None) => out.extend(a.next().map(|line| format!("- {line}"))),
            (None, None) => break,
        }
    }
    Ok((!out.is_empty()).then(|| out.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_that_were_not_allowed_are_shown() {
        let kamal = "container/a/State.Status = running\nfile/x = file 0600 0:0\n";
        let dhow = "container/a/Config.Labels.dhow.intent = abc\ncontainer/a/State.Status = exited\n\
                    file/x = file 0600 0:0\n";
        let found = difference(kamal, dhow, &[Allowed::INTENT_LABEL]).unwrap();
        assert_eq!(
            found.as_deref(),
            Some("+ container/a/State.Status = exited\n- container/a/State.Status = running")
        );
        assert_eq!(difference(kamal, kamal, &[]).unwrap(), None);
    }
}
