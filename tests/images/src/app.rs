//! Images of the sample app: any number of versions and behaviours around one binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::archive::{Entry, Image, Layer, write_archive};
use crate::binary::{Binary, artifacts_dir, static_binary};

/// Something an image does by itself because its environment says so; the container's own
/// environment can still override it. `sample-app`'s README lists all variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Healthy at once, obedient.
    Well,
    /// `/up` answers 500.
    Unhealthy,
    /// `/up` answers 302 to `/`, which is healthy.
    Redirecting,
    /// Listens only after 3 s.
    SlowStart,
    /// Listens at once; `/up` answers 503 for the first 3 s.
    SlowHealthy,
    /// `/up` takes 10 s, longer than the proxy's health check timeout.
    SlowUp,
    /// Exits with status 1 before it listens.
    CrashAtStart,
    /// Is healthy, then exits with status 1 after 5 s.
    CrashLater,
    /// Does not react to SIGTERM.
    IgnoreSigterm,
    /// Writes 1000 lines of 200 bytes a second.
    LogFlood,
    /// No HTTP: a heartbeat line a second, for roles without a proxy.
    Job,
}

impl Behaviour {
    /// Every behaviour, in the order they are declared.
    pub const ALL: [Self; 11] = [
        Self::Well,
        Self::Unhealthy,
        Self::Redirecting,
        Self::SlowStart,
        Self::SlowHealthy,
        Self::SlowUp,
        Self::CrashAtStart,
        Self::CrashLater,
        Self::IgnoreSigterm,
        Self::LogFlood,
        Self::Job,
    ];

    /// A tag for the behaviour: `unhealthy`, `crash-at-start`, ….
    pub fn tag(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Unhealthy => "unhealthy",
            Self::Redirecting => "redirecting",
            Self::SlowStart => "slow-start",
            Self::SlowHealthy => "slow-healthy",
            Self::SlowUp => "slow-up",
            Self::CrashAtStart => "crash-at-start",
            Self::CrashLater => "crash-later",
            Self::IgnoreSigterm => "ignore-sigterm",
            Self::LogFlood => "log-flood",
            Self::Job => "job",
        }
    }

    /// The environment that brings it about.
    pub fn env(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Well => &[],
            Self::Unhealthy => &[("APP_UP_STATUS", "500")],
            Self::Redirecting => &[("APP_UP_STATUS", "302"), ("APP_UP_LOCATION", "/")],
            Self::SlowStart => &[("APP_START_DELAY_MS", "3000")],
            Self::SlowHealthy => &[("APP_HEALTHY_AFTER_MS", "3000")],
            Self::SlowUp => &[("APP_UP_DELAY_MS", "10000")],
            Self::CrashAtStart => &[("APP_CRASH_AFTER_MS", "0")],
            Self::CrashLater => &[("APP_CRASH_AFTER_MS", "5000")],
            Self::IgnoreSigterm => &[("APP_IGNORE_SIGTERM", "true")],
            Self::LogFlood => &[("APP_LOG_LINES_PER_S", "1000"), ("APP_LOG_LINE_BYTES", "200")],
            Self::Job => &[("APP_MODE", "job")],
        }
    }
}

/// One image of the sample app to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppImage {
    reference: String,
    version: String,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    config: Map<String, Value>,
    padding: usize,
}

impl AppImage {
    /// An image called `reference` (`repository:tag`) whose app answers `version`; behaves well,
    /// listens on port 80, has no labels.
    pub fn new(reference: impl Into<String>, version: impl Into<String>) -> Self {
        let version = version.into();
        Self {
            reference: reference.into(),
            env: BTreeMap::from([("APP_VERSION".to_owned(), version.clone())]),
            version,
            labels: BTreeMap::new(),
            config: Map::new(),
            padding: 0,
        }
    }

    /// Adds the label `service`, by which Kamal and dhow know whose image it is.
    #[must_use]
    pub fn service(self, name: &str) -> Self {
        self.label("service", name)
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds the environment of `behaviour`.
    #[must_use]
    pub fn behaving(mut self, behaviour: Behaviour) -> Self {
        self.env.extend(
            behaviour.env().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self
    }

    /// Sets an environment variable of the image.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets any other field of the image's `config` object, such as `User`, `Healthcheck`, `Cmd`,
    /// `Volumes` or `WorkingDir`, in the words of the Docker API.
    #[must_use]
    pub fn config(mut self, field: &str, value: Value) -> Self {
        self.config.insert(field.to_owned(), value);
        self
    }

    /// Adds a file of `bytes` incompressible bytes, different for each version, for tests of pulls.
    #[must_use]
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// What the image is called.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    fn layer(&self) -> Result<Layer> {
        let text = |path: String, text: String| Entry::File(path, 0o644, text.into_bytes());
        let version = &self.version;
        let mut entries = vec![
            Entry::Dir("assets".to_owned(), 0o755, 0),
            text(format!("assets/app-{version}.js"), format!("console.log(\"{version}\");\n")),
            text(
                "assets/common.css".to_owned(),
                format!("/* {version} */\nbody {{ color: black; }}\n"),
            ),
        ];
        if self.padding > 0 {
            entries.push(Entry::File("padding".to_owned(), 0o644, noise(version, self.padding)));
        }
        Layer::new(&entries)
    }

    fn docker_config(&self) -> Value {
        let mut env = vec!["PATH=/bin".to_owned()];
        env.extend(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        let mut config = json!({
            "Env": env,
            "Cmd": ["/sample-app"],
            "ExposedPorts": {"80/tcp": {}},
            "Labels": self.labels,
        });
        for (field, value) in &self.config {
            config[field] = value.clone();
        }
        config
    }
}

/// Makes one archive with all `images` and gives its path; an archive made before is reused.
///
/// # Errors
///
/// When the app cannot be built or the archive cannot be written.
pub fn app_archive(images: &[AppImage]) -> Result<PathBuf> {
    let program = program()?;
    let mut key = Sha256::new();
    key.update(&program);
    key.update(format!("{images:?}"));
    let path =
        artifacts_dir()?.join(format!("sample-app-{}.tar", &hex::encode(key.finalize())[..16]));
    if !path.exists() {
        write(&path, &program, images)?;
    }
    Ok(path)
}

/// Writes one archive with all `images` to `path`; for images that only one run needs.
///
/// # Errors
///
/// When the app cannot be built or the archive cannot be written.
pub fn write_app_archive(path: &Path, images: &[AppImage]) -> Result<()> {
    write(path, &program()?, images)
}

fn program() -> Result<Vec<u8>> {
    let binary = static_binary(Binary::SampleApp)?;
    fs::read(&binary).with_context(|| format!("read {}", binary.display()))
}

fn write(path: &Path, program: &[u8], images: &[AppImage]) -> Result<()> {
    let base = Layer::new(&base_files(program))?;
    let tops = images.iter().map(AppImage::layer).collect::<Result<Vec<_>>>()?;
    let images: Vec<Image<'_>> = images
        .iter()
        .zip(&tops)
        .map(|(image, top)| Image {
            reference: image.reference.clone(),
            config: image.docker_config(),
            layers: vec![&base, top],
        })
        .collect();
    write_archive(path, &images)
}

/// Names under which the binary acts as a small tool, for `exec` and hooks.
const TOOLS: [&str; 10] =
    ["sh", "sleep", "echo", "cat", "ls", "env", "true", "false", "touch", "sample-app"];

fn base_files(program: &[u8]) -> Vec<Entry> {
    let text =
        |path: &str, text: &str| Entry::File(path.to_owned(), 0o644, text.as_bytes().to_vec());
    let mut entries = vec![
        Entry::Dir("etc".to_owned(), 0o755, 0),
        text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n"),
        text("etc/group", "root:x:0:\napp:x:1000:\n"),
        Entry::Dir("tmp".to_owned(), 0o1777, 0),
        Entry::Dir("root".to_owned(), 0o700, 0),
        Entry::Dir("bin".to_owned(), 0o755, 0),
        Entry::File("sample-app".to_owned(), 0o755, program.to_vec()),
    ];
    entries.extend(TOOLS.map(|tool| Entry::Link(format!("bin/{tool}"), "/sample-app".to_owned())));
    entries
}

/// Bytes that do not compress, the same for the same seed (xorshift64*).
fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let digest = Sha256::digest(seed);
    let mut state =
        digest.iter().take(8).fold(1_u64, |state, byte| (state << 8) | u64::from(*byte)) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend(state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(bytes);
    out
}
