use std::collections::BTreeMap;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

/// A world that answers each command with the command, in brackets.
#[derive(Default)]
struct Echo {
    variables: BTreeMap<String, String>,
    commands: Vec<(String, String)>,
}

impl World for Echo {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn command(&mut self, command: &Command<'_>) -> Result<Zeroizing<String>, WorldError> {
        if command.expanded == "fail" {
            return Err("it failed".into());
        }
        self.commands.push((command.written.to_owned(), command.expanded.to_owned()));
        Ok(Zeroizing::new(format!("[{}]", command.expanded)))
    }
}

fn read(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
    let mut world = Echo::default();
    world.variables.insert("HOME".to_owned(), "/root".to_owned());
    let pairs = parse(text, &mut world)?;
    Ok(pairs.into_values().map(|(name, value)| (name, value.expose_secret().to_owned())).collect())
}

#[track_caller]
fn check(text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(read(text).unwrap(), expected);
}

#[test]
fn a_command_is_shown_as_written_and_run_as_expanded() {
    let mut world = Echo::default();
    parse("T=s3cret\nA=$(curl -H $T)", &mut world).unwrap();
    assert_eq!(world.commands, [("curl -H $T".to_owned(), "curl -H s3cret".to_owned())]);
}

#[test]
fn variables_are_replaced_in_what_a_command_printed() {
    check("A=$(echo \\$HOME)", &[("A", "[echo /root]")]);
    check("A='$'\nB=$(x $A)HOME", &[("A", "$"), ("B", "[x $]HOME")]);
}

#[test]
fn an_error_names_the_line_and_the_secret_but_no_value() {
    let text = "\n# c\nA=1\nB=$(fail)";
    let error = read(text).err().unwrap();
    assert_eq!(error.to_string(), "line 4: B");
    assert!(matches!(error, DotenvError::Command { line: 4, .. }));
    let error = read("A=1\r\nexport B\r\n").err().unwrap();
    assert_eq!(error.to_string(), "line 2: Line \"export B\" has an unset variable");
}

#[test]
fn doubling_values_end_at_the_limit() {
    let mut text = String::from("A0=xxxxxxxxxx\n");
    for step in 1..64 {
        text.push_str(&format!("A{step}=$A{0}$A{0}\n", step - 1));
    }
    assert!(matches!(read(&text), Err(DotenvError::TooLong { limit: MAX_VALUE, .. })));
    let mut text = format!("A={}\n", "x".repeat(1000 * 1000));
    for step in 0..64 {
        text.push_str(&format!("B{step}=$A\n"));
    }
    assert!(matches!(read(&text), Err(DotenvError::TooLong { .. })));
}

#[test]
fn hostile_repetition_takes_linear_time() {
    let n = 200_000;
    for piece in ["$(", "A='", "A=\"", "A\n", "A='\\'", "'", "\\", "${", "A=\n", "$(()", "export "]
    {
        // Quadratic time would be minutes; the test runner shows that.
        let _ = read(&piece.repeat(n));
        let _ = read(&format!("A=\"{}\"", piece.repeat(n)));
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    assert_eq!(decode(b"\xef\xbb\xbfA=1").unwrap(), "A=1");
    let error = decode(b"A=1\nB=\xff").unwrap_err();
    assert_eq!(error.to_string(), "line 2: not valid UTF-8");
    let error = decode(b"\xff\xfeA\0=\0").unwrap_err();
    assert!(error.to_string().contains("UTF-16"), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[A-C=:'\"\\\\$(){}# \n\r\texport.é]{0,60}") {
        let _ = read(&text);
    }

    #[test]
    fn what_is_in_single_quotes_is_literal(value in "[^'\0\r]{0,40}") {
        // An escaped quote may end the value early; so no backslash before the last quote.
        prop_assume!(!value.ends_with('\\'));
        let text = format!("A='{value}'");
        prop_assert_eq!(read(&text).unwrap(), vec![("A".to_owned(), value)]);
    }
}
