//! The spec that a config comes to, whole: `specs/everything.yml` has every key that a spec shows, `specs/minimal.yml` none
//! that need not be; beside them is what `dhow config --json` prints. `DHOW_UPDATE=1` writes that anew; read what changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Where a config cannot be other than the smallest, or everything else would not be: Kamal's network is every app's,
/// ports need publishing, and a role with an own certificate stands at the third place.
const ALIKE: &[&str] = &[
    "/roles/0/hosts/0/template",
    "/roles/0/templates/0/template/container/network",
    "/roles/0/templates/0/template/proxy/tls",
    "/roles/0/templates/0/template/proxy/custom_certificate",
    "/accessories/0/template/container/restart",
    "/proxy/publish",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs")
}

/// What `dhow config --json` prints for a config of the folder.
fn printed(name: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
    command.args(["config", "-c", &format!("{name}.yml"), "--json", "--version", "v1"]);
    let output = command.env_remove("DHOW_ERB").current_dir(folder()).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// What is recorded beside it.
fn recorded(name: &str) -> String {
    let file = folder().join(format!("{name}.json"));
    if std::env::var_os("DHOW_UPDATE").is_some() {
        std::fs::write(&file, printed(name)).expect("it can be written");
    }
    std::fs::read_to_string(file).expect("it is there")
}

#[test]
fn every_key_and_every_default_is_where_it_belongs() {
    for name in ["everything", "minimal"] {
        let (ours, expected) = (printed(name), recorded(name));
        for (number, (ours, expected)) in ours.lines().zip(expected.lines()).enumerate() {
            assert_eq!(ours, expected, "line {} of {name}.json", number + 1);
        }
        assert_eq!(ours, expected, "{name}.json");
    }
}

/// The paths of all values below `of` that are the same in `other`.
fn alike(of: &Value, other: &Value, path: &str, found: &mut Vec<String>) {
    match (of, other) {
        (Value::Object(of), Value::Object(other)) => {
            for (key, value) in of {
                other
                    .get(key)
                    .inspect(|other| alike(value, other, &format!("{path}/{key}"), found));
            }
        }
        (Value::Array(of), Value::Array(other)) => {
            for (index, (value, other)) in of.iter().zip(other).enumerate() {
                alike(value, other, &format!("{path}/{index}"), found);
            }
        }
        _ if of == other => found.push(path.to_owned()),
        _ => {}
    }
}

/// So that no key's way into the spec can be lost without the other test.
#[test]
fn everything_is_nobodys_default() {
    let [minimal, everything] = ["minimal", "everything"]
        .map(|name| serde_json::from_str::<Value>(&recorded(name)).expect("it is JSON"));
    let mut found = Vec::new();
    alike(&minimal, &everything, "", &mut found);
    found.retain(|path| !ALIKE.contains(&path.as_str()) && path != "/version");
    found.retain(|path| !path.ends_with("/image/tag"));
    assert!(found.is_empty(), "{found:#?}");
}
