//! What can be set, and from where: a TOML file, below the environment, below flags.
//!
//! In: `controller.toml`, variables `DHOW_…`, flags. Out: one [`Settings`], complete and valid.
//! Always true: a key that nobody knows is refused, not ignored; nothing else in the controller
//! reads the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use crate::ca::Validity;

/// The settings file's name in the state folder.
const FILE: &str = "controller.toml";

/// The credential systemd hands over (`LoadCredential=ca-passphrase:/…`, systemd.exec(5)).
const CREDENTIAL: &str = "ca-passphrase";

/// The CA's wrapping key when nobody gave a passphrase.
const WRAP_FILE: &str = "ca.wrap";

/// Where the controller listens unless told otherwise.
const DEFAULT_PORT: u16 = 7443;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder of the store, the blobs and this controller's other files. No default.
    pub state_dir: PathBuf,
    /// Address and port for agents and people. Default `0.0.0.0:7443`.
    pub listen: SocketAddr,
    /// DNS names and addresses of the server's certificate. Default: those given to `init`.
    pub names: Vec<String>,
    /// `HOST:PORT` under which agents and people may reach a controller. Default: each name with
    /// the port of `listen`.
    pub addresses: Vec<String>,
    /// File with the secret that opens the CA's key. Default: the systemd credential
    /// `ca-passphrase`, else `ca.wrap` in the state folder.
    pub ca_passphrase_file: PathBuf,
    /// What to log, in the syntax of `tracing_subscriber::EnvFilter`. Default `info`.
    pub log: String,
    /// How log lines look. Default `text`.
    pub log_format: LogFormat,
    /// How long certificates are valid, in days. Default 7 for hosts, 30 for people.
    pub validity: Validity,
    /// How long a rollout waits for a client that went away, in minutes. Default 15 (design, §2.8).
    pub client_wait: Duration,
    /// How many revisions of history watchers can resume from. Default 10,000.
    pub history_revisions: u64,
    /// How long a blob nobody names is kept, in hours: the time between its upload and the rollout
    /// that uses it. Default 24.
    pub blob_grace: Duration,
    /// Socket that is asked at each stage of a rollout whether to go on, so that a test can stop a controller exactly
    /// there (see [`dhow_proto::breakpoint`]). Default none: nothing is asked. For tests alone.
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
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or has a key or value that is none of ours.
    #[error("{}: {message}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What and where, over several lines.
        message: String,
    },
    /// A variable has a value that cannot be.
    #[error("variable {variable}: {message}")]
    Variable {
        /// Which variable.
        variable: String,
        /// What is wrong with it.
        message: String,
    },
    /// A setting without default is not set.
    #[error("{0} is not set: give it as a flag, as a variable or in the settings file")]
    Missing(&'static str),
    /// A value is out of its range.
    #[error("{setting} is {value}, must be {range}")]
    OutOfRange {
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        range: &'static str,
    },
}

/// Settings from one source: all optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// See [`Settings::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Settings::listen`].
    pub listen: Option<SocketAddr>,
    /// See [`Settings::names`].
    pub names: Option<Vec<String>>,
    /// See [`Settings::addresses`].
    pub addresses: Option<Vec<String>>,
    /// See [`Settings::ca_passphrase_file`].
    pub ca_passphrase_file: Option<PathBuf>,
    /// See [`Settings::log`].
    pub log: Option<String>,
    /// See [`Settings::log_format`].
    pub log_format: Option<LogFormat>,
    /// See [`Settings::validity`].
    pub host_certificate_days: Option<u64>,
    /// See [`Settings::validity`].
    pub user_certificate_days: Option<u64>,
    /// See [`Settings::client_wait`].
    pub client_wait_minutes: Option<u64>,
    /// See [`Settings::history_revisions`].
    pub history_revisions: Option<u64>,
    /// See [`Settings::blob_grace`].
    pub blob_grace_hours: Option<u64>,
    /// See [`Settings::breakpoints`].
    pub breakpoints: Option<PathBuf>,
}

/// How the value of a variable is read.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Number,
    /// Comma-separated.
    List,
}

/// The variables, `DHOW_` and the key in capitals; each with the form of its value.
const VARIABLES: [(&str, Form); 13] = [
    ("state_dir", Form::Text),
    ("listen", Form::Text),
    ("names", Form::List),
    ("addresses", Form::List),
    ("ca_passphrase_file", Form::Text),
    ("log", Form::Text),
    ("log_format", Form::Text),
    ("host_certificate_days", Form::Number),
    ("user_certificate_days", Form::Number),
    ("client_wait_minutes", Form::Number),
    ("history_revisions", Form::Number),
    ("blob_grace_hours", Form::Number),
    ("breakpoints", Form::Text),
];

impl Settings {
    /// Reads all sources: `flags`, the process's environment, and the file: `file` if given, else
    /// `controller.toml` in the state folder if there is one.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn load(flags: Layer, file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::load_with(flags, file, |variable| std::env::var(variable).ok())
    }

    /// As [`load`](Self::load), with the environment as a function.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn load_with(
        flags: Layer,
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let above = flags.over(Layer::from_environment(&variable)?);
        let below = match (file, &above.state_dir) {
            (Some(file), _) => Layer::from_file(file)?,
            (None, Some(state_dir)) if state_dir.join(FILE).exists() => {
                Layer::from_file(&state_dir.join(FILE))?
            }
            (None, _) => Layer::default(),
        };
        let credentials = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        above.over(below).complete(credentials.as_deref())
    }

    /// The store's file.
    #[must_use]
    pub fn store_file(&self) -> PathBuf {
        self.state_dir.join("store.db")
    }

    /// The folder of the blobs.
    #[must_use]
    pub fn blob_dir(&self) -> PathBuf {
        self.state_dir.join("blobs")
    }

    /// Whether the CA's key is wrapped by the file `init` makes, and not by a passphrase.
    #[must_use]
    pub fn wraps_by_file(&self) -> bool {
        self.ca_passphrase_file == self.state_dir.join(WRAP_FILE)
    }
}

impl Layer {
    /// These settings where they are set, and those `below` where not.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            state_dir: self.state_dir.or(below.state_dir),
            listen: self.listen.or(below.listen),
            names: self.names.or(below.names),
            addresses: self.addresses.or(below.addresses),
            ca_passphrase_file: self.ca_passphrase_file.or(below.ca_passphrase_file),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
            host_certificate_days: self.host_certificate_days.or(below.host_certificate_days),
            user_certificate_days: self.user_certificate_days.or(below.user_certificate_days),
            client_wait_minutes: self.client_wait_minutes.or(below.client_wait_minutes),
            history_revisions: self.history_revisions.or(below.history_revisions),
            blob_grace_hours: self.blob_grace_hours.or(below.blob_grace_hours),
            breakpoints: self.breakpoints.or(below.breakpoints),
        }
    }

    fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| SettingsError::File {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }

    fn from_environment(variable: &impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut layer = Self::default();
        for (key, form) in VARIABLES {
            let name = format!("DHOW_{}", key.to_uppercase());
            // Empty is as good as unset, as in unit files.
            let Some(text) = variable(&name).filter(|text| !text.is_empty()) else { continue };
            let failed = |message: String| SettingsError::Variable {
                variable: name.clone(),
                message: message.trim().to_owned(),
            };
            let value = form.parse(&text).map_err(|error| failed(error.to_string()))?;
            let one = toml::Table::from_iter([(key.to_owned(), value)]);
            let one: Self = one
                .try_into()
                .map_err(|error: toml::de::Error| failed(error.message().to_owned()))?;
            layer = one.over(layer);
        }
        Ok(layer)
    }

    fn complete(self, credentials: Option<&Path>) -> Result<Settings, SettingsError> {
        let state_dir = self.state_dir.ok_or(SettingsError::Missing("state_dir"))?;
        let listen = self.listen.unwrap_or_else(|| ([0, 0, 0, 0], DEFAULT_PORT).into());
        let ca_passphrase_file = self
            .ca_passphrase_file
            .or_else(|| credentials.map(|folder| folder.join(CREDENTIAL)).filter(|f| f.exists()))
            .unwrap_or_else(|| state_dir.join(WRAP_FILE));
        let days = |setting, value: Option<u64>, default| {
            // A renewal happens at two thirds of it, so less than a day gives no time to notice.
            within(setting, value.unwrap_or(default), 1..=365, "1 to 365 days")
        };
        let validity = Validity {
            host: hours(24 * days("host_certificate_days", self.host_certificate_days, 7)?),
            user: hours(24 * days("user_certificate_days", self.user_certificate_days, 30)?),
            ..Validity::default()
        };
        let minutes = within(
            "client_wait_minutes",
            self.client_wait_minutes.unwrap_or(15),
            0..=24 * 60,
            "0 to 1440 minutes",
        )?;
        let history_revisions = within(
            "history_revisions",
            self.history_revisions.unwrap_or(10_000),
            100..=10_000_000,
            "100 to 10000000",
        )?;
        let grace = within(
            "blob_grace_hours",
            self.blob_grace_hours.unwrap_or(24),
            1..=24 * 365,
            "1 to 8760 hours",
        )?;
        Ok(Settings {
            state_dir,
            listen,
            names: self.names.unwrap_or_default(),
            addresses: self.addresses.unwrap_or_default(),
            ca_passphrase_file,
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or_default(),
            validity,
            client_wait: Duration::from_secs(minutes * 60),
            history_revisions,
            blob_grace: hours(grace),
            breakpoints: self.breakpoints,
        })
    }
}

impl Form {
    fn parse(self, text: &str) -> Result<toml::Value, std::num::ParseIntError> {
        Ok(match self {
            Self::Text => text.into(),
            Self::Number => text.trim().parse::<i64>()?.into(),
            Self::List => {
                let items: Vec<&str> =
                    text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                items.into()
            }
        })
    }
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn within(
    setting: &'static str,
    value: u64,
    allowed: std::ops::RangeInclusive<u64>,
    range: &'static str,
) -> Result<u64, SettingsError> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(SettingsError::OutOfRange { setting, value, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sources {
        folder: tempfile::TempDir,
        variables: Vec<(&'static str, String)>,
        flags: Layer,
    }

    impl Sources {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let flags = Layer { state_dir: Some(folder.path().to_owned()), ..Layer::default() };
            Self { folder, variables: Vec::new(), flags }
        }

        fn file(self, text: &str) -> Self {
            std::fs::write(self.folder.path().join(FILE), text).unwrap();
            self
        }

        fn variable(mut self, name: &'static str, value: &str) -> Self {
            self.variables.push((name, value.to_owned()));
            self
        }

        fn load(&self) -> Result<Settings, SettingsError> {
            Settings::load_with(self.flags.clone(), None, |wanted| {
                let found = self.variables.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| value.clone())
            })
        }

        fn refused(&self) -> String {
            self.load().unwrap_err().to_string()
        }
    }

    #[test]
    fn everything_but_the_state_folder_has_a_default() {
        let settings = Sources::new().load().unwrap();
        assert_eq!(settings.listen.port(), 7443);
        assert_eq!(settings.validity, Validity::default());
        assert_eq!(settings.client_wait, Duration::from_secs(900));
        assert!(settings.wraps_by_file());
        let refused = Settings::load_with(Layer::default(), None, |_| None).unwrap_err();
        assert!(matches!(refused, SettingsError::Missing("state_dir")));
    }

    #[test]
    fn flags_win_over_variables_and_those_over_the_file() {
        let mut sources = Sources::new()
            .file("log = 'file'\nlisten = '127.0.0.1:1'\nnames = ['a']\n")
            .variable("DHOW_LISTEN", "127.0.0.1:2")
            .variable("DHOW_NAMES", "b, c,");
        sources.flags.listen = Some("127.0.0.1:3".parse().unwrap());
        let settings = sources.load().unwrap();
        assert_eq!(settings.log, "file");
        assert_eq!(settings.listen.port(), 3);
        assert_eq!(settings.names, ["b", "c"]);
    }

    #[test]
    fn a_key_nobody_knows_is_refused_with_its_place() {
        let refused = Sources::new().file("log = 'x'\nlisten_adress = '127.0.0.1:1'\n").refused();
        assert!(refused.contains("unknown field `listen_adress`"), "{refused}");
        assert!(refused.contains("line 2"), "{refused}");
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let refused = Sources::new().file("listen = 'here'").refused();
        assert!(refused.contains("invalid socket address"), "{refused}");
        let refused = Sources::new().variable("DHOW_LISTEN", "here").refused();
        assert!(refused.starts_with("variable DHOW_LISTEN: invalid socket address"), "{refused}");
        let refused = Sources::new().variable("DHOW_HISTORY_REVISIONS", "many").refused();
        assert!(refused.starts_with("variable DHOW_HISTORY_REVISIONS: "), "{refused}");
        let refused = Sources::new().file("host_certificate_days = 0").refused();
        assert_eq!(refused, "host_certificate_days is 0, must be 1 to 365 days");
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let flags = Layer { state_dir: Some("/nowhere".into()), ..Layer::default() };
        let refused = Settings::load_with(flags, Some(Path::new("/nowhere/x.toml")), |_| None);
        assert!(matches!(refused, Err(SettingsError::Read { .. })));
    }

    #[test]
    fn the_secret_comes_from_the_flag_or_the_credential_or_the_state_folder() {
        let credentials = tempfile::tempdir().unwrap();
        let folder = credentials.path().to_str().unwrap().to_owned();
        let mut sources = Sources::new().variable("CREDENTIALS_DIRECTORY", &folder);
        assert!(sources.load().unwrap().wraps_by_file(), "no such credential");
        let credential = credentials.path().join("ca-passphrase");
        std::fs::write(&credential, "x").unwrap();
        assert_eq!(sources.load().unwrap().ca_passphrase_file, credential);
        sources.flags.ca_passphrase_file = Some("/elsewhere".into());
        assert_eq!(sources.load().unwrap().ca_passphrase_file, Path::new("/elsewhere"));
    }

    #[test]
    fn every_key_has_its_variable() {
        for (key, form) in VARIABLES {
            let value = match form {
                Form::Number => "5",
                Form::Text | Form::List => "127.0.0.1:5",
            };
            let name = format!("DHOW_{}", key.to_uppercase());
            let read =
                Layer::from_environment(&|wanted: &str| (wanted == name).then(|| value.to_owned()));
            if key != "log_format" {
                assert_ne!(read.unwrap(), Layer::default(), "{key}");
            }
        }
    }
}
