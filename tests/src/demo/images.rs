//! Which kamal-proxy the demo uses, and how the app's images get into a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dhow_test_images::{PROXY_REFERENCE, image_ids};

use super::claims::QUICK;
use super::{SERVICE, Settings};
use crate::fleet::run::run;

/// A newcomer does not wait longer for the real kamal-proxy; the stand-in does as well.
const PULL: Duration = Duration::from_secs(5);

/// Says that the proxy's image is the demo's to remove.
pub(super) fn marker(settings: &Settings) -> PathBuf {
    settings.dir.join("proxy-image")
}

/// Sees to it that the Engine has the proxy's image, and says which it is.
pub(super) fn bring_proxy(settings: &Settings) -> Result<String> {
    let there = image_id(settings, PROXY_REFERENCE)?;
    if let Some(archive) = &settings.proxy {
        let given = format!("the image of {} (DHOW_PROXY_IMAGE)", archive.display());
        let wanted = image_ids(archive)?.remove(PROXY_REFERENCE);
        let Some(wanted) = wanted else {
            bail!("{} holds no {PROXY_REFERENCE}", archive.display());
        };
        return match there {
            Some(id) if id == wanted => Ok(given),
            Some(_) => bail!(
                "the Engine has another {PROXY_REFERENCE} than {}, and the demo will not replace it: \
                 leave DHOW_PROXY_IMAGE out to use the Engine's, or remove it first",
                archive.display()
            ),
            None => load(settings, archive).map(|()| given),
        };
    }
    if there.is_some() {
        return Ok("the one this Engine has already".to_owned());
    }
    // Ours from before the pull: it may succeed a moment after we gave up.
    fs::write(marker(settings), PROXY_REFERENCE).context("note the proxy's image")?;
    match settings.docker(&["pull", "-q", PROXY_REFERENCE], PULL) {
        Ok(pulled) if pulled.success() => Ok("the real one, pulled".to_owned()),
        Ok(_) | Err(_) => {
            let archive = match &settings.stand_in {
                Some(archive) => archive.clone(),
                None => dhow_test_images::stand_in_archive()?,
            };
            load(settings, &archive)?;
            let seconds = PULL.as_secs();
            Ok(format!("a stand-in: the real one could not be pulled within {seconds} s"))
        }
    }
}

fn image_id(settings: &Settings, reference: &str) -> Result<Option<String>> {
    let args = ["images", "-q", "--no-trunc", reference];
    let id = settings.docker(&args, QUICK)?.ok()?.stdout.trim().to_owned();
    Ok((!id.is_empty()).then_some(id))
}

fn load(settings: &Settings, archive: &Path) -> Result<()> {
    fs::write(marker(settings), PROXY_REFERENCE).context("note the proxy's image")?;
    let archive = archive.to_str().context("an archive's path is text")?;
    settings.docker(&["load", "-q", "-i", archive], Duration::from_secs(120))?.ok().map(drop)
}

/// Puts the app's two versions into the registry at `address`.
pub(super) fn push(settings: &Settings, archive: &Path, address: &str) -> Result<()> {
    let credentials = settings.dir.join("registry/auth.json");
    fs::write(&credentials, "{}").context("write the registry's credentials")?;
    for version in ["v1", "v2"] {
        let mut command = Command::new("skopeo");
        // Its own credentials file: skopeo would otherwise read those of the person who runs this.
        command.env("REGISTRY_AUTH_FILE", &credentials);
        command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        command.arg(format!("docker-archive:{}:{SERVICE}:{version}", archive.display()));
        command.arg(format!("docker://{address}/{SERVICE}:{version}"));
        run(&mut command, Duration::from_secs(120))?.ok()?;
    }
    Ok(())
}
