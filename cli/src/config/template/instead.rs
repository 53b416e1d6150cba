//! What to write instead of Ruby that dhow does not evaluate.

/// What holds for anything: a variable, or Ruby itself.
const ANYTHING: &str = "take the value from an environment variable, `<%= ENV[\"X\"] %>`";

/// Ruby that is met in templates, by what its code begins with, and what does the same in dhow.
const INSTEAD: &[(&[&str], &str)] = &[
    (
        &[
            "do |",
            "do",
            "{",
            ".each",
            ".map",
            ".collect",
            ".select",
            ".reject",
            ".filter",
            ".times",
            ".flat_map",
            "while",
            "until",
            "for ",
            "loop",
        ],
        "there are no loops: write the list out, or print one, `<%= ENV[\"HOSTS\"].split(\",\") %>`",
    ),
    (&["case", "when"], "write `if … == …`, `elsif`, `else`, `end`"),
    (&["if ", "unless "], "write `condition ? a : b`, or `<% if condition %>` around the text"),
    (&["and ", "or ", "not "], "write `&&`, `||` or `!`"),
    (&["||=", "&&=", "+=", "-="], "write the whole assignment, `x = x || …`"),
    (&["<", ">", "=~", "!~", "===", ".match"], "compare with `==` or `!=`"),
    (&["raise", "abort", "fail"], "write `ENV.fetch(\"X\")`, which fails where X is not set"),
    (&["Integer", "Float", "String"], "write `.to_i` or `.to_s`"),
    (
        &["File", "IO", "Pathname", "YAML", "JSON"],
        "let a command read it, `<%= %x(cat FILE).strip %>`",
    ),
    (&["Time", "Date"], "let a command print it, `<%= %x(date +%s).strip %>`"),
    (&["system", "exec", "Open3", "IO.popen"], "write `%x(command)`"),
    (
        &[
            "[",
            "..",
            ".slice",
            ".first(",
            ".sub",
            ".gsub",
            ".tr",
            ".delete",
            ".squeeze",
            ".truncate",
        ],
        "let a command do it, `<%= %x(printf %s \"$X\" | cut -c1-7).strip %>`",
    ),
    (
        &["require", "require_relative", "load"],
        "set the variables that it sets before the program starts",
    ),
];

/// The hint for `code`, which begins with what is not known.
pub(super) fn instead(code: &str) -> String {
    let known = INSTEAD.iter().find(|(begins, _)| begins.iter().any(|begin| is_at(code, begin)));
    let advice = known.map_or(ANYTHING, |(_, advice)| advice);
    format!("{advice}; or set DHOW_ERB=ruby to let a local Ruby render the file")
}

/// Whether `code` begins with `begin`, as a whole word where it is one.
fn is_at(code: &str, begin: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.strip_prefix(begin)
        .is_some_and(|rest| !(begin.ends_with(is_word) && rest.starts_with(is_word)))
}
