//! Accessories as types.

use std::fmt;

use super::super::yaml::Map;
use super::{Config, Env, Proxy, Registry};

/// Another service of the app.
#[derive(Clone)]
pub struct Accessory {
    /// Its name in the config.
    pub name: String,
    /// Container, label and directory: own, or `SERVICE-NAME`.
    pub service: String,
    /// As written; empty when missing.
    pub image: String,
    /// Its own registry.
    pub registry: Option<Registry>,
    /// Where it runs.
    pub placement: Placement,
    /// A shell-like command line.
    pub cmd: Option<String>,
    /// As `docker run --publish` takes it.
    pub port: Option<String>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// `docker run` options.
    pub options: Map,
    /// Environment.
    pub env: Env,
    /// Files.
    pub files: Vec<PathMount>,
    /// Directories.
    pub directories: Vec<PathMount>,
    /// Volumes as given.
    pub volumes: Vec<String>,
    /// `kamal` by default.
    pub network: String,
    /// `None`: not behind the proxy.
    pub proxy: Option<Proxy>,
}

/// Without command line, options and labels, which may hold secrets.
impl fmt::Debug for Accessory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accessory")
            .field("name", &self.name)
            .field("placement", &self.placement)
            .field("registry", &self.registry)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// The one placement key of an accessory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// `host`, `hosts`.
    Hosts(Vec<String>),
    /// `role`, `roles`.
    Roles(Vec<String>),
    /// `tag`, `tags`.
    Tags(Vec<String>),
}

/// A file or directory that is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathMount {
    /// In the project; for directories on the host.
    pub local: String,
    /// In the container.
    pub remote: String,
    /// Mount options.
    pub options: Option<String>,
    /// Octal.
    pub mode: Option<String>,
    /// `USER:GROUP`.
    pub owner: Option<String>,
}

impl Config {
    /// Hosts of an accessory, no host twice.
    ///
    /// By role: the hosts of those roles, in the order of the roles named. By tag: all hosts with
    /// one of the tags, wherever the tag is written (Kamal sees only plain lists of hosts).
    #[must_use]
    pub fn accessory_hosts(&self, accessory: &Accessory) -> Vec<String> {
        let mut hosts: Vec<String> = Vec::new();
        let mut add = |host: &str| {
            if !hosts.iter().any(|known| known == host) {
                hosts.push(host.to_owned());
            }
        };
        match &accessory.placement {
            Placement::Hosts(named) => named.iter().for_each(|host| add(host)),
            Placement::Roles(roles) => {
                for role in roles.iter().filter_map(|name| self.role(name)) {
                    role.hosts.iter().for_each(|tagged| add(&tagged.host));
                }
            }
            Placement::Tags(tags) => {
                let tagged = self.roles.iter().flat_map(|role| &role.hosts);
                for host in tagged.filter(|host| host.tags.iter().any(|tag| tags.contains(tag))) {
                    add(&host.host);
                }
            }
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::{LoadOptions, load};
    use crate::config::outside::fake::FakeOutside;

    /// Whatever the order of the roles, of their hosts and of the hosts' tags.
    #[test]
    fn an_accessory_is_where_its_roles_or_tags_are_in_the_order_named() {
        let hosts = |placement: &str| {
            let text = format!(
                "service: shop
image: shop
servers:
  api: [h1, {{h2: [eu, db]}}]
  web: [h3, h1, {{h4: db}}]
  jobs: [{{h5: [us]}}]
registry: {{username: u, password: [P]}}
builder: {{arch: amd64}}
accessories: {{db: {{image: i, {placement}}}}}
"
            );
            let outside = FakeOutside::default().file("config/deploy.yml", &text);
            let config = load(&LoadOptions::default(), &outside).unwrap().config;
            config.accessory_hosts(&config.accessories[0]).join(" ")
        };
        assert_eq!(hosts("roles: [web, api]"), "h3 h1 h4 h2");
        assert_eq!(hosts("roles: [api, web]"), "h1 h2 h3 h4");
        assert_eq!(hosts("role: jobs"), "h5");
        // The second tag of a host counts as the first.
        assert_eq!(hosts("tag: db"), "h2 h4");
        assert_eq!(hosts("tags: [us, eu]"), "h2 h5");
        assert_eq!(hosts("hosts: [h9, h8, h9]"), "h9 h8");
    }
}
