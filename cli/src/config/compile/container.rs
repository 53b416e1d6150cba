//! What app and accessory containers have in common.

use std::collections::BTreeMap;

use dhow_proto::model::name::ImageRef;
use dhow_proto::model::spec::SecretEnv;
use dhow_proto::model::template::{ContainerTemplate, EnvVar, LogConfig, Mount, Restart, Timeouts};

use super::super::diagnostic::Code;
use super::super::model::{Env, Logging};
use super::super::yaml::Map;
use super::{Compiler, options, scalar_text};

/// What a container is made of.
pub(super) struct Parts<'a> {
    pub(super) image: ImageRef,
    pub(super) cmd: Option<&'a str>,
    pub(super) labels: &'a [(String, String)],
    pub(super) network: &'a str,
    pub(super) logging: &'a Logging,
    pub(super) volumes: &'a [String],
    pub(super) volumes_path: &'a str,
    pub(super) options: &'a Map,
    /// Key path of the role or accessory.
    pub(super) path: &'a str,
}

/// Clear variables in order.
pub(super) fn clear_env(env: &Env) -> Vec<EnvVar> {
    let var = |(name, value): &(String, Option<String>)| EnvVar {
        name: name.clone(),
        value: value.clone(),
    };
    env.clear.iter().map(var).collect()
}

/// Names of secrets in order.
pub(super) fn secret_env(env: &Env) -> Vec<SecretEnv> {
    let secret = |(name, secret): &(String, String)| SecretEnv {
        name: name.clone(),
        secret: secret.clone(),
    };
    env.secret.iter().map(secret).collect()
}

impl Compiler<'_> {
    /// The container without its environment, but for variables that `options` give.
    pub(super) fn container(&mut self, parts: &Parts<'_>) -> Option<ContainerTemplate> {
        let cmd = match parts.cmd {
            Some(text) => Some(self.cmd(text, parts.path)?),
            None => None,
        };
        let options_path = format!("{}/options", parts.path);
        let translated = options::translate(parts.options);
        for problem in translated.problems {
            self.report(Code::Option, &format!("{options_path}/{}", problem.option), problem.cause);
        }
        let mut labels: BTreeMap<String, String> = parts.labels.iter().cloned().collect();
        labels.extend(translated.labels);
        let mut mounts = Vec::new();
        for volume in parts.volumes {
            mounts.extend(self.mount(volume, parts.volumes_path));
        }
        for volume in &translated.volumes {
            mounts.extend(self.mount(volume, &options_path));
        }
        let mut log = log_config(parts.logging);
        if let Some(driver) = translated.log_driver {
            log.driver = driver;
        }
        log.options.extend(translated.log_options);
        Some(ContainerTemplate {
            image: parts.image.clone(),
            cmd,
            env: translated.env,
            labels,
            network: parts.network.to_owned(),
            restart: translated.restart.unwrap_or(Restart::UnlessStopped),
            log,
            mounts,
            options: translated.engine,
        })
    }

    /// Splits a command line as a shell would. What only a shell can do is refused, as there is
    /// none: Kamal runs it through the *host's* shell.
    fn cmd(&mut self, text: &str, path: &str) -> Option<Vec<String>> {
        let path = format!("{path}/cmd");
        let Some(words) = shlex::split(text) else {
            self.report(Code::Invalid, &path, "a quote is not closed");
            return None;
        };
        let operators = ["&&", "||", "|", ";", "&", ">", ">>", "<"];
        if let Some(operator) = words.iter().find(|word| operators.contains(&word.as_str())) {
            self.warn(
                &path,
                format!("{path}: `{operator}` is passed to the command as it is; write `sh -c '…'` for a shell"),
            );
        }
        Some(words)
    }

    /// `SRC:DST[:OPTS]` or `DST`, its source made absolute or relative to the home.
    pub(super) fn mount(&mut self, volume: &str, path: &str) -> Option<Mount> {
        let Some((source, rest)) = volume.split_once(':') else {
            return Some(Mount::Anonymous(volume.to_owned()));
        };
        for home in ["$PWD/", "${PWD}/", "$HOME/", "${HOME}/", "~/", "./"] {
            if let Some(below) = source.strip_prefix(home) {
                return Some(Mount::HomeBind(format!("{below}:{rest}")));
            }
        }
        if source.contains('$') || source.contains('`') {
            self.report(
                Code::Invalid,
                path,
                format!("`{volume}`: only `$PWD` and `$HOME` can be used in a volume, as no shell of the host reads it"),
            );
            return None;
        }
        Some(Mount::Bind(volume.to_owned()))
    }

    pub(super) fn timeouts(&mut self, stop: Option<i128>) -> Option<Timeouts> {
        let config = self.config;
        let stop_s = match stop {
            Some(seconds) => Some(self.unsigned(seconds, "stop_timeout")?),
            None => None,
        };
        Some(Timeouts {
            deploy_s: self.unsigned(config.deploy_timeout, "deploy_timeout")?,
            drain_s: self.unsigned(config.drain_timeout, "drain_timeout")?,
            readiness_delay_s: self.unsigned(config.readiness_delay, "readiness_delay")?,
            stop_s,
        })
    }
}

/// Kamal caps logs at 10 MB, but only where neither driver nor options are given.
pub(super) fn log_config(logging: &Logging) -> LogConfig {
    let mut options: BTreeMap<String, String> = logging
        .options
        .iter()
        .filter_map(|(name, node)| Some((name.clone(), scalar_text(node)?)))
        .collect();
    if logging.driver.is_none() && options.is_empty() {
        options.insert("max-size".into(), "10m".into());
    }
    LogConfig { driver: logging.driver.clone().unwrap_or_default(), options }
}
