//! `ControlService`: what people and CI ask.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dhow_proto::model::error::{At as _, FieldError, each};
use dhow_proto::model::{App, BlobRef, HostName, PROTOCOL};
use dhow_proto::wire;
use dhow_proto::wire::control_service_server::ControlService;
use futures_util::Stream;
use secrecy::ExposeSecret as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::audit::Audit;
use super::authorise::{Authoriser, Granted, role_from_wire, role_to_wire};
use super::{code, deploy, query};
use crate::blob::Blobs;
use crate::ca::{Grant, Identity, Revocations, Tokens, UserName};
use crate::gateway::Fleet;
use crate::host::Hosts;
use crate::rollout::Rollouts;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Validity of a token where the request names none.
const TOKEN_VALIDITY: Duration = Duration::from_secs(3600);
/// Most hosts or blobs named in one request.
const MAX_NAMES: usize = 20_000;

/// Serves people.
#[derive(Clone)]
pub struct ControlApi {
    /// Who may.
    pub authoriser: Authoriser,
    /// What was done.
    pub audit: Audit,
    /// Enrolled hosts.
    pub hosts: Hosts,
    /// The fleet now.
    pub fleet: Fleet,
    /// Blobs.
    pub blobs: Blobs,
    /// One-time tokens.
    pub tokens: Tokens,
    /// Revoked certificates.
    pub revocations: Arc<Revocations>,
    /// Rollouts.
    pub rollouts: Rollouts,
    /// Tells requests to hosts apart.
    pub requests: Arc<AtomicU64>,
}
fn invalid<T>(result: Result<T, FieldError>) -> Result<T, Status> {
    result.map_err(|e| Status::invalid_argument(e.to_string()))
}
fn app(app: Option<wire::AppRef>) -> Result<App, Status> {
    invalid(app.ok_or_else(|| FieldError::missing("app")).and_then(|a| App::try_from(a).at("app")))
}
fn validity(asked: Option<prost_types::Duration>) -> Result<Duration, Status> {
    match asked {
        None => Ok(TOKEN_VALIDITY),
        Some(span) => {
            invalid(Duration::try_from(span).map_err(|e| FieldError::new("valid_for", e)))
        }
    }
}

impl ControlApi {
    async fn record(
        &self,
        granted: &Granted,
        app: Option<&App>,
        what: String,
        result: Result<(), String>,
    ) {
        self.audit.record(granted.user.name.as_str(), &granted.remote, app, what, result).await;
    }
}

#[tonic::async_trait]
impl ControlService for ControlApi {
    type DeployStream = BoxStream<wire::DeployResponse>;
    type WatchRolloutStream = BoxStream<wire::WatchRolloutResponse>;
    type QueryStream = BoxStream<wire::QueryResponse>;

    async fn version(
        &self,
        request: Request<wire::VersionRequest>,
    ) -> Result<Response<wire::VersionResponse>, Status> {
        let granted = self.authoriser.grant("Version", &request).await?;
        Ok(Response::new(wire::VersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_min: *PROTOCOL.start(),
            protocol_max: *PROTOCOL.end(),
            user: granted.user.name.to_string(),
            role: role_to_wire(granted.user.role).into(),
        }))
    }

    async fn list_hosts(
        &self,
        request: Request<wire::ListHostsRequest>,
    ) -> Result<Response<wire::ListHostsResponse>, Status> {
        self.authoriser.grant("ListHosts", &request).await?;
        let records = self.hosts.list().await.map_err(|e| code::host(&e))?;
        let hosts = records
            .into_iter()
            .map(|record| {
                let online = self.fleet.online(&record.name);
                wire::HostSummary {
                    online: online.is_some(),
                    last_seen: self.fleet.last_seen(&record.name).map(Into::into),
                    agent_version: online
                        .as_ref()
                        .map(|o| o.agent_version.clone())
                        .unwrap_or_default(),
                    engine: online.and_then(|o| o.engine),
                    enrolled_at: Some(code::stamp(record.enrolled_at)),
                    certificate_expires_at: Some(code::stamp(record.expires_at)),
                    revoked: record.revoked,
                    host_key_id: dhow_proto::seal::host_key_id(&record.host_key_bytes())
                        .to_vec()
                        .into(),
                    aliases: record.aliases.iter().map(ToString::to_string).collect(),
                    name: record.name.to_string(),
                }
            })
            .collect();
        Ok(Response::new(wire::ListHostsResponse { hosts }))
    }

    async fn create_host_token(
        &self,
        request: Request<wire::CreateHostTokenRequest>,
    ) -> Result<Response<wire::CreateHostTokenResponse>, Status> {
        let granted = self.authoriser.grant("CreateHostToken", &request).await?;
        let request = request.into_inner();
        let host = invalid(HostName::try_from(request.host).at("host"))?;
        let known = self.hosts.get(&host).await.map_err(|e| code::host(&e))?;
        if known.is_some_and(|r| !r.revoked) && !request.reenrol {
            let hint = format!("host {host} is enrolled already; add --reenrol to enrol it anew");
            return Err(Status::already_exists(hint));
        }
        let grant = Grant::Join { host: host.clone(), reenrol: request.reenrol };
        let token = self
            .tokens
            .create(grant, validity(request.valid_for)?)
            .await
            .map_err(|e| code::token(&e))?;
        self.record(&granted, None, format!("made a join token for host {host}"), Ok(())).await;
        Ok(Response::new(wire::CreateHostTokenResponse {
            token: token.text.expose_secret().to_owned(),
            expires_at: Some(code::stamp(token.expires_at)),
        }))
    }

    async fn revoke_host(
        &self,
        request: Request<wire::RevokeHostRequest>,
    ) -> Result<Response<wire::RevokeHostResponse>, Status> {
        let granted = self.authoriser.grant("RevokeHost", &request).await?;
        let host = invalid(HostName::try_from(request.into_inner().host).at("host"))?;
        self.hosts
            .update(&host, |record| record.revoked = true)
            .await
            .map_err(|e| code::host(&e))?;
        let identity = Identity::Host(host.clone());
        self.revocations.revoke_identity(&identity).await.map_err(|e| code::store(&e))?;
        self.record(&granted, None, format!("revoked host {host}"), Ok(())).await;
        Ok(Response::new(wire::RevokeHostResponse {}))
    }

    async fn create_user_token(
        &self,
        request: Request<wire::CreateUserTokenRequest>,
    ) -> Result<Response<wire::CreateUserTokenResponse>, Status> {
        let granted = self.authoriser.grant("CreateUserToken", &request).await?;
        let request = request.into_inner();
        let user = UserName::try_from(request.user)
            .map_err(|e| Status::invalid_argument(format!("user: {e}")))?;
        let role = role_from_wire(request.role)
            .ok_or_else(|| Status::invalid_argument("role: is missing"))?;
        let apps = invalid(each(request.apps, "apps", App::try_from))?;
        let grant = Grant::Login { user: user.clone(), role, apps };
        let token = self
            .tokens
            .create(grant, validity(request.valid_for)?)
            .await
            .map_err(|e| code::token(&e))?;
        self.record(&granted, None, format!("made a login token for user {user}"), Ok(())).await;
        Ok(Response::new(wire::CreateUserTokenResponse {
            token: token.text.expose_secret().to_owned(),
            expires_at: Some(code::stamp(token.expires_at)),
        }))
    }

    async fn list_users(
        &self,
        request: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersResponse>, Status> {
        self.authoriser.grant("ListUsers", &request).await?;
        let users = self.authoriser.users().await.map_err(|e| code::store(&e))?;
        let users = users
            .into_iter()
            .map(|user| wire::UserSummary {
                name: user.name.to_string(),
                role: role_to_wire(user.role).into(),
                apps: user.apps.iter().map(Into::into).collect(),
                certificate_expires_at: user.expires_at.map(code::stamp),
                revoked: user.revoked,
            })
            .collect();
        Ok(Response::new(wire::ListUsersResponse { users }))
    }

    async fn revoke_user(
        &self,
        request: Request<wire::RevokeUserRequest>,
    ) -> Result<Response<wire::RevokeUserResponse>, Status> {
        let granted = self.authoriser.grant("RevokeUser", &request).await?;
        let name = request.into_inner().user;
        let user =
            UserName::try_from(name).map_err(|e| Status::invalid_argument(format!("user: {e}")))?;
        let Some(mut record) = self.authoriser.user(&user).await.map_err(|e| code::store(&e))?
        else {
            return Err(Status::not_found(format!("user {user} is not known here")));
        };
        record.revoked = true;
        self.authoriser.put(&record).await.map_err(|e| code::store(&e))?;
        let identity = Identity::User(user.clone());
        self.revocations.revoke_identity(&identity).await.map_err(|e| code::store(&e))?;
        self.record(&granted, None, format!("revoked user {user}"), Ok(())).await;
        Ok(Response::new(wire::RevokeUserResponse {}))
    }

    async fn host_keys(
        &self,
        request: Request<wire::HostKeysRequest>,
    ) -> Result<Response<wire::HostKeysResponse>, Status> {
        self.authoriser.grant("HostKeys", &request).await?;
        let request = request.into_inner();
        if request.hosts.len() > MAX_NAMES {
            return Err(Status::invalid_argument("hosts: too many"));
        }
        let names = invalid(each(request.hosts, "hosts", HostName::try_from))?;
        let mut keys = Vec::with_capacity(names.len());
        let mut unknown = Vec::new();
        for name in names {
            match self.hosts.resolve(&name).await.map_err(|e| code::host(&e))? {
                Some(record) if !record.revoked => keys.push(wire::HostKey {
                    config_host: name.to_string(),
                    public_key: record.host_key_bytes().into(),
                    online: self.fleet.online(&record.name).is_some(),
                    host: record.name.to_string(),
                }),
                Some(_) | None => unknown.push(name.to_string()),
            }
        }
        if !unknown.is_empty() {
            let first = &unknown[0];
            return Err(Status::not_found(format!(
                "not enrolled: {}. Make a token with `dhow host token {first}` and run `dhow-agent join` on the host",
                unknown.join(", ")
            )));
        }
        Ok(Response::new(wire::HostKeysResponse { keys }))
    }

    async fn missing_blobs(
        &self,
        request: Request<wire::MissingBlobsRequest>,
    ) -> Result<Response<wire::MissingBlobsResponse>, Status> {
        self.authoriser.grant("MissingBlobs", &request).await?;
        let request = request.into_inner();
        if request.blobs.len() > MAX_NAMES {
            return Err(Status::invalid_argument("blobs: too many"));
        }
        let mut missing = Vec::new();
        for blob in invalid(each(request.blobs, "blobs", BlobRef::try_from))? {
            if !self.blobs.has(blob.digest).await.map_err(|e| code::blob(&e))? {
                missing.push(blob.into());
            }
        }
        Ok(Response::new(wire::MissingBlobsResponse { missing }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadRequest>>,
    ) -> Result<Response<wire::UploadResponse>, Status> {
        self.authoriser.grant("Upload", &request).await?;
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|m| m.message);
        let Some(wire::upload_request::Message::Blob(blob)) = first else {
            return Err(Status::invalid_argument(
                "the first message of an upload must name the blob",
            ));
        };
        let blob = invalid(BlobRef::try_from(blob).at("blob"))?;
        let mut upload = self.blobs.upload(blob.digest).await.map_err(|e| code::blob(&e))?;
        while let Some(message) = inbound.message().await? {
            match message.message {
                Some(wire::upload_request::Message::Data(data)) => {
                    upload = upload.write(data).await.map_err(|e| code::blob(&e))?;
                }
                Some(wire::upload_request::Message::Blob(_)) | None => {
                    return Err(Status::invalid_argument("one upload, one blob"));
                }
            }
        }
        upload.finish().await.map_err(|e| code::blob(&e))?;
        Ok(Response::new(wire::UploadResponse {}))
    }

    async fn deploy(
        &self,
        request: Request<Streaming<wire::DeployRequest>>,
    ) -> Result<Response<Self::DeployStream>, Status> {
        let granted = self.authoriser.grant("Deploy", &request).await?;
        let stream =
            deploy::serve(&self.rollouts, &self.audit, granted, request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_rollouts(
        &self,
        request: Request<wire::ListRolloutsRequest>,
    ) -> Result<Response<wire::ListRolloutsResponse>, Status> {
        let granted = self.authoriser.grant("ListRollouts", &request).await?;
        let request = request.into_inner();
        let app = app(request.app)?;
        granted.on(&app)?;
        let limit = if request.limit == 0 { 20 } else { request.limit.min(1000) };
        let rollouts =
            self.rollouts.list(&app, limit as usize).await.map_err(|e| code::rollout(&e))?;
        Ok(Response::new(wire::ListRolloutsResponse { rollouts }))
    }

    async fn get_rollout(
        &self,
        request: Request<wire::GetRolloutRequest>,
    ) -> Result<Response<wire::GetRolloutResponse>, Status> {
        let granted = self.authoriser.grant("GetRollout", &request).await?;
        let found =
            self.rollouts.get(&request.into_inner().id).await.map_err(|e| code::rollout(&e))?;
        granted.on(&app(found.rollout.as_ref().and_then(|r| r.app.clone()))?)?;
        Ok(Response::new(found))
    }

    async fn watch_rollout(
        &self,
        request: Request<wire::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let granted = self.authoriser.grant("WatchRollout", &request).await?;
        let request = request.into_inner();
        let found = self.rollouts.get(&request.id).await.map_err(|e| code::rollout(&e))?;
        let summary = found.rollout.unwrap_or_default();
        granted.on(&app(summary.app)?)?;
        let stream = deploy::watch(&self.rollouts, &summary.id, request.after_sequence).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let granted = self.authoriser.grant("Status", &request).await?;
        let app = app(request.into_inner().app)?;
        granted.on(&app)?;
        let status = self.rollouts.status(&app).await.map_err(|e| code::rollout(&e))?;
        Ok(Response::new(status))
    }

    async fn query(
        &self,
        request: Request<wire::QueryRequest>,
    ) -> Result<Response<Self::QueryStream>, Status> {
        let granted = self.authoriser.grant("Query", &request).await?;
        let request = request.into_inner();
        let app = app(request.app.clone())?;
        granted.on(&app)?;
        let (hosts, deadline, put) = query::parse(request, &app)?;
        let id = format!("q{}", self.requests.fetch_add(1, Ordering::Relaxed));
        let answers = query::ask(&self.fleet, &self.hosts, hosts, deadline, &put, &id);
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn list_audit(
        &self,
        request: Request<wire::ListAuditRequest>,
    ) -> Result<Response<wire::ListAuditResponse>, Status> {
        self.authoriser.grant("ListAudit", &request).await?;
        let request = request.into_inner();
        let about = request.app.map(|a| app(Some(a))).transpose()?;
        let limit = if request.limit == 0 { 50 } else { request.limit.min(10_000) };
        let records =
            self.audit.newest(about.as_ref(), limit as usize).await.map_err(|e| code::store(&e))?;
        Ok(Response::new(wire::ListAuditResponse {
            records: records.iter().map(Into::into).collect(),
        }))
    }
}
