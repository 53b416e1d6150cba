//! The spec: what the CLI compiles a config to. Pure data, no Ruby, no YAML, no secrets.

use serde::{Deserialize, Serialize};

use super::app::App;
use super::document::{BlobRef, Document};
use super::error::FieldError;
use super::name::{AccessoryName, HostName, ImageRef, RoleName, Version};
use super::template::{AccessoryTemplate, ProxyTemplate, RoleTemplate};

/// A secret delivered as an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretEnv {
    /// Variable in the container.
    pub name: String,
    /// Name in the secrets files.
    pub secret: String,
}

/// A host of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleHost {
    /// As the config spells it.
    pub host: HostName,
    /// Index into [`RoleSpec::templates`].
    pub template: usize,
}

/// A template with the secrets its containers get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSpec {
    /// The same for all hosts that point here.
    pub template: RoleTemplate,
    /// Names only; values are sealed apart. In the order Kamal writes the env file.
    #[serde(default)]
    pub secret_env: Vec<SecretEnv>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSpec {
    /// Its name.
    pub name: RoleName,
    /// In the config's order, no host twice; may be empty (`allow_empty_roles`).
    pub hosts: Vec<RoleHost>,
    /// One per distinct set of host tags; at least one.
    pub templates: Vec<TemplateSpec>,
    /// Names of the secrets with certificate and key of a custom certificate, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secrets: Option<(String, String)>,
}

impl RoleSpec {
    /// The role's hosts.
    pub fn host_names(&self) -> impl Iterator<Item = &HostName> {
        self.hosts.iter().map(|h| &h.host)
    }
}

/// An accessory and where it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessorySpec {
    /// Its name in the config.
    pub name: AccessoryName,
    /// Hosts, no host twice.
    pub hosts: Vec<HostName>,
    /// The same for all its hosts.
    pub template: AccessoryTemplate,
    /// Names only.
    #[serde(default)]
    pub secret_env: Vec<SecretEnv>,
    /// Its own registry; none: the app's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySpec>,
}

/// Where images come from. Credentials are sealed apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySpec {
    /// Empty: Docker Hub.
    pub server: String,
    /// True where hosts log in: user name and password come in a sealed bundle (purpose registry).
    pub login: bool,
}

/// How many hosts boot at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootLimit {
    /// So many.
    Count(u32),
    /// So many percent of all hosts, rounded down, at least one.
    Percent(u32),
}

/// `boot:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSpec {
    /// None: all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<BootLimit>,
    /// Seconds after each group.
    #[serde(default)]
    pub wait_s: u64,
    /// Roles of a host at the same time instead of one after another.
    #[serde(default)]
    pub parallel_roles: bool,
}

/// An error page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorPage {
    /// `4??.html` or `5??.html`.
    pub name: String,
    /// Content.
    pub content: BlobRef,
}

/// Everything a controller needs to know to roll an app out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The app.
    pub app: App,
    /// The version; the tag of [`Self::image`].
    pub version: Version,
    /// `REPO:VER`.
    pub image: ImageRef,
    /// Where the image comes from.
    pub registry: RegistrySpec,
    /// The primary role: boots first, opens the barrier.
    pub primary_role: RoleName,
    /// Primary role first, then by name.
    pub roles: Vec<RoleSpec>,
    /// In the config's order.
    #[serde(default)]
    pub accessories: Vec<AccessorySpec>,
    /// Boot groups.
    #[serde(default)]
    pub boot: BootSpec,
    /// Stopped containers kept per role; at least 1.
    pub retain_containers: u32,
    /// The proxy on hosts with a proxied role.
    pub proxy: ProxyTemplate,
    /// User whose home the app's paths are relative to; empty: the agent's `--home`.
    pub ssh_user: String,
    /// Where the app's files are kept; none: `.kamal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_directory: Option<String>,
    /// None where `error_pages_path` is not set; may be empty where no file matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_pages: Option<Vec<ErrorPage>>,
    /// `x-dhow.failure_policy: rollback`.
    #[serde(default)]
    pub rollback_on_failure: bool,
}

impl Document for Spec {
    const KIND: &'static str = "spec";
}

impl Spec {
    /// The role of this name.
    pub fn role(&self, name: &RoleName) -> Option<&RoleSpec> {
        self.roles.iter().find(|r| r.name == *name)
    }

    /// Hosts of all roles, primary role first, no host twice.
    pub fn app_hosts(&self) -> Vec<&HostName> {
        let mut hosts: Vec<&HostName> = Vec::new();
        for host in self.roles.iter().flat_map(RoleSpec::host_names) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }

    /// The roles on a host, in the spec's order.
    pub fn roles_on<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = &'a RoleSpec> {
        self.roles.iter().filter(move |r| r.host_names().any(|h| h == host))
    }

    /// True where a proxied role (or accessory) runs on the host.
    pub fn has_proxy(&self, host: &HostName) -> bool {
        let role = |r: &RoleSpec| r.templates.iter().any(|t| t.template.proxy.is_some());
        self.roles_on(host).any(role)
            || self.accessories.iter().any(|a| a.template.proxy.is_some() && a.hosts.contains(host))
    }

    /// Checks what types cannot say: indexes, the primary role, that version and image agree.
    ///
    /// # Errors
    ///
    /// The first rule broken, with its path.
    pub fn check(&self) -> Result<(), FieldError> {
        if self.image.tag != self.version.as_str() {
            return Err(FieldError::new("spec.image.tag", "differs from the version"));
        }
        super::name::check_repository(&self.image.repository)
            .map_err(|e| FieldError::from(e).under("spec.image.repository"))?;
        if self.retain_containers == 0 {
            return Err(FieldError::new("spec.retain_containers", "must be at least 1"));
        }
        let Some(primary) = self.roles.first() else { return Ok(()) };
        if primary.name != self.primary_role {
            return Err(FieldError::new("spec.roles[0]", "must be the primary role"));
        }
        for (i, role) in self.roles.iter().enumerate() {
            let at = |problem: &str| FieldError::new(format!("spec.roles[{i}]"), problem);
            if self.roles[..i].iter().any(|r| r.name == role.name) {
                return Err(at("a role of this name is listed twice"));
            }
            if role.hosts.iter().any(|h| h.template >= role.templates.len()) {
                return Err(at("a host points to a template that is not there"));
            }
            if role
                .hosts
                .iter()
                .enumerate()
                .any(|(j, h)| role.hosts[..j].iter().any(|o| o.host == h.host))
            {
                return Err(at("a host is listed twice"));
            }
            if role.templates.iter().any(|t| t.template.container.image != self.image) {
                return Err(at("a template has another image than the spec"));
            }
        }
        Ok(())
    }
}
