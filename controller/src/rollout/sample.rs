//! Specs and plans for the tests of this room.

use std::collections::BTreeSet;

use dhow_proto::model::name::ImageRef;
use dhow_proto::model::spec::{BootSpec, RegistrySpec, RoleHost, RoleSpec, Spec, TemplateSpec};
use dhow_proto::model::template::{
    ContainerTemplate, LogConfig, ProxyTarget, ProxyTemplate, Restart, RoleTemplate, Timeouts,
};
use dhow_proto::model::{App, HostName, RoleName, ServiceName, Version};

use super::record::{HostFact, Operation};
use super::stages::Plan;

pub(crate) fn app() -> App {
    App { service: ServiceName::try_from("shop").unwrap(), destination: None }
}

pub(crate) fn host(name: &str) -> HostName {
    HostName::try_from(name).unwrap()
}

pub(crate) fn role(name: &str) -> RoleName {
    RoleName::try_from(name).unwrap()
}

pub(crate) fn image(version: &str) -> ImageRef {
    ImageRef { repository: "reg/shop".to_owned(), tag: version.to_owned() }
}

fn template(version: &str, proxied: bool) -> RoleTemplate {
    RoleTemplate {
        container: ContainerTemplate {
            image: image(version),
            cmd: None,
            env: Vec::new(),
            labels: Default::default(),
            network: "kamal".to_owned(),
            restart: Restart::UnlessStopped,
            log: LogConfig::default(),
            mounts: Vec::new(),
            options: Default::default(),
        },
        proxy: proxied.then(|| ProxyTarget { app_port: 80, ..ProxyTarget::default() }),
        timeouts: Timeouts { deploy_s: 30, drain_s: 30, readiness_delay_s: 7, stop_s: None },
        asset_path: None,
        kamal_env_escaping: false,
    }
}

/// `[("web", &["h1", "h2"]), ("job", &["h3"])]`: the first role is primary and proxied.
pub(crate) fn spec(version: &str, roles: &[(&str, &[&str])]) -> Spec {
    let role_spec = |i: usize, (name, hosts): &(&str, &[&str])| RoleSpec {
        name: role(name),
        hosts: hosts.iter().map(|h| RoleHost { host: host(h), template: 0 }).collect(),
        templates: vec![TemplateSpec {
            template: template(version, i == 0),
            secret_env: Vec::new(),
        }],
        tls_secrets: None,
    };
    Spec {
        app: app(),
        version: Version::try_from(version).unwrap(),
        image: image(version),
        registry: RegistrySpec { server: String::new(), login: false },
        primary_role: role(roles[0].0),
        roles: roles.iter().enumerate().map(|(i, r)| role_spec(i, r)).collect(),
        accessories: Vec::new(),
        boot: BootSpec::default(),
        retain_containers: 5,
        proxy: ProxyTemplate {
            image: ImageRef {
                repository: "basecamp/kamal-proxy".to_owned(),
                tag: "v0.9.2".to_owned(),
            },
            publish: true,
            http_port: 80,
            https_port: 443,
            bind_ips: Vec::new(),
            log_max_size: "10m".to_owned(),
            metrics_port: None,
            debug: false,
            explicit: false,
            options: Default::default(),
            container: Default::default(),
        },
        ssh_user: "root".to_owned(),
        run_directory: None,
        error_pages: None,
        rollback_on_failure: false,
    }
}

pub(crate) fn facts(spec: &Spec) -> Vec<HostFact> {
    spec.app_hosts()
        .into_iter()
        .map(|h| HostFact {
            name: h.clone(),
            config: h.clone(),
            away: false,
            mirror: String::new(),
        })
        .collect()
}

/// What a plan borrows.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    pub(crate) hosts: Vec<HostFact>,
    pub(crate) roles: Vec<RoleName>,
    pub(crate) hooks: BTreeSet<String>,
}

impl Asked {
    pub(crate) fn all(spec: &Spec, operation: Operation) -> Self {
        let roles = spec.roles.iter().map(|r| r.name.clone()).collect();
        Self { operation, hosts: facts(spec), roles, hooks: BTreeSet::new() }
    }

    pub(crate) fn hooks(mut self) -> Self {
        let names = ["pre-deploy", "pre-app-boot", "post-app-boot", "post-deploy"];
        self.hooks = names.into_iter().map(str::to_owned).collect();
        self
    }

    pub(crate) fn plan(&self) -> Plan<'_> {
        Plan {
            operation: self.operation,
            hosts: &self.hosts,
            roles: &self.roles,
            hooks: &self.hooks,
            joined: false,
        }
    }
}
