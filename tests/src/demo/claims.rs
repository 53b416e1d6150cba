//! What on this machine is the demo's, and what is somebody else's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::{SERVICE, Settings};

/// Names that Kamal and dhow use on a host, whichever app is deployed.
pub(super) const PROXY: &str = "kamal-proxy";
pub(super) const NETWORK: &str = "kamal";
pub(super) const VOLUME: &str = "kamal-proxy-config";

/// A file in the demo's directory that nobody else's has: all that lies beside it is the demo's to remove.
const MARKER: &str = "made-by-dhow-demo";

/// What [`MARKER`] says where the directory itself was there before.
const GIVEN: &str = "in a directory that was there\n";

/// For calls of the Engine that read.
pub(super) const QUICK: Duration = Duration::from_secs(30);

/// True where the demo's directory is an earlier demo's, false where one can be made.
///
/// # Errors
///
/// When it is somebody else's.
pub(super) fn is_claimed(dir: &Path) -> Result<bool> {
    let entries = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let hint = "name another in DHOW_DEMO_DIR";
            return Err(error).with_context(|| format!("list {}; {hint}", dir.display()));
        }
    };
    match fs::symlink_metadata(dir.join(MARKER)) {
        Ok(marker) if marker.is_file() => Ok(true),
        _ if entries.is_none() => Ok(false),
        _ => bail!(
            "{} holds files that the demo did not make, and it will not touch them: \
             name another directory in DHOW_DEMO_DIR, or empty this one if nobody needs what is in it",
            dir.display()
        ),
    }
}

/// Makes the directory the demo's. What Kamal's names stand for is the demo's from here on too: there was none before.
pub(super) fn claim(settings: &Settings) -> Result<()> {
    let dir = &settings.dir;
    let text = if dir.exists() { GIVEN } else { "with its directory\n" };
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    fs::write(dir.join(MARKER), text).with_context(|| format!("write into {}", dir.display()))
}

/// Removes what is in a directory that was claimed, and the directory where the demo made it.
pub(super) fn release(dir: &Path) -> Result<()> {
    let marker = dir.join(MARKER);
    let given = fs::read_to_string(&marker).is_ok_and(|text| text == GIVEN);
    let removed = |path: PathBuf| -> Result<()> {
        let what = fs::symlink_metadata(&path).context("look at it")?;
        let done = if what.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        done.with_context(|| format!("remove {}", path.display()))
    };
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.context("an entry of the demo's directory")?.path();
        if path != marker {
            removed(path)?;
        }
    }
    // Last: without it the next try would take the rest for somebody else's.
    removed(marker)?;
    if !given {
        fs::remove_dir(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

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

/// Names of containers that use a network or volume, running or not.
pub(super) fn users(settings: &Settings, kind: &str, name: &str) -> Result<Vec<String>> {
    let filter = format!("{kind}={name}");
    let args = ["ps", "-a", "--format", "{{.Names}}", "--filter", &filter];
    Ok(settings.docker(&args, QUICK)?.ok()?.stdout.lines().map(str::to_owned).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> Settings {
        Settings {
            dir: dir.to_owned(),
            docker_host: "unix:///nowhere".to_owned(),
            programs: PathBuf::new(),
            app: None,
            stand_in: None,
            proxy: None,
        }
    }

    fn make_something_in(dir: &Path) {
        fs::create_dir(dir.join("logs")).unwrap();
        fs::write(dir.join("logs/agent.log"), "log").unwrap();
        fs::write(dir.join("dhow"), "program").unwrap();
        // What it points at is not in the directory.
        std::os::unix::fs::symlink("/", dir.join("link")).unwrap();
    }

    #[test]
    fn a_directory_that_the_demo_made_goes_with_it() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("demo");
        assert!(!is_claimed(&dir).unwrap());
        claim(&settings(&dir)).unwrap();
        assert!(is_claimed(&dir).unwrap());
        make_something_in(&dir);
        release(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn an_empty_directory_is_taken_and_given_back_empty() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            assert!(!is_claimed(dir.path()).unwrap());
            claim(&settings(dir.path())).unwrap();
            assert!(is_claimed(dir.path()).unwrap());
            make_something_in(dir.path());
            release(dir.path()).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn somebody_elses_directory_is_refused_also_where_it_holds_what_a_demo_holds() {
        let dir = tempfile::tempdir().unwrap();
        make_something_in(dir.path());
        // A directory of that name is no marker.
        fs::create_dir(dir.path().join(MARKER)).unwrap();
        let refused = is_claimed(dir.path()).unwrap_err().to_string();
        for word in [dir.path().to_str().unwrap(), "did not make", "DHOW_DEMO_DIR"] {
            assert!(refused.contains(word), "no {word:?} in {refused}");
        }
        let refused = is_claimed(&dir.path().join("dhow")).unwrap_err();
        assert!(format!("{refused:#}").contains("DHOW_DEMO_DIR"), "{refused:#}");
    }
}
