//! Splits and quotes words as Ruby's `Shellwords` does, which Kamal uses between
//! `kamal secrets fetch` and `kamal secrets extract` in a secrets file.

/// Text that cannot be split into words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote without its partner.
    #[error("unmatched quote")]
    UnmatchedQuote,
    /// A NUL character.
    #[error("nul character")]
    Nul,
}

/// Words of `line`; quotes and backslashes as in a POSIX shell, nothing else is special.
///
/// # Errors
///
/// [`SplitError`].
pub fn split(line: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() || c == '\x0b' {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '\0' => return Err(SplitError::Nul),
            '\'' => single_quoted(&mut chars, word)?,
            '"' => double_quoted(&mut chars, word)?,
            '\\' => word.push(chars.next().unwrap_or('\\')),
            other => word.push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitError> {
    loop {
        match chars.next() {
            Some('\'') => return Ok(()),
            Some('\0') | None => return Err(SplitError::UnmatchedQuote),
            Some(c) => word.push(c),
        }
    }
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitError> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('\0') | None => return Err(SplitError::UnmatchedQuote),
            Some('\\') => match chars.next() {
                Some(c @ ('$' | '`' | '"' | '\\' | '\n')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => return Err(SplitError::UnmatchedQuote),
            },
            Some(c) => word.push(c),
        }
    }
}

/// `word` so that [`split`] and a shell read it as one word.
pub fn escape(word: &str) -> String {
    if word.is_empty() {
        return "''".to_owned();
    }
    let mut out = String::with_capacity(word.len() * 2);
    for c in word.chars() {
        match c {
            '\n' => out.push_str("'\n'"),
            c if c.is_ascii_alphanumeric() || "_-.,:+/@".contains(c) => out.push(c),
            c => out.extend(['\\', c]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, words: &[&str]) {
        assert_eq!(split(line), Ok(words.iter().map(|word| (*word).to_owned()).collect()));
    }

    #[test]
    fn words_end_at_white_space_outside_quotes() {
        check(" a  'b c' \"d e\"f\\ g\t\n", &["a", "b c", "d ef g"]);
        check("", &[]);
        check("''", &[""]);
        check("a''b", &["ab"]);
    }

    #[test]
    fn in_double_quotes_a_backslash_hides_only_what_is_special_there() {
        check(r#""a\"b\$c\d""#, &[r#"a"b$c\d"#]);
    }

    #[test]
    fn a_lone_quote_is_an_error() {
        assert_eq!(split("a 'b"), Err(SplitError::UnmatchedQuote));
        assert_eq!(split("\"b\\"), Err(SplitError::UnmatchedQuote));
    }

    #[test]
    fn what_is_escaped_comes_back() {
        for word in ["", "a b", "{\"k\":\"v$x'\"}", "line\nbreak", "é%=~", "\\"] {
            assert_eq!(split(&escape(word)), Ok(vec![word.to_owned()]), "{word:?}");
        }
    }
}
