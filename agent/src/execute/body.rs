//! The create body of a role's container (host-effects: app container field map, environment).

use dhow_proto::model::intent::HostPart;
use dhow_proto::model::secrets::Secrets;
use dhow_proto::model::template::{Mount, Restart, RoleTemplate};
use dhow_proto::model::{App, BlobDigest, ContainerName, RoleName, Version, kamal};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use crate::engine::{ContainerBody, NewContainer};
use crate::host::{Layout, kamal_escaped};
use crate::proxy::merge;

/// What a role's container is made of.
pub(super) struct RoleContainer<'a> {
    pub(super) app: &'a App,
    pub(super) role: &'a RoleName,
    pub(super) version: &'a Version,
    pub(super) name: &'a ContainerName,
    pub(super) template: &'a RoleTemplate,
    pub(super) host: &'a HostPart,
    pub(super) intent: BlobDigest,
    pub(super) layout: &'a Layout,
    pub(super) secrets: &'a Secrets,
}

impl RoleContainer<'_> {
    pub(super) fn build(&self) -> NewContainer {
        let container = &self.template.container;
        let options = &container.options;
        let (binds, volumes) = self.mounts();
        let mut host = json!({
            "NetworkMode": container.network,
            "RestartPolicy": restart(container.restart),
            "LogConfig": {"Type": container.log.driver, "Config": container.log.options},
        });
        if !binds.is_empty() {
            host["Binds"] = json!(binds);
        }
        merge(&mut host, &options.host_config);
        let mut body = json!({
            "Hostname": self.hostname(),
            "Image": container.image.to_string(),
            "Cmd": container.cmd,
            "Env": self.env(),
            "Labels": self.labels(),
            "HostConfig": host,
        });
        if !volumes.is_empty() {
            body["Volumes"] = Value::Object(volumes);
        }
        if !options.endpoint.is_empty() {
            body["NetworkingConfig"] =
                json!({"EndpointsConfig": {container.network.clone(): options.endpoint}});
        }
        merge(&mut body, &options.config);
        NewContainer {
            name: self.name.to_string(),
            platform: options.platform.clone(),
            body: ContainerBody::new(body),
        }
    }

    /// The first 51 characters of the host as the config spells it, and 12 digits: at most 64.
    fn hostname(&self) -> String {
        let host: String = self.host.config_host.as_str().chars().take(51).collect();
        let seed = format!("{}\n{}", self.intent, self.name);
        let hex = BlobDigest::of(seed.as_bytes()).short(12);
        format!("{}-{hex}", host.trim_end_matches('.'))
    }

    /// Secrets first, then `KAMAL_*`, then clear values; of one name the last counts, as `docker run` has it.
    fn env(&self) -> Vec<String> {
        let mut env: Vec<(String, Option<String>)> = Vec::new();
        let mut set = |name: &str, value: Option<String>| {
            env.retain(|(n, _)| n != name);
            env.push((name.to_owned(), value));
        };
        for (name, value) in self.secrets.iter() {
            let value = value.expose_secret();
            let value = match self.template.kamal_env_escaping {
                true => kamal_escaped(value).to_string(),
                false => value.to_owned(),
            };
            set(name, Some(value));
        }
        set("KAMAL_CONTAINER_NAME", Some(self.name.to_string()));
        set("KAMAL_VERSION", Some(self.version.to_string()));
        set("KAMAL_HOST", Some(self.host.config_host.to_string()));
        if let Some(destination) = &self.app.destination {
            set("KAMAL_DESTINATION", Some(destination.to_string()));
        }
        for var in &self.template.container.env {
            set(&var.name, var.value.clone());
        }
        env.into_iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name}={value}"),
                None => name,
            })
            .collect()
    }

    fn labels(&self) -> Map<String, Value> {
        let mut labels = Map::new();
        let mut set = |key: &str, value: &str| {
            labels.insert(key.to_owned(), json!(value));
        };
        set(kamal::LABEL_SERVICE, self.app.service.as_str());
        set(kamal::LABEL_ROLE, self.role.as_str());
        set(kamal::LABEL_DESTINATION, self.app.destination_label());
        for (key, value) in &self.template.container.labels {
            set(key, value);
        }
        set(kamal::LABEL_INTENT, &self.intent.to_string());
        labels
    }

    fn mounts(&self) -> (Vec<String>, Map<String, Value>) {
        let (mut binds, volumes) = mounts(&self.template.container.mounts, self.layout);
        if let Some(path) = &self.template.asset_path {
            let volume = self.layout.asset_volume(self.app, self.role, self.version);
            binds.push(format!("{}:{path}", volume.display()));
        }
        (binds, volumes)
    }
}

/// `Binds` and `Volumes` of the create body.
pub(super) fn mounts(mounts: &[Mount], layout: &Layout) -> (Vec<String>, Map<String, Value>) {
    let (mut binds, mut volumes) = (Vec::new(), Map::new());
    for mount in mounts {
        match mount {
            Mount::Bind(bind) => binds.push(bind.clone()),
            Mount::HomeBind(bind) => {
                let (source, rest) = bind.split_once(':').unwrap_or((bind, ""));
                let source = layout.absolute(source);
                binds.push(format!("{}:{rest}", source.display()));
            }
            Mount::Anonymous(path) => {
                volumes.insert(path.clone(), json!({}));
            }
        }
    }
    (binds, volumes)
}

pub(super) fn restart(policy: Restart) -> Value {
    match policy {
        Restart::No => json!({"Name": "no"}),
        Restart::Always => json!({"Name": "always"}),
        Restart::UnlessStopped => json!({"Name": "unless-stopped"}),
        Restart::OnFailure(0) => json!({"Name": "on-failure"}),
        Restart::OnFailure(n) => json!({"Name": "on-failure", "MaximumRetryCount": n}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use dhow_proto::model::template::{
        ContainerTemplate, EngineOptions, EnvVar, LogConfig, Timeouts,
    };
    use dhow_proto::model::{Destination, ImageRef};
    use expect_test::expect;
    use secrecy::SecretString;

    use super::*;

    fn var(name: &str, value: Option<&str>) -> EnvVar {
        EnvVar { name: name.to_owned(), value: value.map(str::to_owned) }
    }

    fn build(change: impl FnOnce(&mut RoleTemplate, &mut Secrets)) -> NewContainer {
        let mut template = RoleTemplate {
            container: ContainerTemplate {
                image: ImageRef { repository: "r/shop".to_owned(), tag: "v1".to_owned() },
                cmd: None,
                env: Vec::new(),
                labels: BTreeMap::new(),
                network: kamal::NETWORK.to_owned(),
                restart: Restart::UnlessStopped,
                log: LogConfig::default(),
                mounts: Vec::new(),
                options: EngineOptions::default(),
            },
            proxy: None,
            timeouts: Timeouts { deploy_s: 30, drain_s: 30, readiness_delay_s: 7, stop_s: None },
            asset_path: None,
            kamal_env_escaping: false,
        };
        let mut secrets = Secrets::new();
        change(&mut template, &mut secrets);
        let service = "shop".parse().unwrap();
        let app = App { service, destination: Some(Destination::try_from("staging").unwrap()) };
        let (role, version): (RoleName, Version) = ("web".parse().unwrap(), "v1".parse().unwrap());
        let home = PathBuf::from("/home/ann");
        RoleContainer {
            app: &app,
            role: &role,
            version: &version,
            name: &app.container_name(&role, &version),
            template: &template,
            host: &HostPart {
                config_host: "host.example.".parse().unwrap(),
                ssh_user: None,
                run_directory: None,
            },
            intent: BlobDigest::of(b"intent"),
            layout: &Layout {
                kamal: home.join(".kamal"),
                run: home.join(".kamal"),
                home,
                owner: None,
            },
            secrets: &secrets,
        }
        .build()
    }

    #[test]
    fn of_one_name_the_last_counts_and_a_bare_name_unsets() {
        let new = build(|template, secrets| {
            secrets.insert("KEY", SecretString::from("two\nlines\\"));
            secrets.insert("BOTH", SecretString::from("secret"));
            template.container.env = vec![
                var("BOTH", Some("clear")),
                var("KAMAL_HOST", Some("mine")),
                var("GONE", None),
                var("EMPTY", Some("")),
            ];
        });
        let env: Vec<String> = serde_json::from_value(new.body.json()["Env"].clone()).unwrap();
        expect![[r#"
            [
                "KEY=two\nlines\\",
                "KAMAL_CONTAINER_NAME=shop-web-staging-v1",
                "KAMAL_VERSION=v1",
                "KAMAL_DESTINATION=staging",
                "BOTH=clear",
                "KAMAL_HOST=mine",
                "GONE",
                "EMPTY=",
            ]
        "#]]
        .assert_debug_eq(&env);
        assert!(!format!("{new:?}").contains("lines"), "a body shows itself");
    }

    #[test]
    fn kamals_distortion_is_on_demand() {
        let new = build(|template, secrets| {
            template.kamal_env_escaping = true;
            secrets.insert("KEY", SecretString::from("two\nlines\\"));
        });
        assert_eq!(new.body.json()["Env"][0], "KEY=two\\nlines\\\\");
    }

    #[test]
    fn mounts_are_absolute_and_options_win() {
        let new = build(|template, _| {
            template.asset_path = Some("/rails/public/assets:ro".to_owned());
            template.container.mounts = vec![
                Mount::Bind("data:/data".to_owned()),
                Mount::HomeBind("./shop/conf:/conf:ro".to_owned()),
                Mount::Anonymous("/tmp/x".to_owned()),
            ];
            let options = &mut template.container.options;
            options.config.insert("Hostname".to_owned(), json!("other"));
            options.host_config.insert("Memory".to_owned(), json!(1024));
            options.endpoint.insert("Aliases".to_owned(), json!(["web"]));
        });
        let body = new.body.json();
        assert_eq!(
            body["HostConfig"]["Binds"],
            json!([
                "data:/data",
                "/home/ann/shop/conf:/conf:ro",
                "/home/ann/.kamal/apps/shop-staging/assets/volumes/web-v1:/rails/public/assets:ro",
            ])
        );
        assert_eq!(body["Volumes"], json!({"/tmp/x": {}}));
        assert_eq!(body["Hostname"], "other");
        assert_eq!(body["HostConfig"]["Memory"], 1024);
        assert_eq!(body["NetworkingConfig"]["EndpointsConfig"]["kamal"]["Aliases"], json!(["web"]));
        assert_eq!(body["Labels"]["destination"], "staging");
    }

    #[test]
    fn a_hostname_has_no_trailing_dot_and_fits() {
        let new = build(|_, _| {});
        let hostname = new.body.json()["Hostname"].as_str().unwrap().to_owned();
        assert!(hostname.starts_with("host.example-"), "{hostname}");
        assert_eq!(hostname.len(), "host.example-".len() + 12);
    }
}
