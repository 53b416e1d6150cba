//! Renews the certificate on the running connection, before two thirds of its life are over.

use std::time::{Duration, SystemTime};

use dhow_proto::wire;
use tonic::transport::Channel;
use wire::enrolment_service_client::EnrolmentServiceClient;

use super::enrol::key_and_request;
use super::identity::{IdentityError, Stored};

const ANSWER: Duration = Duration::from_secs(20);

/// Why the certificate was not renewed. The old one stays in use; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    #[error("could not make a key")]
    Key(#[from] rcgen::Error),
    #[error("the controller refused")]
    Refused(#[source] Box<tonic::Status>),
    #[error("no answer within {ANSWER:?}")]
    TimedOut,
    #[error("the new certificate cannot be used")]
    Unusable(#[from] dhow_proto::dial::DialError),
    #[error(transparent)]
    Store(#[from] IdentityError),
}

/// True where a renewal is due: at half of the certificate's life, so that two thirds leave room for trying again.
pub(super) fn is_due(stored: &Stored, now: SystemTime) -> bool {
    let Some((from, until)) = stored.validity() else { return true };
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    now >= from + (until - from) / 2
}

/// Asks for a certificate with a fresh key.
pub(super) async fn renew(stored: &Stored, channel: Channel) -> Result<Stored, RenewError> {
    let (key_der, csr_der) = key_and_request()?;
    let request = wire::RenewRequest { csr_der: csr_der.into() };
    let answer = tokio::time::timeout(ANSWER, EnrolmentServiceClient::new(channel).renew(request))
        .await
        .map_err(|_| RenewError::TimedOut)?
        .map_err(|status| RenewError::Refused(Box::new(status)))?
        .into_inner();
    let mut renewed = stored.clone();
    renewed.certificate_der = answer.certificate_der.to_vec();
    renewed.key_der = key_der;
    if !answer.ca_set.is_empty() {
        renewed.ca_set = answer.ca_set.iter().map(|ca| ca.to_vec()).collect();
    }
    Ok(renewed)
}
