//! What the environment asks for.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow};

/// Whether there is HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Web,
    Job,
}

/// All variables of the README, parsed.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) version: String,
    pub(crate) mode: Mode,
    pub(crate) port: u16,
    pub(crate) start_delay: Duration,
    pub(crate) healthy_after: Duration,
    pub(crate) up_status: u16,
    pub(crate) up_delay: Duration,
    pub(crate) up_location: Option<String>,
    pub(crate) crash_after: Option<Duration>,
    pub(crate) crash_status: i32,
    pub(crate) ignore_sigterm: bool,
    pub(crate) stop_delay: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) log_lines_per_s: u32,
    pub(crate) log_line_bytes: usize,
    pub(crate) log_requests: bool,
    pub(crate) assets_dir: PathBuf,
}

impl Settings {
    /// Reads the environment; `mode` from the command line wins over `APP_MODE`.
    pub(crate) fn from_env(mode: Option<Mode>) -> Result<Self> {
        let mode = match (mode, text("APP_MODE").as_deref()) {
            (Some(mode), _) => mode,
            (None, None | Some("web")) => Mode::Web,
            (None, Some("job")) => Mode::Job,
            (None, Some(other)) => return Err(anyhow!("APP_MODE is {other:?}, not web or job")),
        };
        Ok(Self {
            version: text("APP_VERSION").unwrap_or_else(|| "unversioned".to_owned()),
            mode,
            port: parse("APP_PORT", 80)?,
            start_delay: millis("APP_START_DELAY_MS")?.unwrap_or_default(),
            healthy_after: millis("APP_HEALTHY_AFTER_MS")?.unwrap_or_default(),
            up_status: parse("APP_UP_STATUS", 200)?,
            up_delay: millis("APP_UP_DELAY_MS")?.unwrap_or_default(),
            up_location: text("APP_UP_LOCATION"),
            crash_after: millis("APP_CRASH_AFTER_MS")?,
            crash_status: parse("APP_CRASH_STATUS", 1)?,
            ignore_sigterm: parse("APP_IGNORE_SIGTERM", false)?,
            stop_delay: millis("APP_STOP_DELAY_MS")?.unwrap_or_default(),
            heartbeat: millis("APP_HEARTBEAT_MS")?.unwrap_or(Duration::from_secs(1)),
            log_lines_per_s: parse("APP_LOG_LINES_PER_S", 0)?,
            log_line_bytes: parse("APP_LOG_LINE_BYTES", 200)?,
            log_requests: parse("APP_LOG_REQUESTS", false)?,
            assets_dir: text("APP_ASSETS_DIR").unwrap_or_else(|| "/assets".to_owned()).into(),
        })
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn millis(name: &str) -> Result<Option<Duration>> {
    text(name).map(|_| parse(name, 0).map(Duration::from_millis)).transpose()
}

fn parse<T: FromStr>(name: &str, default: T) -> Result<T> {
    match text(name) {
        None => Ok(default),
        Some(value) => {
            value.parse().map_err(|_| anyhow!("{name} is {value:?}, which cannot be read"))
        }
    }
}
