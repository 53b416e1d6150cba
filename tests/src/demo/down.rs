//! Removes what the demo made, and nothing else.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhow_test_images::PROXY_REFERENCE;

use super::claims::{NETWORK, PROXY, QUICK, VOLUME, inspect, is_our_proxy};
use super::{SERVICE, Settings, images, programs};

/// Containers stop before they go.
const STOPS: Duration = Duration::from_secs(60);

/// Removes every trace of the demo and says what it removed.
///
/// # Errors
///
/// What could not be removed, and why; the rest is kept for another try.
pub fn down(settings: &Settings) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "what the demo made belongs to root: run it with sudo"
    );
    let removed = remove(settings)?;
    if removed.is_empty() {
        println!("There is no demo on this machine.");
    } else {
        println!("Removed: {}.", removed.join(", "));
    }
    Ok(())
}

pub(super) fn quietly(settings: &Settings) -> Result<()> {
    remove(settings).map(drop)
}

fn remove(settings: &Settings) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let proxy = inspect(settings, "container", PROXY)?.filter(|c| is_our_proxy(settings, c));
    if !settings.dir.exists() && proxy.is_none() {
        return Ok(removed);
    }
    programs::stop_all(settings)?;
    removed.push("agent, controller and registry".to_owned());
    let label = format!("label=service={SERVICE}");
    let apps = settings.docker(&["ps", "-aq", "--filter", &label], QUICK)?.ok()?.stdout;
    let mut containers: Vec<&str> = apps.split_whitespace().collect();
    containers.extend(proxy.map(|_| PROXY));
    if !containers.is_empty() {
        settings.docker(&[&["rm", "-f", "-v"], &containers[..]].concat(), STOPS)?.ok()?;
        removed.push(format!("{} containers", containers.len()));
    }
    // The demo refuses a machine that has these, so they are its own; unless somebody else booted a proxy meanwhile.
    if inspect(settings, "container", PROXY)?.is_none() {
        for (kind, name) in [("network", NETWORK), ("volume", VOLUME)] {
            if inspect(settings, kind, name)?.is_some() {
                settings.docker(&[kind, "rm", name], QUICK)?.ok()?;
                removed.push(format!("{kind} {name}"));
            }
        }
    }
    let args = ["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &label];
    let listed = settings.docker(&args, QUICK)?.ok()?.stdout;
    let mut images: Vec<&str> =
        listed.lines().filter(|reference| reference.contains(&format!("/{SERVICE}:"))).collect();
    if images::marker(settings).exists() && inspect(settings, "image", PROXY_REFERENCE)?.is_some() {
        images.push(PROXY_REFERENCE);
    }
    if !images.is_empty() {
        settings.docker(&[&["rmi"], &images[..]].concat(), STOPS)?.ok()?;
        removed.push(format!("{} images", images.len()));
    }
    if settings.dir.exists() {
        fs::remove_dir_all(&settings.dir)
            .with_context(|| format!("remove {}", settings.dir.display()))?;
        removed.push(settings.dir.display().to_string());
    }
    Ok(removed)
}
