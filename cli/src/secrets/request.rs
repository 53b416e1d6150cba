//! `secrets fetch` and `secrets extract`: what they take and what they answer, the same on the
//! command line and inside a secrets file.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::adapter::{self, Call, FetchError, Found};
use super::runner::Runner;

/// What `secrets fetch` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct FetchArgs {
    /// Which vault adapter to use
    #[arg(short, long)]
    pub adapter: String,
    /// The account identifier or username
    #[arg(long)]
    pub account: Option<String>,
    /// A vault or folder to fetch the secrets from
    #[arg(long)]
    pub from: Option<String>,
    /// Answer in the form that a secrets file needs
    #[arg(long, hide = true)]
    pub inline: bool,
    /// The secrets to fetch
    #[arg(value_name = "SECRETS")]
    pub names: Vec<String>,
}

/// What `secrets extract` takes.
#[derive(Clone, clap::Args)]
pub struct ExtractArgs {
    /// Name of the secret, whole or only what follows the last slash
    pub name: String,
    /// The answer of `secrets fetch`
    #[arg(value_name = "SECRETS")]
    pub json: String,
    /// Answer in the form that a secrets file needs
    #[arg(long, hide = true)]
    pub inline: bool,
}

impl fmt::Debug for ExtractArgs {
    /// Without the answer, which is full of values.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ExtractArgs").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What adapters work with.
pub struct Vaults<'a> {
    /// Runs the vendors' programs.
    pub runner: &'a dyn Runner,
    /// The environment, in which some vendors' tokens are.
    pub env: &'a BTreeMap<String, String>,
}

/// Why `secrets extract` has no value.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The second argument is no JSON object.
    #[error("the answer to extract {name} from is not a JSON object, as `secrets fetch` prints it")]
    NotAnObject {
        /// The name to extract.
        name: String,
    },
    /// No key is the name or ends with it.
    #[error("Could not find secret {name}")]
    NotFound {
        /// The name to extract.
        name: String,
    },
}

/// Fetches from the vault that `args` name: names with values, in the order of the answer.
///
/// # Errors
///
/// [`FetchError`], with Kamal's words where Kamal has some.
pub fn fetch(args: &FetchArgs, vaults: &Vaults<'_>) -> Result<Found, FetchError> {
    let adapter = adapter::lookup(&args.adapter)?;
    adapter::fetch(
        &*adapter,
        &Call {
            runner: vaults.runner,
            env: vaults.env,
            account: args.account.as_deref().filter(|account| !account.trim().is_empty()),
            from: args.from.as_deref(),
            names: &args.names,
        },
    )
}

/// `found` as the JSON object that `secrets extract` takes.
pub fn json(found: &Found) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::from("{"));
    for (at, (name, value)) in found.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(name));
        out.push(':');
        out.push_str(&quoted(value.expose_secret()));
    }
    out.push('}');
    out
}

fn quoted(text: &str) -> Zeroizing<String> {
    Zeroizing::new(Value::from(text).to_string())
}

/// The value of `args.name`: of that key, else of the first key that ends with `/NAME`. Numbers and
/// booleans are given as text.
///
/// # Errors
///
/// [`ExtractError`].
pub fn extract(args: &ExtractArgs) -> Result<SecretString, ExtractError> {
    let name = || args.name.clone();
    let Ok(Value::Object(found)) = serde_json::from_str(&args.json) else {
        return Err(ExtractError::NotAnObject { name: name() });
    };
    let suffix = format!("/{}", args.name);
    found
        .get(&args.name)
        // In Ruby, null and false let the search go on.
        .filter(|value| !matches!(value, Value::Null | Value::Bool(false)))
        .or_else(|| found.iter().find(|(key, _)| key.ends_with(&suffix)).map(|(_, value)| value))
        .and_then(adapter::text_of)
        .ok_or_else(|| ExtractError::NotFound { name: name() })
}
