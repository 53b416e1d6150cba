//! The project a command runs in: its config, its version, its secrets, its hooks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dhow_proto::model::secrets::Secrets as Values;
use dhow_proto::model::{App, Destination, ServiceName};
use secrecy::SecretString;

use crate::command::Globals;
use crate::config::compile::{CompileInput, Compiled};
use crate::config::model::Credential;
use crate::config::{Diagnostics, LoadOptions, Loaded, SystemOutside, load};
use crate::secrets::{SecretError, Secrets, SecretsOptions};

/// A config that cannot be used, as the last word of a command.
#[derive(Debug)]
pub struct ConfigError {
    /// All of its problems.
    pub problems: Diagnostics,
    /// For programs rather than for people.
    json: bool,
    color: bool,
}

impl ConfigError {
    /// The problems, to be printed in the form that options ask for.
    #[must_use]
    pub fn new(problems: Diagnostics, globals: &Globals) -> Self {
        Self { problems, json: globals.json, color: globals.style().color }
    }

    /// Whether it is printed as JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }
}

impl std::error::Error for ConfigError {}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.json {
            let report = serde_json::json!({ "errors": self.problems.to_json() });
            return write!(f, "{report}");
        }
        f.write_str(self.problems.render(self.color).trim_end())
    }
}

/// A loaded project.
pub struct Project {
    /// The directory the command runs in.
    pub directory: PathBuf,
    /// The config and its warnings.
    pub loaded: Loaded,
    outside: SystemOutside,
    secrets: Arc<Secrets>,
}

impl Project {
    /// Loads the config; nothing else is read yet.
    ///
    /// # Errors
    ///
    /// Every problem of the config.
    pub fn load(options: &LoadOptions, directory: &Path) -> Result<Self, Diagnostics> {
        let outside = SystemOutside;
        let loaded = load(options, &outside)?;
        let secrets = Secrets::new(SecretsOptions::of_process(
            directory.to_owned(),
            loaded.config.secrets_path.clone(),
            loaded.config.destination.clone(),
        ));
        Ok(Self { directory: directory.to_owned(), loaded, outside, secrets: Arc::new(secrets) })
    }

    /// Loads the project of the working directory and prints warnings to standard error.
    ///
    /// # Errors
    ///
    /// Every problem of the config, rendered.
    pub fn load_here(globals: &Globals) -> anyhow::Result<Self> {
        let directory = std::env::current_dir().context("the working directory is gone")?;
        let style = globals.style();
        let project = match Self::load(&globals.load_options(), &directory) {
            Ok(project) => project,
            Err(problems) => return Err(ConfigError::new(problems, globals).into()),
        };
        if !globals.quiet && !project.loaded.warnings.is_empty() {
            eprint!("{}", project.loaded.warnings.render_warnings(style.color));
        }
        Ok(project)
    }

    /// The app of the config.
    ///
    /// # Errors
    ///
    /// A service or destination that cannot be a name.
    pub fn app(&self) -> anyhow::Result<App> {
        let config = &self.loaded.config;
        let destination = config.destination.as_deref().map(Destination::try_from).transpose()?;
        Ok(App { service: ServiceName::try_from(config.service.as_str())?, destination })
    }

    /// Compiles the config for a version and prints warnings to standard error.
    ///
    /// # Errors
    ///
    /// Every problem, rendered.
    pub fn compile(&self, version: &str, globals: &Globals) -> anyhow::Result<Compiled> {
        let style = globals.style();
        match self.loaded.compile(&CompileInput { version, outside: &self.outside }) {
            Ok(compiled) => {
                if !globals.quiet && !compiled.warnings.is_empty() {
                    eprint!("{}", compiled.warnings.render_warnings(style.color));
                }
                Ok(compiled)
            }
            Err(problems) => Err(ConfigError::new(problems, globals).into()),
        }
    }

    /// The seam to files, git and environment.
    pub fn outside(&self) -> &SystemOutside {
        &self.outside
    }

    /// The version to deploy.
    ///
    /// # Errors
    ///
    /// Where neither option nor environment nor git gives one.
    pub fn version(&self) -> Result<String, Diagnostics> {
        self.loaded.version(&self.outside)
    }

    /// The secrets files.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Folder of hooks.
    pub fn hooks(&self) -> PathBuf {
        self.directory.join(&self.loaded.config.hooks_path)
    }

    /// The value of a secret. Waits for files and programs.
    ///
    /// # Errors
    ///
    /// [`SecretError`], with Kamal's words for a missing one.
    pub fn secret(&self, name: &str) -> Result<SecretString, SecretError> {
        self.secrets.get(name)
    }

    /// A user name or password: as written, or looked up.
    ///
    /// # Errors
    ///
    /// As [`Self::secret`].
    pub fn credential(&self, credential: &Credential) -> Result<SecretString, SecretError> {
        match credential {
            Credential::Clear(text) => Ok(SecretString::from(text.clone())),
            Credential::Secret(name) => self.secret(name),
        }
    }

    /// Every secret of the files, as hooks get them.
    ///
    /// # Errors
    ///
    /// As [`Self::secret`].
    pub fn all_secrets(&self) -> Result<Values, SecretError> {
        let mut values = Values::new();
        for (name, value) in self.secrets.all()? {
            values.insert(name, value);
        }
        Ok(values)
    }
}
