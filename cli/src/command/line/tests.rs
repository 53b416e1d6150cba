use clap::CommandFactory as _;

use super::*;
use crate::command::Cli;

const ALIASES: &[(&str, &str)] = &[
    ("console", "app logs -r console -g 'a b'"),
    ("status", "app version"),
    ("con", "app version"),
    ("two", "console -p"),
    ("round", "about"),
    ("about", "round"),
    ("open", "app 'logs"),
    ("nothing", ""),
];

fn resolved(line: &str) -> Result<String, LineError> {
    let words = shlex::split(line).unwrap();
    let look_up = |name: &str, options: &LoadOptions| {
        if options.destination.as_deref() == Some("staging") && name == "console" {
            return Ok(Some("app images".to_owned()));
        }
        let found = ALIASES.iter().find(|(known, _)| *known == name);
        Ok(found.map(|(_, text)| (*text).to_owned()))
    };
    resolve(words, &Cli::command(), &look_up)
        .map(|words| shlex::try_join(words.iter().map(String::as_str)).unwrap())
}

#[track_caller]
fn check(line: &str, expected: &str) {
    assert_eq!(resolved(line).unwrap(), expected, "{line}");
}

#[track_caller]
fn refused(line: &str, message: &str) {
    assert_eq!(resolved(line).unwrap_err().to_string(), message, "{line}");
}

#[test]
fn a_beginning_that_one_command_has_is_the_command() {
    check("dep --version v1", "deploy --version v1");
    check("-d staging dep", "-d staging deploy");
    check("app ver", "app version");
    check("app -q ver", "app -q version");
    check("ap ver", "app version");
    check("sec pr", "secrets print");
    check("deploy", "deploy");
}

#[test]
fn a_beginning_of_several_commands_is_refused() {
    refused("re", "Ambiguous command re matches [redeploy, registry, remove]");
    refused("app l", "Ambiguous command l matches [live, logs]");
}

#[test]
fn commands_that_only_dhow_has_are_written_out() {
    check("rollout list", "rollout list");
    // `ro` is a beginning of `rollback` alone: `rollout` takes no part.
    check("ro v1", "rollback v1");
    check("log", "log");
    check("host list", "host list");
}

#[test]
fn an_alias_is_replaced_literally_and_the_rest_appended() {
    check("console -r workers", "app logs -r console -g 'a b' -r workers");
    check("console", "app logs -r console -g 'a b'");
    check("-q console -r workers", "-q app logs -r console -g 'a b' -r workers");
    check("two x", "app logs -r console -g 'a b' -p x");
}

#[test]
fn an_alias_is_that_of_the_destination() {
    check("console -d staging", "app images -d staging");
    check("-dstaging console", "-dstaging app images");
    check("console --destination=staging", "app images '--destination=staging'");
}

#[test]
fn an_alias_beats_a_command_only_dhow_has_but_none_of_kamals() {
    check("status", "app version");
    check("con", "config");
}

#[test]
fn aliases_that_cannot_be_are_refused() {
    refused("round", "the alias `round` leads back to itself");
    refused("open", "the alias `open` cannot be read: a quote in its text is not closed");
    refused("nothing", "the alias `nothing` stands for nothing");
}

#[test]
fn options_are_spelled_either_way_and_are_no_commands() {
    check("deploy --skip_push --config_file=a_b.yml", "deploy --skip-push '--config-file=a_b.yml'");
    check("app logs --no_option -- --skip_push", "app logs --no_option -- --skip_push");
    check("--config-file con deploy", "--config-file con deploy");
    check("-vqc con deploy", "-vqc con deploy");
    check("-- con", "-- con");
}

#[test]
fn without_a_config_only_dhows_own_commands_go_on() {
    let none = |_: &str, _: &LoadOptions| Err(Diagnostics::default());
    let run = |word: &str| resolve(vec![word.to_owned()], &Cli::command(), &none);
    assert_eq!(run("login").unwrap(), ["login"]);
    assert_eq!(run("version").unwrap(), ["version"]);
    assert!(matches!(run("nonsense"), Err(LineError::Unreadable { .. })));
}

/// The parser's options override each other, so what is appended to an alias wins.
#[test]
fn later_options_win() {
    use clap::Parser as _;
    let cli =
        Cli::try_parse_from(["dhow", "app", "logs", "-r", "a", "-n", "1", "-r", "b", "-n", "2"]);
    assert_eq!(cli.unwrap().globals.roles.as_deref(), Some("b"));
    let cli = Cli::try_parse_from(["dhow", "-r", "a", "app", "version", "-r", "b"]);
    assert_eq!(cli.unwrap().globals.roles.as_deref(), Some("b"));
}

/// No alias can take the name of one of Kamal's commands, so the look-up never has to decide.
#[test]
fn every_command_of_kamal_is_built_in() {
    for name in BUILT_IN {
        check(name, name);
    }
}
