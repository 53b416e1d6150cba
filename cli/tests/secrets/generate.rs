//! Secrets files that nobody would write: assignments and what looks like them, made of everything that the
//! grammar gives a meaning to.

use crate::mutate::Random;

const NAMES: &[&str] =
    &["A", "B", "C", "a.b", "_x", "1", "FROM_ENV", "EMPTY_ENV", "export", ".", "A-B", "ü", "A B"];

const SEPARATORS: &[&str] = &[
    "=", "=", "=", " = ", "= ", " =", ": ", ":", " : ", ":\t", "=\n", ":\n", " ", "==", "\t=\u{b}",
];

const ENDS: &[&str] =
    &["\n", "\n", "\n", "\r\n", "\r", " # c\n", "#c\n", " \n", "\n\n", "\n \n#c\n", " x\n", ""];

/// Nothing here makes a command that writes, waits or reads what it is not given.
const PIECES: &[&str] = &[
    "a",
    "b c",
    "é",
    "=",
    ":",
    " ",
    "\t",
    "#",
    " #",
    "'",
    "\"",
    "\\",
    "\\\\",
    "\\n",
    "\\r",
    "\\'",
    "\\\"",
    "\\$",
    "\\(",
    "\\)",
    "$",
    "$$",
    "${",
    "}",
    "$A",
    "${A}",
    "${B",
    "$B}",
    "$C",
    "${FROM_ENV}",
    "$EMPTY_ENV",
    "$NONE",
    "$a.b",
    "$1",
    "${A:-b}",
    "(",
    ")",
    "()",
    "$(",
    "\\$(",
    "$()",
    "\n",
    "\u{a0}",
    "\u{b}",
    "%",
    "~",
    "*",
    "!",
    "-",
];

/// Whole commands, which a soup of pieces seldom makes.
const COMMANDS: &[&str] = &[
    "$(echo a)",
    "$(echo $A)",
    "$(echo '$A')",
    "$(echo '$NONE x')",
    "$(echo \"${B}\" b)",
    "$(echo a; echo b)",
    "$(printf 'a\\n\\n')",
    "$(printf 'a b')",
    "$(echo $(echo b))",
    "$(echo \\$A)",
    "\\$(echo a)",
    "$(echo a\\))",
    "$(echo (a)",
    "$(echo '#')",
    "$(echo 'a=b')",
    "$( echo a )",
    "$(exit 3)",
    "$(echo \\'a)",
    "$(echo\na)",
    "$(true)",
    "$(kamal secrets fetch --adapter test --account me X)",
    "$(kamal secrets extract X $A)",
];

/// A file of some lines.
pub(crate) fn file(random: &mut Random) -> String {
    let mut text = String::new();
    if random.below(40) == 0 {
        text.push('\u{feff}');
    }
    if random.below(20) == 0 {
        text.push_str("DOTENV_LINEBREAK_MODE=legacy\n");
    }
    for _ in 0..=random.below(5) {
        line(&mut text, random);
    }
    text
}

fn line(text: &mut String, random: &mut Random) {
    match random.below(12) {
        0 => soup(text, random, 10),
        1 => text.push_str("# A=comment"),
        _ => {
            if random.below(6) == 0 {
                text.push_str(one(&["export ", "export\t", "export\n", " export  "], random));
            }
            text.push_str(one(NAMES, random));
            if random.below(12) > 0 {
                text.push_str(one(SEPARATORS, random));
                value(text, random);
            }
        }
    }
    text.push_str(one(ENDS, random));
}

fn value(text: &mut String, random: &mut Random) {
    match random.below(8) {
        0 => {}
        1 | 2 => quoted(text, random, '"'),
        3 => quoted(text, random, '\''),
        4 => text.push_str(one(COMMANDS, random)),
        _ => soup(text, random, 6),
    }
}

fn quoted(text: &mut String, random: &mut Random, quote: char) {
    text.push(quote);
    soup(text, random, 6);
    text.push(quote);
}

fn soup(text: &mut String, random: &mut Random, most: usize) {
    for _ in 0..=random.below(most) {
        let from = if random.below(8) == 0 { COMMANDS } else { PIECES };
        text.push_str(one(from, random));
    }
}

fn one(of: &[&'static str], random: &mut Random) -> &'static str {
    of[random.below(of.len())]
}
