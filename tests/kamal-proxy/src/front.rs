//! What happens to a request between its arrival and a target.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::Entry;
use crate::body::{Count as _, ProxyBody, whole};
use crate::forward::{self, Failure};
use crate::headers;
use crate::options::Gate;
use crate::pages;
use crate::router::{Route, Router};
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

/// Answers a request; every failure is an answer too.
pub(crate) async fn answer(
    router: Arc<Router>,
    inbound: Inbound,
    mut request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Infallible> {
    headers::add_request_id(request.headers_mut());
    let (given_host, host) = headers::host(&request);
    let mut entry =
        Entry::begin(&request, &host, inbound.port, inbound.scheme.word(), inbound.client);
    let Some(Route { service, prefix }) = router.route(&host, request.uri().path()) else {
        return Ok(own_page(404, "", None, entry));
    };
    entry.set("service", &service.name);
    let setup = service.setup();
    entry.set_headers("req", setup.target_options.log_request_headers.as_ref(), request.headers());
    // Prefixed services follow the TLS settings of the host's root service.
    let root = router.route(&host, "/").map(|root| root.service.setup());
    let tls = root.as_ref().unwrap_or(&setup);
    if inbound.scheme == Scheme::Https && !tls.options.tls_enabled {
        return Ok(own_page(503, "", Some(&setup), entry));
    }
    if let Some(location) =
        redirect(&tls.options, &setup.options.canonical_host, inbound.scheme, &host, &request)
    {
        return Ok(moved(&location, entry));
    }
    if let Some(response) = held_back(&service, &setup, &request, &mut entry).await {
        return Ok(log_whole(response, entry));
    }
    let cookie = headers::cookie(request.headers(), ROLLOUT_COOKIE);
    let Some(flight) = service.begin(cookie.as_deref()) else {
        return Ok(own_page(503, "", Some(&setup), entry));
    };
    let target = flight.target.clone();
    entry.set("target", &target.name);
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
        Err(Failure { status: 413, entry }) => Ok(too_large(entry)),
        Err(Failure { status, entry }) => Ok(own_page(status, "", Some(&setup), entry)),
    }
}

/// Where the client should go instead.
fn redirect(
    tls: &crate::options::ServiceOptions,
    canonical: &str,
    scheme: Scheme,
    host: &str,
    request: &Request<Incoming>,
) -> Option<String> {
    let to_https = scheme == Scheme::Http && tls.tls_enabled && tls.tls_redirect;
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
    entry: &mut Entry,
) -> Option<Response<ProxyBody>> {
    let health_path =
        format!("/{}", setup.target_options.health_check_config.path.trim_start_matches('/'));
    let checks = headers::only_reads(request.method()) && request.uri().path() == health_path;
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

/// The real proxy of this version answers this in plain text.
fn too_large(entry: Entry) -> Response<ProxyBody> {
    let mut response = Response::new(whole("Request too large\n"));
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    log_whole(response, entry)
}

fn moved(location: &str, entry: Entry) -> Response<ProxyBody> {
    let mut response = Response::new(whole(""));
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
