//! The command line: which commands there are, their flags, and what they ask of the server.

use crate::flags::Kind::{Bool, Duration, Int, List, Text};
use crate::flags::{Parsed, Spec};
use crate::options::{HealthCheckConfig, RolloutSplit, ServiceOptions, TargetOptions};
use crate::rpc::{Deploy, Request, RolloutDeploy};
use crate::server::{self, Ports};

const SECOND: i64 = 1_000_000_000;

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Run { ports: Ports, debug: bool },
    Call(Request),
    Help,
}

const RUN: &[Spec] = &[
    ("http-port", Int),
    ("https-port", Int),
    ("metrics-port", Int),
    ("http3", Bool),
    ("debug", Bool),
];

const DEPLOY: &[Spec] = &[
    ("target", List),
    ("read-target", List),
    ("host", List),
    ("path-prefix", List),
    ("strip-path-prefix", Bool),
    ("tls", Bool),
    ("tls-staging", Bool),
    ("tls-certificate-path", Text),
    ("tls-private-key-path", Text),
    ("tls-acme-cache-path", Text),
    ("tls-redirect", Bool),
    ("canonical-host", Text),
    ("deploy-timeout", Duration),
    ("drain-timeout", Duration),
    ("force", Bool),
    ("health-check-path", Text),
    ("health-check-port", Int),
    ("health-check-host", Text),
    ("health-check-interval", Duration),
    ("health-check-timeout", Duration),
    ("target-timeout", Duration),
    ("buffer-requests", Bool),
    ("buffer-responses", Bool),
    ("buffer-memory", Int),
    ("max-request-body", Int),
    ("max-response-body", Int),
    ("error-pages", Text),
    ("forward-headers", Bool),
    ("log-request-header", List),
    ("log-response-header", List),
    ("scope-cookie-paths", Bool),
    ("writer-affinity-timeout", Duration),
    ("read-target-websockets", Bool),
];

const PAUSE: &[Spec] = &[("drain-timeout", Duration), ("max-pause", Duration)];
const STOP: &[Spec] = &[("drain-timeout", Duration), ("message", Text)];
const ROLLOUT_DEPLOY: &[Spec] = &[
    ("target", List),
    ("read-target", List),
    ("deploy-timeout", Duration),
    ("drain-timeout", Duration),
];
const ROLLOUT_SET: &[Spec] = &[("percent", Int), ("list", List)];

/// Reads a command line without the program's name.
pub(crate) fn read(words: &[String]) -> Result<Command, String> {
    let Some((name, rest)) = words.split_first() else { return Ok(Command::Help) };
    match name.as_str() {
        "run" => run(&Parsed::read(RUN, rest)?),
        "deploy" => call(DEPLOY, rest, deploy),
        "remove" | "rm" => {
            call(&[], rest, |flags| Ok(Request::Remove { service: flags.only_arg()? }))
        }
        "pause" => call(PAUSE, rest, |flags| {
            Ok(Request::Pause {
                service: flags.only_arg()?,
                drain_timeout: flags.int("drain-timeout", 30 * SECOND),
                max_pause: flags.int("max-pause", 30 * SECOND),
            })
        }),
        "stop" => call(STOP, rest, |flags| {
            Ok(Request::Stop {
                service: flags.only_arg()?,
                drain_timeout: flags.int("drain-timeout", 30 * SECOND),
                message: flags.text("message"),
            })
        }),
        "resume" => call(&[], rest, |flags| Ok(Request::Resume { service: flags.only_arg()? })),
        "list" | "ls" => call(&[], rest, |flags| match flags.args.first() {
            Some(extra) => Err(format!("unknown command {extra:?} for \"kamal-proxy list\"")),
            None => Ok(Request::List),
        }),
        "rollout" => rollout(rest),
        "help" | "completion" | "--help" | "-h" => Ok(Command::Help),
        flag if flag.starts_with("--") => {
            Err(format!("unknown flag: {}", flag.split('=').next().unwrap_or(flag)))
        }
        other => Err(format!(
            "unknown command {other:?} for \"kamal-proxy\"\nRun 'kamal-proxy --help' for usage."
        )),
    }
}

fn call(
    specs: &[Spec],
    words: &[String],
    request: impl FnOnce(&Parsed) -> Result<Request, String>,
) -> Result<Command, String> {
    let flags = Parsed::read(specs, words)?;
    if flags.help { Ok(Command::Help) } else { request(&flags).map(Command::Call) }
}

fn run(flags: &Parsed) -> Result<Command, String> {
    if flags.help {
        return Ok(Command::Help);
    }
    let port = |flag: &str, name: &str, default: i64| {
        let port =
            flags.int(flag, env(name).and_then(|value| value.parse().ok()).unwrap_or(default));
        u16::try_from(port).map_err(|_| format!("listen tcp: address {port}: invalid port"))
    };
    let ports = Ports {
        http: port("http-port", "HTTP_PORT", 80)?,
        https: port("https-port", "HTTPS_PORT", 443)?,
    };
    let debug = env("DEBUG")
        .is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
    Ok(Command::Run { ports, debug: flags.bool("debug", debug) })
}

fn env(name: &str) -> Option<String> {
    std::env::var(format!("KAMAL_PROXY_{name}")).or_else(|_| std::env::var(name)).ok()
}

fn rollout(words: &[String]) -> Result<Command, String> {
    let Some((name, rest)) = words.split_first() else { return Ok(Command::Help) };
    match name.as_str() {
        "deploy" => call(ROLLOUT_DEPLOY, rest, |flags| {
            Ok(Request::RolloutDeploy(RolloutDeploy {
                service: flags.only_arg()?,
                targets: required_target(flags)?,
                readers: flags.list("read-target"),
                deploy_timeout: flags.int("deploy-timeout", 30 * SECOND),
                drain_timeout: flags.int("drain-timeout", 30 * SECOND),
            }))
        }),
        "set" => call(ROLLOUT_SET, rest, |flags| {
            let service = flags.only_arg()?;
            if !flags.is_set("percent") && !flags.is_set("list") {
                return Err(
                    "at least one of the flags in the group [percent list] is required".to_owned()
                );
            }
            let split =
                RolloutSplit { percentage: flags.int("percent", 0), allowlist: flags.list("list") };
            Ok(Request::RolloutSet { service, split })
        }),
        "stop" => call(&[], rest, |flags| Ok(Request::RolloutStop { service: flags.only_arg()? })),
        flag if flag.starts_with("--") && flag != "--help" => {
            Err(format!("unknown flag: {}", flag.split('=').next().unwrap_or(flag)))
        }
        // cobra shows the help of a group of commands for whatever it does not know below it.
        _ => Ok(Command::Help),
    }
}

fn required_target(flags: &Parsed) -> Result<Vec<String>, String> {
    if flags.is_set("target") {
        Ok(flags.list("target"))
    } else {
        Err("required flag(s) \"target\" not set".to_owned())
    }
}

fn deploy(flags: &Parsed) -> Result<Request, String> {
    let service = flags.only_arg()?;
    let tls = flags.bool("tls", false);
    let cache = server::data_dir().join("certs").display().to_string();
    let options = ServiceOptions {
        hosts: flags.list("host"),
        path_prefixes: flags.list("path-prefix"),
        tls_enabled: tls,
        tls_certificate_path: flags.text("tls-certificate-path"),
        tls_private_key_path: flags.text("tls-private-key-path"),
        tls_redirect: flags.bool("tls-redirect", true),
        canonical_host: flags.text("canonical-host"),
        acme_directory: if flags.bool("tls-staging", false) {
            "https://acme-staging-v02.api.letsencrypt.org/directory".to_owned()
        } else {
            String::new()
        },
        acme_cache_path: text_or(flags, "tls-acme-cache-path", &cache),
        error_page_path: flags.text("error-pages"),
        strip_prefix: flags.bool("strip-path-prefix", true),
        writer_affinity_timeout: flags.int("writer-affinity-timeout", SECOND),
        read_targets_accept_websockets: flags.bool("read-target-websockets", false),
    }
    .normalised();
    // In the real client's order, which decides what is said when several things are wrong.
    check_limits(flags)?;
    options.validate()?;
    let targets = required_target(flags)?;
    check_pair(flags)?;
    Ok(Request::Deploy(Box::new(Deploy {
        service,
        targets,
        readers: flags.list("read-target"),
        options,
        target_options: target_options(flags, tls),
        deploy_timeout: flags.int("deploy-timeout", 30 * SECOND),
        drain_timeout: flags.int("drain-timeout", 30 * SECOND),
        force: flags.bool("force", false),
    })))
}

fn target_options(flags: &Parsed, tls: bool) -> TargetOptions {
    let headers = |flag: &str| flags.is_set(flag).then(|| flags.list(flag));
    TargetOptions {
        health_check_config: HealthCheckConfig {
            path: text_or(flags, "health-check-path", "/up"),
            port: flags.int("health-check-port", 0),
            interval: flags.int("health-check-interval", SECOND),
            timeout: flags.int("health-check-timeout", 5 * SECOND),
            host: flags.text("health-check-host"),
        },
        response_timeout: flags.int("target-timeout", 30 * SECOND),
        buffer_requests: flags.bool("buffer-requests", false),
        buffer_responses: flags.bool("buffer-responses", false),
        max_memory_buffer_size: flags.int("buffer-memory", 1 << 20),
        max_request_body_size: flags.int("max-request-body", 0),
        max_response_body_size: flags.int("max-response-body", 0),
        log_request_headers: headers("log-request-header"),
        log_response_headers: headers("log-response-header"),
        // Without TLS there is likely another proxy in front, whose headers count.
        forward_headers: flags.bool("forward-headers", !tls),
        scope_cookie_paths: flags.bool("scope-cookie-paths", false),
    }
}

/// A limit needs its buffer's flag on the command line, whatever that flag says.
fn check_limits(flags: &Parsed) -> Result<(), String> {
    for (limit, buffer, what) in [
        ("max-request-body", "buffer-requests", "request"),
        ("max-response-body", "buffer-responses", "response"),
    ] {
        if flags.is_set(limit) && !flags.is_set(buffer) {
            return Err(format!("{limit} can only be set when {what} buffering is enabled"));
        }
    }
    Ok(())
}

fn check_pair(flags: &Parsed) -> Result<(), String> {
    let pair = ["tls-certificate-path", "tls-private-key-path"];
    match pair.map(|flag| flags.is_set(flag)) {
        [true, false] => Err(missing_of_pair(pair[1])),
        [false, true] => Err(missing_of_pair(pair[0])),
        [true, true] | [false, false] => Ok(()),
    }
}

fn missing_of_pair(missing: &str) -> String {
    format!(
        "if any flags in the group [tls-certificate-path tls-private-key-path] are set they must all be set; missing [{missing}]"
    )
}

fn text_or(flags: &Parsed, flag: &str, default: &str) -> String {
    if flags.is_set(flag) { flags.text(flag) } else { default.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        read(&words).unwrap_err()
    }

    #[test]
    fn wrong_usage_is_refused_by_the_client() {
        assert_eq!(why("deploy web"), "required flag(s) \"target\" not set");
        assert_eq!(why("deploy --target a:80"), "accepts 1 arg(s), received 0");
        assert_eq!(why("pause a b"), "accepts 1 arg(s), received 2");
        assert_eq!(
            why("rollout set web"),
            "at least one of the flags in the group [percent list] is required"
        );
        assert_eq!(
            why("deploy web --target a:80 --max-request-body 5"),
            "max-request-body can only be set when request buffering is enabled"
        );
        assert_eq!(
            why("deploy web --target a:80 --tls-certificate-path x"),
            "if any flags in the group [tls-certificate-path tls-private-key-path] are set they must all be set; missing [tls-private-key-path]"
        );
        // Not required yet where another rule speaks first.
        assert!(why("deploy web --max-request-body 5").starts_with("max-request-body can only"));
        assert_eq!(
            why("deploy web --target a:80 --tls --host a.test --path-prefix /x"),
            "TLS settings must be specified on the root path service"
        );
        assert_eq!(
            why("deploy web --target a:80 --host a,b --canonical-host c"),
            "canonical-host 'c' must be present in the hosts list: [a b]"
        );
        assert!(why("version").starts_with("unknown command \"version\" for \"kamal-proxy\""));
        assert_eq!(why("deploy web --version"), "unknown flag: --version");
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let words = ["deploy", "web", "--target=a:80", "--tls"].map(str::to_owned);
        let Ok(Command::Call(Request::Deploy(deploy))) = read(&words) else {
            panic!("not a deploy")
        };
        assert_eq!(deploy.target_options.health_check_config.path, "/up");
        assert_eq!(deploy.deploy_timeout, 30 * SECOND);
        assert!(!deploy.target_options.forward_headers);
        assert!(deploy.options.tls_redirect && deploy.options.strip_prefix);
    }

    #[test]
    fn a_limit_without_its_buffer_is_taken_when_the_buffer_is_switched_off_in_words() {
        let line = "deploy web --target=a:80 --max-request-body=5 --buffer-requests=false";
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert!(matches!(read(&words), Ok(Command::Call(Request::Deploy(_)))));
    }
}
