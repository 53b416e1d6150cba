//! Templates that nobody would write, but of the subset that dhow evaluates.

use super::mutate::Random;

/// Environment variables of the templates; others are not set.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("T_TEXT", "Value"),
    ("T_EMPTY", ""),
    ("T_LIST", "a,b,,c,"),
    ("T_SPACE", " x  y\t"),
    ("T_NUMBER", "42"),
];

/// A template of a few tags.
pub(crate) fn template(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(3) {
        text.push_str(&piece(random, 3));
    }
    text
}

fn piece(random: &mut Random, depth: usize) -> String {
    let close = *random.pick(&["%>", "-%>\n", "-%>", "%>\n", " %>", "\n%>"]);
    match random.below(if depth == 0 { 4 } else { 8 }) {
        0 => (*random
            .pick(&["text", "\n", "  ", "a: 'b'\n", "%", "<", "é", "<%% ", "%%>", "\r\n"]))
        .to_owned(),
        1 | 2 => format!("<%= {} {close}", value(random, 3)),
        3 => format!("<%# {} {close}", random.pick(&["c", "'", "ENV[", "if"])),
        4 => {
            let open = random.pick(&["<%", "<%-", "  <%-"]);
            format!("{open} v{} = {} {close}", random.below(3), value(random, 2))
        }
        5 => format!("<% require {} {close}", random.pick(&["'json'", "\"date\"", "('yaml')"])),
        _ => branch(random, depth, close),
    }
}

fn branch(random: &mut Random, depth: usize, close: &str) -> String {
    let unless = random.below(4) == 0;
    let word = if unless { "unless" } else { "if" };
    let then = random.pick(&["", "", " then"]);
    let mut text =
        format!("<% {word} {}{then} {close}{}", value(random, 2), piece(random, depth - 1));
    if !unless && random.below(3) == 0 {
        text += &format!("<% elsif {} {close}{}", value(random, 2), piece(random, depth - 1));
    }
    if random.below(2) == 0 {
        text += &format!("<%- else {close}{}", piece(random, depth - 1));
    }
    text + &format!("<% end {close}")
}

fn name(random: &mut Random) -> &'static str {
    random.pick::<&'static str>(&[
        "T_TEXT", "T_EMPTY", "T_LIST", "T_SPACE", "T_NUMBER", "T_NONE", "T_NONE2",
    ])
}

fn quoted(random: &mut Random, text: &str) -> String {
    match random.below(4) {
        0 => format!("\"{text}\""),
        1 => format!("%q({text})"),
        _ => format!("'{text}'"),
    }
}

/// An expression.
fn value(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return leaf(random);
    }
    let inner = |random: &mut Random| value(random, depth - 1);
    match random.below(16) {
        0 => format!("{} || {}", inner(random), inner(random)),
        1 => format!("{} && {}", inner(random), inner(random)),
        2 => format!("({}) == ({})", inner(random), inner(random)),
        3 => format!("({}) != {}", inner(random), leaf(random)),
        4 => format!("({}) ? {} : {}", inner(random), inner(random), inner(random)),
        5 => format!("!({})", inner(random)),
        // Alone in a condition Ruby does not even look at what is in it.
        6 => format!("\"{}#{{{}}}{}\".to_s", word(random), inner(random), word(random)),
        7 => format!("[{}, {}]", inner(random), inner(random)),
        8 => format!("({}){}", inner(random), method(random)),
        9 | 10 => format!("{}{}{}", leaf(random), method(random), method(random)),
        11 => format!("ENV.fetch({}) {{ {} }}", key(random), inner(random)),
        12 => format!("ENV.fetch {}, {}", key(random), inner(random)),
        13 => format!("({}) + ({})", inner(random), inner(random)),
        _ => leaf(random),
    }
}

fn key(random: &mut Random) -> String {
    let name = name(random);
    quoted(random, name)
}

fn word(random: &mut Random) -> &'static str {
    random.pick::<&'static str>(&[
        "a", " b ", "", "x,y", "'", "\\n", "\\t", "\\\\", "#", "12x", "-3", "1_0", "1__0", " 7",
        "É", "yes", ":",
    ])
}

fn leaf(random: &mut Random) -> String {
    match random.below(14) {
        0 => (*random.pick(&["nil", "true", "false"])).to_owned(),
        1 => (*random.pick(&["0", "1", "42", "-7", "1_000"])).to_owned(),
        2 => format!("\"{}\"", word(random)),
        3 => format!("'{}'", word(random).replace('\'', "\\'")),
        4 | 5 => format!("ENV[{}]", key(random)),
        6 => format!("ENV.fetch({})", key(random)),
        7 => format!("ENV.fetch({}, {})", key(random), literal(random)),
        8 => format!("ENV.key?({})", key(random)),
        9 => format!("`printf '{}'`", random.pick(&["a", "a\\\\n", " b ", "1,2"])),
        10 => format!(
            "%x(echo {})",
            random.pick(&["a", "'(b)'", "$T_TEXT", "(c)"]).replace("(c)", "c")
        ),
        11 => (*random.pick(&["RUBY_VERSION", "RUBY_ENGINE", "%w[a b]", "[]", "['a', 1, nil]"]))
            .to_owned(),
        12 => format!("v{}", random.below(3)),
        _ => format!("%({})", random.pick(&["a", "(b)", "c d", "#{1}"])),
    }
}

fn literal(random: &mut Random) -> String {
    let word = *random.pick(&["d", "", "1", "a b"]);
    quoted(random, word)
}

fn method(random: &mut Random) -> &'static str {
    random.pick::<&'static str>(&[
        ".strip",
        ".chomp",
        ".to_i",
        ".to_s",
        ".upcase",
        ".downcase",
        ".split(\",\")",
        ".split",
        ".presence",
        ".nil?",
        ".empty?",
        ".first",
        ".last",
        ".join(',')",
        "&.strip",
        "\n  .to_s",
        ".include?('a')",
        ".start_with?(\"a\")",
        ".split(',')[0]",
        ".blank?",
        ".present?",
        ".to_s.strip",
    ])
}
