//! The config becomes a spec: pure data for controller and agents, without Ruby, YAML and secrets.
//!
//! In: the typed config, a version, and the files it names (accessory files, error pages). Out: a
//! [`Compiled`]. What Kamal would have had a host's shell do (split `cmd`, expand `$PWD`) or the
//! `docker` program (read `options`) is done here, once, and refused where it cannot be.

mod accessory;
mod container;
mod files;
pub mod options;
mod proxy;

use std::collections::BTreeMap;

use dhow_proto::model::app::App;
use dhow_proto::model::document::BlobRef;
use dhow_proto::model::name::{
    AccessoryName, Destination, HostName, ImageRef, RoleName, ServiceName, Version,
};
use dhow_proto::model::spec::{
    BootLimit, BootSpec, RegistrySpec, RoleHost, RoleSpec, Spec, TemplateSpec,
};
use dhow_proto::model::template::RoleTemplate;

use super::diagnostic::{Code, Diagnostic, Diagnostics, MAX_TOLD};
use super::load::Loaded;
use super::model::{Config, Registry, Role, TaggedHost, Tls};
use super::outside::Outside;
use super::yaml::{Node, Span};

/// What compiling needs beside the config.
pub struct CompileInput<'a> {
    /// The version to deploy, as [`Loaded::version`] gives it.
    pub version: &'a str,
    /// Where files are read.
    pub outside: &'a dyn Outside,
}

/// A spec and what goes with it.
#[derive(Clone)]
pub struct Compiled {
    /// The spec; it passes [`Spec::check`].
    pub spec: Spec,
    /// Contents that the spec names, by digest, no digest twice.
    pub blobs: Vec<(BlobRef, Vec<u8>)>,
    /// Accessory files that are templates: to be rendered with the accessory's environment, secrets
    /// included, and sealed.
    pub templates: Vec<TemplateFile>,
    /// What has no effect, or not the one that may be expected.
    pub warnings: Diagnostics,
}

/// An accessory file whose local name ends in `erb`.
#[derive(Clone, PartialEq, Eq)]
pub struct TemplateFile {
    /// The accessory.
    pub accessory: AccessoryName,
    /// [`AccessoryFile::path`](dhow_proto::model::template::AccessoryFile::path) it belongs to.
    pub path: String,
    /// As named in the config, for messages.
    pub local: String,
    /// The template.
    pub text: String,
}

/// Clear variables, command lines and options may hold what a template made.
impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").field("app", &self.spec.app).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Compiles the config.
    ///
    /// # Errors
    ///
    /// All problems: names that hosts or Docker refuse, options that the Engine API has no word
    /// for, files that are missing.
    pub fn compile(&self, input: &CompileInput<'_>) -> Result<Compiled, Diagnostics> {
        let mut compiler = Compiler {
            config: &self.config,
            outside: input.outside,
            problems: Vec::new(),
            warnings: Vec::new(),
            blobs: BTreeMap::new(),
            templates: Vec::new(),
        };
        let spec = compiler.spec(input.version);
        let Compiler { mut problems, mut warnings, blobs, templates, .. } = compiler;
        problems.truncate(MAX_TOLD);
        warnings.truncate(MAX_TOLD);
        problems.iter_mut().chain(&mut warnings).for_each(|told| self.made.conceal(told));
        match spec {
            Some(spec) if problems.is_empty() => Ok(Compiled {
                spec,
                blobs: blobs.into_values().collect(),
                templates,
                warnings: Diagnostics { list: warnings, sources: self.sources.clone() },
            }),
            _ => Err(Diagnostics { list: problems, sources: self.sources.clone() }),
        }
    }
}

/// The text is a file's, and none of a message.
impl std::fmt::Debug for TemplateFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateFile").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Compiles one config while it collects problems.
struct Compiler<'a> {
    config: &'a Config,
    outside: &'a dyn Outside,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    blobs: BTreeMap<String, (BlobRef, Vec<u8>)>,
    templates: Vec<TemplateFile>,
}

impl Compiler<'_> {
    /// Reports a problem at a key path.
    fn report(&mut self, code: Code, path: &str, cause: impl std::fmt::Display) {
        let problem =
            Diagnostic::new(code, format!("{path}: {cause}")).path(path).at_maybe(self.span(path));
        self.problems.push(problem);
    }

    fn warn(&mut self, path: &str, text: impl Into<String>) {
        let warning = Diagnostic::new(Code::Unused, text).path(path).at_maybe(self.span(path));
        self.warnings.push(warning);
    }

    /// The place of a key path, as far down as the tree goes.
    fn span(&self, path: &str) -> Option<Span> {
        let mut map = &self.config.raw;
        let mut span = None;
        for part in path.split('/') {
            let Some(entry) = map.entry(part) else { return span };
            span = Some(entry.value.span);
            match entry.value.as_map() {
                Some(below) => map = below,
                None => return span,
            }
        }
        span
    }

    /// Parses a name, or reports why it is none.
    fn name<T>(&mut self, text: &str, path: &str) -> Option<T>
    where
        T: for<'t> TryFrom<&'t str, Error = dhow_proto::model::name::NameError>,
    {
        T::try_from(text).map_err(|error| self.report(Code::Invalid, path, error)).ok()
    }

    /// A number that the spec holds without a sign.
    fn unsigned<T: TryFrom<i128>>(&mut self, number: i128, path: &str) -> Option<T> {
        T::try_from(number)
            .map_err(|_| self.report(Code::Invalid, path, format!("{number} is out of range")))
            .ok()
    }

    fn spec(&mut self, version: &str) -> Option<Spec> {
        let config = self.config;
        let service: Option<ServiceName> = self.name(&config.service, "service");
        let destination: Option<Destination> =
            config.destination.as_deref().and_then(|name| self.name(name, "destination"));
        let version: Option<Version> = self.name(version, "version");
        let primary_role: Option<RoleName> = self.name(&config.primary_role, "primary_role");
        let image =
            ImageRef { repository: config.repository(), tag: version.as_ref()?.to_string() };
        let roles = self.roles(&image);
        let accessories = config
            .accessories
            .iter()
            .filter_map(|accessory| self.accessory(accessory))
            .collect::<Vec<_>>();
        let spec = Spec {
            app: App { service: service?, destination },
            version: version?,
            image,
            registry: registry(&config.registry),
            primary_role: primary_role?,
            roles,
            accessories,
            boot: self.boot(),
            retain_containers: self.unsigned(config.retain_containers, "retain_containers")?,
            proxy: self.proxy_template()?,
            ssh_user: config.ssh.user.clone(),
            run_directory: config.run_directory.clone(),
            error_pages: self.error_pages(),
            rollback_on_failure: config.dhow.rollback_on_failure,
        };
        let traefik = config.hosts_with_traefik();
        if !traefik.is_empty() {
            let hosts = traefik.join(", ");
            self.warn("proxy/hosts", format!("proxy/hosts: {hosts} run Traefik still and are not deployed to; list them once they are upgraded"));
        }
        if let Err(error) = spec.check() {
            self.report(Code::Invalid, "spec", error);
        }
        Some(spec)
    }

    fn roles(&mut self, image: &ImageRef) -> Vec<RoleSpec> {
        let mut roles: Vec<&Role> = self.config.roles.iter().collect();
        roles.sort_by_key(|role| role.name != self.config.primary_role);
        roles.into_iter().filter_map(|role| self.role(role, image)).collect()
    }

    fn role(&mut self, role: &Role, image: &ImageRef) -> Option<RoleSpec> {
        let path = format!("servers/{}", role.name);
        let name: Option<RoleName> = self.name(&role.name, &path);
        let shared = self.role_template(role, image, &path)?;
        let mut templates: Vec<TemplateSpec> = Vec::new();
        let mut hosts = Vec::new();
        // Without hosts there is still one template, for the role may get a host by itself later.
        let nobody = [TaggedHost { host: String::new(), tags: Vec::new() }];
        let tagged = if role.hosts.is_empty() { &nobody[..] } else { &role.hosts };
        for host in tagged {
            let env = self.config.role_env(role, host);
            let mut template = shared.clone();
            template.container.env.splice(0..0, container::clear_env(&env));
            let wanted = TemplateSpec { template, secret_env: container::secret_env(&env) };
            let index = templates.iter().position(|known| *known == wanted).unwrap_or_else(|| {
                templates.push(wanted);
                templates.len() - 1
            });
            if !role.hosts.is_empty()
                && let Some(host) = self.name::<HostName>(&host.host, &path)
            {
                hosts.push(RoleHost { host, template: index });
            }
        }
        let tls_secrets = match role.proxy.as_ref().map(|proxy| &proxy.tls) {
            Some(Tls::Custom { certificate, key }) => Some((certificate.clone(), key.clone())),
            _ => None,
        };
        Some(RoleSpec { name: name?, hosts, templates, tls_secrets })
    }

    /// The template of a role but for its environment, which depends on the host's tags.
    fn role_template(&mut self, role: &Role, image: &ImageRef, path: &str) -> Option<RoleTemplate> {
        let config = self.config;
        let mut labels = config.labels.clone();
        labels.extend(role.labels.iter().cloned());
        let container = self.container(&container::Parts {
            image: image.clone(),
            cmd: role.cmd.as_deref(),
            labels: &labels,
            network: dhow_proto::model::kamal::NETWORK,
            logging: &role.logging,
            volumes: &config.volumes,
            volumes_path: "volumes",
            options: &role.options,
            path,
        });
        let proxy = role.proxy.as_ref().map(|proxy| self.target(proxy, &format!("{path}/proxy")));
        let proxy = match proxy {
            Some(target) => Some(target?),
            None => None,
        };
        Some(RoleTemplate {
            container: container?,
            asset_path: role.asset_path.clone().filter(|_| proxy.is_some()),
            proxy,
            timeouts: self.timeouts(role.stop_timeout)?,
            kamal_env_escaping: config.dhow.kamal_env_escaping,
        })
    }

    fn boot(&mut self) -> BootSpec {
        let boot = &self.config.boot;
        let limit = boot.limit.as_deref().and_then(|text| {
            let parsed = match text.trim().strip_suffix('%') {
                Some(percent) => percent.trim().parse().ok().map(BootLimit::Percent),
                None => text.trim().parse().ok().filter(|count| *count > 0).map(BootLimit::Count),
            };
            if parsed.is_none() {
                self.report(
                    Code::Invalid,
                    "boot/limit",
                    format!("`{text}` is neither a number nor a percentage"),
                );
            }
            parsed
        });
        BootSpec {
            limit,
            wait_s: self.unsigned(boot.wait, "boot/wait").unwrap_or_default(),
            parallel_roles: boot.parallel_roles,
        }
    }
}

/// Hosts log in where there is a user name; never to a registry on the deployer's machine.
fn registry(registry: &Registry) -> RegistrySpec {
    RegistrySpec {
        server: registry.server.clone(),
        login: !registry.is_local() && registry.username.is_some(),
    }
}

/// The text of a scalar; containers have none.
fn scalar_text(node: &Node) -> Option<String> {
    (node.as_map().is_none() && node.as_list().is_none()).then(|| node.to_text())
}

#[cfg(test)]
mod tests;
