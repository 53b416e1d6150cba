//! `dhow config check`: all problems of a config at once, for people and for programs.

use std::process::{Command, Output};

const WRONG: &str = r#"service: shop
image: acme/shop
servers: [192.0.2.1]
registry: {username: u, password: [P]}
builder: {arch: amd64}
retain_containers: many
proxy:
  app_prt: 3000
  host: <%= ENV.fetch("DHOW_TEST_UNSET", "a.example.com") %>
  ssl: "no"
aliases: {deploy: app details}
"#;

/// The text with its problems mended.
fn right() -> String {
    let mended =
        WRONG.replace("many", "3").replace("app_prt", "app_port").replace("\"no\"", "true");
    mended.replace("{deploy:", "{deployed:")
}

fn check(text: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("deploy.yml"), text).expect("a file can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
    command.args(["config", "check", "-c", "deploy.yml"]).args(more);
    command.env_remove("DHOW_ERB").current_dir(folder.path()).output().expect("it starts")
}

#[test]
fn people_get_every_problem_with_its_place_and_a_hint() {
    let output = check(WRONG, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "error: proxy: unknown key: app_prt\n --> deploy.yml:8:3\n  |\n\
        8 |   app_prt: 3000\n  |   ^^^^^^^\n  = hint: did you mean `app_port`?\n";
    assert!(said.contains(expected), "{said}");
    for place in ["deploy.yml:6:20", "deploy.yml:8:3", "deploy.yml:10:8", "deploy.yml:11:11"] {
        assert!(said.contains(place), "{place} is missing:\n{said}");
    }
    assert_eq!(said.matches("error: ").count(), 4, "{said}");
}

#[test]
fn programs_get_codes() {
    let output = check(WRONG, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    let errors = told["errors"].as_array().unwrap();
    let of = |key: &str| errors.iter().map(|error| error[key].to_string()).collect::<Vec<_>>();
    assert_eq!(
        of("code"),
        [
            "\"config.wrong_type\"",
            "\"config.conflict\"",
            "\"config.unknown_key\"",
            "\"config.wrong_type\""
        ]
    );
    assert_eq!(of("line"), ["6", "11", "8", "10"]);
    assert_eq!(of("column"), ["20", "11", "3", "8"]);
    assert_eq!(of("path")[3], "\"proxy/ssl\"");
}

#[test]
fn a_right_config_ends_with_0() {
    for more in [&[][..], &["--json"]] {
        let output = check(&right(), more);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    // A warning is no failure.
    let output = check(&right().replace("service: shop", "service: shop\nlabels: {a: 017}"), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("deploy.yml:2:13"), "{output:?}");
}

/// `dhow config --json`: the spec, with each registry's place in it and nobody's secrets.
#[test]
fn the_spec_is_printed_without_secrets() {
    let config = "service: shop\nimage: acme/shop\nservers: {web: [192.0.2.1]}\n\
        registry: {server: 'localhost:5555', username: u, password: hunter2}\n\
        builder: {arch: amd64, args: {TOKEN: hunter3}, secrets: [BUILD]}\n\
        env: {clear: {A: b}, secret: [WORD]}\nssh: {key_data: [KEY]}\n\
        proxy: {host: a.example.com, ssl: {certificate_pem: CERT, private_key_pem: KEY}}\n\
        accessories: {db: {image: acme/db, host: 192.0.2.1, registry: {server: r.example.com, username: u, password: hunter4}}}\n";
    let folder = tempfile::tempdir().expect("a folder can be made");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a file can be written");
    };
    std::fs::create_dir(folder.path().join(".kamal")).expect("a folder can be made");
    write("deploy.yml", config);
    let names = ["BUILD", "WORD", "KEY", "CERT"];
    write(".kamal/secrets", &names.map(|name| format!("{name}=hunter5")).join("\n"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
    command.args(["config", "-c", "deploy.yml", "--json", "--version", "v1"]);
    let output = command.env_remove("DHOW_ERB").current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && !text.contains("hunter"), "{output:?}");
    let spec: serde_json::Value = serde_json::from_str(&text).expect("JSON alone");
    assert_eq!(spec["image"]["repository"], "localhost:5555/acme/shop", "{spec:#}");
    assert_eq!(spec["registry"]["server"], "localhost:5555");
    assert_eq!(spec["accessories"][0]["registry"]["server"], "r.example.com");
    assert!(text.contains("WORD"), "secrets are named: {spec:#}");
}
