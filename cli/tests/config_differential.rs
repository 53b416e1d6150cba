//! The real Kamal and dhow's program over the whole corpus: same standard output, same exit status.
//!
//! Kamal is `$DHOW_KAMAL`, else the one that `make setup` installs. What it prints is compared with
//! the recorded files too, so that a stale recording is noticed; `DHOW_RECORD=1` records anew.

#[path = "config_corpus/corpus.rs"]
#[allow(dead_code, reason = "no test needs all of it")]
mod corpus;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Kamal needs a second of processor time for each file; a few at once use both.
const WORKERS: usize = 4;

fn kamal() -> PathBuf {
    let given = std::env::var_os("DHOW_KAMAL").map(PathBuf::from);
    let installed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dhow-setup/venv/bin/kamal");
    let kamal = given.unwrap_or(installed);
    assert!(
        kamal.exists(),
        "{} is missing: run `make setup`, or name the program in DHOW_KAMAL",
        kamal.display()
    );
    kamal
}

/// Runs `PROGRAM config` on a case: `exit: N`, then standard output.
fn run(program: &Path, name: &str) -> String {
    let mut command = Command::new(program);
    command.arg("config").arg("-c").arg(corpus::file(name, "yml")).arg("--version=V");
    if let Some(destination) = corpus::destination(name) {
        command.arg("-d").arg(destination);
    }
    let environment = ["VERSION", "NO_COLOR", "DHOW_ERB", "VERBOSE", "KAMAL_DESTINATION"];
    for variable in environment {
        command.env_remove(variable);
    }
    let output = command.current_dir(corpus::folder()).output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("both print UTF-8");
    let status = output.status.code().expect("it was not killed");
    corpus::without_folder(&format!("exit: {status}\n{text}"))
}

/// Calls `check` for every name, some at once; gives what it says, in the names' order.
fn in_parallel(names: &[String], check: impl Fn(&str) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(difference) = check(name) {
                        found.lock().expect("no check panics").push(difference);
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no check panics");
    found.sort();
    found
}

#[test]
fn dhow_prints_what_the_real_kamal_prints() {
    let kamal = kamal();
    let folder = tempfile::tempdir().unwrap();
    // By this name dhow is exactly Kamal, errors included.
    let dhow = folder.path().join("kamal");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &dhow).unwrap();
    let names = corpus::names();
    let differences = in_parallel(&names, |name| {
        let theirs = run(&kamal, name);
        if std::env::var_os("DHOW_RECORD").is_some() {
            std::fs::write(corpus::file(name, "kamal"), &theirs).expect("it can be recorded");
        } else if theirs != corpus::recorded(name) {
            return Some(format!("== {name}: the recording is stale\n{theirs}"));
        }
        let ours = run(&dhow, name);
        let expected = corpus::deliberate(name).map_or(theirs, |(_, expected)| expected);
        (ours != expected).then(|| format!("== {name}\n-- kamal\n{expected}-- dhow\n{ours}"))
    });
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

/// The file that the real `kamal init` writes, with its ERB in comments, is read without complaint.
#[test]
fn the_file_of_kamal_init_is_read_as_kamal_reads_it() {
    let kamal = kamal();
    let folder = tempfile::tempdir().unwrap();
    let dhow = folder.path().join("kamal");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &dhow).unwrap();
    let run = |program: &Path, words: &[&str]| {
        let output = Command::new(program).args(words).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&kamal, &["init"]).0, Some(0));
    let words = ["config", "--version=V"];
    let theirs = run(&kamal, &words);
    assert_eq!(theirs.0, Some(0));
    assert_eq!(run(&dhow, &words), theirs);
}
