//! Names with rules: what may be said at all, checked once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::FieldError;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, found {found:?}")]
pub struct NameError {
    problem: &'static str,
    found: String,
}

impl From<NameError> for FieldError {
    fn from(error: NameError) -> Self {
        Self::new("", error)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:expr, $problem:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                let rule: fn(&str) -> bool = $rule;
                if rule(&text) {
                    Ok(Self(text))
                } else {
                    // Bounded: a name may come from anywhere.
                    Err(NameError { problem: $problem, found: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

fn word(text: &str, extra: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

name!(
    /// A host as enrolled or as a config spells it: an address or a DNS name.
    HostName,
    |t| t.len() <= 253 && word(t, ".-_:%") && !t.starts_with(['-', '.', '_']),
    "a host is an address or a DNS name of at most 253 characters"
);
name!(
    /// Kamal's `service`: prefix of containers, labels and paths.
    ServiceName,
    |t| t.len() <= 128 && word(t, "_-"),
    "a service name has only letters, digits, hyphens and underscores"
);
name!(
    /// A destination (`staging`).
    Destination,
    |t| t.len() <= 64 && word(t, "_.-"),
    "a destination has only letters, digits, dots, hyphens and underscores"
);
name!(
    /// A role (`web`).
    RoleName,
    |t| t.len() <= 64 && word(t, "_.-"),
    "a role has only letters, digits, dots, hyphens and underscores"
);
name!(
    /// An accessory (`db`).
    AccessoryName,
    |t| t.len() <= 64 && word(t, "_.-"),
    "an accessory name has only letters, digits, dots, hyphens and underscores"
);
name!(
    /// An app version: a Docker tag, as images are tagged with it (docs.docker.com, `docker tag`).
    Version,
    |t| t.len() <= 128 && word(t, "_.-") && !t.starts_with(['.', '-']),
    "a version is a Docker tag: at most 128 letters, digits, dots, hyphens and underscores"
);
name!(
    /// A container's name by Docker's rule (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`).
    ContainerName,
    |t| t.len() >= 2 && t.len() <= 255 && word(t, "_.-") && t.starts_with(|c: char| c.is_ascii_alphanumeric()),
    "a container name has letters, digits, dots, hyphens and underscores and begins with a letter or digit"
);
name!(
    /// A digest as registries write it: `sha256:` and 64 hexadecimal digits. Also used for image ids.
    ImageDigest,
    |t| t.strip_prefix("sha256:").is_some_and(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit())),
    "an image digest is `sha256:` and 64 hexadecimal digits"
);

/// An image by repository and tag, as containers are created from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// Repository with registry server, without tag: `10.0.0.1:5000/shop`.
    pub repository: String,
    /// Tag: a version or `latest[-DEST]`.
    pub tag: String,
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// Checks a repository as Docker's reference grammar has it, without tag or digest.
///
/// # Errors
///
/// [`NameError`] where it is empty, too long or has characters no repository has.
pub fn check_repository(text: &str) -> Result<(), NameError> {
    let last = text.rsplit('/').next().unwrap_or_default();
    if text.len() <= 255 && word(text, "._-/:[]") && !last.is_empty() && !last.contains(':') {
        return Ok(());
    }
    Err(NameError {
        problem: "an image repository has no tag and only [a-zA-Z0-9._-/:]",
        found: text.chars().take(80).collect(),
    })
}
