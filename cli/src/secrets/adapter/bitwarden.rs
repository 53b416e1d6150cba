//! Bitwarden, through `bw`.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Adapter, Call, FetchError, Found, Invocation, Output, json, text, text_of};

pub(super) struct Bitwarden;

impl Adapter for Bitwarden {
    fn needs_account(&self) -> bool {
        true
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("Bitwarden", Invocation::new("bw", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let session = unlock(call)?;
        let mut found = Found::new();
        for (item, fields) in items(&call.prefixed()) {
            let run = bw(&["get", "item", &item], session.as_ref());
            let output = call.run_or(&run, || format!("Could not read {item} from Bitwarden"))?;
            found.extend(values(&item, &fields, &json(&output, &run)?)?);
        }
        Ok(found)
    }
}

/// Logs in and unlocks as far as needed; the answer is the session of an unlocking.
fn unlock(call: &Call<'_>) -> Result<Option<SecretString>, FetchError> {
    let mut session = None;
    let mut now = status(call, None)?;
    if now == "unauthenticated" {
        // Its failure shows in the status.
        call.runner.run(&bw(&["login", call.account()], None).asking())?;
        now = status(call, None)?;
    }
    if now == "locked" {
        let run = bw(&["unlock", "--raw"], None).asking();
        let output = call.runner.run(&run)?;
        session = token(&output, &run)?;
        now = status(call, session.as_ref())?;
    }
    if now != "unlocked" {
        return Err(FetchError::Refused("Failed to login to and unlock Bitwarden".to_owned()));
    }
    let sync = bw(&["sync"], session.as_ref());
    call.run_or(&sync, || "Failed to sync Bitwarden".to_owned())?;
    Ok(session)
}

fn token(output: &Output, run: &Invocation) -> Result<Option<SecretString>, FetchError> {
    let token = output.text(&run.shown)?.trim();
    Ok((!token.is_empty()).then(|| SecretString::from(token)))
}

fn status(call: &Call<'_>, session: Option<&SecretString>) -> Result<String, FetchError> {
    let run = bw(&["status"], session);
    let answer = json(&call.runner.run(&run)?, &run)?;
    text(&answer, "status", &run, "an object with a `status`").map(str::to_owned)
}

fn bw(args: &[&str], session: Option<&SecretString>) -> Invocation {
    let run = Invocation::new("bw", args.iter().copied());
    match session {
        Some(session) => run.with_env("BW_SESSION", session.clone()),
        None => run,
    }
}

/// The names `item[/field]`, one entry an item; a name without field asks for what the item is.
fn items(names: &[String]) -> Vec<(String, Vec<Option<String>>)> {
    let mut items: Vec<(String, Vec<Option<String>>)> = Vec::new();
    for name in names {
        let mut parts = name.split('/');
        let item = parts.next().unwrap_or_default();
        let field = parts.next().filter(|field| !field.is_empty()).map(str::to_owned);
        match items.iter_mut().find(|(known, _)| known == item) {
            Some((_, fields)) => fields.push(field),
            None => items.push((item.to_owned(), vec![field])),
        }
    }
    items
}

fn values(item: &str, fields: &[Option<String>], answer: &Value) -> Result<Found, FetchError> {
    let none = Vec::new();
    let custom = answer.get("fields").and_then(Value::as_array).unwrap_or(&none);
    let mut found = Found::new();
    for field in fields {
        match field {
            Some(field) => found.push(field_of(item, field, custom)?),
            None => found.extend(whole(item, answer, custom)?),
        }
    }
    Ok(found)
}

fn field_of(
    item: &str,
    wanted: &str,
    custom: &[Value],
) -> Result<(String, SecretString), FetchError> {
    let field = custom.iter().find(|field| name_of(field) == Some(wanted));
    field.map(|field| (format!("{item}/{wanted}"), value_of(field))).ok_or_else(|| {
        FetchError::Refused(format!("Could not find field {wanted} in item {item} in Bitwarden"))
    })
}

/// The password of a login; of another item all its fields.
fn whole(item: &str, answer: &Value, custom: &[Value]) -> Result<Found, FetchError> {
    if let Some(password) = answer.pointer("/login/password").and_then(text_of) {
        return Ok(vec![(item.to_owned(), password)]);
    }
    if custom.is_empty() {
        return Err(FetchError::Refused(format!(
            "Item {item} is not a login type item and no fields were specified"
        )));
    }
    let all = custom.iter().filter_map(|field| Some((name_of(field)?, value_of(field))));
    Ok(all.map(|(name, value)| (format!("{item}/{name}"), value)).collect())
}

fn name_of(field: &Value) -> Option<&str> {
    field.get("name").and_then(Value::as_str)
}

/// The value of a custom field; a field that was left empty has null.
fn value_of(field: &Value) -> SecretString {
    let value = field.get("value").and_then(text_of);
    SecretString::from(value.as_ref().map_or("", ExposeSecret::expose_secret))
}
