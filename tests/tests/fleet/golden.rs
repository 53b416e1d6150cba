//! dhow leaves on a host what Kamal leaves: the same app, deployed by both, compared as text; and what it leaves is in the
//! file `golden/host.txt`, for people to read and for changes to show in. `DHOW_UPDATE_GOLDEN=1` writes it anew.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use dhow_tests::ProjectSpec;
use dhow_tests::kamal::kamal;
use dhow_tests::snapshot::{Allowed, about, difference, snapshot};
use dhow_tests::suite::Shared;

use crate::deploy::{Stage, clear};

pub(crate) fn a_host_that_dhow_deployed_looks_as_if_kamal_had(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let project = ProjectSpec::new(fleet, "twin", &[1, 2])
        .env("COLOUR", "blue")
        .env("EMPTY", "")
        .secret("TOKEN", "s3cret with \"quotes\" and #signs")
        .secret("ANOTHER", "one")
        .yaml(
            "labels: {team: shop}\nvolumes: [\"twin-data:/data\"]\nasset_path: /assets\n\
             retain_containers: 2\ndrain_timeout: 5\n",
        )
        .write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;
    let take = |number: usize| -> Result<String> {
        Ok(about(&snapshot(fleet.host(number), &fleet.hub().address())?, "twin"))
    };
    kamal(fleet, &project, &["setup", "--skip-push", "--version", "v1"])?.ok()?;
    kamal(fleet, &project, &["deploy", "--skip-push", "--version", "v2"])?.ok()?;
    let by_kamal = [take(1)?, take(2)?];
    for host in fleet.hosts() {
        clear(host)?;
        host.docker(&["volume", "rm", "-f", "twin-data"])?;
        let images = host.docker(&["images", "-q", "--filter", "label=service=twin"])?.ok()?.stdout;
        for image in images.split_whitespace() {
            host.docker(&["rmi", "-f", image])?;
        }
    }
    let stage = Stage::set(fleet, "golden", 7446)?;
    for version in ["v1", "v2"] {
        stage.dhow(project.dir(), &["deploy", "-P", "--version", version])?.ok()?;
    }
    as_written(&take(1)?)?;
    for (number, by_kamal) in [1, 2].into_iter().zip(by_kamal) {
        let allowed = [Allowed::INTENT_LABEL, Allowed::AUDIT_LOG];
        if let Some(found) = difference(&by_kamal, &take(number)?, &allowed)? {
            bail!("host {number} differs (- Kamal, + dhow):\n{found}");
        }
    }
    Ok(())
}

/// Without what the proxy's image brings along: there are two of them, see `DHOW_PROXY_IMAGE`.
fn of_the_deployer(snapshot: &str) -> String {
    let image = |line: &&str| {
        line.strip_prefix("container/kamal-proxy/Config.").is_some_and(|rest| {
            !["Image", "Hostname", "Labels.dhow.intent"].iter().any(|kept| rest.starts_with(kept))
        })
    };
    snapshot.lines().filter(|line| !image(line)).map(|line| format!("{line}\n")).collect()
}

/// Compares with the text that is committed.
fn as_written(found: &str) -> Result<()> {
    let found = &of_the_deployer(found);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/golden/host.txt");
    if std::env::var_os("DHOW_UPDATE_GOLDEN").is_some_and(|v| !v.is_empty()) {
        return fs::write(&path, found).with_context(|| format!("write {}", path.display()));
    }
    let written = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    match difference(&written, found, &[Allowed::AUDIT_LOG])? {
        Some(other) => bail!("a host differs from {} (- file, + host):\n{other}", path.display()),
        None => Ok(()),
    }
}
