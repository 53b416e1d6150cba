//! LastPass, through `lpass`.

use secrecy::SecretString;

use super::{Adapter, Call, FetchError, Found, Invocation, json, list, ruby_list, text, text_of};

pub(super) struct LastPass;

impl Adapter for LastPass {
    fn needs_account(&self) -> bool {
        true
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("LastPass", Invocation::new("lpass", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        log_in(call)?;
        let names = call.prefixed();
        let mut args = vec!["show".to_owned()];
        args.extend(names.iter().cloned());
        args.push("--json".to_owned());
        let run = Invocation::new("lpass", args);
        let output =
            call.run_or(&run, || format!("Could not read {} from LastPass", ruby_list(&names)))?;
        let answer = json(&output, &run)?;
        let mut found = Found::new();
        for item in list(&answer, &run, "a list of items")? {
            let name = text(item, "fullname", &run, "an item with a `fullname`")?;
            let value = item.get("password").and_then(text_of);
            found.push((name.to_owned(), value.unwrap_or_else(|| SecretString::from(""))));
        }
        let missing: Vec<&str> = names
            .iter()
            .filter(|name| !found.iter().any(|(known, _)| known == *name))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(FetchError::Refused(format!("Could not find {missing} in LastPass")));
        }
        Ok(found)
    }
}

fn log_in(call: &Call<'_>) -> Result<(), FetchError> {
    let status = Invocation::new("lpass", ["status", "--color", "never"]);
    let answer = call.runner.run(&status)?;
    if answer.text(&status.shown)?.trim() == format!("Logged in as {}.", call.account()) {
        return Ok(());
    }
    let login = Invocation::new("lpass", ["login", call.account()]).asking();
    call.run_or(&login, || "Failed to login to LastPass".to_owned())?;
    Ok(())
}
