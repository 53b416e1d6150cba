//! Whether colour and live lines are wanted.

use std::io::IsTerminal as _;

/// How the program may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours.
    pub color: bool,
    /// Lines that are redrawn in place.
    pub live: bool,
}

impl Style {
    /// For standard output of this process: `NO_COLOR` (no-color.org) and `TERM=dumb` are obeyed.
    pub fn detect(var: impl Fn(&str) -> Option<String>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let dumb = var("TERM").is_some_and(|t| t == "dumb");
        let no_color = var("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { color: terminal && !dumb && !no_color, live: terminal && !dumb }
    }

    /// Red on a terminal that takes colours.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Green on a terminal that takes colours.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Dim on a terminal that takes colours.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
