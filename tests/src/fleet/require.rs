//! Says in one message what this machine lacks for a fleet, before anything is started.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::run::run;

/// The programs a fleet is made of, with the Debian package that brings each.
const PROGRAMS: [(&str, &str); 11] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
    ("skopeo", "skopeo"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("sshd", "openssh-server"),
    ("ssh-keygen", "openssh-client"),
];

/// Where programs are looked for; hosts get the same as their PATH. The distribution's come first:
/// its docker client and its dockerd understand each other, which a newer client may not.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// Checks user, programs and kernel.
///
/// # Errors
///
/// One message that names everything missing and what to do about it.
pub(crate) fn check(root: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a fleet needs root: it makes namespaces and runs Docker Engines. Run it with sudo");
    }
    let missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(program, package)| format!("{program} (Debian package {package})"))
        .collect();
    if !missing.is_empty() {
        bail!("a fleet needs programs that are not here: {}. Run `make setup`", missing.join(", "));
    }
    for covered in ["/root", "/run", "/var/run", "/var/lib/docker"] {
        if root.starts_with(covered) {
            bail!(
                "DHOW_FLEET_ROOT is {}, but every host covers {covered} with its own: choose another",
                root.display()
            );
        }
    }
    let lacking = lacking_features(root);
    if !lacking.is_empty() {
        bail!("a fleet needs kernel features that are not here: {}", lacking.join("; "));
    }
    Ok(())
}

fn lacking_features(root: &Path) -> Vec<String> {
    let mut lacking = Vec::new();
    // In namespaces of their own, so that trying leaves nothing behind.
    let tries = [
        ("mount, pid, uts, ipc and network namespaces", "true".to_owned()),
        (
            "bridges and veth pairs",
            "ip link add b0 type bridge && ip link add v0 type veth".to_owned(),
        ),
        (
            "iptables with the raw and mangle tables",
            "iptables -t raw -S && iptables -t mangle -S".to_owned(),
        ),
        (
            "overlayfs on the file system of the fleets' directory",
            format!(
                "t=$(mktemp -d -p '{0}') && mkdir $t/l $t/u $t/w $t/m && \
                 mount -t overlay overlay -o lowerdir=$t/l,upperdir=$t/u,workdir=$t/w $t/m; s=$?; \
                 umount $t/m; rm -rf $t; exit $s",
                root.display()
            ),
        ),
        (
            "cgroups that can be made (v2 at /sys/fs/cgroup, or v1 with the devices controller)",
            // Without this controller an Engine does not start on v1; with it, it makes do with what there is.
            "c=/sys/fs/cgroup; [ -e $c/cgroup.controllers ] || c=$c/devices; \
             [ -e $c/cgroup.procs ] || { echo $c: no cgroups >&2; exit 1; }; \
             t=$(mktemp -d -p $c dhow-try-XXXXXX) && rmdir $t"
                .to_owned(),
        ),
    ];
    for (what, script) in tries {
        let mut command = Command::new("unshare");
        command.env("PATH", PATH);
        command
            .args(["--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "sh", "-c", &script]);
        match run(&mut command, Duration::from_secs(20)) {
            Ok(output) if output.success() => {}
            Ok(output) => {
                let said: Vec<&str> = output.stderr.split_whitespace().collect();
                lacking.push(format!("{what} ({})", said.join(" ")));
            }
            Err(error) => lacking.push(format!("{what} ({error})")),
        }
    }
    lacking
}

/// Where `program` is, looked up as the hosts will.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}
