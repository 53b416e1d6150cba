//! What a machine can lack or have in the way: one clear message, and nothing is left of the attempt.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dhow_tests::fleet::run::run;
use dhow_tests::fleet::{CLAIMS, Controller, binary, root, take_logs_of_dropped_fleets};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions};

use crate::clean::{first_line, slot_of};
use crate::traces::{left, list};

/// A fleet of its own directory, whose process sees the machine as `mask` (bash) changed it.
pub(crate) struct Masked {
    root: PathBuf,
}

impl Masked {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let root = root().with_file_name(format!("dhow-fleets-{name}"));
        // What a killed run left of it.
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).context("make a directory")?;
        Ok(Self { root })
    }

    pub(crate) fn hold(&self, mask: &str) -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-ec", &format!("{mask}\nexec \"$@\""), "masked"]);
        command.arg(binary("dhow-fleet")?).args(["hold", "1"]).env("DHOW_FLEET_ROOT", &self.root);
        // Else it would be built, at a time when its sources may be half-written.
        command.env("DHOW_BIN_DIR", binary("dhow-fleet")?.parent().unwrap_or(Path::new("/")));
        Ok(command)
    }

    /// What it says when it cannot come up; nothing of it may be left then.
    fn fails(&self, mask: &str) -> Result<String> {
        let output = run(&mut self.hold(mask)?, Duration::from_secs(90))?;
        ensure!(!output.success(), "it came up: {}", output.text());
        self.is_gone()?;
        Ok(output.stderr)
    }

    pub(crate) fn is_gone(&self) -> Result<()> {
        let slots = list(CLAIMS).into_iter().filter(|file| {
            let below = fs::read_to_string(Path::new(CLAIMS).join(file)).unwrap_or_default();
            Path::new(&below) == self.root
        });
        let slots = slots.map(|file| file.trim_end_matches(".lock").to_owned()).collect();
        let left = left(&self.root, &slots)?;
        ensure!(left.is_empty(), "left: {left:#?}");
        Ok(())
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub(crate) fn a_host_that_does_not_come_up_is_named_with_its_log_and_leaves_nothing(
    _: &mut Shared,
) -> Result<()> {
    // Larger than a file can be: process 1 of the host cannot lay it out.
    let options = FleetOptions {
        small_disk_mb: Some(u32::MAX),
        proxy_image: false,
        ..FleetOptions::hosts(1)
    };
    let Err(error) = Fleet::start_with(options) else { bail!("it came up") };
    let text = format!("{error:#}");
    ensure!(text.starts_with("host 1 did not come up"), "{text}");
    // What the maker of file systems says of a size it cannot have.
    ensure!(text.contains("init said:\n") && text.contains("disk.img"), "{text}");
    let logs = take_logs_of_dropped_fleets();
    let [(dir, _)] = &logs[..] else { bail!("the attempt did not keep its logs: {logs:?}") };
    let left = left(&root(), &BTreeSet::from([slot_of(dir)?]))?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}

pub(crate) fn without_a_docker_engine_one_message_says_so(_: &mut Shared) -> Result<()> {
    let masked = Masked::new("docker")?;
    let hide = "for dir in /usr/sbin /usr/bin /sbin /bin /usr/local/sbin /usr/local/bin; do
                  [ ! -e $dir/dockerd ] || mount --bind /dev/null $dir/dockerd; done";
    let said = masked.fails(hide)?;
    ensure!(
        said == "dhow-fleet: a fleet needs programs that are not here: dockerd (Debian package \
                 docker.io). Run `make setup`\n",
        "{said}"
    );
    // One that is there but does not work is shown with its own words.
    let script = masked.root.join("dockerd");
    executable(&script, "#!/bin/sh\necho no such storage driver >&2\nexit 1\n")?;
    let broken = hide.replace("/dev/null", &script.display().to_string());
    let said = masked.fails(&broken)?;
    // Cargo, which builds the proxy's image first, may have had something to say before.
    ensure!(said.matches("dhow-fleet: ").count() == 1, "{said}");
    ensure!(said.contains("dhow-fleet: host 1 did not come up"), "{said}");
    ensure!(said.contains("no such storage driver"), "{said}");
    Ok(())
}

/// What `dhow-fleet hold 1` says when it is started by `setpriv` with `limits`.
fn said_under(limits: &[&str]) -> Result<String> {
    // Where also users without rights can read it.
    let dir = root().join("limited");
    fs::create_dir_all(&dir).context("make a directory")?;
    let program = dir.join("dhow-fleet");
    fs::copy(binary("dhow-fleet")?, &program).context("copy dhow-fleet")?;
    let mut command = Command::new("setpriv");
    command.args(limits).arg(&program).args(["hold", "1"]);
    let output = run(&mut command, Duration::from_secs(60))?;
    fs::remove_dir_all(&dir).context("remove the directory")?;
    ensure!(!output.success(), "it came up: {}", output.text());
    Ok(output.stderr)
}

pub(crate) fn without_root_or_rights_one_message_says_what_is_missing(
    _: &mut Shared,
) -> Result<()> {
    let nobody = said_under(&["--reuid=65534", "--regid=65534", "--clear-groups"])?;
    ensure!(nobody.starts_with("dhow-fleet: a fleet needs root"), "{nobody}");
    ensure!(nobody.lines().count() == 1, "{nobody}");
    let bound = said_under(&["--bounding-set=-sys_admin,-net_admin", "--inh-caps=-all"])?;
    ensure!(bound.starts_with("dhow-fleet: a fleet needs kernel features"), "{bound}");
    ensure!(bound.contains("namespaces"), "{bound}");
    Ok(())
}

pub(crate) fn a_kernel_feature_that_is_missing_is_named(_: &mut Shared) -> Result<()> {
    let masked = Masked::new("features")?;
    let below = masked.root.display();
    // What an overlay shows cannot take another one's changes.
    let no_overlay = format!(
        "mount -t tmpfs none /mnt; mkdir /mnt/lower /mnt/upper /mnt/work
         mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work {below}"
    );
    // These say what they say on a kernel without the feature; all else they do as ever.
    let refusing = |program: &str, word: &str, said: &str| -> Result<String> {
        let itself = find(program)?;
        let [copy, script] = [format!("{below}/{program}-itself"), format!("{below}/{program}")];
        fs::copy(&itself, &copy).with_context(|| format!("copy {program}"))?;
        let text = format!(
            "#!/bin/sh\ncase \" $* \" in *\" {word} \"*) echo '{said}' >&2; exit 2; esac\n\
             exec {copy} \"$@\"\n"
        );
        executable(Path::new(&script), &text)?;
        Ok(format!("mount --bind {script} {}", itself.display()))
    };
    for (mask, feature, said) in [
        (no_overlay, "overlayfs on the file system of the fleets' directory", "mount: "),
        ("mount -t tmpfs none /sys/fs/cgroup".to_owned(), "cgroups that can be made", "no cgroups"),
        (
            refusing("ip", "veth", "Error: Unknown device type.")?,
            "bridges and veth pairs",
            "Error: Unknown device type.",
        ),
        (
            refusing("iptables", "raw", "iptables: Table does not exist")?,
            "iptables with the raw and mangle tables",
            "iptables: Table does not exist",
        ),
    ] {
        let text = masked.fails(&mask)?;
        let start =
            format!("dhow-fleet: a fleet needs kernel features that are not here: {feature}");
        ensure!(text.starts_with(&start) && text.contains(said), "without {feature}: {text}");
        // One message, of this feature alone.
        ensure!(text.lines().count() == 1 && !text.contains("; "), "without {feature}: {text}");
    }
    Ok(())
}

/// Where a program really is, past links: what a mount can cover.
fn find(program: &str) -> Result<PathBuf> {
    let script = format!("readlink -f $(command -v {program})");
    let found =
        run(Command::new("sh").args(["-c", &script]), Duration::from_secs(10))?.ok()?.stdout;
    Ok(PathBuf::from(found.trim()))
}

fn executable(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("make executable")
}

pub(crate) fn namespaces_in_use_under_a_fleets_names_are_taken_over(_: &mut Shared) -> Result<()> {
    let masked = Masked::new("namespaces")?;
    // Namespaces and places of its own, all taken but the last: cgroups are the whole machine's, and that far no other
    // fleet comes.
    let occupied = format!(
        "mount -t tmpfs none /run; mkdir /run/netns /run/dhow-fleets
         for slot in {{0..30}}; do exec {{lock}}<>/run/dhow-fleets/f$slot.lock; flock -n $lock; done
         ip netns add dhowf31-hub; ip netns add dhowf31-h1
         nsenter --net=/run/netns/dhowf31-h1 sleep 120 > /dev/null & echo $! > {}/stranger",
        masked.root.display()
    );
    let mut child = masked.hold(&occupied)?;
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start")?;
    let up = first_line(&mut child)?;
    ensure!(up == "up 10.77.31.11\n", "it said {up:?}");
    let stranger = fs::read_to_string(masked.root.join("stranger")).context("read its id")?;
    let runs = fs::read(format!("/proc/{}/cmdline", stranger.trim())).unwrap_or_default();
    ensure!(runs.is_empty(), "what was in the namespace still runs");
    drop(child.stdin.take());
    let status = child.wait().context("wait for dhow-fleet")?;
    ensure!(status.success(), "dhow-fleet did not take its fleet down ({status})");
    let left = left(&masked.root, &BTreeSet::from(["f31".to_owned()]))?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}

pub(crate) fn a_port_in_use_is_named(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let first = Controller::start(fleet, "port-a", 7490)?;
    let Err(error) = Controller::start(fleet, "port-b", 7490) else { bail!("two listen on 7490") };
    let text = format!("{error:#}");
    let expected = format!("controller port-b: {} is in use", first.address());
    ensure!(text.starts_with(&expected), "{text}");
    let program = fleet.dir().join("controller-port-b");
    let program = program.display().to_string();
    let lives = list("/proc").into_iter().any(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&program)
    });
    ensure!(!lives, "the second controller still runs");
    Ok(())
}
