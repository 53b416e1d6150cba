//! `EnrolmentService`: a token becomes a certificate; a certificate is renewed.

use std::sync::Arc;

use dhow_proto::model::HostName;
use dhow_proto::model::error::At as _;
use dhow_proto::wire;
use dhow_proto::wire::enrolment_service_server::EnrolmentService;
use secrecy::SecretString;
use tonic::{Request, Response, Status};

use super::audit::Audit;
use super::authorise::{UserRecord, user_op};
use super::{caller, code};
use crate::ca::{Ca, Grant, Identity, Issued, Kind, Revocations, TokenError, Tokens};
use crate::clock::Clock;
use crate::host::{HostRecord, Hosts};
use crate::store::{Store, Txn};

/// X25519 public keys have this many bytes.
const HOST_KEY: usize = 32;
/// More aliases than any host has.
const MAX_ALIASES: usize = 16;

/// Enrols hosts and people.
#[derive(Clone)]
pub struct EnrolmentApi {
    /// Records.
    pub store: Arc<dyn Store>,
    /// Issues certificates.
    pub ca: Arc<Ca>,
    /// One-time tokens.
    pub tokens: Tokens,
    /// Looked at before a renewal.
    pub revocations: Arc<Revocations>,
    /// Time of enrolment.
    pub clock: Arc<dyn Clock>,
    /// Every enrolment is recorded.
    pub audit: Audit,
    /// Addresses told to agents and clients.
    pub addresses: Vec<String>,
}

impl EnrolmentApi {
    fn ca_set(&self) -> Vec<bytes::Bytes> {
        self.ca.ca_set().der().into_iter().map(Into::into).collect()
    }

    async fn issue(&self, identity: &Identity, csr_der: &[u8]) -> Result<Issued, Status> {
        self.ca.issue(identity, csr_der).await.map_err(|e| code::issue(&e))
    }

    fn refused(error: &TokenError, remote: &str) -> Status {
        tracing::warn!(remote, reason = %error, "a token was refused");
        code::token(error)
    }

    /// Commits what an enrolment writes together with the use of its token.
    async fn commit(&self, txn: Txn, used: TokenError, remote: &str) -> Result<(), Status> {
        match self.store.txn(txn).await {
            Ok(outcome) if outcome.succeeded => Ok(()),
            Ok(_) => Err(Self::refused(&used, remote)),
            Err(error) => Err(code::store(&error)),
        }
    }
}

#[tonic::async_trait]
impl EnrolmentService for EnrolmentApi {
    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        let remote = caller::remote(&request);
        let request = request.into_inner();
        let token = SecretString::from(request.token);
        let presented =
            self.tokens.check(&token, Kind::Join).await.map_err(|e| Self::refused(&e, &remote))?;
        let Grant::Join { host, reenrol } = presented.grant().clone() else {
            return Err(Self::refused(&TokenError::WrongKind { expected: Kind::Join }, &remote));
        };
        let claimed = HostName::try_from(request.host)
            .at("host")
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        if claimed != host {
            tracing::warn!(remote, host.name = %host, claimed = %claimed, "a join token was used for another host");
            return Err(Status::permission_denied(format!(
                "the token is for host {host}, not for {claimed}"
            )));
        }
        if request.host_key.len() != HOST_KEY {
            return Err(Status::invalid_argument("host_key: must have 32 bytes"));
        }
        if request.aliases.len() > MAX_ALIASES {
            return Err(Status::invalid_argument("aliases: too many"));
        }
        let aliases =
            request.aliases.into_iter().map(HostName::try_from).collect::<Result<Vec<_>, _>>();
        let aliases = aliases.at("aliases").map_err(|e| Status::invalid_argument(e.to_string()))?;
        let issued = self.issue(&Identity::Host(host.clone()), &request.csr_der).await?;
        let record = HostRecord {
            v: 1,
            name: host.clone(),
            aliases,
            host_key: hex::encode(&request.host_key),
            enrolled_at: self.clock.now(),
            serial: issued.serial.to_string(),
            expires_at: issued.not_after,
            revoked: false,
        };
        let txn = Hosts::new(self.store.clone())
            .enrol_txn(&record, reenrol)
            .await
            .map_err(|e| code::host(&e))?;
        self.commit(presented.spend(txn), presented.used(), &remote).await?;
        self.audit
            .record(host.as_str(), &remote, None, format!("host {host} joined"), Ok(()))
            .await;
        Ok(Response::new(wire::JoinResponse {
            certificate_der: issued.certificate_der.into(),
            ca_set: self.ca_set(),
            controller_addresses: self.addresses.clone(),
        }))
    }

    async fn login(
        &self,
        request: Request<wire::LoginRequest>,
    ) -> Result<Response<wire::LoginResponse>, Status> {
        let remote = caller::remote(&request);
        let request = request.into_inner();
        let token = SecretString::from(request.token);
        let presented =
            self.tokens.check(&token, Kind::Login).await.map_err(|e| Self::refused(&e, &remote))?;
        let Grant::Login { user, role, apps } = presented.grant().clone() else {
            return Err(Self::refused(&TokenError::WrongKind { expected: Kind::Login }, &remote));
        };
        let issued = self.issue(&Identity::User(user.clone()), &request.csr_der).await?;
        let record = UserRecord {
            v: 1,
            name: user.clone(),
            role,
            apps: apps.into_iter().collect(),
            revoked: false,
            expires_at: Some(issued.not_after),
        };
        let txn = presented.spend(Txn::new().then(user_op(&record)));
        self.commit(txn, presented.used(), &remote).await?;
        self.audit
            .record(user.as_str(), &remote, None, format!("user {user} logged in"), Ok(()))
            .await;
        Ok(Response::new(wire::LoginResponse {
            certificate_der: issued.certificate_der.into(),
            ca_set: self.ca_set(),
            user: user.to_string(),
            controller_addresses: self.addresses.clone(),
        }))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        let caller = caller::caller(&request)?;
        if let Err(revoked) = self.revocations.check(&caller.peer) {
            tracing::warn!(identity = %caller.peer.identity, remote = %caller.remote, reason = %revoked, "a renewal was refused");
            return Err(Status::permission_denied(revoked.to_string()));
        }
        let issued = self.issue(&caller.peer.identity, &request.into_inner().csr_der).await?;
        if let Identity::Host(host) = &caller.peer.identity {
            let (serial, expires_at) = (issued.serial.to_string(), issued.not_after);
            let update = |record: &mut HostRecord| {
                record.serial = serial;
                record.expires_at = expires_at;
            };
            Hosts::new(self.store.clone())
                .update(host, update)
                .await
                .map_err(|e| code::host(&e))?;
        }
        Ok(Response::new(wire::RenewResponse {
            certificate_der: issued.certificate_der.into(),
            ca_set: self.ca_set(),
        }))
    }
}
