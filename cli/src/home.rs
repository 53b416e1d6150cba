//! What the CLI keeps on the user's machine: who they are to a controller, and the host keys it has seen.
//!
//! Everything is under one directory (`DHOW_HOME`, default `~/.config/dhow`), mode 0700; files are 0600 and replaced
//! whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dhow_proto::model::HostName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Who the user is to a controller. `Debug` does not show the key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Format of this file.
    pub v: u32,
    /// `host:port` of the controller.
    pub address: String,
    /// Other addresses it told of.
    pub addresses: Vec<String>,
    /// Name in the certificate.
    pub user: String,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub private_key: Zeroizing<String>,
    /// PEM of every CA that is trusted.
    pub ca_set: Vec<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("address", &self.address)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Why the home could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Nobody logged in yet.
    #[error(
        "not logged in to a controller; get a token from its admin, then: dhow login --controller HOST:PORT --token-file FILE"
    )]
    NotLoggedIn,
    /// No home directory.
    #[error("no home directory is known; set DHOW_HOME")]
    NoHome,
    /// A file is not what dhow wrote.
    #[error("{path} is malformed ({problem}); log in again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("could not use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A host's key is another than before.
    #[error(
        "the key of host {host} changed since this machine last saw it: it enrolled anew, or somebody poses as it. \
         If it enrolled anew, remove its line from {path} and try again"
    )]
    HostKeyChanged {
        /// The host.
        host: HostName,
        /// The file with the keys seen.
        path: PathBuf,
    },
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// `DHOW_HOME`, else `$XDG_CONFIG_HOME/dhow`, else `~/.config/dhow`.
    ///
    /// # Errors
    ///
    /// [`HomeError::NoHome`].
    pub fn find(var: impl Fn(&str) -> Option<String>) -> Result<Self, HomeError> {
        let set = |name: &str| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let path = set("DHOW_HOME")
            .or_else(|| set("XDG_CONFIG_HOME").map(|p| p.join("dhow")))
            .or_else(|| set("HOME").map(|p| p.join(".config/dhow")));
        path.map(|path| Self { path }).ok_or(HomeError::NoHome)
    }

    fn login_path(&self) -> PathBuf {
        self.path.join("login.json")
    }

    fn keys_path(&self) -> PathBuf {
        self.path.join("known_hosts.json")
    }

    /// The login made last.
    ///
    /// # Errors
    ///
    /// [`HomeError::NotLoggedIn`], [`HomeError::Malformed`], [`HomeError::Io`].
    pub fn login(&self) -> Result<Login, HomeError> {
        read(&self.login_path())?.ok_or(HomeError::NotLoggedIn)
    }

    /// Keeps a login.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn save_login(&self, login: &Login) -> Result<(), HomeError> {
        self.write(&self.login_path(), login)
    }

    /// Compares host keys with those seen before and remembers new ones.
    ///
    /// # Errors
    ///
    /// [`HomeError::HostKeyChanged`] before anything is remembered.
    pub fn check_host_keys(
        &self,
        controller: &str,
        keys: &[(HostName, Vec<u8>)],
    ) -> Result<(), HomeError> {
        let path = self.keys_path();
        let mut seen: BTreeMap<String, BTreeMap<HostName, String>> =
            read(&path)?.unwrap_or_default();
        let known = seen.entry(controller.to_owned()).or_default();
        let before = known.len();
        for (host, key) in keys {
            if known.get(host).is_some_and(|old| *old != hex::encode(key)) {
                return Err(HomeError::HostKeyChanged { host: host.clone(), path });
            }
        }
        known.extend(keys.iter().map(|(host, key)| (host.clone(), hex::encode(key))));
        if known.len() == before {
            return Ok(());
        }
        self.write(&path, &seen)
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), HomeError> {
        let failed = |source| HomeError::Io { path: path.to_owned(), source };
        create_private_dir(&self.path).map_err(failed)?;
        let text = Zeroizing::new(serde_json::to_vec_pretty(value).map_err(|e| failed(e.into()))?);
        // A temporary file is 0600 from the start and takes the old one's place whole.
        let mut file = tempfile::NamedTempFile::new_in(&self.path).map_err(failed)?;
        io::Write::write_all(&mut file, &text).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        // A login token is good once: the login made of it must not go with the power.
        sync_names(&self.path).map_err(failed)
    }
}

/// Makes the names in a directory durable, where that is the caller's business.
#[cfg(unix)]
fn sync_names(directory: &Path) -> io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened, and a rename lasts.
#[cfg(not(unix))]
fn sync_names(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The DER bytes of a PEM certificate; none where it is none.
pub fn certificate_der(pem: &str) -> Option<Vec<u8>> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

/// A DER certificate as PEM.
pub fn certificate_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).map(|i| &text[i..text.len().min(i + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Makes the directory and those above it where they are missing, each with a durable name.
fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    create_private_dir(parent)?;
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => sync_names(parent),
        // Another dhow was as fast.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, HomeError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(HomeError::Io { path: path.to_owned(), source }),
    };
    let malformed = |e: serde_json::Error| {
        // Position only: the text may be a key.
        HomeError::Malformed {
            path: path.to_owned(),
            problem: format!("line {}, column {}", e.line(), e.column()),
        }
    };
    serde_json::from_slice(&bytes).map(Some).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_host_key_is_refused_and_a_new_one_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { path: dir.path().join("dhow") };
        let host = HostName::try_from("h1").unwrap();
        home.check_host_keys("c:1", &[(host.clone(), vec![1; 32])]).unwrap();
        home.check_host_keys("c:1", &[(host.clone(), vec![1; 32])]).unwrap();
        let changed = home.check_host_keys("c:1", &[(host.clone(), vec![2; 32])]);
        assert!(matches!(changed, Err(HomeError::HostKeyChanged { .. })));
        home.check_host_keys("c:2", &[(host, vec![2; 32])]).unwrap();
    }

    #[test]
    fn nobody_logged_in_says_how_to() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { path: dir.path().to_owned() };
        assert!(home.login().unwrap_err().to_string().contains("dhow login --controller"));
    }
}
