//! Each adapter against a stand-in for its vendor's program: a script that comes first in `PATH`,
//! checks that it is called with exactly the expected arguments in the expected order, and prints
//! what the real program was seen to print.

mod clouds;
mod managers;

use std::fs;
use std::path::Path;

use secrecy::ExposeSecret;

use super::*;
use crate::secrets::request::{self, FetchArgs, Vaults};
use crate::secrets::runner::ProcessRunner;

/// One call that the stand-in expects, and its answer.
struct Expected {
    args: Vec<String>,
    code: i32,
    stdout: String,
}

/// A call that ends well and prints `stdout`.
fn says(args: &[&str], stdout: &str) -> Expected {
    Expected {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        code: 0,
        stdout: stdout.to_owned(),
    }
}

/// A call that fails.
fn fails(args: &[&str]) -> Expected {
    Expected { code: 1, ..says(args, "") }
}

/// The stand-in. It is linked rather than written for each test, as Linux starts no program that
/// another thread's child may still have open for writing.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/secrets/adapter/tests/vendor.sh");

fn install(directory: &Path, program: &str, expected: &[Expected]) {
    let calls = directory.join("calls");
    fs::create_dir(&calls).unwrap();
    fs::write(calls.join("count"), "0").unwrap();
    for (at, call) in expected.iter().enumerate() {
        let file = |kind: &str| calls.join(format!("{}.{kind}", at + 1));
        let args: String = call.args.iter().map(|arg| format!("{arg}\n")).collect();
        fs::write(file("args"), args).unwrap();
        fs::write(file("out"), &call.stdout).unwrap();
        fs::write(file("code"), call.code.to_string()).unwrap();
    }
    std::os::unix::fs::symlink(SCRIPT, directory.join(program)).unwrap();
}

/// What `secrets fetch` is asked for.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    adapter: &'a str,
    account: Option<&'a str>,
    from: Option<&'a str>,
    names: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
}

fn run(asked: Asked<'_>, path: &str) -> Result<Vec<(String, String)>, String> {
    let runner = ProcessRunner {
        env: vec![("PATH".to_owned(), path.to_owned())],
        ..ProcessRunner::default()
    };
    let env = asked.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let args = FetchArgs {
        adapter: asked.adapter.to_owned(),
        account: asked.account.map(str::to_owned),
        from: asked.from.map(str::to_owned),
        inline: false,
        names: asked.names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let found = request::fetch(&args, &Vaults { runner: &runner, env: &env.collect() });
    let exposed = |(name, value): (String, SecretString)| (name, value.expose_secret().to_owned());
    found.map(|found| found.into_iter().map(exposed).collect()).map_err(|error| error.to_string())
}

/// Asks with the stand-in for `program`, which must be called as expected, neither less nor more.
#[track_caller]
fn ask(
    program: &str,
    expected: &[Expected],
    asked: Asked<'_>,
) -> Result<Vec<(String, String)>, String> {
    let directory = tempfile::tempdir().unwrap();
    install(directory.path(), program, expected);
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let answer = run(asked, &path);
    let calls = directory.path().join("calls");
    let count: usize = fs::read_to_string(calls.join("count")).unwrap().trim().parse().unwrap();
    if calls.join("wrong").exists() || count != expected.len() {
        let called: Vec<String> = (1..=count)
            .map(|n| {
                fs::read_to_string(calls.join(format!("{n}.called"))).unwrap().replace('\n', " ")
            })
            .collect();
        panic!(
            "`{program}` was called {count} times, expected {}: {called:#?}\nanswer: {answer:?}",
            expected.len()
        );
    }
    answer
}

#[track_caller]
fn found(answer: Result<Vec<(String, String)>, String>, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(answer, Ok(expected));
}

#[track_caller]
fn refused(answer: Result<Vec<(String, String)>, String>, expected: &str) {
    assert_eq!(answer, Err(expected.to_owned()));
}

/// All adapters that need a program: names, program, the harmless first call, Kamal's name for it.
const PROGRAMS: &[(&[&str], &str, &[&str], &str)] = &[
    (&["1password", "1Password", "one_password", "OnePassword"], "op", &["--version"], "1Password"),
    (&["lastpass", "LastPass", "last_pass"], "lpass", &["--version"], "LastPass"),
    (&["bitwarden", "Bitwarden"], "bw", &["--version"], "Bitwarden"),
    (
        &["bitwarden-sm", "bitwarden_secrets_manager"],
        "bws",
        &["--version"],
        "Bitwarden Secrets Manager",
    ),
    (&["aws_secrets_manager", "AwsSecretsManager"], "aws", &["--version"], "AWS"),
    (&["gcp", "GCP", "gcp_secret_manager"], "gcloud", &["--version"], "gcloud"),
    (&["doppler"], "doppler", &["--version"], "Doppler"),
    (&["enpass"], "enpass-cli", &["version"], "Enpass"),
    (&["passbolt"], "passbolt", &["--version"], "Passbolt"),
];

#[test]
fn a_missing_or_broken_program_is_called_not_installed() {
    let empty = tempfile::tempdir().unwrap();
    for (adapters, program, probe, vendor) in PROGRAMS {
        for adapter in *adapters {
            let asked = Asked { adapter, account: Some("me"), names: &["A"], ..Asked::default() };
            let message = format!("{vendor} CLI is not installed");
            refused(run(asked, &empty.path().display().to_string()), &message);
            refused(ask(program, &[fails(probe)], asked), &message);
        }
    }
}

#[test]
fn adapters_that_need_an_account_say_so() {
    for adapter in ["1password", "lastpass", "bitwarden", "gcp", "test"] {
        for account in [None, Some(" ")] {
            let asked = Asked { adapter, account, names: &["A"], ..Asked::default() };
            refused(run(asked, ""), "No value provided for required options '--account'");
        }
    }
}

#[test]
fn an_unknown_adapter_is_named() {
    for adapter in ["nope", "aws", "ONE_PASSWORD", ""] {
        let message = format!("Unknown secrets adapter: {adapter}");
        refused(run(Asked { adapter, ..Asked::default() }, ""), &message);
    }
}

#[test]
fn the_test_adapter_reverses_names() {
    let asked = Asked { adapter: "test", account: Some("me"), from: Some("v"), ..Asked::default() };
    let asked = Asked { names: &["ab", "LPARENx"], ..asked };
    found(run(asked, ""), &[("v/ab", "ba/v"), ("v/LPARENx", "x(/v")]);
}

#[test]
fn the_command_adapter_runs_any_program() {
    let asked = |names| Asked {
        adapter: "command",
        from: Some("my-vault get --json"),
        names,
        ..Asked::default()
    };
    let answer = r#"{"A b": "1", "C": {"d": 2}, "E": null}"#;
    let call = says(&["get", "--json", "A b", "C"], answer);
    found(ask("my-vault", &[call], asked(&["A b", "C"])), &[("A b", "1"), ("C", r#"{"d":2}"#)]);
    let call = says(&["get", "--json"], answer);
    found(ask("my-vault", &[call], asked(&[])), &[("A b", "1"), ("C", r#"{"d":2}"#)]);
    refused(
        ask("my-vault", &[says(&["get", "--json", "E", "F"], answer)], asked(&["E", "F"])),
        "Could not find E, F with `my-vault get --json`",
    );
    refused(
        ask("my-vault", &[fails(&["get", "--json", "A"])], asked(&["A"])),
        "`my-vault get --json` failed",
    );
    for malformed in ["[1]", "no json"] {
        let said = ask("my-vault", &[says(&["get", "--json", "A"], malformed)], asked(&["A"]));
        assert!(said.unwrap_err().starts_with("could not understand what `my-vault"));
    }
    refused(
        run(Asked { from: None, ..asked(&["A"]) }, ""),
        "The command adapter needs the command to run: --from 'my-vault get'",
    );
}
