//! Who calls: read from the connection, where TLS has verified the certificate. Never from a field.

use std::net::SocketAddr;

use dhow_proto::model::HostName;
use tonic::{Request, Status};

use crate::ca::{Identity, Peer, UserName};
use crate::transport::Connection;

/// A caller with a certificate.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the certificate says.
    pub peer: Peer,
    /// Where the call comes from.
    pub remote: SocketAddr,
}

fn connection<T>(request: &Request<T>) -> Option<&Connection> {
    request.extensions().get::<Connection>()
}

/// Where a call comes from, for the audit log.
pub fn remote<T>(request: &Request<T>) -> String {
    connection(request).map_or_else(|| "unknown".to_owned(), |c| c.remote.to_string())
}

/// The caller of any call but Join and Login.
///
/// # Errors
///
/// UNAUTHENTICATED without a certificate.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let found =
        connection(request).and_then(|c| Some(Caller { peer: c.peer.clone()?, remote: c.remote }));
    found.ok_or_else(|| {
        tracing::warn!(remote = %remote(request), "a call without client certificate was refused");
        Status::unauthenticated("a client certificate is needed")
    })
}

/// The host that calls.
///
/// # Errors
///
/// UNAUTHENTICATED without a certificate, PERMISSION_DENIED with a person's.
pub fn host<T>(request: &Request<T>) -> Result<(HostName, Caller), Status> {
    let caller = caller(request)?;
    match &caller.peer.identity {
        Identity::Host(host) => Ok((host.clone(), caller)),
        Identity::User(user) => {
            tracing::warn!(user = %user, remote = %caller.remote, "a user called a service for hosts");
            Err(Status::permission_denied(format!("{user} is a user; this is for hosts")))
        }
    }
}

/// The person that calls.
///
/// # Errors
///
/// UNAUTHENTICATED without a certificate, PERMISSION_DENIED with a host's.
pub fn user<T>(request: &Request<T>) -> Result<(UserName, Caller), Status> {
    let caller = caller(request)?;
    match &caller.peer.identity {
        Identity::User(user) => Ok((user.clone(), caller)),
        Identity::Host(host) => {
            tracing::warn!(host.name = %host, remote = %caller.remote, "a host called a service for people");
            Err(Status::permission_denied(format!("{host} is a host; this is for people")))
        }
    }
}
