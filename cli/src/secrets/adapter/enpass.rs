//! Enpass, through `enpass-cli`: offline, so without an account; `--from` is the vault's folder.

use secrecy::SecretString;

use super::{Adapter, Call, FetchError, Found, Invocation, json, list};

pub(super) struct Enpass;

impl Adapter for Enpass {
    fn needs_account(&self) -> bool {
        false
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("Enpass", Invocation::new("enpass-cli", ["version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let Some(vault) = call.from else {
            return Err(FetchError::Refused(
                "Enpass needs the folder of its vault: --from PATH".to_owned(),
            ));
        };
        let mut args: Vec<String> = ["-json", "-vault", vault, "show"].map(str::to_owned).into();
        args.extend(titles(call.names));
        let run = Invocation::new("enpass-cli", args);
        let output =
            call.run_or(&run, || format!("Could not read {} from Enpass", call.names.join(", ")))?;
        let answer = json(&output, &run)?;
        let mut found = Found::new();
        for item in list(&answer, &run, "a list of items")? {
            let part = |key| item.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
            let (title, label, password) = (part("title"), part("label"), part("password"));
            if item.get("title").is_none() || password.trim().is_empty() {
                continue;
            }
            let parts: Vec<&str> = [title, label].into_iter().filter(|p| !p.is_empty()).collect();
            let key = parts.join("/");
            if !call.names.iter().any(|name| name == title || *name == key) {
                continue;
            }
            if found.iter().any(|(known, _)| *known == key) {
                return Err(FetchError::Refused(format!("{key} is present more than once")));
            }
            found.push((key, SecretString::from(password)));
        }
        Ok(found)
    }
}

/// The titles of the names `title[/label]`, each once.
fn titles(names: &[String]) -> Vec<String> {
    let mut titles: Vec<String> = Vec::new();
    for name in names {
        let title = match name.rsplit_once('/') {
            Some((title, _)) if !title.is_empty() => title,
            Some((_, label)) => label,
            None => name,
        };
        if !titles.iter().any(|known| known == title) {
            titles.push(title.to_owned());
        }
    }
    titles
}
