//! Who a certificate speaks for.

use std::fmt;

use dhow_proto::model::HostName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const HOST_URI: &str = "spiffe://dhow/host/";
const USER_URI: &str = "spiffe://dhow/user/";

/// Prefix of the organisational unit that carries the identity's generation.
pub(super) const GENERATION_UNIT: &str = "generation ";

/// A host or a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A host with an agent.
    Host(HostName),
    /// A person, or a machine that deploys.
    User(UserName),
}

impl Identity {
    /// The URI in the certificate's subject alternative name.
    #[must_use]
    pub fn uri(&self) -> String {
        // A zone index (`fe80::1%eth0`) has the one character that a URI does not take as it is.
        match self {
            Self::Host(name) => format!("{HOST_URI}{}", name.as_str().replace('%', "%25")),
            Self::User(name) => format!("{USER_URI}{name}"),
        }
    }

    /// Reads what [`uri`](Self::uri) wrote; `None` for anything else.
    #[must_use]
    pub fn parse_uri(uri: &str) -> Option<Self> {
        if let Some(name) = uri.strip_prefix(HOST_URI) {
            let name = HostName::try_from(name.replace("%25", "%")).ok()?;
            // Written back it must be the same, so that no name has two spellings.
            return Some(Self::Host(name)).filter(|identity| identity.uri() == uri);
        }
        let name = uri.strip_prefix(USER_URI)?;
        Some(Self::User(UserName::try_from(name.to_owned()).ok()?))
    }

    /// The name without saying of what.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) => name.as_str(),
            Self::User(name) => name.as_str(),
        }
    }
}

/// `host NAME` or `user NAME`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "host {name}"),
            Self::User(name) => write!(f, "user {name}"),
        }
    }
}

/// A person's name: 1 to 64 letters, digits and `._-@+`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a user name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user name has 1 to 64 letters, digits and ._-@+ and begins with a letter or digit")]
pub struct UserNameError;

impl UserName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UserName {
    type Error = UserNameError;

    fn try_from(text: String) -> Result<Self, UserNameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.len() <= 64 && text.chars().all(allowed) {
            return Ok(Self(text));
        }
        Err(UserNameError)
    }
}

impl TryFrom<&str> for UserName {
    type Error = UserNameError;

    fn try_from(text: &str) -> Result<Self, UserNameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

/// A certificate's serial number: lowercase hexadecimal, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(String);

impl Serial {
    /// From the number's big-endian bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(bytes).trim_start_matches('0').to_owned())
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client certificate says of its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// Which certificate it is.
    pub serial: Serial,
    /// The generation of the identity when it was issued; see `Revocations`.
    pub generation: u64,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Why a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("certificate is malformed")]
    Malformed,
    /// Not exactly one subject alternative name, or not one of ours.
    #[error("certificate does not carry exactly one dhow identity")]
    NoIdentity,
    /// Without a generation.
    #[error("certificate does not carry a generation")]
    NoGeneration,
}

/// Reads the identity out of a certificate.
///
/// Only of certificates that TLS has verified: this looks at no signature and no date.
///
/// # Errors
///
/// [`IdentityError`] when it is none that [`Ca::issue`](super::Ca::issue) made.
pub fn peer(certificate_der: &[u8]) -> Result<Peer, IdentityError> {
    let (rest, certificate) =
        X509Certificate::from_der(certificate_der).map_err(|_| IdentityError::Malformed)?;
    if !rest.is_empty() {
        return Err(IdentityError::Malformed);
    }
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let [GeneralName::URI(uri)] = names else { return Err(IdentityError::NoIdentity) };
    let identity = Identity::parse_uri(uri).ok_or(IdentityError::NoIdentity)?;
    let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|_| IdentityError::Malformed)?;
    Ok(Peer {
        identity,
        serial: Serial::from_bytes(certificate.raw_serial()),
        generation: generation(&certificate).ok_or(IdentityError::NoGeneration)?,
        not_after,
    })
}

fn generation(certificate: &X509Certificate<'_>) -> Option<u64> {
    let unit = certificate.subject().iter_organizational_unit().next()?.as_str().ok()?;
    unit.strip_prefix(GENERATION_UNIT)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_back_from_their_uris() {
        for name in ["web-1.example.com", "10.0.0.5", "2001:db8::1", "fe80::1%eth0"] {
            let identity = Identity::Host(name.try_into().unwrap());
            assert_eq!(Identity::parse_uri(&identity.uri()), Some(identity));
        }
        let identity = Identity::User("ada+ci@example.com".try_into().unwrap());
        assert_eq!(Identity::parse_uri(&identity.uri()), Some(identity));
    }

    #[test]
    fn other_uris_are_nobody() {
        for uri in [
            "",
            "spiffe://dhow/host/",
            "spiffe://dhow/user/",
            "spiffe://dhow/user/a/b",
            "spiffe://dhow/host/a/b",
            "spiffe://dhow/host/fe80::1%eth0",
            "spiffe://dhow/group/a",
            "spiffe://other/host/a",
            "https://dhow/host/a",
            "SPIFFE://dhow/host/a",
        ] {
            assert_eq!(Identity::parse_uri(uri), None, "{uri}");
        }
    }

    #[test]
    fn user_names_are_plain_words() {
        for name in ["ada", "A", "ci-1", "ada@example.com", &"x".repeat(64)] {
            assert!(UserName::try_from(name).is_ok(), "{name}");
        }
        for name in ["", "-a", ".a", "a/b", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(UserName::try_from(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert_eq!(peer(b""), Err(IdentityError::Malformed));
        assert_eq!(peer(&[0x30; 64]), Err(IdentityError::Malformed));
    }
}
