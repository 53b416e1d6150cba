//! What can be set, and from where: a TOML file, below the environment, below flags.
//!
//! In: `agent.toml`, variables `DHOW_…`, flags. Out: one [`Settings`], complete and valid. Always true: a key that nobody
//! knows is refused; nothing else in the agent reads the environment.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The settings file's name in the state folder.
const FILE: &str = "agent.toml";

/// The settings of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder of identity, ledger and blobs. No default.
    pub state_dir: PathBuf,
    /// `unix:///…` of the Docker Engine. Default: Docker's own socket.
    pub docker_host: Option<String>,
    /// Base of the apps' paths where a config names no `ssh.user`. Default: `/root`.
    pub home: PathBuf,
    /// What to log: `info`, or `warn,dhow_agent::converge=debug`. Default `info`.
    pub log: String,
    /// Socket that is asked before and after each step whether to go on, so that a test can stop an agent exactly there
    /// (see [`dhow_proto::breakpoint`]). Default none: nothing is asked. For tests alone.
    pub breakpoints: Option<PathBuf>,
}

/// Why the settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file could not be read.
    #[error("could not read the settings {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or has a key or value that is none of ours.
    #[error("{}: {message}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// No state folder.
    #[error("state_dir is not set: give --state-dir DIR or DHOW_STATE_DIR")]
    NoStateDir,
    /// The home is not absolute.
    #[error("home {} is not absolute", .0.display())]
    RelativeHome(PathBuf),
}

/// Settings from one source: all optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// See [`Settings::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Settings::docker_host`].
    pub docker_host: Option<String>,
    /// See [`Settings::home`].
    pub home: Option<PathBuf>,
    /// See [`Settings::log`].
    pub log: Option<String>,
    /// See [`Settings::breakpoints`].
    pub breakpoints: Option<PathBuf>,
}

impl Layer {
    fn over(self, below: Self) -> Self {
        Self {
            state_dir: self.state_dir.or(below.state_dir),
            docker_host: self.docker_host.or(below.docker_host),
            home: self.home.or(below.home),
            log: self.log.or(below.log),
            breakpoints: self.breakpoints.or(below.breakpoints),
        }
    }

    fn from_environment(variable: &impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        Self {
            state_dir: set("DHOW_STATE_DIR").map(Into::into),
            docker_host: set("DHOW_DOCKER_HOST"),
            home: set("DHOW_AGENT_HOME").map(Into::into),
            // RUST_LOG as well: what people try first.
            log: set("DHOW_LOG").or_else(|| set("RUST_LOG")),
            breakpoints: set("DHOW_BREAKPOINTS").map(Into::into),
        }
    }

    fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|e| SettingsError::File { path: path.to_owned(), message: e.to_string() })
    }
}

impl Settings {
    /// Reads all sources: `flags`, the environment, and `agent.toml` in the state folder if there is one.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn load(
        flags: Layer,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let above = flags.over(Layer::from_environment(&variable));
        let state_dir = above.state_dir.clone().ok_or(SettingsError::NoStateDir)?;
        let file = state_dir.join(FILE);
        let below = if file.exists() { Layer::from_file(&file)? } else { Layer::default() };
        let all = above.over(below);
        let home = all.home.unwrap_or_else(|| PathBuf::from("/root"));
        if !home.is_absolute() {
            return Err(SettingsError::RelativeHome(home));
        }
        Ok(Self {
            state_dir,
            docker_host: all.docker_host,
            home,
            log: all.log.unwrap_or_else(|| "info".to_owned()),
            breakpoints: all.breakpoints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(FILE),
            "home = \"/file\"\ndocker_host = \"unix:///file\"\nlog = \"warn\"\n",
        )
        .unwrap();
        let flags = Layer {
            state_dir: Some(dir.path().to_owned()),
            home: Some("/flag".into()),
            ..Layer::default()
        };
        let variable = |name: &str| (name == "DHOW_DOCKER_HOST").then(|| "unix:///env".to_owned());
        let settings = Settings::load(flags, variable).unwrap();
        assert_eq!(settings.home, Path::new("/flag"));
        assert_eq!(settings.docker_host.as_deref(), Some("unix:///env"));
        assert_eq!(settings.log, "warn");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "hoem = \"/x\"\n").unwrap();
        let flags = Layer { state_dir: Some(dir.path().to_owned()), ..Layer::default() };
        let refused = Settings::load(flags, |_| None).unwrap_err();
        assert!(refused.to_string().contains("hoem"), "{refused}");
    }
}
