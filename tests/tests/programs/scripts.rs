//! What `make` runs before there are programs: as root, `make setup`, and the beginning of `make demo`. Those they call are
//! stand-ins here, so nothing is installed, and nobody needs to be root or not to be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhow_tests::fleet::run::{Output, run};
use dhow_tests::fleet::workspace_root;
use tempfile::TempDir;

/// A directory of stand-ins that come first in PATH.
struct Machine {
    dir: TempDir,
}

impl Machine {
    /// Of a person who is not root, and has a sudo that leaves nothing of the environment, knows no -E, and notes what it is given.
    fn new() -> Result<Self> {
        let machine = Self { dir: tempfile::tempdir().context("a directory")? };
        for below in ["bin", "home/.cargo", "home/.rustup"] {
            fs::create_dir_all(machine.dir.path().join(below)).context("a directory")?;
        }
        machine.has("id", "echo 1000")?;
        machine.has(
            "sudo",
            "printf '%s\\n' \"$@\" >> \"$(dirname \"$0\")/../asked\"\n\
             case $* in -*) exit 9 ;; *apt-get* | *policy-rc.d* | *docker*) exit 0 ;; esac\n\
             exec /usr/bin/env -i PATH=/usr/bin:/bin HOME=/nowhere \"$@\"",
        )?;
        Ok(machine)
    }

    fn has(&self, name: &str, script: &str) -> Result<()> {
        let path = self.dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).context("write a stand-in")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("make it executable")
    }

    fn script(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(workspace_root().join(name));
        let bin = self.dir.path().join("bin");
        let path = std::env::var("PATH").context("a PATH")?;
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.env("HOME", self.dir.path().join("home"));
        command.env_remove("CARGO_HOME").env_remove("RUSTUP_HOME");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DHOW_")) {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// All words that sudo was given, one a line.
    fn asked(&self) -> String {
        fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default()
    }
}

fn within(command: &mut Command) -> Result<Output> {
    run(command, Duration::from_secs(60))
}

#[test]
fn what_a_program_needs_of_the_environment_reaches_it_as_root_and_secrets_are_no_words()
-> Result<()> {
    let machine = Machine::new()?;
    let mut command = machine.script("tests/setup/as-root.sh")?;
    command.env("DHOW_KEEP", "two  words, a \"quote\" and a $").env("RUSTFLAGS", "-C debuginfo=0");
    command.env("DHOW_TOKEN", "hush-1").env("CARGO_REGISTRY_TOKEN", "hush-2");
    command.env("https_proxy", "http://me:hush-3@proxy:1").env("no_proxy", "localhost");
    command.env("CARGO_HTTP_PROXY", "http://me:hush-4@proxy:1");
    command.env("SOMETHING_ELSE", "1");
    let output = within(command.args(["sh", "-c", "env; echo \"$0\"", "an argument"]))?.ok()?;
    let home = machine.dir.path().join("home");
    for line in [
        "DHOW_KEEP=two  words, a \"quote\" and a $",
        "RUSTFLAGS=-C debuginfo=0",
        "no_proxy=localhost",
        &format!("CARGO_HOME={}", home.join(".cargo").display()),
        &format!("RUSTUP_HOME={}", home.join(".rustup").display()),
        "HOME=/nowhere",
        "an argument",
    ] {
        assert!(output.stdout.lines().any(|l| l == line), "no {line} in {}", output.stdout);
    }
    assert!(output.stdout.contains(&format!("PATH={}/bin:", machine.dir.path().display())));
    for word in ["hush", "SOMETHING_ELSE"] {
        assert!(!machine.asked().contains(word), "sudo was given {word}: {}", machine.asked());
    }
    Ok(())
}

#[test]
fn root_needs_no_sudo_and_who_has_neither_is_told() -> Result<()> {
    let machine = Machine::new()?;
    machine.has("id", "echo 0")?;
    let mut command = machine.script("tests/setup/as-root.sh")?;
    command.env("SOMETHING_ELSE", "goes along");
    let output = within(command.args(["sh", "-c", "echo \"$SOMETHING_ELSE\""]))?.ok()?;
    assert_eq!(output.stdout, "goes along\n");
    assert_eq!(machine.asked(), "");

    machine.has("id", "echo 1000")?;
    let bin = machine.dir.path().join("bin");
    fs::remove_file(bin.join("sudo")).context("remove sudo")?;
    fs::copy("/usr/bin/env", bin.join("env")).context("copy env")?;
    let bash = which("bash")?;
    let mut command = Command::new(bash);
    command.arg(workspace_root().join("tests/setup/as-root.sh")).args(["apt-get", "update"]);
    let output = within(command.env("PATH", &bin))?;
    assert_eq!(output.code(), Some(1), "{}", output.text());
    assert!(output.stderr.contains("`apt-get update` needs root"), "{}", output.stderr);
    Ok(())
}

fn which(name: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").context("a PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file());
    found.with_context(|| format!("{name} is not in PATH"))
}

#[test]
fn setup_installs_packages_with_sudo_where_it_is_not_run_as_root() -> Result<()> {
    let machine = Machine::new()?;
    // Python without virtual environments is what is missing, before and after.
    machine.has("python3", "exit 1")?;
    machine.has("cargo", "exit 0")?;
    machine.has("apt-get", "echo apt-get was run without sudo >&2; exit 1")?;
    let mut command = machine.script("tests/setup/install.sh")?;
    let output = within(command.env("DHOW_SETUP_DIR", machine.dir.path().join("setup")))?;
    assert!(output.stderr.contains("still missing after apt-get"), "{}", output.text());
    let asked = machine.asked();
    let words: Vec<&str> = asked.lines().collect();
    let install = words.iter().rposition(|word| *word == "install").context("no install")?;
    assert!(words[..install].contains(&"update"), "{asked}");
    assert!(words[install..].contains(&"python3-venv"), "{asked}");
    Ok(())
}

/// `run.sh up` ends with these words, before anything is installed.
fn demo_is_refused(machine: &Machine, words: &[&str]) -> Result<()> {
    let output = within(machine.script("tests/demo/run.sh")?.arg("up"))?;
    assert_eq!(output.code(), Some(1), "{}", output.text());
    for word in words {
        assert!(output.stderr.contains(word), "no {word:?} in {}", output.text());
    }
    assert_eq!(machine.asked(), "", "something was installed");
    Ok(())
}

#[test]
fn the_demo_says_at_once_that_it_needs_a_newer_cargo() -> Result<()> {
    let wanted = rust_version()?;
    let hint = format!("Install Rust {wanted} or newer");
    let machine = Machine::new()?;
    machine.has("cargo", "echo 'cargo 1.63.0 (fd9c4297c 2022-07-01)'")?;
    demo_is_refused(&machine, &["is 1.63.0, which is too old", &hint, "https://sh.rustup.rs"])?;
    machine.has("cargo", "echo 'rustup could not choose a version of cargo to run' >&2; exit 1")?;
    demo_is_refused(&machine, &["no cargo", &hint, "rustup update stable"])?;

    // One that is newer, and earlier in the alphabet, builds.
    for there in ["docker", "dockerd", "docker-registry", "skopeo", "setsid", "cc"] {
        machine.has(there, "exit 0")?;
    }
    machine
        .has("cargo", "[ $1 = build ] || echo 'cargo 1.100.0 (x)'; [ $1 != build ] || exit 7")?;
    let output = within(machine.script("tests/demo/run.sh")?.arg("up"))?;
    assert_eq!(output.code(), Some(7), "{}", output.text());
    assert!(output.stdout.contains("demo: building dhow"), "{}", output.text());
    Ok(())
}

#[test]
fn the_demo_refuses_a_machine_that_its_images_are_not_made_for() -> Result<()> {
    let machine = Machine::new()?;
    machine.has("uname", "case $1 in -s) echo Linux ;; *) echo riscv64 ;; esac")?;
    demo_is_refused(&machine, &["riscv64", "x86_64 and aarch64"])
}

fn rust_version() -> Result<String> {
    let manifest = fs::read_to_string(workspace_root().join("Cargo.toml")).context("a manifest")?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \""));
    Ok(line.and_then(|rest| rest.strip_suffix('"')).context("a rust-version")?.to_owned())
}

#[test]
fn the_readme_names_the_rust_that_is_needed() -> Result<()> {
    let readme = fs::read_to_string(workspace_root().join("README.md")).context("a README")?;
    let words = format!("Rust {} or newer", rust_version()?);
    assert!(readme.contains(&words), "the README does not say {words:?}");
    Ok(())
}
