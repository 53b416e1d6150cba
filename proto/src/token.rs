//! Where a one-time token is read from: a file, standard input or the environment; never an argument, which every process
//! of the machine could see.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The variable that may hold a token.
pub const VARIABLE: &str = "DHOW_TOKEN";

/// How every token begins (`dhow1.KIND.ID.SECRET.PIN`). The kind as well: a controller's machine may be called `dhow1`.
const BEGINNINGS: [&str; 2] = ["dhow1.join.", "dhow1.login."];

/// What to tell who wrote a token on a command line.
pub const ON_COMMAND_LINE: &str = "a token must not be an argument, which every process of this machine can read: put it into a file (--token-file FILE), on standard input (--token-file -) or into DHOW_TOKEN, and get a new one, as this one was seen";

/// Whether a token is among a program's arguments. Looked at before they are parsed: a parser repeats what it does not
/// know in its error, and errors end up in logs.
pub fn is_among(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments.into_iter().skip(1).any(|word| {
        let word = word.to_string_lossy();
        let token = word.rsplit_once('=').map_or(&*word, |(_, value)| value);
        BEGINNINGS.iter().any(|b| token.starts_with(b)) && token.matches('.').count() >= 3
    })
}

/// Longest text that is read.
const MAX: u64 = 4096;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Neither file nor variable.
    #[error("no token: give --token-file FILE (or `-` for standard input), or set {VARIABLE}")]
    NotGiven,
    /// Nothing but white space.
    #[error("the token is empty")]
    Empty,
    /// The file or standard input could not be read.
    #[error("could not read the token from {}", path.display())]
    Read {
        /// Which file; `-` is standard input.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads a token from `file` (`-`: standard input), else takes it from `variable`, the value of [`VARIABLE`].
///
/// # Errors
///
/// [`TokenError`].
pub fn read(
    file: Option<&Path>,
    variable: Option<String>,
) -> Result<Zeroizing<String>, TokenError> {
    let variable = variable.map(Zeroizing::new);
    let text = match file {
        Some(path) => {
            from_file(path).map_err(|source| TokenError::Read { path: path.to_owned(), source })?
        }
        None => variable.ok_or(TokenError::NotGiven)?,
    };
    // Tools print explanations before it; a token is the last word.
    let token = text.split_whitespace().last().map(str::to_owned).map(Zeroizing::new);
    token.ok_or(TokenError::Empty)
}

fn from_file(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    if path.as_os_str() == "-" {
        io::stdin().take(MAX).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(text: &str) -> Result<String, TokenError> {
        let path =
            std::env::temp_dir().join(format!("token-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let token = read(Some(&path), Some("dhow1.other".to_owned()));
        std::fs::remove_file(&path).unwrap();
        token.map(|token| token.to_string())
    }

    #[test]
    fn a_file_comes_before_the_variable_and_the_last_word_counts() {
        assert_eq!(in_file("A token for h1:\n\n  dhow1.join.x  \n").unwrap(), "dhow1.join.x");
        assert_eq!(&*read(None, Some(" dhow1.join.y\n".to_owned())).unwrap(), "dhow1.join.y");
    }

    #[test]
    fn a_token_on_the_command_line_is_seen() {
        let among = |line: &str| is_among(line.split(' ').map(OsString::from));
        assert!(among("dhow login dhow1.login.00.secret.pin"));
        assert!(among("dhow-agent join --token=dhow1.join.00.secret.pin"));
        assert!(!among("dhow1.login.00.secret.pin login --token-file dhow1.txt"));
        assert!(!among("dhow login --token-file /run/dhow1.login.token"));
        assert!(!among("dhow login --controller dhow1.prod.example.com:7443"), "a machine");
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(matches!(in_file(" \n"), Err(TokenError::Empty)));
        assert!(matches!(read(None, None), Err(TokenError::NotGiven)));
        let error = read(Some(Path::new("/nowhere/token")), None).unwrap_err();
        assert_eq!(error.to_string(), "could not read the token from /nowhere/token");
    }
}
