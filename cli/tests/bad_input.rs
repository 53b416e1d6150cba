//! Files that nobody should have: a clear error in bounded time and memory, never a panic.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const GOOD: &str = "service: shop\nimage: shop\nservers: [192.0.2.1]\n\
    registry: {username: u, password: [P]}\nbuilder: {arch: amd64}\n";

/// Much more than a config needs. A debug build takes some seconds for the worst.
const DEADLINE: Duration = Duration::from_secs(60);

/// Kilobytes of address space: enough for any config, not for what a bomb would make.
const MEMORY: u32 = 600_000;

/// Runs `dhow LINE` in a folder with bounded memory.
fn run(folder: &Path, line: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_dhow");
    let begun = Instant::now();
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY}; exec \"$0\" {line}"))
        .arg(program)
        .env_remove("DHOW_ERB")
        .current_dir(folder)
        .output()
        .expect("the shell starts");
    assert!(begun.elapsed() < DEADLINE, "{line} took {:?}", begun.elapsed());
    output
}

/// The error that a config of these bytes gives, also as what lies over a good one.
#[track_caller]
fn refused(bytes: &[u8], words: &str) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).expect("a file can be written");
    };
    for (base, over, line) in [
        (bytes, &b""[..], "config check -c deploy.yml"),
        (GOOD.as_bytes(), bytes, "config check -c deploy.yml -d staging"),
    ] {
        write("deploy.yml", base);
        write("deploy.staging.yml", over);
        let output = run(folder.path(), line);
        let said = String::from_utf8_lossy(&output.stderr);
        let start: String = said.chars().take(400).collect();
        assert_eq!(output.status.code(), Some(1), "{start}");
        assert!(said.contains(words) && !said.contains("panicked"), "{start}");
        assert!(said.len() < 100_000, "the message has {} bytes", said.len());
    }
}

#[test]
fn huge_files_are_not_read() {
    refused(&vec![b'a'; 100 << 20], "is larger than 4 MiB");
    refused(&vec![0; 100 << 20], "is larger than 4 MiB");
    let folder = tempfile::tempdir().unwrap();
    // A pipe does not say how much it holds.
    let endless = Command::new("/bin/sh")
        .args(["-c", "yes | \"$0\" config check -c /dev/stdin", env!("CARGO_BIN_EXE_dhow")])
        .current_dir(folder.path())
        .output()
        .expect("the shell starts");
    let said = String::from_utf8_lossy(&endless.stderr);
    assert!(said.contains("is larger than 4 MiB"), "{said}");
}

#[test]
fn nesting_has_an_end() {
    for bracket in ["[", "{", "- ", "{a: ", "? ", "[{", "!!x [", "&a ["] {
        refused(bracket.repeat(100_000).as_bytes(), "levels deep");
    }
    let steps: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    refused(steps.as_bytes(), "levels deep");
}

#[test]
fn bombs_do_not_go_off() {
    let level =
        |n: usize| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
    let levels: String = (1..20).map(level).collect();
    refused(format!("a0: &a0 [x]\n{levels}").as_bytes(), "more than 200000 nodes");
    let merged = |n: usize| format!("m{n}: &m{n} {{<<: [*m{0}, *m{0}], k{n}: *m{0}}}\n", n - 1);
    let merges: String = (1..40).map(merged).collect();
    refused(format!("m0: &m0 {{k: v}}\n{merges}").as_bytes(), "more than 200000 nodes");
}

#[test]
fn a_flood_of_keys_is_no_burden() {
    let keys = |count: usize| (0..count).map(|n| format!("key{n}: 1\n")).collect::<String>();
    refused(keys(100_000).as_bytes(), "a map with more than 5000 keys");
    refused(keys(4_000).as_bytes(), "unknown key: key1");
}

#[test]
fn a_huge_value_is_not_repeated() {
    let huge = "x".repeat(1 << 20);
    for (line, words) in [
        (format!("hooks_output: {huge}"), "Invalid hooks_output 'xxx"),
        (format!("primary_role: {huge}"), "The primary_role xxx"),
        (format!("labels: *{huge}"), "unknown alias: xxx"),
        (format!("ssh: {{log_level: {huge}}}"), "invalid log level: xxx"),
        (format!("labels: {{a: <%= {huge} %>}}"), "is Ruby that dhow does not evaluate"),
    ] {
        refused(format!("{GOOD}{line}\n").as_bytes(), words);
    }
}

#[test]
fn what_is_no_text_is_refused() {
    refused(b"service: \xff\n", "is not UTF-8 text: line 1, column 10 (byte 9)");
    refused(
        "a: é\nb: ü".as_bytes().iter().chain(b"\xff").copied().collect::<Vec<_>>().as_slice(),
        "line 2, column 5",
    );
    refused(b"service: a\0b\n", "is not text: byte 10 is zero");
    refused(
        "service: shöp\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().as_slice(),
        "is not",
    );
    refused(b"service: 'open\n", "not valid YAML");
    refused(b"<%= `printf '\\\\377'` %>: 1\n", "not UTF-8 text");
    refused(b"a: <%= `no-such-program-here` %>\n", "was not found");
    refused(b"a: <%= `yes` %>\n", "printed more than");
}

#[test]
fn line_ends_and_a_byte_order_mark_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let expected = {
        std::fs::write(folder.path().join("deploy.yml"), GOOD).unwrap();
        run(folder.path(), "config -c deploy.yml --version v1")
    };
    assert!(expected.status.success() && !expected.stdout.is_empty(), "{expected:?}");
    for text in [GOOD.replace('\n', "\r\n"), format!("\u{feff}{GOOD}")] {
        std::fs::write(folder.path().join("deploy.yml"), text).unwrap();
        let output = run(folder.path(), "config -c deploy.yml --version v1");
        assert_eq!(output.stdout, expected.stdout);
    }
}

#[test]
fn what_is_no_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("deploy.yml")).unwrap();
    let said = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = said(run(folder.path(), "config check -c deploy.yml"));
    assert!(output.contains("deploy.yml is a directory, not a file"), "{output}");
    let output = said(run(folder.path(), "config check -c none/deploy.yml"));
    assert!(output.contains("Configuration file not found in"), "{output}");
    let output = said(run(folder.path(), "config check -c /dev/zero"));
    assert!(output.contains("/dev/zero cannot be read: it is not a regular file"), "{output}");
    std::fs::create_dir(folder.path().join(".kamal")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join(".kamal/secrets")).unwrap();
    std::fs::write(folder.path().join("good.yml"), GOOD).unwrap();
    let output = said(run(folder.path(), "secrets print -c good.yml"));
    assert!(
        output.contains(".kamal/secrets: cannot be read: it is not a regular file"),
        "{output}"
    );
}

/// As `-c <(…)` of a shell gives one, and some password managers in place of a secrets file.
#[test]
fn pipes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yml"), GOOD).unwrap();
    let output = run(folder.path(), "config check -c /dev/stdin < good.yml");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let script = "mkdir .kamal; mkfifo .kamal/secrets; echo P=word > .kamal/secrets &\
        cat good.yml | \"$0\" config check -c /dev/stdin && \"$0\" secrets print -c good.yml";
    let output = Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_dhow")])
        .current_dir(folder.path())
        .output()
        .expect("the shell starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("P=word"), "{output:?}");
}

/// Runs `dhow LINE` in a folder with a file that may not be read; as another user where the test is root, who may
/// read everything.
fn run_without_permission(folder: &Path, file: &str, words: &[&str]) -> Output {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .expect("files can be made and programs started");
    };
    let (file, program) = (folder.join(file), folder.join("dhow"));
    // Not by this process: what another test starts meanwhile would have the copy open for writing, and then it cannot
    // be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_dhow")).arg(&program).status();
    assert!(copied.is_ok_and(|status| status.success()), "the program can be copied");
    mode(folder, 0o755);
    mode(&program, 0o755);
    mode(&file, 0o000);
    let mut command = Command::new(&program);
    if std::fs::File::open(&file).is_ok() {
        command.uid(65_534).gid(65_534);
    }
    command
        .args(words)
        .current_dir(folder)
        .output()
        .expect("files can be made and programs started")
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("deploy.yml"), GOOD).unwrap();
    let words = ["config", "check", "-c", "deploy.yml"];
    let output = run_without_permission(folder.path(), "deploy.yml", &words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("deploy.yml may not be read"),
        "{said}"
    );
}

#[test]
fn secrets_that_may_not_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".kamal")).unwrap();
    std::fs::write(folder.path().join("deploy.yml"), GOOD).unwrap();
    std::fs::write(folder.path().join(".kamal/secrets"), "P=word\n").unwrap();
    let words = ["secrets", "print", "-c", "deploy.yml"];
    let output = run_without_permission(folder.path(), ".kamal/secrets", &words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1)
            && said.contains(".kamal/secrets: cannot be read: Permission denied"),
        "{said}"
    );
}
