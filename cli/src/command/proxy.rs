//! `dhow proxy`: the kamal-proxy of the hosts.
//!
//! `boot_config` is Kamal's old way to say how the proxy is started: it writes files on each host. Kamal has
//! deprecated it for `proxy.run` in deploy.yml, and so says dhow: the command is read whole, and answered
//! with the section that says the same. Where the config has that section already it is done, so that a
//! hook which calls the command goes on working. Files that are on a host still count there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::{Subcommand, ValueEnum};
use dhow_proto::model::kamal::{PROXY_REPOSITORY, PROXY_VERSION};
use serde_json::{Map, Value, json};

use super::{Globals, Outcome};
use crate::config::model::{Config, ProxyRun, build};
use crate::config::yaml::{Node, SourceMap, read};
use crate::output::progress::print_line;
use crate::project::Project;
use crate::selection::{Filter, Selection, select};

/// Subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Proxy {
    /// How the proxy is started; deprecated for `proxy.run` in deploy.yml
    #[command(name = "boot_config", alias = "boot-config")]
    BootConfig(BootConfigArgs),
}

/// What to do with the boot config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Say how the proxy is started.
    Set,
    /// Print it.
    Get,
    /// Back to the defaults.
    Clear,
    /// The same.
    Reset,
}

/// Options of `proxy boot_config`; all but the action are of use with `set` only.
#[derive(Clone, Debug, clap::Args)]
pub struct BootConfigArgs {
    /// What to do with it
    pub action: Action,
    /// Publish the ports on the host, which is the default
    #[arg(long, overrides_with = "no_publish")]
    pub publish: bool,
    /// Publish no ports: the proxy is behind another one
    #[arg(long, alias = "skip-publish", overrides_with = "publish")]
    pub no_publish: bool,
    /// Publish on this address of the host only; may be given again
    #[arg(long, value_name = "IP", value_parser = address)]
    pub publish_host_ip: Vec<String>,
    /// Port of the host for HTTP
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Port of the host for HTTPS
    #[arg(long, value_name = "PORT")]
    pub https_port: Option<u16>,
    /// Largest log
    #[arg(long, value_name = "SIZE")]
    pub log_max_size: Option<String>,
    /// Registry of the image
    #[arg(long, value_name = "SERVER")]
    pub registry: Option<String>,
    /// What stands before `/kamal-proxy` in the image's name
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Tag of the image
    #[arg(long, value_name = "TAG")]
    pub image_version: Option<String>,
    /// Port of the metrics in the container
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Log more
    #[arg(long, overrides_with = "no_debug")]
    pub debug: bool,
    /// Log as usual
    #[arg(long, alias = "skip-debug", overrides_with = "debug", hide = true)]
    pub no_debug: bool,
    /// Options of `docker run` without their hyphens: `memory=1g cpus=2`
    #[arg(long, value_name = "OPTION=VALUE", num_args = 0..)]
    pub docker_options: Vec<String>,
}

/// Why the command changes nothing, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BootConfigError {
    /// The config says nothing, or something else.
    #[error(
        "proxy boot_config {action}: dhow writes no boot config on hosts. Write `proxy: {{run: {run}}}` into {file} instead; it counts in place of what `boot_config` left on a host"
    )]
    Instead {
        /// The action as written.
        action: String,
        /// The section that says the same, as YAML on one line.
        run: Value,
        /// The config.
        file: String,
    },
    /// Each host has its own.
    #[error(
        "proxy boot_config get: {file} has no `proxy.run`, so the files `options`, `image`, `image_version` and `run_command` in `.kamal/proxy` of each host say how the proxy is started, or the defaults where there are none; dhow cannot show them"
    )]
    OnHosts {
        /// The config.
        file: String,
    },
}

/// Kamal's words for what is no address.
fn address(text: &str) -> Result<String, String> {
    let parsed = text.parse::<IpAddr>();
    parsed.map(|_| text.to_owned()).map_err(|_| format!("Invalid publish IP address: {text}"))
}

/// Runs the command.
///
/// # Errors
///
/// The config, or [`BootConfigError`].
pub fn run(globals: &Globals, command: &Proxy) -> anyhow::Result<Outcome> {
    let Proxy::BootConfig(args) = command;
    if !globals.quiet {
        eprintln!(
            "The proxy boot_config command is deprecated - set the config in the deploy YAML at proxy/run instead"
        );
    }
    let project = Project::load_here(globals)?;
    let config = &project.loaded.config;
    let file = globals
        .config_file
        .as_ref()
        .map_or_else(|| "config/deploy.yml".to_owned(), |path| path.display().to_string());
    let present = runs(config, &select(config, &globals.filter())?, &globals.filter());
    if args.action == Action::Get {
        if present.is_empty() {
            return Err(BootConfigError::OnHosts { file }.into());
        }
        for (host, run) in present {
            print_line(&format!("Host {host}: {}", line(&effective(run))));
        }
        return Ok(Outcome::Done);
    }
    let wanted = wanted(args);
    let target = effective(&section(&wanted));
    if !present.is_empty() && present.values().all(|run| effective(run) == target) {
        if !globals.quiet {
            print_line(&format!("`proxy.run` in {file} says so already"));
        }
        return Ok(Outcome::Done);
    }
    let action = format!("{:?}", args.action).to_lowercase();
    Err(BootConfigError::Instead { action, run: wanted, file }.into())
}

/// `proxy.run` of each selected host that has one, an accessory's too.
fn runs<'c>(
    config: &'c Config,
    selection: &Selection,
    filter: &Filter,
) -> BTreeMap<String, &'c ProxyRun> {
    // A selection holds hosts of roles; without a filter every host is meant.
    let all = filter.hosts.is_none() && filter.roles.is_none() && !filter.primary;
    let selected = |host: &String| selection.hosts.contains(host);
    let roles = config.roles.iter().filter(|role| selection.roles.contains(&role.name));
    let with_run = roles.filter_map(|role| Some((role, role.proxy.as_ref()?.run.as_ref()?)));
    let of_roles = with_run
        .flat_map(|(role, run)| role.hosts.iter().map(move |at| (at.host.clone(), run)))
        .filter(|(host, _)| selected(host));
    let of_accessories = config
        .accessories
        .iter()
        .filter_map(|accessory| Some((accessory, accessory.proxy.as_ref()?.run.as_ref()?)))
        .flat_map(|(accessory, run)| {
            config.accessory_hosts(accessory).into_iter().map(move |host| (host, run))
        })
        .filter(|(host, _)| all || selected(host));
    of_accessories.chain(of_roles).collect()
}

/// The options as a `proxy.run` section: JSON, and so YAML on one line. Never empty, as an empty section is none.
fn wanted(args: &BootConfigArgs) -> Value {
    let mut run = Map::new();
    let mut put = |key: &str, value: Value| {
        run.insert(key.to_owned(), value);
    };
    if args.action == Action::Set {
        if args.no_publish {
            put("publish", json!(false));
        } else {
            // The addresses and ports of what is not published would be refused.
            if !args.publish_host_ip.is_empty() {
                put("bind_ips", json!(args.publish_host_ip));
            }
            args.http_port.inspect(|port| put("http_port", json!(port)));
            args.https_port.inspect(|port| put("https_port", json!(port)));
        }
        args.metrics_port.inspect(|port| put("metrics_port", json!(port)));
        if args.debug {
            put("debug", json!(true));
        }
        for (key, value) in [
            ("log_max_size", args.log_max_size.clone()),
            ("registry", args.registry.clone()),
            ("repository", args.repository.as_ref().map(|name| format!("{name}/kamal-proxy"))),
            ("version", args.image_version.clone()),
        ] {
            value.inspect(|text| put(key, json!(text)));
        }
        if !args.docker_options.is_empty() {
            put("options", docker_options(&args.docker_options));
        }
    }
    if run.is_empty() {
        run.insert("publish".to_owned(), json!(true));
    }
    Value::Object(run)
}

/// What a `proxy.run` section comes to.
fn section(run: &Value) -> ProxyRun {
    let root = read(&format!("run: {run}"), 0, &SourceMap::default()).ok();
    let root = root.and_then(|(root, _)| root);
    let run = root.as_ref().and_then(Node::as_map).and_then(|map| build::proxy(map).run);
    run.expect("a section that was made here can be read")
}

/// `a=b` is `--a b`, `a` alone a flag; what is given again is a list.
fn docker_options(options: &[String]) -> Value {
    let mut map = Map::new();
    for option in options {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, json!(value)),
            None => (option.as_str(), json!(true)),
        };
        match map.get_mut(name) {
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = json!([first.take(), value]),
            None => {
                map.insert(name.to_owned(), value);
            }
        }
    }
    Value::Object(map)
}

/// The section with its defaults written out, so that two that mean the same are equal.
fn effective(run: &ProxyRun) -> ProxyRun {
    let mut run = run.clone();
    run.http_port.get_or_insert(80);
    run.https_port.get_or_insert(443);
    run.log_max_size.get_or_insert_with(|| "10m".to_owned());
    run.registry.get_or_insert_default();
    run.repository.get_or_insert_with(|| PROXY_REPOSITORY.to_owned());
    run.version.get_or_insert_with(|| PROXY_VERSION.to_owned());
    run
}

/// As `proxy boot_config get` of Kamal has it: flags of `docker run`, image and command. `run` is effective.
fn line(run: &ProxyRun) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut words = Vec::new();
    let any = [String::new()];
    let ips = if run.bind_ips.is_empty() { &any[..] } else { &run.bind_ips };
    for ip in ips.iter().filter(|_| run.publish) {
        let ip = match ip.as_str() {
            "" => String::new(),
            v6 if v6.contains(':') => format!("[{}]:", v6.trim_matches(['[', ']'])),
            v4 => format!("{v4}:"),
        };
        for (port, inside) in [(run.http_port, 80), (run.https_port, 443)] {
            words.push(format!("--publish {ip}{}:{inside}", port.unwrap_or(inside)));
        }
    }
    if !text(&run.log_max_size).is_empty() {
        words.push(format!("--log-opt max-size={}", text(&run.log_max_size)));
    }
    words.extend(run.metrics_port.map(|port| format!("--expose={port}")));
    for entry in &run.options.entries {
        let name = entry.key.to_text();
        for value in entry.value.as_list().unwrap_or(std::slice::from_ref(&entry.value)) {
            let value = value.to_text();
            words.push(if value == "true" {
                format!("--{name}")
            } else {
                format!("--{name} {value}")
            });
        }
    }
    let registry = Some(text(&run.registry)).filter(|server| !server.is_empty());
    let image = registry.into_iter().chain([text(&run.repository)]).collect::<Vec<_>>().join("/");
    words.push(format!("{image}:{}", text(&run.version)));
    words.push("kamal-proxy run".to_owned());
    words.extend(run.debug.then(|| "--debug".to_owned()));
    words.extend(run.metrics_port.map(|port| format!("--metrics-port {port}")));
    words.join(" ")
}

#[cfg(test)]
mod tests;
