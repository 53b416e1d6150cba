//! AWS Secrets Manager, through `aws`.

use secrecy::SecretString;
use serde_json::Value;

use super::{
    Adapter, Call, FetchError, Found, Invocation, json, list, malformed, ruby_list, text, text_of,
};

pub(super) struct AwsSecretsManager;

impl Adapter for AwsSecretsManager {
    fn needs_account(&self) -> bool {
        false
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("AWS", Invocation::new("aws", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let names = call.prefixed();
        let mut args: Vec<String> =
            ["secretsmanager", "batch-get-secret-value", "--secret-id-list"]
                .map(str::to_owned)
                .into();
        args.extend(names.iter().cloned());
        if let Some(profile) = call.account {
            args.extend(["--profile".to_owned(), profile.to_owned()]);
        }
        args.extend(["--output".to_owned(), "json".to_owned()]);
        let run = Invocation::new("aws", args);
        let output = call.run_or(&run, || {
            format!("Could not read {} from AWS Secrets Manager", ruby_list(&names))
        })?;
        let answer = json(&output, &run)?;
        refused(&answer)?;
        let Some(secrets) = answer.get("SecretValues") else {
            return Err(malformed(&run, "an object with `SecretValues`"));
        };
        let mut found = Found::new();
        for secret in list(secrets, &run, "a list in `SecretValues`")? {
            found.extend(values(secret, &run)?);
        }
        Ok(found)
    }
}

/// The names that AWS could not give, with its reasons.
fn refused(answer: &Value) -> Result<(), FetchError> {
    let Some(errors) = answer.get("Errors").and_then(Value::as_array).filter(|e| !e.is_empty())
    else {
        return Ok(());
    };
    let part =
        |error: &Value, key| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let reasons: Vec<String> = errors
        .iter()
        .map(|error| format!("{}: {}", part(error, "SecretId"), part(error, "Message")))
        .collect();
    Err(FetchError::Refused(reasons.join(" ")))
}

/// A JSON object gives a value for each key, anything else one value.
fn values(secret: &Value, run: &Invocation) -> Result<Found, FetchError> {
    let name = text(secret, "Name", run, "a secret with `Name`")?;
    let value = text(secret, "SecretString", run, "a secret with `SecretString`")?;
    let parsed = serde_json::from_str::<Value>(value);
    Ok(match &parsed {
        Ok(Value::Object(keys)) => {
            keys.iter().map(|(key, value)| (format!("{name}/{key}"), text_or_null(value))).collect()
        }
        Ok(other) => vec![(name.to_owned(), text_or_null(other))],
        Err(_) => vec![(name.to_owned(), SecretString::from(value))],
    })
}

fn text_or_null(value: &Value) -> SecretString {
    text_of(value).unwrap_or_else(|| SecretString::from("null"))
}
