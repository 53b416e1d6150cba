//! Fetches secrets from vaults, through the vendors' own programs.
//!
//! In: names, an account, where to look. Out: names with values, or Kamal's words for why not.
//! Always true: programs are started without a shell, and neither errors nor logs hold what a
//! vault answered.

mod aws_secrets_manager;
mod bitwarden;
mod bitwarden_secrets_manager;
mod command;
mod doppler;
mod enpass;
mod gcp_secret_manager;
mod last_pass;
mod one_password;
mod passbolt;
mod test;

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::Value;

use super::runner::{Invocation, Output, RunError, Runner};

/// Names with values, in the order of the answer, each name once.
pub type Found = Vec<(String, SecretString)>;

/// What somebody wants from a vault.
pub struct Call<'a> {
    /// Runs the vendor's program.
    pub runner: &'a dyn Runner,
    /// The environment, in which some vendors' tokens are.
    pub env: &'a BTreeMap<String, String>,
    /// The account; blank counts as none.
    pub account: Option<&'a str>,
    /// Vault or folder, in most adapters a prefix of the names.
    pub from: Option<&'a str>,
    /// The names.
    pub names: &'a [String],
}

/// Why a vault gave no secrets.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No adapter has this name.
    #[error("Unknown secrets adapter: {name}")]
    UnknownAdapter {
        /// The name.
        name: String,
    },
    /// The adapter needs `--account`.
    #[error("No value provided for required options '--account'")]
    AccountMissing,
    /// The vendor's program is missing or does not run.
    #[error("{vendor} CLI is not installed")]
    NotInstalled {
        /// What Kamal calls the vendor.
        vendor: &'static str,
    },
    /// The vault refused, does not know a name, or was asked wrongly.
    #[error("{0}")]
    Refused(String),
    /// The vendor's program answered something that is not what it should be.
    #[error("could not understand what `{shown}` answered: {expected} was expected")]
    Malformed {
        /// What was run.
        shown: String,
        /// What should have been there.
        expected: &'static str,
    },
    /// The vendor's program could not be run to its end.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// One kind of vault.
pub trait Adapter {
    /// Whether it cannot work without `--account`.
    fn needs_account(&self) -> bool;

    /// What Kamal calls the vendor, and a harmless run of its program that shows whether it is
    /// there; `None` when there is no program.
    fn program(&self) -> Option<(&'static str, Invocation)>;

    /// Logs in if need be and reads the secrets.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError>;
}

/// The adapter called `name`: an alias, the name with underscores, or that in camel case.
///
/// # Errors
///
/// [`FetchError::UnknownAdapter`].
pub fn lookup(name: &str) -> Result<Box<dyn Adapter>, FetchError> {
    Ok(match name.to_lowercase().as_str() {
        "1password" => Box::new(one_password::OnePassword),
        "lastpass" => Box::new(last_pass::LastPass),
        "gcp" => Box::new(gcp_secret_manager::GcpSecretManager),
        "bitwarden-sm" => Box::new(bitwarden_secrets_manager::BitwardenSecretsManager),
        _ => match name {
            "one_password" | "OnePassword" => Box::new(one_password::OnePassword),
            "last_pass" | "LastPass" => Box::new(last_pass::LastPass),
            "bitwarden" | "Bitwarden" => Box::new(bitwarden::Bitwarden),
            "bitwarden_secrets_manager" | "BitwardenSecretsManager" => {
                Box::new(bitwarden_secrets_manager::BitwardenSecretsManager)
            }
            "aws_secrets_manager" | "AwsSecretsManager" => {
                Box::new(aws_secrets_manager::AwsSecretsManager)
            }
            "gcp_secret_manager" | "GcpSecretManager" => {
                Box::new(gcp_secret_manager::GcpSecretManager)
            }
            "doppler" | "Doppler" => Box::new(doppler::Doppler),
            "enpass" | "Enpass" => Box::new(enpass::Enpass),
            "passbolt" | "Passbolt" => Box::new(passbolt::Passbolt),
            "test" | "Test" => Box::new(test::Test),
            "command" => Box::new(command::Command),
            _ => return Err(FetchError::UnknownAdapter { name: name.to_owned() }),
        },
    })
}

/// Fetches with `adapter`, after the checks that all of them share.
///
/// # Errors
///
/// [`FetchError`].
pub fn fetch(adapter: &dyn Adapter, call: &Call<'_>) -> Result<Found, FetchError> {
    if adapter.needs_account() && call.account.is_none() {
        return Err(FetchError::AccountMissing);
    }
    if let Some((vendor, probe)) = adapter.program() {
        match call.runner.run(&probe) {
            Ok(output) if output.success() => {}
            Ok(_) | Err(RunError::Missing { .. }) => {
                return Err(FetchError::NotInstalled { vendor });
            }
            Err(other) => return Err(other.into()),
        }
    }
    let mut found = Found::new();
    for (name, value) in adapter.fetch(call)? {
        // As in a Ruby hash: the place of the first, the value of the last.
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => found.push((name, value)),
        }
    }
    Ok(found)
}

impl Call<'_> {
    /// The account, for adapters that need one.
    fn account(&self) -> &str {
        self.account.unwrap_or_default()
    }

    /// The names, each after `FROM/` when there is a `--from`.
    fn prefixed(&self) -> Vec<String> {
        let prefixed = |name: &String| match self.from {
            Some(from) => format!("{from}/{name}"),
            None => name.clone(),
        };
        self.names.iter().map(prefixed).collect()
    }

    /// Runs a program that must end well, else refuses with `failure`.
    fn run_or(&self, run: &Invocation, failure: impl Fn() -> String) -> Result<Output, FetchError> {
        let output = self.runner.run(run)?;
        if !output.success() {
            return Err(FetchError::Refused(failure()));
        }
        Ok(output)
    }
}

/// The JSON that a program printed.
fn json(output: &Output, run: &Invocation) -> Result<Value, FetchError> {
    // The parser's message is left out, as it may quote the text.
    serde_json::from_slice(&output.stdout).map_err(|_| malformed(run, "JSON"))
}

fn malformed(run: &Invocation, expected: &'static str) -> FetchError {
    FetchError::Malformed { shown: run.shown.clone(), expected }
}

/// The members of a JSON list, or an error that names what they should be.
fn list<'a>(
    value: &'a Value,
    run: &Invocation,
    expected: &'static str,
) -> Result<&'a Vec<Value>, FetchError> {
    value.as_array().ok_or_else(|| malformed(run, expected))
}

/// The text at `key`, or an error that names what should be there.
fn text<'a>(
    value: &'a Value,
    key: &str,
    run: &Invocation,
    expected: &'static str,
) -> Result<&'a str, FetchError> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| malformed(run, expected))
}

/// A JSON value as a secret: text as it is, anything else but null as JSON.
pub(super) fn text_of(value: &Value) -> Option<SecretString> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(SecretString::from(text.as_str())),
        other => Some(SecretString::from(other.to_string())),
    }
}

/// A list of names as Ruby shows it, as Kamal's messages do.
fn ruby_list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests;
