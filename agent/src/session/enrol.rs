//! Joins: a token and a fresh key for a certificate. The first connection is pinned by the CA hash in the token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::dial::{Address, DialError, Dialer, Identity, spki_sha256, token_pin};
use dhow_proto::model::HostName;
use dhow_proto::seal::{HostKey, SealError};
use dhow_proto::wire;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use wire::enrolment_service_client::EnrolmentServiceClient;
use zeroize::Zeroizing;

use super::identity::{IdentityError, Stored};

/// Longest wait for the controller's answer: it signs and syncs.
const ANSWER: Duration = Duration::from_secs(20);

/// A join token; wiped when dropped, never printed.
pub struct Token(Zeroizing<String>);

impl Token {
    /// White space around the token is dropped: it comes from a file.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What joining needs.
#[derive(Debug)]
pub struct Join {
    /// Tried in this order.
    pub controllers: Vec<Address>,
    /// The token.
    pub token: Token,
    /// The name the token was made for.
    pub host: HostName,
    /// Other names configs may use for this host.
    pub aliases: Vec<HostName>,
}

/// Why the host did not join. The token may have been consumed where the controller answered.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Not `dhow1.…`.
    #[error("this is no join token: it begins with `dhow1.join.` and has five parts")]
    MalformedToken,
    /// No controller was named.
    #[error("no controller was given")]
    NoController,
    /// The last address's.
    #[error("no controller could be reached that the token was made by")]
    Dial(#[source] DialError),
    /// No key.
    #[error("could not make a key")]
    Key(#[from] rcgen::Error),
    /// No host key.
    #[error("could not make a host key")]
    HostKey(#[from] SealError),
    /// The controller said no.
    #[error("the controller refused: {0}")]
    Refused(String),
    /// No answer.
    #[error("the controller did not answer within {ANSWER:?}")]
    TimedOut,
    /// An answer that cannot be used.
    #[error("the controller's answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// Could not be kept.
    #[error(transparent)]
    Store(#[from] IdentityError),
}

/// A key and a request for a certificate. The request's names do not matter: identity comes from the token, or from
/// the certificate that is renewed.
pub(super) fn key_and_request() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?;
    Ok((Zeroizing::new(key.serialize_der()), csr.der().to_vec()))
}

/// Joins and keeps the identity in `state_dir`. Replaces one that is there only when the controller has agreed.
///
/// # Errors
///
/// [`JoinError`].
pub async fn join(join: &Join, state_dir: &Path) -> Result<Stored, JoinError> {
    let pin = token_pin(&join.token.0).ok_or(JoinError::MalformedToken)?;
    let dialer = Dialer::pinned(pin).map_err(JoinError::Dial)?;
    let mut last = JoinError::NoController;
    for address in &join.controllers {
        match dialer.connect(address).await {
            Ok(channel) => {
                let stored = ask(join, address, &pin, channel).await?;
                stored.save(state_dir)?;
                return Ok(stored);
            }
            Err(error) => last = JoinError::Dial(error),
        }
    }
    Err(last)
}

async fn ask(
    join: &Join,
    address: &Address,
    pin: &[u8; 32],
    channel: tonic::transport::Channel,
) -> Result<Stored, JoinError> {
    let (key_der, csr_der) = key_and_request()?;
    let host_key = HostKey::generate()?;
    let request = wire::JoinRequest {
        token: join.token.0.to_string(),
        host: join.host.to_string(),
        csr_der: csr_der.into(),
        host_key: host_key.public_bytes().to_vec().into(),
        aliases: join.aliases.iter().map(ToString::to_string).collect(),
    };
    let answer = tokio::time::timeout(ANSWER, EnrolmentServiceClient::new(channel).join(request))
        .await
        .map_err(|_| JoinError::TimedOut)?
        .map_err(|status| JoinError::Refused(status.message().to_owned()))?
        .into_inner();
    let ca_set: Vec<Vec<u8>> = answer.ca_set.iter().map(|ca| ca.to_vec()).collect();
    if !ca_set.iter().any(|ca| spki_sha256(ca) == Some(*pin)) {
        return Err(JoinError::BadAnswer("its CA set lacks the CA of the token"));
    }
    let stored = Stored {
        host: join.host.clone(),
        controllers: with_address(address, &answer.controller_addresses),
        certificate_der: answer.certificate_der.to_vec(),
        key_der,
        ca_set,
        host_key: Arc::new(host_key),
    };
    check(&stored).map_err(|_| JoinError::BadAnswer("its certificate does not fit the key"))?;
    Ok(stored)
}

/// The key fits the certificate and the CA set can be read.
fn check(stored: &Stored) -> Result<(), DialError> {
    Dialer::enrolled(
        &Identity::from_der(&stored.certificate_der, &stored.key_der)?,
        &stored.ca_set,
    )?;
    Ok(())
}

/// The address that is known to work comes first and stays, whatever the controller believes its addresses to be.
pub(super) fn with_address(known: &Address, told: &[String]) -> Vec<Address> {
    let mut addresses = vec![known.clone()];
    for address in told.iter().filter_map(|a| a.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}
