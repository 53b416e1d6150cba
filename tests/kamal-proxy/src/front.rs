//! What happens to a request between its arrival and a target.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::Entry;
use crate::body::{Count as _, ProxyBody, whole};
use crate::forward::{self, Failure};
use crate::headers;
use crate::options::Gate;
use crate::pages;
use crate::path;
use crate::router::{Route, Router, Tls};
use crate::service::{Passage, Service, Setup};

/// The cookie that says which client of a rollout this is.
const ROLLOUT_COOKIE: &str = "kamal-rollout";

/// How a connection came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inbound {
    pub(crate) scheme: Scheme,
    /// The proxy's port.
    pub(crate) port: u16,
    pub(crate) client: SocketAddr,
}

/// Plain or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// There is no answer: the client's connection is closed.
#[derive(Debug)]
pub(crate) struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer of the app broke off")
    }
}

impl std::error::Error for Aborted {}

/// Answers a request; every failure is an answer too, but for an answer that breaks off.
pub(crate) async fn answer(
    router: Arc<Router>,
    inbound: Inbound,
    mut request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Aborted> {
    if request.uri() == "*" && *request.method() == Method::OPTIONS {
        // About the server as a whole (RFC 9110, 9.3.7); Go's answers by itself.
        return Ok(Response::new(whole("")));
    }
    let Some(path) = path::decode(request.uri().path()) else { return Ok(malformed()) };
    let path = String::from_utf8_lossy(&path).into_owned();
    headers::add_request_id(request.headers_mut());
    let (given_host, host) = headers::host(&request);
    let mut entry = Entry::begin(
        &request,
        &given_host,
        &path,
        inbound.port,
        inbound.scheme.word(),
        inbound.client,
    );
    let Some(Route { service, prefix }) = router.route(&host, &path) else {
        return Ok(own_page(404, "", None, entry));
    };
    entry.set("service", &service.name);
    let setup = service.setup();
    let tls = router.tls(&setup);
    if inbound.scheme == Scheme::Https && !tls.enabled {
        return Ok(own_page(503, "", Some(&setup), entry));
    }
    if let Some(location) =
        redirect(tls, &setup.options.canonical_host, inbound.scheme, &host, &request)
    {
        return Ok(moved(&location, request.method(), entry));
    }
    if let Some(response) = held_back(&service, &setup, &request, &path, &mut entry).await {
        return Ok(log_whole(response, entry));
    }
    let cookie = headers::cookie(request.headers(), ROLLOUT_COOKIE);
    let Some(flight) = service.begin(cookie.as_deref()) else {
        return Ok(own_page(503, "", Some(&setup), entry));
    };
    let target = flight.target.clone();
    entry.set("target", &target.name);
    entry.set_headers("req", target.options.log_request_headers.as_ref(), request.headers());
    headers::add_forwarded(
        request.headers_mut(),
        inbound.client.ip(),
        &given_host,
        inbound.scheme.word(),
        target.options.forward_headers,
        &target.name,
    );
    let prefix = if setup.options.strip_prefix { prefix.as_str() } else { "/" };
    let path = headers::stripped(request.uri(), prefix);
    match forward::forward(request, &path, flight, entry).await {
        Ok(response) => Ok(response),
        // The real proxy of this version answers these in plain text, whatever pages there are.
        Err(Failure::Status { status: 413, entry }) => Ok(plain(413, "Request too large\n", entry)),
        Err(Failure::Status { status: 500, entry }) => {
            Ok(plain(500, headers::INTERNAL_ERROR, entry))
        }
        Err(Failure::Status { status, entry }) => Ok(own_page(status, "", Some(&setup), entry)),
        Err(Failure::Broken) => Err(Aborted),
    }
}

/// Where the client should go instead.
fn redirect(
    tls: Tls,
    canonical: &str,
    scheme: Scheme,
    host: &str,
    request: &Request<Incoming>,
) -> Option<String> {
    let to_https = scheme == Scheme::Http && tls.enabled && tls.redirect;
    let to_canonical = !canonical.is_empty() && canonical != host;
    if !to_https && !to_canonical {
        return None;
    }
    let scheme = if to_https { Scheme::Https } else { scheme };
    let host = if to_canonical { canonical } else { host };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    Some(format!("{}://{host}{path}", scheme.word()))
}

/// Waits while the service is paused; gives the answer if the request must not go on.
async fn held_back(
    service: &Service,
    setup: &Setup,
    request: &Request<Incoming>,
    path: &str,
    entry: &mut Entry,
) -> Option<Response<ProxyBody>> {
    // Compared as it was given, and before the prefix is taken off.
    let health_path = &setup.target_options.health_check_config.path;
    let checks = headers::only_reads(request.method()) && path == health_path;
    if checks && service.gate() != Gate::Running {
        // Whoever checks the proxy from outside must not see maintenance as a failure.
        return Some(Response::new(whole("")));
    }
    match service.pass().await {
        Passage::Open => None,
        Passage::TimedOut => Some(page(504, "", Some(setup), entry)),
        Passage::Stopped { message } => Some(page(503, &message, Some(setup), entry)),
    }
}

/// A page of the service's own, else a built-in one.
fn page(
    status: u16,
    message: &str,
    setup: Option<&Setup>,
    entry: &mut Entry,
) -> Response<ProxyBody> {
    let own = setup
        .and_then(|setup| setup.pages.as_ref())
        .and_then(|pages| pages.render(status, message));
    let body = own.unwrap_or_else(|| pages::built_in(status, message));
    entry.count(body.len());
    let mut response = Response::new(whole(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn own_page(
    status: u16,
    message: &str,
    setup: Option<&Setup>,
    mut entry: Entry,
) -> Response<ProxyBody> {
    let response = page(status, message, setup, &mut entry);
    log_whole(response, entry)
}

fn plain(status: u16, text: &'static str, mut entry: Entry) -> Response<ProxyBody> {
    entry.count(text.len());
    let mut response = Response::new(whole(text));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    headers::set_plain_text(response.headers_mut());
    log_whole(response, entry)
}

/// Go's server refuses what it cannot decode before any handler sees, or logs, it.
fn malformed() -> Response<ProxyBody> {
    let mut response = Response::new(whole("400 Bad Request"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A redirect, with a link for people whose client does not follow it.
fn moved(location: &str, method: &Method, mut entry: Entry) -> Response<ProxyBody> {
    let body = if *method == Method::GET {
        format!("<a href=\"{}\">Moved Permanently</a>.\n\n", pages::escape(location))
    } else {
        String::new()
    };
    entry.count(body.len());
    let mut response = Response::new(whole(body));
    if headers::only_reads(method) {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
    }
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    log_whole(response, entry)
}

fn log_whole(response: Response<ProxyBody>, mut entry: Entry) -> Response<ProxyBody> {
    entry.answered(&response);
    response
}
