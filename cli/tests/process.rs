//! The program as a process, where what surrounds it is odd.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt as _;

#[test]
fn a_reader_that_leaves_is_no_error() {
    for words in [&["config", "schema"][..], &["docs"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::cargo_bin("dhow").unwrap();
        let output = command.args(words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        assert!(output.status.success(), "{words:?}: {}", output.status);
    }
}

#[test]
fn variables_that_are_no_text_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("config")).unwrap();
    std::fs::create_dir_all(directory.path().join(".kamal")).unwrap();
    let config = "service: shop\nimage: shop\nservers: [192.0.2.1]\n\
        registry: {username: u, password: [P]}\nbuilder: {arch: amd64}\n";
    std::fs::write(directory.path().join("config/deploy.yml"), config).unwrap();
    std::fs::write(directory.path().join(".kamal/secrets"), "P=word\n").unwrap();
    let output = Command::cargo_bin("dhow")
        .unwrap()
        .args(["secrets", "print"])
        .current_dir(directory.path())
        .env("ODD", OsStr::from_bytes(b"\xff"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "P=word\n");
}
