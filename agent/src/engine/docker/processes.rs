//! What runs in a container, read from the kernel: `docker top` starts a `ps` for it, which takes the Engine some tens of
//! milliseconds.
//!
//! Always true: gives nothing rather than something wrong where this process cannot see the container's, as in a
//! container of its own.

use std::fs;
use std::path::Path;

use crate::engine::ProcessView;

/// Processes in the pid namespace of process `first` of the container `id`; none where they cannot be seen from here.
pub(super) fn of_container(proc: &Path, first: i64, id: &str) -> Option<Vec<ProcessView>> {
    let of = |pid: &str| proc.join(pid);
    let first = of(&first.to_string());
    // A number of another pid namespace may mean another process here.
    if id.is_empty() || !fs::read_to_string(first.join("cgroup")).ok()?.contains(id) {
        return None;
    }
    let namespace = fs::read_link(first.join("ns/pid")).ok()?;
    // With `--pid=host` everything on the host would seem to be the container's.
    if namespace == fs::read_link(proc.join("self/ns/pid")).ok()? {
        return None;
    }
    let mut processes = Vec::new();
    for entry in fs::read_dir(proc).ok()? {
        let name = entry.ok()?.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        // One that ended in between is gone.
        let (Ok(its), Ok(line)) =
            (fs::read_link(of(pid).join("ns/pid")), fs::read(of(pid).join("cmdline")))
        else {
            continue;
        };
        if its == namespace && !line.is_empty() {
            let words = line.split(|byte| *byte == 0);
            let mut argv: Vec<String> =
                words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            // The last word is ended by a zero as well.
            argv.pop_if(|last| last.is_empty());
            processes.push(ProcessView { argv });
        }
    }
    Some(processes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ID: &str = "0123456789abcdef";

    fn process(proc: &Path, pid: &str, namespace: &str, line: &str) {
        let dir = proc.join(pid);
        fs::create_dir_all(dir.join("ns")).unwrap();
        symlink(namespace, dir.join("ns/pid")).unwrap();
        fs::write(dir.join("cmdline"), line).unwrap();
        fs::write(dir.join("cgroup"), format!("0::/docker/{ID}\n")).unwrap();
    }

    #[test]
    fn only_processes_of_the_containers_namespace_count() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        process(proc, "self", "pid:[1]", "dhow-agent\0");
        process(proc, "7", "pid:[2]", "kamal-proxy\0run\0");
        process(proc, "8", "pid:[2]", "kamal-proxy\0deploy\0shop web\0");
        process(proc, "9", "pid:[1]", "kamal-proxy\0deploy\0other\0");
        let mut found = of_container(proc, 7, ID).unwrap();
        found.sort_by(|a, b| b.argv.cmp(&a.argv));
        let words: Vec<&[String]> = found.iter().map(|p| &p.argv[..]).collect();
        assert_eq!(
            words,
            [&["kamal-proxy", "run"][..], &["kamal-proxy", "deploy", "shop web"]]
                .map(|words| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
        );
    }

    #[test]
    fn what_cannot_be_seen_is_not_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        process(proc, "self", "pid:[1]", "dhow-agent\0");
        process(proc, "7", "pid:[1]", "kamal-proxy\0run\0");
        process(proc, "8", "pid:[2]", "kamal-proxy\0run\0");
        assert_eq!(of_container(proc, 7, ID), None, "it shares our namespace");
        assert_eq!(of_container(proc, 8, "feedfeed"), None, "it is no process of the container");
        assert_eq!(of_container(proc, 9, ID), None, "there is no such process");
    }
}
