//! The `docker` command line, and what a run owns in the Engine.
//!
//! Everything a run makes carries its owner as a label (images: in their tag). A reaper process waits
//! until the run is gone, however it went, and removes what is left; a run that starts removes what
//! runs without a reaper left behind.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use dhow_test_images::{AppImage, PROXY_REFERENCE, app_archive, image_ids, proxy_image};

/// The label that names the owner of a container, network or volume.
pub(crate) const LABEL: &str = "dhow.conformance";

/// The repository of images that a run tags for itself: `REPOSITORY/app:OWNER-v1`.
const REPOSITORY: &str = "dhow-conformance";

/// Removes everything of the owner `$1`. Errors are of no use: what is gone is gone.
const CLEAN: &str = r#"
label="label=dhow.conformance=$1"
ids=$(docker ps -aq --filter "$label"); [ -z "$ids" ] || docker rm -fv $ids
ids=$(docker network ls -q --filter "$label"); [ -z "$ids" ] || docker network rm $ids
ids=$(docker volume ls -q --filter "$label"); [ -z "$ids" ] || docker volume rm -f $ids
tags=$(docker images --format '{{.Repository}}:{{.Tag}}' | grep "^dhow-conformance/.*:$1-"); [ -z "$tags" ] || docker rmi $tags
"#;

/// Images of this run, by names that no other run uses.
pub(crate) struct Images {
    pub(crate) proxy: String,
    pub(crate) app_v1: String,
    pub(crate) app_v2: String,
}

/// Runs docker and gives what it said; panics only if there is no docker to run.
pub(crate) fn try_docker(args: &[&str]) -> Output {
    Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the conformance suite needs the docker command line")
}

/// Runs docker, which must succeed, and gives its stdout without the last line end.
pub(crate) fn docker(args: &[&str]) -> String {
    let output = try_docker(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {} failed: {stderr}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The owner of what this process makes: process id, its start time, its namespace.
pub(crate) fn owner() -> &'static str {
    static OWNER: OnceLock<String> = OnceLock::new();
    OWNER.get_or_init(|| {
        let pid = std::process::id();
        format!("{pid}-{}-{}", start_time(pid).unwrap_or_default(), namespace())
    })
}

/// Loads the images once per process, after cleaning up and starting the reaper.
pub(crate) fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(|| {
        clean_stale();
        start_reaper();
        load()
    })
}

fn load() -> Images {
    let version = docker(&["version", "--format", "{{.Server.Version}}"]);
    assert!(!version.is_empty(), "the conformance suite needs a running Docker Engine");
    let proxy = proxy_image().expect("the proxy's image can be had");
    let versions = ["v1", "v2"].map(|version| {
        AppImage::new(format!("{REPOSITORY}/app:{version}"), version).service("app")
    });
    let apps = app_archive(&versions).expect("the sample app can be built");
    // The archives' names are shared by all runs, which may bring other images: one at a time.
    // Runs of other checkouts count too, so the lock is the machine's, like the Engine.
    let lock = std::fs::File::create(std::env::temp_dir().join("dhow-conformance.lock")).unwrap();
    lock.lock().unwrap();
    let [proxy] = load_as(&proxy, [(PROXY_REFERENCE, "proxy", "0")]);
    let [app_v1, app_v2] = load_as(
        &apps,
        [(versions[0].reference(), "app", "v1"), (versions[1].reference(), "app", "v2")],
    );
    Images { proxy, app_v1, app_v2 }
}

/// Loads an archive and gives its images names of this run: `(name in the archive, repository, end
/// of the tag)`. What had a name before gets it back.
fn load_as<const N: usize>(archive: &Path, images: [(&str, &str, &str); N]) -> [String; N] {
    let id = |name: &str| {
        let output = try_docker(&["image", "inspect", "--format", "{{.Id}}", name]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    if let Ok(held) = image_ids(archive) {
        // Before anything is loaded that nobody would remove.
        let all = images.iter().all(|(name, ..)| held.contains_key(*name));
        assert!(all, "{} holds {:?}, not {images:?}", archive.display(), held.keys());
    }
    let before = images.map(|(name, ..)| id(name));
    let loaded = docker(&["load", "--input", archive.to_str().unwrap()]);
    let mut tags = Vec::new();
    for ((name, repository, end), before) in images.into_iter().zip(before) {
        let told = format!("Loaded image: {name}");
        assert!(loaded.contains(&told), "{} does not hold {name}: {loaded}", archive.display());
        let tag = format!("{REPOSITORY}/{repository}:{}-{end}", owner());
        docker(&["tag", name, &tag]);
        if before.is_empty() {
            docker(&["rmi", name]);
        } else {
            docker(&["tag", &before, name]);
        }
        tags.push(tag);
    }
    tags.try_into().unwrap()
}

/// Starts the process that cleans up when the pipe to it breaks, that is: when this process ends.
/// In its own process group, so that an interrupt from the terminal does not end it too.
fn start_reaper() {
    static REAPER: OnceLock<std::process::Child> = OnceLock::new();
    REAPER.get_or_init(|| {
        Command::new("sh")
            .args(["-c", &format!("cat; {CLEAN}"), "reaper", owner()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started")
    });
}

/// Removes what runs left behind that are dead and whose reaper was killed as well.
fn clean_stale() {
    let format = format!("{{{{.Label {LABEL:?}}}}}");
    let mut owners = String::new();
    for list in [["ps", "-a"].as_slice(), &["network", "ls"], &["volume", "ls"]] {
        let filter = format!("label={LABEL}");
        owners += &docker(&[list, &["--filter", &filter, "--format", &format]].concat());
        owners.push('\n');
    }
    for tag in docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines() {
        let owner =
            tag.strip_prefix(REPOSITORY).and_then(|tag| tag.rsplit_once(':')).map(|(_, tag)| tag);
        owners += owner.and_then(|tag| tag.rsplit_once('-')).map_or("", |(owner, _)| owner);
        owners.push('\n');
    }
    let mut owners: Vec<&str> = owners.lines().filter(|owner| !owner.is_empty()).collect();
    owners.sort_unstable();
    owners.dedup();
    for owner in owners.into_iter().filter(|owner| is_dead(owner)) {
        let cleaned = Command::new("sh").args(["-c", CLEAN, "clean", owner]).output();
        let _ = std::io::stderr()
            .write_all(format!("cleaned up after {owner}: {cleaned:?}\n").as_bytes());
    }
}

/// Whether the owner's process is gone. Of other pid namespaces nothing is known: they are left alone.
fn is_dead(owner: &str) -> bool {
    let mut parts = owner.splitn(3, '-');
    let (Some(pid), Some(started), Some(space)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    space == namespace() && pid.parse().ok().and_then(start_time).is_none_or(|now| now != started)
}

/// Field 22 of `/proc/PID/stat`; process ids are used again, this pair is not.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

fn namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}
