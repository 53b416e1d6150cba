//! Google Secret Manager, through `gcloud`.
//!
//! The account is `default` or an e-mail address, and after a `|` optionally the service account to
//! impersonate, with its chain of delegates.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::{Adapter, Call, FetchError, Found, Invocation, json, list, malformed};

/// Padded or not, as vaults differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) struct GcpSecretManager;

/// A name `[project/]name[/version]`.
struct Secret {
    project: String,
    name: String,
    version: String,
}

impl Adapter for GcpSecretManager {
    fn needs_account(&self) -> bool {
        true
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("gcloud", Invocation::new("gcloud", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        if !logged_in(call)? {
            call.runner.run(&Invocation::new("gcloud", ["auth", "login"]).asking())?;
            if !logged_in(call)? {
                return Err(FetchError::Refused("could not login to gcloud".to_owned()));
            }
        }
        call.prefixed().iter().map(|name| read(call, &parse(name))).collect()
    }
}

fn logged_in(call: &Call<'_>) -> Result<bool, FetchError> {
    let run = Invocation::new("gcloud", ["auth", "list", "--format=json"]);
    let answer = json(&call.runner.run(&run)?, &run)?;
    Ok(!list(&answer, &run, "a list of accounts")?.is_empty())
}

fn parse(name: &str) -> Secret {
    let parts: Vec<&str> = name.split('/').collect();
    let (project, name, version) = match parts.as_slice() {
        [] => ("default", "", None),
        [name] => ("default", *name, None),
        [project, name] => (*project, *name, None),
        [project, name, version, ..] => (*project, *name, Some(*version)),
    };
    let version = version.unwrap_or("latest").to_owned();
    Secret { project: project.to_owned(), name: name.to_owned(), version }
}

fn read(call: &Call<'_>, secret: &Secret) -> Result<(String, SecretString), FetchError> {
    let (user, service_account) = match call.account().split_once('|') {
        Some((user, service_account)) => (user, Some(service_account)),
        None => (call.account(), None),
    };
    let mut args: Vec<String> =
        ["secrets", "versions", "access", &secret.version].map(str::to_owned).into();
    args.push(format!("--secret={}", secret.name));
    if secret.project != "default" {
        args.push(format!("--project={}", secret.project));
    }
    if user != "default" {
        args.push(format!("--account={user}"));
    }
    if let Some(account) = service_account {
        args.push(format!("--impersonate-service-account={account}"));
    }
    args.push("--format=json".to_owned());
    let run = Invocation::new("gcloud", args);
    let name = format!("{}/{}", secret.project, secret.name);
    let output =
        call.run_or(&run, || format!("Could not read {name} from Google Secret Manager"))?;
    let answer = json(&output, &run)?;
    let bytes = answer
        .pointer("/payload/data")
        .and_then(serde_json::Value::as_str)
        .and_then(|data| BASE64.decode(data).ok())
        .map(Zeroizing::new)
        .ok_or_else(|| malformed(&run, "base64 in `payload.data`"))?;
    let value = std::str::from_utf8(&bytes).map_err(|_| {
        FetchError::Refused(format!("{name} is binary data in Google Secret Manager, not text"))
    })?;
    Ok((name, SecretString::from(value)))
}
