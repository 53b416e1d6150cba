//! What on this machine is the demo's, and what is somebody else's.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::{SERVICE, Settings};

/// Names that Kamal and dhow use on a host, whichever app is deployed.
pub(super) const PROXY: &str = "kamal-proxy";
pub(super) const NETWORK: &str = "kamal";
pub(super) const VOLUME: &str = "kamal-proxy-config";

/// For calls of the Engine that read.
pub(super) const QUICK: Duration = Duration::from_secs(30);

/// The Engine's version.
pub(super) fn engine(settings: &Settings) -> Result<String> {
    let asked = settings.docker(&["version", "--format", "{{.Server.Version}}"], QUICK);
    let asked = asked.and_then(crate::fleet::run::Output::ok).map_err(|error| {
        anyhow!(
            "no Docker Engine answers on {}: {error:#}\nStart it (`systemctl start docker`) and run this again",
            settings.docker_host
        )
    })?;
    Ok(asked.stdout.trim().to_owned())
}

/// What the Engine says of a container, network or volume; none where there is none.
pub(super) fn inspect(settings: &Settings, kind: &str, name: &str) -> Result<Option<Value>> {
    let said = settings.docker(&[kind, "inspect", name], QUICK)?;
    if !said.success() {
        let absent =
            said.stderr.to_lowercase().contains("no such") || said.stderr.contains("not found");
        return if absent { Ok(None) } else { said.ok().map(|_| None) };
    }
    let mut found: Vec<Value> =
        serde_json::from_str(&said.stdout).with_context(|| format!("read {kind} {name}"))?;
    Ok(found.pop())
}

/// True for a kamal-proxy that the demo's agent booted: it mounts a directory of the demo's.
pub(super) fn is_our_proxy(settings: &Settings, container: &Value) -> bool {
    let mounts = container["Mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let dir = settings.dir.to_string_lossy().into_owned();
    let ours = |mount: &Value| {
        mount["Source"].as_str().is_some_and(|source| source.starts_with(&format!("{dir}/")))
    };
    mounts.iter().any(ours)
}

/// A machine on which somebody deploys for real is no place for a demo.
pub(super) fn refuse_what_is_not_ours(settings: &Settings) -> Result<()> {
    let mut found = Vec::new();
    for (kind, name) in [("container", PROXY), ("network", NETWORK), ("volume", VOLUME)] {
        if inspect(settings, kind, name)?.is_some() {
            found.push(format!("{kind} {name}"));
        }
    }
    let label = format!("label=service={SERVICE}");
    let apps = settings.docker(&["ps", "-aq", "--filter", &label], QUICK)?.ok()?.stdout;
    if !apps.trim().is_empty() {
        found.push(format!("containers with the label service={SERVICE}"));
    }
    if !found.is_empty() {
        bail!(
            "this machine already has the {}, which the demo did not make and will not touch.\n\
             Kamal or dhow seems to deploy here: run the demo on another machine, or remove what is named if nobody needs it",
            found.join(", the ")
        );
    }
    Ok(())
}
