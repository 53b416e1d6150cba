//! A whole project described in a few words: an app that works with dhow and with real Kamal.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Project;
use crate::fleet::Fleet;
use crate::fleet::run::run;

/// What is written into a project.
#[derive(Clone, Debug)]
pub struct ProjectSpec {
    service: String,
    hosts: Vec<String>,
    clear_env: Vec<(String, String)>,
    secret_env: Vec<(String, String)>,
    top: String,
    proxy: bool,
    host_name: Option<String>,
}

impl ProjectSpec {
    /// An app called `service` with a role `web` on the given hosts of the fleet (counted from 1).
    #[must_use]
    pub fn new(fleet: &Fleet, service: &str, hosts: &[usize]) -> Self {
        Self {
            service: service.to_owned(),
            hosts: hosts.iter().map(|number| fleet.host(*number).address()).collect(),
            clear_env: Vec::new(),
            secret_env: Vec::new(),
            top: String::new(),
            proxy: true,
            host_name: None,
        }
    }

    /// Sets a clear environment variable, such as the sample app's `APP_START_DELAY_MS`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.clear_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a secret environment variable.
    #[must_use]
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secret_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The name in requests that the proxy routes to the app. Without one the app takes every name,
    /// and a second such app on the same host is refused.
    #[must_use]
    pub fn host_name(mut self, name: &str) -> Self {
        self.host_name = Some(name.to_owned());
        self
    }

    /// An app without the proxy.
    #[must_use]
    pub fn without_proxy(mut self) -> Self {
        self.proxy = false;
        self
    }

    /// Appends YAML to the end of `deploy.yml`: further keys of the root.
    #[must_use]
    pub fn yaml(mut self, yaml: &str) -> Self {
        self.top.push_str(yaml);
        if !yaml.ends_with('\n') {
            self.top.push('\n');
        }
        self
    }

    /// Writes the project, or writes it anew: below the fleet's directory.
    ///
    /// # Errors
    ///
    /// When a file cannot be written, or git fails.
    pub fn write(&self, fleet: &Fleet) -> Result<Project> {
        let project = Project::new(fleet, &self.service)?;
        project.write("config/deploy.yml", &self.deploy_yml(fleet))?;
        project.write(".kamal/secrets", &self.secrets(fleet))?;
        if !project.dir().join(".git").exists() {
            // Both programs ask git for revision and user.
            for args in [
                &["init", "-q", "."][..],
                &["add", "-A"],
                &[
                    "-c",
                    "user.name=fleet",
                    "-c",
                    "user.email=fleet@example.invalid",
                    "commit",
                    "-qm",
                    "x",
                ],
            ] {
                run(
                    Command::new("git").current_dir(project.dir()).args(args),
                    Duration::from_secs(30),
                )?
                .ok()?;
            }
        }
        Ok(project)
    }

    fn deploy_yml(&self, fleet: &Fleet) -> String {
        let mut yml =
            format!("service: {0}\nimage: {0}\nservers:\n  web:\n    hosts:\n", self.service);
        for host in &self.hosts {
            yml.push_str(&format!("      - {host}\n"));
        }
        if self.proxy {
            yml.push_str("proxy:\n  app_port: 80\n");
            if let Some(name) = &self.host_name {
                yml.push_str(&format!("  host: {name}\n"));
            }
            yml.push_str("  healthcheck: {path: /up, interval: 1, timeout: 5}\n");
        } else {
            yml = yml.replace("  web:\n", "  web:\n    proxy: false\n");
        }
        yml.push_str(&format!(
            "registry:\n  server: {}\n  username: fleet\n  password: [KAMAL_REGISTRY_PASSWORD]\n\
             builder: {{arch: amd64}}\nssh:\n  user: root\n  config: false\n  keys: [{}]\n  keys_only: true\n",
            fleet.hub().registry(),
            fleet.ssh_key().display()
        ));
        if !self.clear_env.is_empty() || !self.secret_env.is_empty() {
            yml.push_str("env:\n");
        }
        if !self.clear_env.is_empty() {
            yml.push_str("  clear:\n");
            for (name, value) in &self.clear_env {
                yml.push_str(&format!("    {name}: {value:?}\n"));
            }
        }
        if !self.secret_env.is_empty() {
            yml.push_str("  secret:\n");
            for (name, _) in &self.secret_env {
                yml.push_str(&format!("    - {name}\n"));
            }
        }
        yml + &self.top
    }

    fn secrets(&self, fleet: &Fleet) -> String {
        let password = fleet.hub().registry_password().unwrap_or("fleet");
        let mut text = format!("KAMAL_REGISTRY_PASSWORD={password}\n");
        for (name, value) in &self.secret_env {
            text.push_str(&format!("{name}={value}\n"));
        }
        text
    }
}
