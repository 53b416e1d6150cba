//! Secrets files read as the real Kamal reads them.
//!
//! `secrets/dotenv_recorded.json` holds what `kamal secrets print` (2.11.0) printed for each case of
//! `secrets/dotenv_cases.txt`; `secrets/record_dotenv.py` records it anew.
#![allow(clippy::unwrap_used, reason = "a test may end at the first surprise")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use dhow::secrets::runner::ProcessRunner;
use dhow::secrets::{SecretError, Secrets, SecretsOptions};
use secrecy::ExposeSecret;

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    status: i32,
    stdout: String,
}

/// Texts for which dhow does the sane thing instead, with a piece of what it says: Kamal dies of a
/// Ruby error for a number, and forgets the whole file when a program is missing.
const DIFFERENT: &[(&str, &str)] = &[
    ("extract N '{\"a/N\": 5", "W=5"),
    ("$(nonexistent-program-x)", "`nonexistent-program-x`: there is no such program"),
    (
        "$(nonexistent-program-x --flag)z",
        "`nonexistent-program-x --flag`: there is no such program",
    ),
];

fn variables() -> BTreeMap<String, String> {
    let path = std::env::var("PATH").unwrap();
    [("PATH", path.as_str()), ("FROM_ENV", "from env"), ("EMPTY_ENV", "")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// What `secrets print` would print for a file with this text, or the whole chain of the error.
fn print(text: &[u8]) -> Result<String, String> {
    let (_directory, secrets) = project(&[(".kamal/secrets", text)]);
    let all = secrets.all().map_err(|error| chain(&error))?;
    let mut printed = String::new();
    for (name, value) in all {
        writeln!(printed, "{name}={}", value.expose_secret()).unwrap();
    }
    Ok(printed)
}

fn chain(error: &SecretError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        write!(text, ": {cause}").unwrap();
        source = cause.source();
    }
    text
}

/// A project directory with the given files.
fn project(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Secrets) {
    project_of(files, None)
}

fn project_of(files: &[(&str, &[u8])], destination: Option<&str>) -> (tempfile::TempDir, Secrets) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join(".kamal")).unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let env = variables();
    let runner = ProcessRunner {
        directory: Some(directory.path().to_owned()),
        env: env.clone().into_iter().collect(),
        without: Vec::new(),
    };
    let secrets = Secrets::new(SecretsOptions {
        project_dir: directory.path().to_owned(),
        secrets_path: ".kamal/secrets".to_owned(),
        destination: destination.map(str::to_owned),
        env,
        runner: Arc::new(runner),
    });
    (directory, secrets)
}

fn get(secrets: &Secrets, name: &str) -> Result<String, String> {
    secrets.get(name).map(|value| value.expose_secret().to_owned()).map_err(|error| chain(&error))
}

#[test]
fn every_recorded_file_reads_as_in_kamal() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("secrets/dotenv_recorded.json")).unwrap();
    assert!(cases.len() >= 60, "the recording is complete");
    let mut wrong = String::new();
    for case in &cases {
        let ours = print(case.text.as_bytes());
        if let Some((_, piece)) = DIFFERENT.iter().find(|(text, _)| case.text.contains(text)) {
            let (Ok(said) | Err(said)) = &ours;
            assert!(said.contains(piece), "{said}");
            continue;
        }
        let same = match &ours {
            // `puts` adds no second line break behind a value that ends with one.
            Ok(printed) => {
                case.status == 0
                    && printed.replace("\n\n", "\n") == case.stdout.replace("\n\n", "\n")
            }
            Err(_) => case.status != 0,
        };
        if !same {
            writeln!(
                wrong,
                "--- text:\n{}\n--- Kamal ({}):\n{}\n--- dhow: {ours:#?}\n",
                case.text, case.status, case.stdout
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_common_file_comes_first_and_keeps_its_variables_to_itself() {
    let common: (&str, &[u8]) = (".kamal/secrets-common", b"A=common\nB=common");
    let plain: (&str, &[u8]) = (".kamal/secrets", b"B=plain\nC=[$A]\nD=1");
    let staging: (&str, &[u8]) = (".kamal/secrets.staging", b"B=staging");
    let (_directory, secrets) = project(&[common, plain, staging]);
    let all: Vec<String> = secrets.all().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(all, ["A", "B", "C", "D"]);
    assert_eq!(get(&secrets, "B").unwrap(), "plain");
    assert_eq!(get(&secrets, "C").unwrap(), "[]");

    // With a destination the plain file is not read.
    let (_directory, secrets) = project_of(&[common, plain, staging], Some("staging"));
    assert_eq!(get(&secrets, "B").unwrap(), "staging");
    assert_eq!(
        get(&secrets, "D").unwrap_err(),
        "Secret 'D' not found in .kamal/secrets-common, .kamal/secrets.staging"
    );
}

#[test]
fn without_files_the_message_names_what_was_looked_for() {
    let (_directory, secrets) = project(&[]);
    assert_eq!(
        get(&secrets, "X").unwrap_err(),
        "Secret 'X' not found, no secret files (.kamal/secrets-common, .kamal/secrets) provided"
    );
}

#[test]
fn files_are_read_lazily_and_once() {
    let text = b"A=$(echo x >> runs; echo a)\nB=b";
    let (directory, secrets) = project(&[(".kamal/secrets", text)]);
    assert!(!directory.path().join("runs").exists());
    assert_eq!(get(&secrets, "B").unwrap(), "b");
    assert_eq!(get(&secrets, "A").unwrap(), "a");
    assert_eq!(std::fs::read_to_string(directory.path().join("runs")).unwrap(), "x\n");
}

#[test]
fn dhow_is_a_name_of_kamal_in_a_file() {
    let text =
        b"S=$(dhow secrets fetch --adapter test --account me X)\nX=$(dhow secrets extract X $S)";
    let (_directory, secrets) = project(&[(".kamal/secrets", text)]);
    assert_eq!(get(&secrets, "X").unwrap(), "X");
}

#[test]
fn what_is_no_secrets_file_is_refused_clearly() {
    let refused = |bytes: &[u8]| {
        let (_directory, secrets) = project(&[(".kamal/secrets", bytes)]);
        get(&secrets, "A").unwrap_err()
    };
    assert_eq!(refused(b"A=1\n\xff\xfe"), ".kamal/secrets: line 2: not valid UTF-8");
    assert_eq!(
        refused(&vec![b'A'; 100 * 1024 * 1024]),
        ".kamal/secrets: is larger than 1 MiB, which no secrets file is"
    );
    let said = refused(b"A=$(printf '\\\\377')");
    assert!(said.contains("line 1: A: `printf '\\377'` printed binary data"), "{said}");

    let (directory, secrets) = project(&[]);
    std::fs::create_dir(directory.path().join(".kamal/secrets")).unwrap();
    assert_eq!(get(&secrets, "A").unwrap_err(), ".kamal/secrets: is a directory, not a file");
}

#[test]
fn errors_of_commands_hold_no_value() {
    for text in [
        "S=t0psecret\nX=$(kamal secrets extract X $S)",
        "S='t0p secret'\nX=$(kamal secrets extract X Y $S)",
        "S=t0p\\'secret\nX=$(kamal secrets extract $S)",
        "S=t0psecret\nX=$(kamal secrets print $S)",
        "S=t0psecret\nX=$(no-such-program $S)",
        "S=t0psecret\nX=$($UNSET )",
    ] {
        let (_directory, secrets) = project(&[(".kamal/secrets", text.as_bytes())]);
        let said = get(&secrets, "X").unwrap_err();
        assert!(said.starts_with(".kamal/secrets: line 2: X: "), "{said}");
        assert!(!said.contains("secret'") && !said.contains("t0p"), "{said}");
    }
}

#[test]
fn commands_see_the_destination_and_only_this_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("s-common"),
        "A=$KAMAL_DESTINATION\nB=$(printenv KAMAL_DESTINATION)",
    )
    .unwrap();
    for (destination, expected) in [(None, ""), (Some("staging"), "staging")] {
        let options = SecretsOptions::of_process(
            directory.path().to_owned(),
            "s".to_owned(),
            destination.map(str::to_owned),
        );
        let secrets = Secrets::new(options);
        assert_eq!(get(&secrets, "A").unwrap(), expected);
        assert_eq!(get(&secrets, "B").unwrap(), expected);
    }
}
