//! One-time tokens: what a host or a person shows instead of a certificate it does not have yet.
//!
//! Text form: `dhow1.KIND.ID.SECRET.PIN`, the secret and the pin in base64url. The pin is the hash
//! of the CA's public key, so that the bearer trusts nobody else on its first connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use dhow_proto::model::{App, HostName};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::authority::Ca;
use super::identity::{Identity, UserName};
use super::wrap::{self, WrapError};
use crate::clock::Clock;
use crate::store::{Compare, Entry, Op, Store, StoreError, Txn};

const PREFIX: &str = "token/";

/// Begins every token, so that scanners for leaked secrets can know them.
const FORMAT: &str = "dhow1";

/// How long a used or expired token is kept, to say so instead of "unknown".
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest a token may be valid.
const MAX_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Enrols a host.
    Join,
    /// Enrols a person.
    Login,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Login => "login",
        }
    }
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and deploy.
    Deployer,
    /// Everything, also hosts and people.
    Admin,
}

/// What the bearer of a token gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Grant {
    /// Becoming a host.
    Join {
        /// Which one.
        host: HostName,
        /// Also if it is enrolled already.
        reenrol: bool,
    },
    /// Becoming a user.
    Login {
        /// Who.
        user: UserName,
        /// What the user may do.
        role: Role,
        /// On which apps; empty means all.
        apps: Vec<App>,
    },
}

impl Grant {
    /// The kind of token that carries it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Join { .. } => Kind::Join,
            Self::Login { .. } => Kind::Login,
        }
    }

    /// Whom its bearer becomes.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match self {
            Self::Join { host, .. } => Identity::Host(host.clone()),
            Self::Login { user, .. } => Identity::User(user.clone()),
        }
    }
}

/// A token just made; its text is not kept anywhere.
#[derive(Debug)]
pub struct NewToken {
    /// What the bearer shows.
    pub text: SecretString,
    /// Until when it can be used.
    pub expires_at: Timestamp,
}

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all, or cut off.
    #[error("malformed token")]
    Malformed,
    /// A login token to join with, or the other way round.
    #[error("this is not a {} token", .expected.as_str())]
    WrongKind {
        /// What it should be.
        expected: Kind,
    },
    /// Another controller's, long gone, or made up.
    #[error("unknown token")]
    Unknown,
    /// It was used before.
    #[error("token was used already, at {at}")]
    Used {
        /// When.
        at: Timestamp,
    },
    /// Its time is over.
    #[error("token expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// Asked for one that is valid for longer than 30 days, or not at all.
    #[error("a token is valid for 1 second to 30 days")]
    BadValidity,
    /// A stored token cannot be read.
    #[error("stored token is damaged: {0}")]
    Damaged(String),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] WrapError),
    /// The store failed.
    #[error("could not reach the store")]
    Store(#[from] StoreError),
}

impl TokenError {
    /// Whether it is the bearer's fault, who is then to be told and logged.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Malformed
            | Self::WrongKind { .. }
            | Self::Unknown
            | Self::Used { .. }
            | Self::Expired { .. }
            | Self::BadValidity => true,
            Self::Damaged(_) | Self::Random(_) | Self::Store(_) => false,
        }
    }
}

/// The stored form. Times are seconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    v: u32,
    grant: Grant,
    /// SHA-256 of the secret, hexadecimal. The secret has 256 random bits: no salt, no slow hash.
    secret_sha256: String,
    created_at_s: i64,
    expires_at_s: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_at_s: Option<i64>,
}

/// The tokens of this controller.
#[derive(Clone)]
pub struct Tokens {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    pin: [u8; 32],
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// A token that was found good and is not used yet.
#[derive(Debug)]
pub struct Presented {
    grant: Grant,
    entry: Entry,
    used: Vec<u8>,
    now: Timestamp,
}

impl Presented {
    /// What it grants.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Adds using it up to a transaction, so that what it is used for and its end happen together:
    /// a transaction that does not succeed means that somebody else used it first.
    #[must_use]
    pub fn spend(&self, txn: Txn) -> Txn {
        txn.when(Compare::unchanged(&self.entry))
            .then(Op::put(self.entry.key.clone(), self.used.clone()))
    }

    /// What to say when the transaction did not succeed.
    #[must_use]
    pub fn used(&self) -> TokenError {
        TokenError::Used { at: self.now }
    }
}

impl Tokens {
    /// The tokens of the controller that has `ca`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ca: &Ca) -> Self {
        Self { store, clock, pin: *ca.pin() }
    }

    /// Makes a token that can be used once within `valid_for`.
    ///
    /// # Errors
    ///
    /// [`TokenError::BadValidity`]; others are ours.
    pub async fn create(&self, grant: Grant, valid_for: Duration) -> Result<NewToken, TokenError> {
        if valid_for < Duration::from_secs(1) || valid_for > MAX_VALIDITY {
            return Err(TokenError::BadValidity);
        }
        let (id, secret) = (hex::encode(*wrap::random::<8>()?), wrap::random::<32>()?);
        let now = self.clock.now();
        let expires_at = now.checked_add(valid_for).unwrap_or(Timestamp::MAX);
        let kind = grant.kind();
        let record = Record {
            v: 1,
            grant,
            secret_sha256: hex::encode(Sha256::digest(*secret)),
            created_at_s: now.as_second(),
            expires_at_s: expires_at.as_second(),
            used_at_s: None,
        };
        self.store.put(format!("{PREFIX}{id}"), json(&record)?).await?;
        let secret = Zeroizing::new(BASE64.encode(*secret));
        let pin = BASE64.encode(self.pin);
        let text = format!("{FORMAT}.{}.{id}.{}.{pin}", kind.as_str(), *secret);
        Ok(NewToken { text: text.into(), expires_at })
    }

    /// Checks a token that somebody shows. It can be used until [`Presented::spend`] is committed.
    ///
    /// # Errors
    ///
    /// [`TokenError`]; [`TokenError::is_refusal`] tells whose fault it is.
    pub async fn check(
        &self,
        text: &SecretString,
        expected: Kind,
    ) -> Result<Presented, TokenError> {
        let shown = Shown::parse(text.expose_secret()).ok_or(TokenError::Malformed)?;
        if shown.kind != expected.as_str() {
            return Err(TokenError::WrongKind { expected });
        }
        let entry = self.store.get(format!("{PREFIX}{}", shown.id).into()).await?;
        let entry = entry.ok_or(TokenError::Unknown)?;
        let mut record = parse(&entry.value)?;
        // Comparing hashes in variable time tells nothing about the secret behind them.
        if hex::encode(Sha256::digest(*shown.secret)) != record.secret_sha256 {
            return Err(TokenError::Unknown);
        }
        if record.grant.kind() != expected {
            return Err(TokenError::WrongKind { expected });
        }
        let now = self.clock.now();
        if let Some(at) = record.used_at_s {
            return Err(TokenError::Used { at: timestamp(at) });
        }
        if now.as_second() >= record.expires_at_s {
            return Err(TokenError::Expired { at: timestamp(record.expires_at_s) });
        }
        record.used_at_s = Some(now.as_second());
        let used = json(&record)?;
        Ok(Presented { grant: record.grant, entry, used, now })
    }

    /// Checks a token and uses it up.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub async fn consume(&self, text: &SecretString, expected: Kind) -> Result<Grant, TokenError> {
        let presented = self.check(text, expected).await?;
        if self.store.txn(presented.spend(Txn::new())).await?.succeeded {
            return Ok(presented.grant);
        }
        Err(presented.used())
    }

    /// Forgets tokens that expired a week ago; returns how many.
    ///
    /// # Errors
    ///
    /// [`TokenError::Store`].
    pub async fn sweep(&self) -> Result<usize, TokenError> {
        let now = self.clock.now();
        let mut swept = 0;
        for entry in self.store.read_all(PREFIX).await?.entries {
            // One that cannot be read can never be used either.
            let over = parse(&entry.value).map_or(true, |record| {
                timestamp(record.expires_at_s)
                    .checked_add(KEPT_AFTER_EXPIRY)
                    .is_ok_and(|end| end <= now)
            });
            if over {
                swept += usize::from(self.store.delete(entry.key).await?);
            }
        }
        Ok(swept)
    }
}

/// A token's text, taken apart.
struct Shown<'a> {
    kind: &'a str,
    id: &'a str,
    secret: Zeroizing<[u8; 32]>,
}

impl<'a> Shown<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let mut part = || parts.next();
        let (format, kind, id, secret, pin) = (part()?, part()?, part()?, part()?, part()?);
        if format != FORMAT || part().is_some() {
            return None;
        }
        let plain = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut bytes = Zeroizing::new([0; 32]);
        // The pin is for the bearer. Checked for its form only, so that a cut-off token is noticed.
        let pin_len = BASE64.decode(pin).ok()?.len();
        let secret = Zeroizing::new(BASE64.decode(secret).ok()?);
        if !plain || pin_len != 32 || secret.len() != 32 {
            return None;
        }
        bytes.copy_from_slice(&secret);
        Some(Self { kind, id, secret: bytes })
    }
}

fn json(record: &Record) -> Result<Vec<u8>, TokenError> {
    serde_json::to_vec(record).map_err(|error| TokenError::Damaged(error.to_string()))
}

fn parse(value: &[u8]) -> Result<Record, TokenError> {
    let record: Record =
        serde_json::from_slice(value).map_err(|error| TokenError::Damaged(error.to_string()))?;
    if record.v == 1 {
        return Ok(record);
    }
    Err(TokenError::Damaged(format!("unknown format {}", record.v)))
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
