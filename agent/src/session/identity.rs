//! Who this host is: name, certificate, keys, the CAs it trusts and where controllers are. One file, replaced whole, so
//! that a crash during a renewal leaves either the old or the new certificate with its own key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_proto::dial::{Address, DialError, Identity};
use dhow_proto::model::HostName;
use dhow_proto::seal::HostKey;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::ledger::{Disk, Io, replace_file};

const FILE: &str = "identity.json";

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// This state directory never joined.
    #[error("this host has not joined: run `dhow-agent join` with this state directory first")]
    NotJoined,
    /// The file is there and is not what was written.
    #[error("{path} cannot be used: {reason}; join again with a new token")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why; tells nothing of keys.
        reason: String,
    },
    /// The disk.
    #[error("could not read or write {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The identity of a host. `Debug` shows the name only.
#[derive(Clone)]
pub struct Stored {
    /// As enrolled.
    pub host: HostName,
    /// Where controllers are; never empty.
    pub controllers: Vec<Address>,
    /// Client certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its key, PKCS#8.
    pub key_der: Zeroizing<Vec<u8>>,
    /// DER certificates of every CA that is trusted.
    pub ca_set: Vec<Vec<u8>>,
    /// Opens sealed secrets.
    pub host_key: Arc<HostKey>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("host", &self.host).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    v: u32,
    host: String,
    controllers: Vec<String>,
    certificate: String,
    key: Zeroizing<String>,
    ca_set: Vec<String>,
    host_key: Zeroizing<String>,
}

impl Stored {
    /// Reads the identity of a state directory.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        let bytes = match Disk.read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::NotJoined);
            }
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        parse(&bytes).map_err(|reason| IdentityError::Damaged { path, reason })
    }

    /// Writes it (0600), durably and at once.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Io`].
    pub fn save(&self, state_dir: &Path) -> Result<(), IdentityError> {
        let encode = |bytes: &[u8]| Zeroizing::new(STANDARD.encode(bytes));
        let file = OnDisk {
            v: 1,
            host: self.host.to_string(),
            controllers: self.controllers.iter().map(ToString::to_string).collect(),
            certificate: STANDARD.encode(&self.certificate_der),
            key: encode(&self.key_der),
            ca_set: self.ca_set.iter().map(|ca| STANDARD.encode(ca)).collect(),
            host_key: encode(self.host_key.private_bytes()),
        };
        let bytes = Zeroizing::new(
            serde_json::to_vec_pretty(&file).expect("strings, lists and numbers are JSON"),
        );
        let written =
            Disk.create_dir(state_dir).and_then(|()| replace_file(&Disk, state_dir, FILE, &bytes));
        written.map_err(|source| IdentityError::Io { path: state_dir.join(FILE), source })
    }

    /// For dialling.
    ///
    /// # Errors
    ///
    /// [`DialError::Identity`].
    pub fn dial(&self) -> Result<Identity, DialError> {
        Identity::from_der(&self.certificate_der, &self.key_der)
    }

    /// Seconds since 1970 from which and until which the certificate is valid; none where it cannot be read.
    pub fn validity(&self) -> Option<(i64, i64)> {
        let (_, certificate) = X509Certificate::from_der(&self.certificate_der).ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    }
}

fn parse(bytes: &[u8]) -> Result<Stored, String> {
    // The error of the JSON reader may quote the text: only its place is told.
    let file: OnDisk = serde_json::from_slice(bytes)
        .map_err(|e| format!("not the expected JSON at line {}", e.line()))?;
    if file.v != 1 {
        return Err(format!("version {} of the file is unknown", file.v));
    }
    let decode =
        |what: &str, text: &str| STANDARD.decode(text).map_err(|_| format!("{what} is not base64"));
    let private: [u8; 32] = Zeroizing::new(decode("host_key", &file.host_key)?)
        .as_slice()
        .try_into()
        .map_err(|_| "host_key does not have 32 bytes".to_owned())?;
    let controllers: Vec<Address> = file
        .controllers
        .iter()
        .map(|a| a.parse().map_err(|e: DialError| e.to_string()))
        .collect::<Result<_, _>>()?;
    if controllers.is_empty() {
        return Err("it names no controller".to_owned());
    }
    Ok(Stored {
        host: file.host.parse().map_err(|e: dhow_proto::model::name::NameError| e.to_string())?,
        controllers,
        certificate_der: decode("certificate", &file.certificate)?,
        key_der: Zeroizing::new(decode("key", &file.key)?),
        ca_set: file.ca_set.iter().map(|ca| decode("ca_set", ca)).collect::<Result<_, _>>()?,
        host_key: Arc::new(
            HostKey::from_private(Zeroizing::new(private)).map_err(|e| e.to_string())?,
        ),
    })
}
