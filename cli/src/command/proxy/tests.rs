use clap::Parser as _;

use super::*;
use crate::command::{Cli, Command};

fn parsed(options: &str) -> BootConfigArgs {
    let words = ["dhow", "proxy", "boot_config"].into_iter().chain(options.split_whitespace());
    match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{options}: {error}")).command {
        Command::Proxy(Proxy::BootConfig(args)) => args,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(options: &str, run: Value, flags: &str) {
    let wanted = wanted(&parsed(options));
    assert_eq!(wanted, run, "{options}");
    assert_eq!(line(&effective(&section(&wanted))), flags, "{options}");
}

/// S21: every option of the command is said by a key of `proxy.run`.
#[test]
fn each_option_has_its_key() {
    let defaults = "--publish 80:80 --publish 443:443 --log-opt max-size=10m";
    let image = "basecamp/kamal-proxy:v0.9.2 kamal-proxy run";
    check("set", json!({"publish": true}), &format!("{defaults} {image}"));
    for action in ["clear --http-port 8080", "reset --no-publish"] {
        check(action, json!({"publish": true}), &format!("{defaults} {image}"));
    }
    check(
        "set --no-publish --http-port 8080",
        json!({"publish": false}),
        &format!("--log-opt max-size=10m {image}"),
    );
    check(
        "set --no-publish --publish --http-port 8080 --https-port=8443",
        json!({"http_port": 8080, "https_port": 8443}),
        &format!("--publish 8080:80 --publish 8443:443 --log-opt max-size=10m {image}"),
    );
    check(
        "set --publish-host-ip 192.0.2.1 --publish-host-ip ::1 --log-max-size 1g",
        json!({"bind_ips": ["192.0.2.1", "::1"], "log_max_size": "1g"}),
        &format!(
            "--publish 192.0.2.1:80:80 --publish 192.0.2.1:443:443 --publish [::1]:80:80 --publish [::1]:443:443 --log-opt max-size=1g {image}"
        ),
    );
    check(
        "set --docker-options memory=1g label=a=b label=c privileged --debug --metrics-port 9090",
        json!({"debug": true, "metrics_port": 9090,
            "options": {"memory": "1g", "label": ["a=b", "c"], "privileged": true}}),
        &format!(
            "{defaults} --expose=9090 --memory 1g --label a=b --label c --privileged {image} --debug --metrics-port 9090"
        ),
    );
    check(
        "set --registry r.example.com:5000 --repository mine --image-version v0.9.3",
        json!({"registry": "r.example.com:5000", "repository": "mine/kamal-proxy", "version": "v0.9.3"}),
        &format!("{defaults} r.example.com:5000/mine/kamal-proxy:v0.9.3 kamal-proxy run"),
    );
}

#[test]
fn what_is_no_action_port_or_address_is_wrong_usage() {
    for (options, words) in [
        ("", "<ACTION>"),
        ("put", "set, get, clear, reset"),
        ("set --http-port abc", "--http-port"),
        ("set --publish-host-ip here", "Invalid publish IP address: here"),
    ] {
        let line = ["dhow", "proxy", "boot_config"].into_iter().chain(options.split_whitespace());
        let said = Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(said.contains(words), "{options}: {said}");
    }
}
