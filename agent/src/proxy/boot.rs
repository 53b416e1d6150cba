//! How kamal-proxy's container is made (host-effects: kamal-proxy container).

use std::path::Path;

use dhow_proto::model::template::{EngineOptions, EnvVar, ProxyContainer, ProxyTemplate};
use dhow_proto::model::{BlobDigest, ImageRef, kamal};
use serde_json::{Map, Value, json};

use super::flags::{self, FlagError};
use crate::engine::ContainerBody;

/// The files of `kamal proxy boot_config set`, as they are on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootFiles {
    /// `docker run` flags on one line.
    pub options: Option<String>,
    /// Repository without tag.
    pub image: Option<String>,
    /// Tag.
    pub image_version: Option<String>,
    /// Command.
    pub run_command: Option<String>,
}

impl BootFiles {
    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything that decides on the container.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyBoot {
    /// By tag.
    pub image: ImageRef,
    /// None: the image's.
    pub cmd: Option<Vec<String>>,
    /// `80/tcp` → host address and port.
    pub ports: Vec<PublishedPort>,
    /// Ports exposed beside 80 and 443: `9090/tcp`.
    pub expose: Vec<String>,
    /// `max-size` of the log; empty: none.
    pub log_max_size: String,
    /// Everything else that is an engine option.
    pub options: EngineOptions,
    /// Everything else.
    pub container: ProxyContainer,
}

/// What [`ProxyBoot::container`] comes to on a host.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// `Binds` and `Volumes`.
    pub mounts: (Vec<String>, Map<String, Value>),
    /// `RestartPolicy`; none: Kamal's.
    pub restart: Option<Value>,
}

/// A port published on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// `80/tcp`.
    pub container: String,
    /// Empty: every address.
    pub host_ip: String,
    /// Empty: any free one.
    pub host_port: String,
}

impl ProxyBoot {
    /// The template's, unless no app names `proxy.run` and the host has boot config files: then theirs.
    ///
    /// # Errors
    ///
    /// [`FlagError`] where the host's options line has a flag that is not understood.
    pub fn decide(template: &ProxyTemplate, files: &BootFiles) -> Result<Self, FlagError> {
        if template.explicit || files.is_empty() {
            Ok(Self::from_template(template))
        } else {
            Self::from_files(files)
        }
    }

    fn from_template(template: &ProxyTemplate) -> Self {
        let mut ports = Vec::new();
        if template.publish {
            let any = [String::new()];
            let ips = if template.bind_ips.is_empty() { &any[..] } else { &template.bind_ips };
            for ip in ips {
                for (host, container) in
                    [(template.http_port, "80/tcp"), (template.https_port, "443/tcp")]
                {
                    ports.push(PublishedPort {
                        container: container.to_owned(),
                        host_ip: ip.trim_matches(['[', ']']).to_owned(),
                        host_port: host.to_string(),
                    });
                }
            }
        }
        let mut cmd = Vec::new();
        if template.explicit {
            cmd.extend(["kamal-proxy".to_owned(), "run".to_owned()]);
            if template.debug {
                cmd.push("--debug".to_owned());
            }
            if let Some(port) = template.metrics_port {
                cmd.extend(["--metrics-port".to_owned(), port.to_string()]);
            }
        }
        Self {
            image: template.image.clone(),
            cmd: Some(cmd).filter(|c| !c.is_empty()),
            ports,
            expose: template.metrics_port.iter().map(|p| format!("{p}/tcp")).collect(),
            log_max_size: template.log_max_size.clone(),
            options: template.options.clone(),
            container: template.container.clone(),
        }
    }

    fn from_files(files: &BootFiles) -> Result<Self, FlagError> {
        let or = |file: &Option<String>, default: &str| {
            file.as_deref().map(str::trim).filter(|t| !t.is_empty()).unwrap_or(default).to_owned()
        };
        let options =
            or(&files.options, "--publish 80:80 --publish 443:443 --log-opt max-size=10m");
        let mut boot = flags::parse(&options)?;
        boot.image = ImageRef {
            repository: or(&files.image, kamal::PROXY_REPOSITORY),
            tag: or(&files.image_version, kamal::PROXY_VERSION),
        };
        boot.cmd = Some(flags::words(&or(&files.run_command, ""))?).filter(|c| !c.is_empty());
        Ok(boot)
    }

    /// The create body, with the label `dhow.intent`.
    pub fn body(&self, apps_config: &Path, own: ProxyOptions) -> ContainerBody {
        let mut exposed = Map::new();
        for port in ["80/tcp", "443/tcp"].into_iter().chain(self.expose.iter().map(String::as_str))
        {
            exposed.insert(port.to_owned(), json!({}));
        }
        let mut bindings: Map<String, Value> = Map::new();
        for port in &self.ports {
            exposed.insert(port.container.clone(), json!({}));
            let entry = bindings.entry(port.container.clone()).or_insert_with(|| json!([]));
            if let Value::Array(list) = entry {
                list.push(json!({"HostIp": port.host_ip, "HostPort": port.host_port}));
            }
        }
        let mut log = Map::new();
        if !self.log_max_size.is_empty() {
            log.insert("max-size".to_owned(), json!(self.log_max_size));
        }
        for (option, value) in &self.container.log.options {
            log.insert(option.clone(), json!(value));
        }
        let (more_binds, volumes) = own.mounts;
        let mut binds = vec![
            format!("{}:/home/kamal-proxy/.config/kamal-proxy", kamal::PROXY_VOLUME),
            format!("{}:{}", apps_config.display(), kamal::PROXY_APPS_CONFIG),
        ];
        binds.extend(more_binds);
        let restart = own.restart.unwrap_or_else(|| json!({"Name": "unless-stopped"}));
        let mut host = json!({
            "NetworkMode": kamal::NETWORK,
            "RestartPolicy": restart,
            "Binds": binds,
            "PortBindings": bindings,
            "LogConfig": {"Type": self.container.log.driver, "Config": log},
        });
        merge(&mut host, &self.options.host_config);
        let mut labels = json!(self.container.labels);
        labels[kamal::LABEL_INTENT] = json!(self.digest().to_string());
        let mut body = json!({
            "Image": self.image.to_string(),
            "Cmd": self.cmd,
            "ExposedPorts": exposed,
            "Labels": labels,
            "HostConfig": host,
        });
        if !self.container.env.is_empty() {
            body["Env"] = json!(environment(&self.container.env));
        }
        if !volumes.is_empty() {
            body["Volumes"] = Value::Object(volumes);
        }
        if !self.options.endpoint.is_empty() {
            body["NetworkingConfig"] =
                json!({"EndpointsConfig": {kamal::NETWORK: self.options.endpoint}});
        }
        merge(&mut body, &self.options.config);
        ContainerBody::new(body)
    }

    fn digest(&self) -> BlobDigest {
        // Without its own settings the digest is that of agents which did not know them, so that a
        // newer agent replaces no proxy.
        let none = format!(", container: {:?}", ProxyContainer::default());
        BlobDigest::of(format!("{self:?}").replace(&none, "").as_bytes())
    }
}

/// `KEY=VALUE`, or `KEY` to unset it; of one name the last counts.
fn environment(variables: &[EnvVar]) -> Vec<String> {
    let is_last = |at: usize, name: &str| !variables[at + 1..].iter().any(|var| var.name == name);
    let counting = variables.iter().enumerate().filter(|(at, var)| is_last(*at, &var.name));
    let text = |var: &EnvVar| match &var.value {
        Some(value) => format!("{}={value}", var.name),
        None => var.name.clone(),
    };
    counting.map(|(_, var)| text(var)).collect()
}

/// Options win over what dhow sets, as `docker run` flags given twice do; maps and lists of one key are joined.
pub(crate) fn merge(target: &mut Value, options: &std::collections::BTreeMap<String, Value>) {
    let Value::Object(target) = target else { return };
    for (key, value) in options {
        match (target.get_mut(key), value) {
            (Some(Value::Object(there)), Value::Object(more)) => {
                for (k, v) in more {
                    there.insert(k.clone(), v.clone());
                }
            }
            (Some(Value::Array(there)), Value::Array(more)) => there.extend(more.iter().cloned()),
            (_, value) => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_proto::model::template::LogConfig;

    fn files(options: &str) -> BootFiles {
        BootFiles { options: Some(options.to_owned()), ..BootFiles::default() }
    }

    #[test]
    fn the_default_body_is_kamals() {
        let boot = ProxyBoot::from_files(&BootFiles::default()).unwrap();
        let body = boot.body(Path::new("/root/.kamal/proxy/apps-config"), ProxyOptions::default());
        let mut body = body.json().clone();
        body["Labels"] = json!({});
        assert_eq!(
            body,
            json!({
                "Image": "basecamp/kamal-proxy:v0.9.2", "Cmd": null,
                "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "Labels": {},
                "HostConfig": {
                    "NetworkMode": "kamal", "RestartPolicy": {"Name": "unless-stopped"},
                    "Binds": [
                        "kamal-proxy-config:/home/kamal-proxy/.config/kamal-proxy",
                        "/root/.kamal/proxy/apps-config:/home/kamal-proxy/.apps-config"],
                    "PortBindings": {
                        "80/tcp": [{"HostIp": "", "HostPort": "80"}],
                        "443/tcp": [{"HostIp": "", "HostPort": "443"}]},
                    "LogConfig": {"Type": "", "Config": {"max-size": "10m"}}}})
        );
    }

    #[test]
    fn boot_config_files_decide_ports_and_log() {
        let boot = ProxyBoot::from_files(&files(
            "--publish 127.0.0.1:8080:80 --log-opt max-size=\"5m\" --memory 1g",
        ))
        .unwrap();
        assert_eq!(boot.ports.len(), 1);
        assert_eq!(boot.ports[0].host_ip, "127.0.0.1");
        assert_eq!(boot.log_max_size, "5m");
        assert_eq!(boot.options.host_config["Memory"], json!(1_073_741_824_u64));
    }

    #[test]
    fn a_flag_that_is_not_understood_is_named() {
        let error = ProxyBoot::from_files(&files("--gpus all")).unwrap_err();
        assert!(error.to_string().contains("--gpus"), "{error}");
    }

    #[test]
    fn options_of_the_container_are_carried_out() {
        let mut boot = ProxyBoot::from_files(&BootFiles::default()).unwrap();
        let plain = boot.digest();
        let var = |name: &str, value: Option<&str>| EnvVar {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        boot.container = ProxyContainer {
            env: vec![var("A", Some("0")), var("A", Some("1")), var("B", None)],
            labels: [("team".to_owned(), "x".to_owned())].into(),
            log: LogConfig {
                driver: "json-file".to_owned(),
                options: [("max-file".to_owned(), "3".to_owned())].into(),
            },
            ..ProxyContainer::default()
        };
        assert_ne!(boot.digest(), plain);
        let own = ProxyOptions {
            mounts: (
                vec!["/a:/a".to_owned()],
                [("/v".to_owned(), json!({}))].into_iter().collect(),
            ),
            restart: Some(json!({"Name": "always"})),
        };
        let body = boot.body(Path::new("/x"), own);
        let body = body.json();
        assert_eq!(body["Env"], json!(["A=1", "B"]));
        assert_eq!(body["Labels"]["team"], "x");
        assert_eq!(body["Labels"][kamal::LABEL_INTENT], boot.digest().to_string());
        assert_eq!(body["Volumes"], json!({"/v": {}}));
        assert_eq!(body["HostConfig"]["Binds"][2], "/a:/a");
        assert_eq!(body["HostConfig"]["RestartPolicy"], json!({"Name": "always"}));
        assert_eq!(
            body["HostConfig"]["LogConfig"],
            json!({"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}})
        );
    }

    #[test]
    fn a_proxy_without_own_settings_keeps_the_digest_it_had() {
        let boot = ProxyBoot::from_files(&BootFiles::default()).unwrap();
        let before = format!("{boot:?}");
        assert!(before.contains(", container: ProxyContainer {"), "{before}");
        let (known, _) = before.split_once(", container: ").unwrap();
        assert_eq!(boot.digest(), BlobDigest::of(format!("{known} }}").as_bytes()));
    }
}
