//! 1Password, through `op`.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Adapter, Call, FetchError, Found, Invocation, json, list, text, text_of};

pub(super) struct OnePassword;

/// What to read of one item; no fields means all of them.
struct Item {
    vault: String,
    item: String,
    fields: Vec<String>,
}

impl Adapter for OnePassword {
    fn needs_account(&self) -> bool {
        true
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("1Password", Invocation::new("op", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let items = if call.names.is_empty() {
            vec![whole_item(call.from.unwrap_or_default())?]
        } else {
            items(&call.prefixed())?
        };
        let session = session(call)?;
        let mut found = Found::new();
        for item in &items {
            found.extend(read(call, item, session.as_ref())?);
        }
        Ok(found)
    }
}

/// Signs in unless the account is known, which also is so with the desktop app. The answer is a
/// session token, or empty when the app keeps the session.
fn session(call: &Call<'_>) -> Result<Option<SecretString>, FetchError> {
    let known = Invocation::new("op", ["account", "get", "--account", call.account()]).quiet();
    if call.runner.run(&known)?.success() {
        return Ok(None);
    }
    let sign_in =
        Invocation::new("op", ["signin", "--account", call.account(), "--force", "--raw"]).asking();
    let output = call.run_or(&sign_in, || "Failed to login to 1Password".to_owned())?;
    let token = output.text(&sign_in.shown)?.trim();
    Ok((!token.is_empty()).then(|| SecretString::from(token)))
}

fn whole_item(from: &str) -> Result<Item, FetchError> {
    let mut parts = from.strip_prefix("op://").unwrap_or(from).split('/');
    match (parts.next(), parts.next()) {
        (Some(vault), Some(item)) if !vault.is_empty() && !item.is_empty() => {
            Ok(Item { vault: vault.to_owned(), item: item.to_owned(), fields: Vec::new() })
        }
        _ => Err(FetchError::Refused(
            "Without names of secrets, --from must be vault/item of 1Password".to_owned(),
        )),
    }
}

/// The names `[op://]vault/item[/section][/field]`, one entry an item, so that each item is read
/// once.
fn items(names: &[String]) -> Result<Vec<Item>, FetchError> {
    let mut items: Vec<Item> = Vec::new();
    for name in names {
        let parts: Vec<&str> = name.strip_prefix("op://").unwrap_or(name).split('/').collect();
        let [vault, item, fields @ ..] = parts.as_slice() else {
            return Err(FetchError::Refused(format!(
                "{name} names no item of 1Password, as vault/item[/section]/field does"
            )));
        };
        let field = if fields.is_empty() { "password".to_owned() } else { fields.join(".") };
        match items.iter_mut().find(|known| known.vault == *vault && known.item == *item) {
            Some(known) => known.fields.push(field),
            None => items.push(Item {
                vault: (*vault).to_owned(),
                item: (*item).to_owned(),
                fields: vec![field],
            }),
        }
    }
    // All items of a vault, then those of the next.
    let vaults: Vec<String> = items.iter().map(|item| item.vault.clone()).collect();
    items.sort_by_key(|item| vaults.iter().position(|vault| *vault == item.vault));
    Ok(items)
}

fn read(call: &Call<'_>, item: &Item, session: Option<&SecretString>) -> Result<Found, FetchError> {
    let mut args: Vec<String> = ["item", "get", &item.item, "--vault", &item.vault]
        .into_iter()
        .chain(["--format", "json", "--account", call.account()])
        .map(str::to_owned)
        .collect();
    if let Some(token) = session {
        // `op` takes a token without the user's id in no other way. It is good for half an hour,
        // on this machine, for this terminal.
        args.extend(["--session".to_owned(), token.expose_secret().to_owned()]);
    }
    if !item.fields.is_empty() {
        let labels: Vec<String> =
            item.fields.iter().map(|field| format!("label={field}")).collect();
        args.extend(["--fields".to_owned(), labels.join(",")]);
    }
    let run = Invocation::new("op", args);
    let output = call.run_or(&run, || {
        let fields = item.fields.join(", ");
        let space = if fields.is_empty() { "" } else { " " };
        format!(
            "Could not read {fields}{space}from {} in the {} 1Password vault",
            item.item, item.vault
        )
    })?;
    let answer = json(&output, &run)?;
    let fields: Vec<&Value> = match item.fields.len() {
        0 => {
            let fields = answer.get("fields").unwrap_or(&Value::Null);
            list(fields, &run, "an item with `fields`")?.iter().collect()
        }
        // A single field comes without a list around it.
        1 if answer.is_object() => vec![&answer],
        _ => list(&answer, &run, "a list of fields")?.iter().collect(),
    };
    fields.into_iter().filter_map(|field| named(field, item, &run)).collect()
}

/// A field under its reference, without `op://` and a `/password` at the end.
fn named(
    field: &Value,
    item: &Item,
    run: &Invocation,
) -> Option<Result<(String, SecretString), FetchError>> {
    let reference = match text(field, "reference", run, "a field with a `reference`") {
        Ok(reference) => reference,
        Err(error) => return Some(Err(error)),
    };
    let name = reference.strip_prefix("op://").unwrap_or(reference);
    let name = name.strip_suffix("/password").unwrap_or(name);
    let value = field.get("value").and_then(text_of);
    // Of all fields of an item, those that were never filled in are of no interest.
    if value.is_none() && item.fields.is_empty() {
        return None;
    }
    Some(value.map(|value| (name.to_owned(), value)).ok_or_else(|| {
        FetchError::Refused(format!(
            "{name} has no value in {} in the {} 1Password vault",
            item.item, item.vault
        ))
    }))
}
