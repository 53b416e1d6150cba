//! Doppler, through `doppler`.

use super::{Adapter, Call, FetchError, Found, Invocation, json, malformed, ruby_list, text_of};

pub(super) struct Doppler;

impl Adapter for Doppler {
    fn needs_account(&self) -> bool {
        false
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("Doppler", Invocation::new("doppler", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let known = Invocation::new("doppler", ["me", "--json"]).quiet();
        if !call.runner.run(&known)?.success() {
            let login = Invocation::new("doppler", ["login", "-y"]).asking();
            call.run_or(&login, || "Failed to login to Doppler".to_owned())?;
        }
        let names = call.prefixed();
        let mut args = vec!["secrets".to_owned(), "get".to_owned()];
        args.extend(names.iter().filter_map(|name| name.rsplit('/').next()).map(str::to_owned));
        args.push("--json".to_owned());
        args.extend(project_and_config(call, &names)?);
        let run = Invocation::new("doppler", args);
        let output =
            call.run_or(&run, || format!("Could not read {} from Doppler", ruby_list(&names)))?;
        let answer = json(&output, &run)?;
        let secrets = answer.as_object().ok_or_else(|| malformed(&run, "an object of secrets"))?;
        let value = |(name, secret): (&String, &serde_json::Value)| {
            let value = secret.get("computed").and_then(text_of);
            let value = value.ok_or_else(|| malformed(&run, "a `computed` value"))?;
            Ok((name.clone(), value))
        };
        secrets.iter().map(value).collect()
    }
}

/// `-p` and `-c`, from the prefix of the names. A service token belongs to one config already.
fn project_and_config(call: &Call<'_>, names: &[String]) -> Result<Vec<String>, FetchError> {
    if call.env.get("DOPPLER_TOKEN").is_some_and(|token| token.starts_with("dp.st")) {
        return Ok(Vec::new());
    }
    let mut parts = names.first().map(String::as_str).unwrap_or_default().split('/');
    match (parts.next(), parts.next()) {
        (Some(project), Some(config)) if !project.is_empty() => {
            Ok(["-p", project, "-c", config].map(str::to_owned).into())
        }
        _ => Err(FetchError::Refused(
            "Missing project or config from '--from=project/config' option".to_owned(),
        )),
    }
}
