//! Where Kamal's files are on a host (host-effects: file tree).

use std::path::{Path, PathBuf};

use dhow_proto::model::intent::HostPart;
use dhow_proto::model::{App, RoleName, Version, kamal};

/// Who owns files in a user's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Where homes are looked up.
#[derive(Clone, Debug)]
pub struct Homes {
    /// The agent's `--home`: base where an app names no user.
    pub base: PathBuf,
    /// `/etc/passwd`.
    pub passwd: PathBuf,
}

/// Why a home was not found.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The list of users cannot be read.
    #[error("could not read {path}")]
    Passwd {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No such user.
    #[error("user {0} (the app's ssh.user) does not exist on this host")]
    NoUser(String),
}

impl Homes {
    /// The layout of an intent's files.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] where the user has no home here.
    pub fn layout(&self, host: &HostPart) -> Result<Layout, LayoutError> {
        let (home, owner) = match host.ssh_user.as_deref() {
            None => (self.base.clone(), None),
            Some(user) => {
                let text = std::fs::read_to_string(&self.passwd)
                    .map_err(|source| LayoutError::Passwd { path: self.passwd.clone(), source })?;
                let (home, owner) =
                    find_user(&text, user).ok_or_else(|| LayoutError::NoUser(user.to_owned()))?;
                (home, Some(owner))
            }
        };
        let run = home.join(host.run_directory.as_deref().unwrap_or(kamal::RUN_DIRECTORY));
        Ok(Layout { kamal: home.join(kamal::RUN_DIRECTORY), home, run, owner })
    }
}

fn find_user(passwd: &str, user: &str) -> Option<(PathBuf, Owner)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        (*name == user && home.starts_with('/')).then_some(())?;
        Some((PathBuf::from(home), Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? }))
    })
}

/// Absolute paths of Kamal's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Home that relative paths begin at.
    pub home: PathBuf,
    /// `$HOME/.kamal`: proxy files, locks, audit logs.
    pub kamal: PathBuf,
    /// The app's own files; the same unless `run_directory` is set.
    pub run: PathBuf,
    /// None: whoever the agent is.
    pub owner: Option<Owner>,
}

impl Layout {
    /// Kamal's lock of an app.
    pub fn lock(&self, app: &App) -> PathBuf {
        self.kamal.join(format!("lock-{}", app.slug()))
    }

    /// Kamal's audit log of an app.
    pub fn audit_log(&self, app: &App) -> PathBuf {
        self.kamal.join(format!("{}-audit.log", app.slug()))
    }

    /// All files of an app.
    pub fn app(&self, app: &App) -> PathBuf {
        self.run.join("apps").join(app.slug())
    }

    /// The env file of a role.
    pub fn env_file(&self, app: &App, role: &RoleName) -> PathBuf {
        self.app(app).join("env/roles").join(format!("{role}.env"))
    }

    /// `assets/extracted` or `assets/volumes`.
    pub fn assets(&self, app: &App, kind: AssetKind) -> PathBuf {
        self.app(app).join("assets").join(kind.as_str())
    }

    /// What the container of a version mounts over its asset path.
    pub fn asset_volume(&self, app: &App, role: &RoleName, version: &Version) -> PathBuf {
        self.assets(app, AssetKind::Volumes).join(format!("{role}-{version}"))
    }

    /// Legacy boot config and `apps-config`.
    pub fn proxy(&self) -> PathBuf {
        self.kamal.join("proxy")
    }

    /// What a proxy booted here mounts.
    pub fn apps_config(&self) -> PathBuf {
        self.proxy().join("apps-config")
    }

    /// Error pages of an app, below the directory that the running proxy mounts.
    pub fn error_pages(apps_config: &Path, app: &App) -> PathBuf {
        apps_config.join(app.slug()).join("error_pages")
    }

    /// Certificates of a role, below the directory that the running proxy mounts.
    pub fn certificate(apps_config: &Path, app: &App, role: &RoleName) -> PathBuf {
        apps_config.join(app.slug()).join("tls").join(role.as_str())
    }

    /// A path as a config has it, made absolute.
    pub fn absolute(&self, path: &str) -> PathBuf {
        self.home.join(path.strip_prefix("./").unwrap_or(path))
    }
}

/// The two halves of asset bridging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssetKind {
    /// Copied out of the image.
    Extracted,
    /// Merged and mounted.
    Volumes,
}

impl AssetKind {
    /// Directory name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Extracted => "extracted",
            Self::Volumes => "volumes",
        }
    }
}
