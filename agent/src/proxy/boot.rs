//! How kamal-proxy's container is made (host-effects: kamal-proxy container).

use std::path::Path;

use dhow_proto::model::template::{EngineOptions, ProxyTemplate};
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
    /// Everything else.
    pub options: EngineOptions,
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
    pub fn body(&self, apps_config: &Path) -> ContainerBody {
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
        let mut host = json!({
            "NetworkMode": kamal::NETWORK,
            "RestartPolicy": {"Name": "unless-stopped"},
            "Binds": [
                format!("{}:/home/kamal-proxy/.config/kamal-proxy", kamal::PROXY_VOLUME),
                format!("{}:{}", apps_config.display(), kamal::PROXY_APPS_CONFIG),
            ],
            "PortBindings": bindings,
            "LogConfig": {"Type": "", "Config": log},
        });
        merge(&mut host, &self.options.host_config);
        let mut body = json!({
            "Image": self.image.to_string(),
            "Cmd": self.cmd,
            "ExposedPorts": exposed,
            "Labels": {kamal::LABEL_INTENT: self.digest().to_string()},
            "HostConfig": host,
        });
        merge(&mut body, &self.options.config);
        ContainerBody::new(body)
    }

    fn digest(&self) -> BlobDigest {
        BlobDigest::of(format!("{self:?}").as_bytes())
    }
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

    fn files(options: &str) -> BootFiles {
        BootFiles { options: Some(options.to_owned()), ..BootFiles::default() }
    }

    #[test]
    fn the_default_body_is_kamals() {
        let boot = ProxyBoot::from_files(&BootFiles::default()).unwrap();
        let body = boot.body(Path::new("/root/.kamal/proxy/apps-config"));
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
}
