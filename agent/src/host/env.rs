//! Env files in Kamal's form (host-effects: env file format).

use dhow_proto::model::secrets::Secrets;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

/// Content of an env file: one `KEY=VALUE` a line; without secrets a single newline.
pub(crate) fn env_file(secrets: &Secrets) -> Zeroizing<String> {
    // Room for every escape, so that no copy is left behind by a growing buffer.
    let room =
        secrets.iter().map(|(n, v)| n.len() + 4 * v.expose_secret().len() + 2).sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(room + 1));
    for (name, value) in secrets.iter() {
        text.push_str(name);
        text.push('=');
        escape(value.expose_secret(), &mut text);
        text.push('\n');
    }
    if secrets.is_empty() {
        text.push('\n');
    }
    text
}

/// What a container sees of a value that went through Kamal's env file.
pub(crate) fn kamal_escaped(value: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(4 * value.len()));
    escape(value, &mut text);
    text
}

/// Ruby's `String#dump` on ASCII runs, without the outer quotes, with `\"` and `\#` taken back; other runs untouched.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{07}' => out.push_str("\\a"),
            '\u{08}' => out.push_str("\\b"),
            '\u{0b}' => out.push_str("\\v"),
            '\u{0c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(*kamal_escaped(value), expected);
    }

    #[test]
    fn values_are_written_as_kamal_writes_them() {
        for same in ["a b", "q\"q", "sq'q", "h#a", "#{x}", "$FOO", "${FOO}", "`id`", "é"] {
            check(same, same);
        }
        check("a\nb\tc\rd\u{1b}e\u{1}", "a\\nb\\tc\\rd\\ee\\x01");
        check("one\\two", "one\\\\two");
    }

    #[test]
    fn no_secrets_are_a_single_newline() {
        assert_eq!(*env_file(&Secrets::new()), "\n");
    }
}
