//! Bitwarden Secrets Manager, through `bws`, which finds its token in `BWS_ACCESS_TOKEN`.

use secrecy::SecretString;
use serde_json::Value;

use super::{Adapter, Call, FetchError, Found, Invocation, json, list, text};

pub(super) struct BitwardenSecretsManager;

impl Adapter for BitwardenSecretsManager {
    fn needs_account(&self) -> bool {
        false
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("Bitwarden Secrets Manager", Invocation::new("bws", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let token_works = Invocation::new("bws", ["project", "list"]);
        call.run_or(&token_works, || {
            "Could not authenticate to Bitwarden Secrets Manager. Did you set a valid access token?"
                .to_owned()
        })?;
        let names = call.prefixed();
        match names.as_slice() {
            [] => Err(FetchError::Refused(
                "You must specify what to retrieve from Bitwarden Secrets Manager".to_owned(),
            )),
            [all] if all == "all" => list_of(call, &["secret", "list"]),
            [all] if all.ends_with("/all") => {
                let project = all.split("/all").next().unwrap_or_default();
                list_of(call, &["secret", "list", project])
            }
            ids => ids.iter().map(|id| one(call, id)).collect(),
        }
    }
}

fn list_of(call: &Call<'_>, args: &[&str]) -> Result<Found, FetchError> {
    let run = Invocation::new("bws", args.iter().copied());
    let output =
        call.run_or(&run, || "Could not read secrets from Bitwarden Secrets Manager".to_owned())?;
    let answer = json(&output, &run)?;
    list(&answer, &run, "a list of secrets")?.iter().map(|secret| named(secret, &run)).collect()
}

fn one(call: &Call<'_>, id: &str) -> Result<(String, SecretString), FetchError> {
    let run = Invocation::new("bws", ["secret", "get", id]);
    let output =
        call.run_or(&run, || format!("Could not read {id} from Bitwarden Secrets Manager"))?;
    named(&json(&output, &run)?, &run)
}

fn named(secret: &Value, run: &Invocation) -> Result<(String, SecretString), FetchError> {
    const SHAPE: &str = "a secret with `key` and `value`";
    let name = text(secret, "key", run, SHAPE)?;
    Ok((name.to_owned(), SecretString::from(text(secret, "value", run, SHAPE)?)))
}
