//! Reads the `docker run` flags of a host's boot config file (`.kamal/proxy/options`).
//!
//! Kamal feeds the line through `xargs docker run`, so quotes and backslashes are read and nothing is expanded. Only
//! flags that proxies are booted with are understood; any other is refused by name, never dropped.

use dhow_proto::model::ImageRef;
use dhow_proto::model::template::{EngineOptions, ProxyContainer};
use serde_json::{Value, json};

use super::boot::{ProxyBoot, PublishedPort};

/// Why a line was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Unknown flag, or a value it does not take.
    #[error(
        "the host's boot config has {0}, which dhow does not understand: put it under `proxy.run` in the deploy config instead"
    )]
    Unknown(String),
    /// A quote without its end.
    #[error("the host's boot config has an unfinished quote")]
    Quote,
}

pub(super) fn words(line: &str) -> Result<Vec<String>, FlagError> {
    shlex::split(line).ok_or(FlagError::Quote)
}

pub(super) fn parse(line: &str) -> Result<ProxyBoot, FlagError> {
    let mut boot = ProxyBoot {
        image: ImageRef { repository: String::new(), tag: String::new() },
        cmd: None,
        ports: Vec::new(),
        expose: Vec::new(),
        log_max_size: String::new(),
        options: EngineOptions::default(),
        container: ProxyContainer::default(),
    };
    let mut words = words(line)?.into_iter();
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        let unknown = || FlagError::Unknown(flag.clone());
        let value = match value {
            Some(value) => value,
            None => words.next().ok_or_else(unknown)?,
        };
        let mut host = |key: &str, value: Value| {
            let slot = boot.options.host_config.entry(key.to_owned()).or_insert(Value::Null);
            match (slot, value) {
                (Value::Array(there), Value::Array(more)) => there.extend(more),
                (slot, value) => *slot = value,
            }
        };
        match flag.as_str() {
            "--publish" | "-p" => {
                let port = published(&value).ok_or_else(unknown)?;
                boot.ports.push(port);
            }
            "--expose" => boot.expose.push(format!("{value}/tcp")),
            "--log-opt" => match value.split_once('=') {
                Some(("max-size", size)) => boot.log_max_size = size.to_owned(),
                Some((option, _)) => {
                    return Err(FlagError::Unknown(format!("--log-opt {option}")));
                }
                None => return Err(unknown()),
            },
            "--memory" | "-m" => host("Memory", json!(bytes(&value).ok_or_else(unknown)?)),
            "--cpus" => {
                let cpus: f64 = value.parse().map_err(|_| unknown())?;
                host("NanoCpus", json!((cpus * 1e9) as i64));
            }
            "--add-host" => host("ExtraHosts", json!([value.replacen('=', ":", 1)])),
            "--cap-add" => host("CapAdd", json!([value])),
            "--cap-drop" => host("CapDrop", json!([value])),
            "--dns" => host("Dns", json!([value])),
            "--hostname" | "-h" => {
                boot.options.config.insert("Hostname".to_owned(), json!(value));
            }
            "--ulimit" => {
                let (name, limits) = value.split_once('=').ok_or_else(unknown)?;
                let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
                let number = |t: &str| t.parse::<i64>().map_err(|_| unknown());
                let (soft, hard) = (number(soft)?, number(hard)?);
                host("Ulimits", json!([{"Name": name, "Soft": soft, "Hard": hard}]));
            }
            _ => return Err(unknown()),
        }
    }
    Ok(boot)
}

/// `[ip:]host:container[/proto]`, one port each.
fn published(text: &str) -> Option<PublishedPort> {
    let (rest, container) = text.rsplit_once(':')?;
    let container = match container.split_once('/') {
        Some((port, protocol)) => format!("{}/{protocol}", port.parse::<u16>().ok()?),
        None => format!("{}/tcp", container.parse::<u16>().ok()?),
    };
    let (host_ip, host_port) = match rest.rsplit_once(':') {
        Some((ip, port)) => (ip.trim_matches(['[', ']']), port),
        None => ("", rest),
    };
    if !host_port.is_empty() {
        host_port.parse::<u16>().ok()?;
    }
    Some(PublishedPort { container, host_ip: host_ip.to_owned(), host_port: host_port.to_owned() })
}

/// `512m`: suffixes are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, factor) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 1 << 10),
        'm' => (&lower[..lower.len() - 1], 1 << 20),
        'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
