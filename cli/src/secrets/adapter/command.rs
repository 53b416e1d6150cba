//! Any program: `--from` is a line for the shell that gets the names as arguments and prints one
//! JSON object of names and values. For vaults that have no adapter; Kamal knows no such adapter.

use super::{Adapter, Call, FetchError, Found, Invocation, json, malformed, text_of};

pub(super) struct Command;

impl Adapter for Command {
    fn needs_account(&self) -> bool {
        false
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        None
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let Some(line) = call.from.filter(|line| !line.trim().is_empty()) else {
            return Err(FetchError::Refused(
                "The command adapter needs the command to run: --from 'my-vault get'".to_owned(),
            ));
        };
        // `$0` is a name for messages of the shell; the names of secrets follow as `$1` and so on.
        let script = format!("{line} \"$@\"");
        let mut args = vec!["-c".to_owned(), script, "dhow-secrets".to_owned()];
        args.extend(call.names.iter().cloned());
        let mut run = Invocation::new("sh", args).asking();
        run.shown = line.to_owned();
        let output = call.run_or(&run, || format!("`{line}` failed"))?;
        let answer = json(&output, &run)?;
        let object = answer
            .as_object()
            .ok_or_else(|| malformed(&run, "a JSON object of names and values"))?;
        let missing: Vec<&str> = call
            .names
            .iter()
            .filter(|name| object.get(name.as_str()).is_none_or(serde_json::Value::is_null))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(FetchError::Refused(format!("Could not find {missing} with `{line}`")));
        }
        let wanted = |name: &str| call.names.is_empty() || call.names.iter().any(|n| n == name);
        Ok(object
            .iter()
            .filter(|(name, _)| wanted(name))
            .filter_map(|(name, value)| Some((name.clone(), text_of(value)?)))
            .collect())
    }
}
