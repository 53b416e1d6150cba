//! `options:` of roles, accessories and the proxy: flags of `docker run` in the Engine API's words.
//!
//! Kamal passes `options` to the `docker` program, which turns them into the body of
//! `POST /containers/create`; here that is done without it. An option that only the program itself
//! could carry out (it reads a file of the host, say) is a problem, never dropped in silence.

mod network;
mod parse;
mod resources;

use std::collections::BTreeMap;

use dhow_proto::model::template::{EngineOptions, EnvVar, Restart};
use serde_json::{Value as Json, json};

use super::super::yaml::{Map, Node, Value};
pub(crate) use network::publish;

/// What `options` come to.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    /// What goes to the engine as it is.
    pub(crate) engine: EngineOptions,
    /// `restart`.
    pub(crate) restart: Option<Restart>,
    /// `log-driver`.
    pub(crate) log_driver: Option<String>,
    /// `log-opt`.
    pub(crate) log_options: BTreeMap<String, String>,
    /// `label`.
    pub(crate) labels: BTreeMap<String, String>,
    /// `env`.
    pub(crate) env: Vec<EnvVar>,
    /// `volume`, in the config's form.
    pub(crate) volumes: Vec<String>,
    /// Options that cannot be.
    pub(crate) problems: Vec<OptionProblem>,
}

/// An option that cannot be expressed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OptionProblem {
    /// Its name.
    pub(crate) option: String,
    /// Why.
    pub(crate) cause: String,
}

/// Translates all options in the file's order; a later one of the same meaning wins, as with
/// `docker run`.
pub(crate) fn translate(options: &Map) -> Translated {
    let mut out = Translated::default();
    for entry in &options.entries {
        let option = entry.key.to_text();
        let name = option.trim_start_matches("--");
        for value in words(&entry.value) {
            if let Err(cause) = out.add(name, &value) {
                out.problems.push(OptionProblem { option: option.clone(), cause });
            }
        }
    }
    out
}

/// The values one option is given with: `true` is a bare flag.
fn words(node: &Node) -> Vec<Word> {
    match &node.value {
        Value::List(items) => items.iter().flat_map(words).collect(),
        Value::Map(_) => vec![Word::Map],
        Value::Bool(flag) => vec![Word::Flag(*flag)],
        _ => vec![Word::Text(node.to_text())],
    }
}

/// One value of an option.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    Text(String),
    Flag(bool),
    Map,
}

impl Word {
    fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Flag(_) => Err("needs a value".into()),
            Self::Map => Err("cannot be a map".into()),
        }
    }

    fn flag(&self) -> Result<bool, String> {
        match self {
            Self::Flag(flag) => Ok(*flag),
            Self::Text(text) => match text.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(format!("is on or off, not `{text}`")),
            },
            Self::Map => Err("cannot be a map".into()),
        }
    }
}

/// How an option that needs no thought is handed on.
enum Kind {
    Text,
    Integer,
    Flag,
    TextList,
}

/// Options that are handed on: flag, key of `HostConfig`, kind.
const HOST_CONFIG: &[(&str, &str, Kind)] = &[
    ("publish-all", "PublishAllPorts", Kind::Flag),
    ("volumes-from", "VolumesFrom", Kind::TextList),
    ("volume-driver", "VolumeDriver", Kind::Text),
    ("cpu-shares", "CpuShares", Kind::Integer),
    ("cpu-period", "CpuPeriod", Kind::Integer),
    ("cpu-quota", "CpuQuota", Kind::Integer),
    ("cpuset-cpus", "CpusetCpus", Kind::Text),
    ("cpuset-mems", "CpusetMems", Kind::Text),
    ("cpu-rt-period", "CpuRealtimePeriod", Kind::Integer),
    ("cpu-rt-runtime", "CpuRealtimeRuntime", Kind::Integer),
    ("memory-swappiness", "MemorySwappiness", Kind::Integer),
    ("oom-kill-disable", "OomKillDisable", Kind::Flag),
    ("oom-score-adj", "OomScoreAdj", Kind::Integer),
    ("pids-limit", "PidsLimit", Kind::Integer),
    ("device-cgroup-rule", "DeviceCgroupRules", Kind::TextList),
    ("cap-add", "CapAdd", Kind::TextList),
    ("cap-drop", "CapDrop", Kind::TextList),
    ("init", "Init", Kind::Flag),
    ("privileged", "Privileged", Kind::Flag),
    ("read-only", "ReadonlyRootfs", Kind::Flag),
    ("dns", "Dns", Kind::TextList),
    ("dns-search", "DnsSearch", Kind::TextList),
    ("dns-option", "DnsOptions", Kind::TextList),
    ("dns-opt", "DnsOptions", Kind::TextList),
    ("pid", "PidMode", Kind::Text),
    ("ipc", "IpcMode", Kind::Text),
    ("uts", "UTSMode", Kind::Text),
    ("userns", "UsernsMode", Kind::Text),
    ("cgroupns", "CgroupnsMode", Kind::Text),
    ("cgroup-parent", "CgroupParent", Kind::Text),
    ("runtime", "Runtime", Kind::Text),
    ("isolation", "Isolation", Kind::Text),
    ("group-add", "GroupAdd", Kind::TextList),
    ("blkio-weight", "BlkioWeight", Kind::Integer),
];

/// Options that are handed on: flag, key of the body, kind.
const CONFIG: &[(&str, &str, Kind)] = &[
    ("user", "User", Kind::Text),
    ("u", "User", Kind::Text),
    ("workdir", "WorkingDir", Kind::Text),
    ("w", "WorkingDir", Kind::Text),
    ("domainname", "Domainname", Kind::Text),
    ("hostname", "Hostname", Kind::Text),
    ("h", "Hostname", Kind::Text),
    ("stop-signal", "StopSignal", Kind::Text),
    ("stop-timeout", "StopTimeout", Kind::Integer),
    ("tty", "Tty", Kind::Flag),
    ("t", "Tty", Kind::Flag),
    ("interactive", "OpenStdin", Kind::Flag),
    ("i", "OpenStdin", Kind::Flag),
];

impl Translated {
    fn add(&mut self, name: &str, word: &Word) -> Result<(), String> {
        if *word == Word::Map {
            return Err("cannot be a map: `docker run` has no such form".into());
        }
        if let Some((_, key, kind)) = HOST_CONFIG.iter().find(|(flag, ..)| *flag == name) {
            return put(&mut self.engine.host_config, key, kind, word);
        }
        if let Some((_, key, kind)) = CONFIG.iter().find(|(flag, ..)| *flag == name) {
            return put(&mut self.engine.config, key, kind, word);
        }
        if self.add_network(name, word)? || self.add_resource(name, word)? {
            return Ok(());
        }
        match name {
            "restart" => self.restart = Some(restart(word)?),
            "log-driver" => self.log_driver = Some(word.text()?.to_owned()),
            "log-opt" => {
                let (key, value) = parse::pair(word.text()?)?;
                self.log_options.insert(key, value);
            }
            "label" | "l" => {
                let text = word.text()?;
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                self.labels.insert(key.to_owned(), value.to_owned());
            }
            "env" | "e" => self.env.push(env_var(word.text()?)),
            "volume" | "v" => self.volumes.push(word.text()?.to_owned()),
            "entrypoint" => {
                self.engine.config.insert("Entrypoint".into(), json!([word.text()?]));
            }
            "platform" => self.engine.platform = Some(word.text()?.to_owned()),
            "health-cmd"
            | "health-interval"
            | "health-timeout"
            | "health-retries"
            | "health-start-period"
            | "health-start-interval"
            | "no-healthcheck" => {
                self.add_health(name, word)?;
            }
            "label-file" | "env-file" => {
                return Err("names a file that only the `docker` program on the host reads; write the values here".into());
            }
            "detach" | "d" => {}
            "name" => return Err("is fixed: the name tells version and role".into()),
            "rm" => {
                return Err(
                    "cannot be: a container that removes itself cannot be rolled back to".into()
                );
            }
            "pull" => return Err("is not needed: the image is pulled before every deploy".into()),
            "cidfile" | "detach-keys" | "sig-proxy" | "quiet" | "use-api-socket" | "attach" => {
                return Err("is an option of the `docker` program, which is not used".into());
            }
            _ => return Err("is no option of `docker run` that dhow knows".into()),
        }
        Ok(())
    }

    /// Unset fields are filled from the image's health check by the engine.
    fn add_health(&mut self, name: &str, word: &Word) -> Result<(), String> {
        let value = match name {
            "health-cmd" => json!(["CMD-SHELL", word.text()?]),
            "no-healthcheck" => {
                if !word.flag()? {
                    return Ok(());
                }
                json!(["NONE"])
            }
            "health-retries" => json!(integer(word.text()?)?),
            _ => json!(parse::duration_ns(word.text()?)?),
        };
        let key = match name {
            "health-interval" => "Interval",
            "health-timeout" => "Timeout",
            "health-start-period" => "StartPeriod",
            "health-start-interval" => "StartInterval",
            "health-retries" => "Retries",
            _ => "Test",
        };
        let check = self.engine.config.entry("Healthcheck".into()).or_insert_with(|| json!({}));
        check[key] = value;
        Ok(())
    }

    /// Adds to a list of `HostConfig`.
    fn push(&mut self, key: &str, value: Json) {
        push(&mut self.engine.host_config, key, value);
    }

    /// Sets a value of `HostConfig`.
    fn set(&mut self, key: &str, value: Json) {
        self.engine.host_config.insert(key.to_owned(), value);
    }
}

fn push(map: &mut BTreeMap<String, Json>, key: &str, value: Json) {
    let list = map.entry(key.to_owned()).or_insert_with(|| json!([]));
    if let Some(items) = list.as_array_mut() {
        items.push(value);
    }
}

fn put(
    map: &mut BTreeMap<String, Json>,
    key: &str,
    kind: &Kind,
    word: &Word,
) -> Result<(), String> {
    let value = match kind {
        Kind::Text => json!(word.text()?),
        Kind::Integer => json!(integer(word.text()?)?),
        Kind::Flag => json!(word.flag()?),
        Kind::TextList => {
            push(map, key, json!(word.text()?));
            return Ok(());
        }
    };
    map.insert(key.to_owned(), value);
    Ok(())
}

fn integer(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is no integer"))
}

/// `KEY=VALUE`; a bare `KEY` would be taken from the host's environment and is unset instead.
fn env_var(text: &str) -> EnvVar {
    match text.split_once('=') {
        Some((name, value)) => EnvVar { name: name.to_owned(), value: Some(value.to_owned()) },
        None => EnvVar { name: text.to_owned(), value: None },
    }
}

fn restart(word: &Word) -> Result<Restart, String> {
    let text = match word {
        // YAML reads a bare `no` as false.
        Word::Flag(false) => "no",
        _ => word.text()?,
    };
    match text.split_once(':') {
        Some(("on-failure", count)) => {
            count.parse().map(Restart::OnFailure).map_err(|_| format!("`{count}` is no count"))
        }
        None if text == "on-failure" => Ok(Restart::OnFailure(0)),
        None if text == "no" => Ok(Restart::No),
        None if text == "always" => Ok(Restart::Always),
        None if text == "unless-stopped" => Ok(Restart::UnlessStopped),
        _ => Err(format!("`{text}` is none of no, always, unless-stopped, on-failure[:N]")),
    }
}

#[cfg(test)]
mod tests;
