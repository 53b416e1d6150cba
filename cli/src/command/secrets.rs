//! `dhow secrets fetch|extract|print`: values of vaults and secrets files, printed because somebody
//! asked for just that.

use std::collections::BTreeMap;
use std::io::{self, Write};

use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;

use crate::secrets::adapter::FetchError;
use crate::secrets::request::{self, ExtractArgs, ExtractError, FetchArgs, Vaults};
use crate::secrets::runner::Runner;
use crate::secrets::{SecretError, Secrets, words};

/// `dhow secrets …`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SecretsCommand {
    /// Fetch secrets from a vault
    Fetch(FetchArgs),
    /// Extract a single secret from the results of a fetch call
    Extract(ExtractArgs),
    /// Print the secrets (for debugging)
    Print,
}

/// Why a command on secrets failed.
#[derive(Debug, thiserror::Error)]
pub enum SecretsCommandError {
    /// The vault gave none.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is not in what was fetched.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The secrets files cannot be used.
    #[error(transparent)]
    Files(#[from] SecretError),
    /// Standard output is closed.
    #[error("could not print")]
    Print(#[source] io::Error),
}

/// `secrets fetch`: one line with a JSON object.
///
/// # Errors
///
/// [`SecretsCommandError::Fetch`].
pub fn fetch(
    args: &FetchArgs,
    runner: &dyn Runner,
    env: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> Result<(), SecretsCommandError> {
    let json = request::json(&request::fetch(args, &Vaults { runner, env })?);
    let line = if args.inline { Zeroizing::new(words::escape(&json)) } else { json };
    print_line(&line, out)
}

/// `secrets extract`: the value alone.
///
/// # Errors
///
/// [`SecretsCommandError::Extract`].
pub fn extract(args: &ExtractArgs, out: &mut dyn Write) -> Result<(), SecretsCommandError> {
    print_line(request::extract(args)?.expose_secret(), out)
}

/// `secrets print`: `NAME=value` lines in the order of the files.
///
/// # Errors
///
/// [`SecretsCommandError::Files`].
pub fn print(secrets: &Secrets, out: &mut dyn Write) -> Result<(), SecretsCommandError> {
    for (name, value) in secrets.all()? {
        let line = Zeroizing::new(format!("{name}={}", value.expose_secret()));
        print_line(&line, out)?;
    }
    Ok(())
}

/// As Ruby's `puts`, which adds a line break only where there is none.
fn print_line(line: &str, out: &mut dyn Write) -> Result<(), SecretsCommandError> {
    let end = if line.ends_with('\n') { "" } else { "\n" };
    write!(out, "{line}{end}").map_err(SecretsCommandError::Print)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::runner::ProcessRunner;

    fn printed(
        run: impl FnOnce(&mut dyn Write) -> Result<(), SecretsCommandError>,
    ) -> Result<String, String> {
        let mut out = Vec::new();
        run(&mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn fetched(adapter: &str, account: Option<&str>, inline: bool) -> Result<String, String> {
        let args = FetchArgs {
            adapter: adapter.to_owned(),
            account: account.map(str::to_owned),
            from: None,
            inline,
            names: vec!["AB".to_owned(), "q\"".to_owned()],
        };
        printed(|out| fetch(&args, &ProcessRunner::default(), &BTreeMap::new(), out))
    }

    #[test]
    fn fetch_prints_one_json_object() {
        let json = r#"{"AB":"BA","q\"":"\"q"}"#;
        assert_eq!(fetched("test", Some("me"), false).unwrap(), format!("{json}\n"));
        assert_eq!(
            fetched("test", Some("me"), true).unwrap(),
            format!("{}\n", words::escape(json))
        );
    }

    #[test]
    fn fetch_fails_in_kamals_words() {
        assert_eq!(fetched("nope", None, false).unwrap_err(), "Unknown secrets adapter: nope");
        assert_eq!(
            fetched("test", None, false).unwrap_err(),
            "No value provided for required options '--account'"
        );
    }

    #[test]
    fn extract_takes_the_whole_key_or_its_last_part() {
        let json =
            r#"{"a/X": "1", "b/X": "2", "X/Y": "3", "N": 4, "L": "l\n", "a/F": "5", "F": false}"#;
        let extracted = |name: &str| {
            let args = ExtractArgs { name: name.to_owned(), json: json.to_owned(), inline: false };
            printed(|out| extract(&args, out))
        };
        assert_eq!(extracted("X").unwrap(), "1\n");
        assert_eq!(extracted("b/X").unwrap(), "2\n");
        assert_eq!(extracted("N").unwrap(), "4\n");
        assert_eq!(extracted("L").unwrap(), "l\n");
        assert_eq!(extracted("F").unwrap(), "5\n");
        assert_eq!(extracted("Z").unwrap_err(), "Could not find secret Z");
    }

    #[test]
    fn extract_from_nonsense_does_not_repeat_it() {
        for json in ["t0p", "[\"t0p\"]", "", "{\"t0p\": "] {
            let args = ExtractArgs { name: "X".to_owned(), json: json.to_owned(), inline: false };
            let said = printed(|out| extract(&args, out)).unwrap_err();
            assert!(said.contains("JSON object") && !said.contains("t0p"), "{said}");
        }
    }
}
