//! What each path answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Component;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, LOCATION, UPGRADE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::body::{AppBody, Source};
use crate::control::Open;
use crate::job::write_lines;
use crate::serve::{App, stopped};
use crate::websocket;

/// An answer before its version and guard are added; `None` means: close the connection instead.
type Answer = Option<Response<Source>>;

/// Closing the connection is an error to hyper; it is what was asked for.
#[derive(Debug)]
pub(crate) struct Disconnect;

impl std::fmt::Display for Disconnect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closing the connection as asked")
    }
}

impl std::error::Error for Disconnect {}

pub(crate) async fn answer(
    app: Arc<App>,
    request: Request<Incoming>,
) -> Result<Response<AppBody<Option<Open>>>, Disconnect> {
    let path = request.uri().path().to_owned();
    let aside = path == "/up" || path.starts_with("/control/");
    let guard = (!aside).then(|| app.control.begin());
    let line = app.settings.log_requests.then(|| format!("{} {}", request.method(), request.uri()));
    let mut response = route(&app, &path, request).await.ok_or(Disconnect)?;
    if let Some(line) = line {
        println!("{line} {}", response.status().as_u16());
    }
    if let Ok(version) = HeaderValue::from_str(&app.settings.version) {
        response.headers_mut().insert(HeaderName::from_static("x-version"), version);
    }
    Ok(response.map(|source| source.guarded(guard)))
}

async fn route(app: &Arc<App>, path: &str, request: Request<Incoming>) -> Answer {
    let query = Query::of(&request);
    if let Some(name) = path.strip_prefix("/env/") {
        return Some(env_digest(name));
    }
    if let Some(status) = path.strip_prefix("/status/") {
        return Some(status_page(status));
    }
    if let Some(file) = path.strip_prefix("/assets/") {
        return Some(asset(app, file).await);
    }
    match path {
        "/up" => Some(up(app, &request).await),
        "/headers" => Some(json_page(&headers(request.headers()))),
        "/env" => Some(env_names()),
        "/slow" => Some(slow(app, &query).await),
        "/echo" => echo(request).await,
        "/upload" => upload(request).await,
        "/download" => Some(download(&query)),
        "/events" => Some(events(app, &query)),
        "/socket" => Some(socket(app, request)),
        "/disconnect" => None,
        _ if path.starts_with("/control/") => Some(control(app, path, &query)),
        _ => Some(root(app, &request)),
    }
}

fn page(status: StatusCode, body: impl Into<Bytes>) -> Response<Source> {
    let mut response = Response::new(Source::whole(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json_page(value: &Value) -> Response<Source> {
    let mut response = page(StatusCode::OK, format!("{value}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn root(app: &App, request: &Request<Incoming>) -> Response<Source> {
    let mut response = page(StatusCode::OK, format!("{}\n", app.settings.version));
    if let Ok(seen) = HeaderValue::from_str(&request.uri().to_string()) {
        response.headers_mut().insert(HeaderName::from_static("x-path"), seen);
    }
    response
}

async fn up(app: &App, request: &Request<Incoming>) -> Response<Source> {
    let at = Instant::now();
    let up = app.control.up();
    let status = if at < up.healthy_from { 503 } else { up.status };
    let header = |name| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    // Noted before the delay: a check that gives up early was a check.
    app.control.note_check(at, header(USER_AGENT), header(HOST), status);
    tokio::time::sleep(up.delay).await;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = if status == StatusCode::NO_CONTENT {
        let mut response = Response::new(Source::empty());
        *response.status_mut() = status;
        response
    } else {
        page(status, format!("up: {}\n", status.as_u16()))
    };
    if let Some(location) = up.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn headers(headers: &HeaderMap) -> Value {
    let mut seen: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        seen.entry(name.as_str())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    json!(seen)
}

fn env_names() -> Response<Source> {
    let mut names: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort();
    page(StatusCode::OK, names.join("\n") + "\n")
}

/// Tests compare secrets by digest, so that no secret is ever in an answer or a log.
fn env_digest(name: &str) -> Response<Source> {
    match std::env::var_os(name) {
        Some(value) => {
            let digest = Sha256::digest(value.as_encoded_bytes());
            page(StatusCode::OK, hex::encode(digest) + "\n")
        }
        None => page(StatusCode::NOT_FOUND, "not set\n"),
    }
}

fn status_page(status: &str) -> Response<Source> {
    match status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok()) {
        Some(status) if status.as_u16() >= 200 => {
            page(status, format!("app says {}\n", status.as_u16()))
        }
        _ => page(StatusCode::BAD_REQUEST, "no such status\n"),
    }
}

async fn asset(app: &App, file: &str) -> Response<Source> {
    let file = std::path::Path::new(file);
    if !file.components().all(|part| matches!(part, Component::Normal(_))) {
        return page(StatusCode::NOT_FOUND, "no such asset\n");
    }
    match tokio::fs::read(app.settings.assets_dir.join(file)).await {
        Ok(content) => page(StatusCode::OK, content),
        Err(_) => page(StatusCode::NOT_FOUND, "no such asset\n"),
    }
}

async fn slow(app: &App, query: &Query) -> Response<Source> {
    let wait = Duration::from_millis(query.number("ms").unwrap_or(1000));
    let body = Bytes::from(format!("{}\n", app.settings.version));
    if query.number("trickle").is_none() {
        tokio::time::sleep(wait).await;
        return page(StatusCode::OK, body);
    }
    let (sender, source) = Source::stream();
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        // The reader may have gone meanwhile.
        let _ = sender.send(body).await;
    });
    Response::new(source)
}

async fn echo(request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Source::whole(body));
    response.headers_mut().insert(HeaderName::from_static("x-body-length"), length);
    Some(response)
}

async fn upload(request: Request<Incoming>) -> Answer {
    let mut body = request.into_body();
    let (mut length, mut digest) = (0, Sha256::new());
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.ok()?.data_ref() {
            length += data.len();
            digest.update(data);
        }
    }
    Some(page(StatusCode::OK, format!("{length} {}\n", hex::encode(digest.finalize()))))
}

fn download(query: &Query) -> Response<Source> {
    let bytes = query.number("bytes").unwrap_or(1024).min(1 << 30) as usize;
    if query.number("chunked").is_none() {
        return Response::new(Source::whole(vec![b'x'; bytes]));
    }
    let (sender, source) = Source::stream();
    tokio::spawn(async move {
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(16 * 1024);
            left -= piece;
            if sender.send(vec![b'x'; piece].into()).await.is_err() {
                return;
            }
        }
    });
    Response::new(source)
}

fn events(app: &App, query: &Query) -> Response<Source> {
    let every = Duration::from_millis(query.number("every_ms").unwrap_or(100).max(1));
    let version = app.settings.version.clone();
    let mut stopping = app.stopping.clone();
    let (sender, source) = Source::stream();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(every);
        for number in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopped(&mut stopping) => return,
            }
            if sender.send(format!("id: {number}\ndata: {version}\n\n").into()).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(source);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn socket(app: &Arc<App>, request: Request<Incoming>) -> Response<Source> {
    let key = request.headers().get("sec-websocket-key").and_then(|key| key.to_str().ok());
    let Some(key) = key.map(websocket::accept_key) else {
        return page(StatusCode::BAD_REQUEST, "not a WebSocket handshake\n");
    };
    let Ok(key) = HeaderValue::from_str(&key) else {
        return page(StatusCode::BAD_REQUEST, "bad key\n");
    };
    let app = app.clone();
    tokio::spawn(async move {
        // An upgrade that fails, or a peer that goes, only ends this socket.
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let _open = app.control.begin_socket();
            let _ = websocket::echo(TokioIo::new(upgraded), app.stopping.clone()).await;
        }
    });
    let mut response = Response::new(Source::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", key);
    response
}

fn control(app: &App, path: &str, query: &Query) -> Response<Source> {
    match path {
        "/control/up" => {
            app.control.change_up(|up| {
                if let Some(status) = query.number("status") {
                    up.status = u16::try_from(status).unwrap_or(500);
                }
                if let Some(delay) = query.number("delay_ms") {
                    up.delay = Duration::from_millis(delay);
                }
                if let Some(location) = query.text("location") {
                    up.location = Some(location.to_owned()).filter(|location| !location.is_empty());
                }
                if let Some(wait) = query.number("healthy_in_ms") {
                    up.healthy_from = Instant::now() + Duration::from_millis(wait);
                }
            });
            page(StatusCode::OK, "ok\n")
        }
        "/control/checks" => json_page(&app.control.checks()),
        "/control/requests" => json_page(&app.control.requests()),
        "/control/crash" => {
            println!("sample-app {} crashes as asked", app.settings.version);
            std::process::exit(
                query.number("status").and_then(|status| i32::try_from(status).ok()).unwrap_or(1),
            )
        }
        "/control/log" => {
            let lines = query.number("lines").unwrap_or(1).min(1_000_000) as u32;
            write_lines(0, lines, query.number("bytes").unwrap_or(200).min(1 << 20) as usize);
            page(StatusCode::OK, "ok\n")
        }
        _ => page(StatusCode::NOT_FOUND, "no such control\n"),
    }
}

/// The query of a request; values are taken as they stand, without percent decoding.
struct Query(String);

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        Self(request.uri().query().unwrap_or_default().to_owned())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

// The compiler checks that bodies cannot fail half-way, which callers rely on.
const _: fn(AppBody<Option<Open>>) = |body| {
    fn never_fails<B: hyper::body::Body<Error = Infallible>>(_: B) {}
    never_fails(body);
};
