//! Removes what the demo made, and nothing else.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dhow_test_images::PROXY_REFERENCE;

use super::claims::{self, NETWORK, PROXY, QUICK, VOLUME, inspect, is_our_proxy};
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
    let Some(gone) = remove(settings)? else {
        println!("There is no demo on this machine.");
        return Ok(());
    };
    println!("Removed: {}.", gone.removed.join(", "));
    if !gone.left.is_empty() {
        println!("Left, as others use them: {}.", gone.left.join(", "));
    }
    Ok(())
}

pub(super) fn quietly(settings: &Settings) -> Result<()> {
    remove(settings).map(drop)
}

/// What became of what there was.
#[derive(Default)]
struct Gone {
    removed: Vec<String>,
    left: Vec<String>,
}

fn remove(settings: &Settings) -> Result<Option<Gone>> {
    if !claims::is_claimed(&settings.dir)? {
        return nothing_claimed(settings);
    }
    let Gone { mut removed, mut left } = Gone::default();
    // Before anything is looked at: the agent would bring it back, or make it only now.
    programs::stop_all(settings)?;
    removed.push("agent, controller and registry".to_owned());
    let proxy = inspect(settings, "container", PROXY)?.filter(|c| is_our_proxy(settings, c));
    let label = format!("label=service={SERVICE}");
    let apps = settings.docker(&["ps", "-aq", "--filter", &label], QUICK)?.ok()?.stdout;
    let mut containers: Vec<&str> = apps.split_whitespace().collect();
    containers.extend(proxy.map(|_| PROXY));
    if !containers.is_empty() {
        settings.docker(&[&["rm", "-f", "-v"], &containers[..]].concat(), STOPS)?.ok()?;
        removed.push(format!("{} containers", containers.len()));
    }
    // There was neither when the demo came, so they are its own; unless somebody took to them meanwhile.
    for (kind, name) in [("network", NETWORK), ("volume", VOLUME)] {
        if inspect(settings, kind, name)?.is_none() {
            continue;
        }
        let users = claims::users(settings, kind, name)?;
        if users.is_empty() {
            settings.docker(&[kind, "rm", name], QUICK)?.ok()?;
            removed.push(format!("{kind} {name}"));
        } else {
            left.push(format!("{kind} {name} ({})", users.join(", ")));
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
    claims::release(&settings.dir)?;
    removed.push(settings.dir.display().to_string());
    Ok(Some(Gone { removed, left }))
}

/// Without its directory it is not known any more what the demo made.
fn nothing_claimed(settings: &Settings) -> Result<Option<Gone>> {
    let proxy = inspect(settings, "container", PROXY)?;
    if proxy.is_some_and(|proxy| is_our_proxy(settings, &proxy)) {
        bail!(
            "the container {PROXY} has files of a demo in {dir}, but the demo's directory was removed by hand, and with it \
             the list of what the demo started. End its dhow-agent, dhow-controller and docker-registry, then remove the \
             containers {PROXY} and {SERVICE}-…, the network {NETWORK} and the volume {VOLUME}",
            dir = settings.dir.display()
        );
    }
    Ok(None)
}
