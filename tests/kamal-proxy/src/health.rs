//! Health checks: at once, then every interval, one at a time, redirects followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::duration;
use crate::log;
use crate::path;
use crate::target::Target;

/// As Go's HTTP client.
const MAX_REDIRECTS: usize = 10;

/// Go's ticker panics at zero; one nanosecond would spin.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// Checks `target` until `stop` fires, or, with `only_once`, until the first success.
pub(crate) async fn check(target: Arc<Target>, only_once: bool, stop: CancellationToken) {
    let config = &target.options.health_check_config;
    let url = url(&target);
    let timeout = duration::wait(config.timeout);
    let mut ticks = tokio::time::interval(duration::wait(config.interval).max(MIN_INTERVAL));
    // A check that takes longer than an interval is followed by the next one at once, then by the
    // regular ticks: what Go's ticker with its buffer of one does.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(timeout, probe(&url, &config.host)) => outcome,
            // The check is abandoned: its verdict matters to nobody any more.
            () = stop.cancelled() => return,
        };
        let outcome = outcome.unwrap_or_else(|_| Err("request timed out".to_owned()));
        if let Err(error) = &outcome {
            log::info("Healthcheck failed", json!({"url": url, "error": error}));
        }
        target.judge(outcome.is_ok());
        if only_once && outcome.is_ok() {
            return;
        }
    }
}

fn url(target: &Target) -> String {
    let config = &target.options.health_check_config;
    let authority = match (config.port, target.name.rsplit_once(':')) {
        (0, _) => target.name.clone(),
        (port, Some((host, _))) => format!("{host}:{port}"),
        (port, None) => format!("{}:{port}", target.name),
    };
    format!("http://{authority}{}", path::joined(&config.path))
}

async fn probe(url: &str, host: &str) -> Result<(), String> {
    // A new client each time: a name must be resolved anew, and no connection kept.
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(HttpConnector::new());
    let mut url = url.to_owned();
    for hop in 0..=MAX_REDIRECTS {
        let mut request =
            Request::get(&url).header(USER_AGENT, "kamal-proxy").header(ACCEPT_ENCODING, "gzip");
        // Set here because the client would leave a port of 80 out, which Go does not.
        let named = if hop == 0 && !host.is_empty() { host } else { authority(&url) };
        request = request.header(HOST, named);
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let response = client.request(request).await.map_err(|error| root_cause(&error))?;
        let status = response.status();
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        response.into_body().collect().await.map_err(|error| root_cause(&error))?;
        match location {
            Some(location) if is_redirect(status) => url = join(&url, &location)?,
            _ if status.is_success() => return Ok(()),
            _ => return Err(format!("unexpected status ({})", status.as_u16())),
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

/// What stands between `http://` and the path.
fn authority(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect from `base` leads. Targets speak plain HTTP, so `https` ends the check.
fn join(base: &str, location: &str) -> Result<String, String> {
    if location.starts_with("http://") {
        return Ok(location.to_owned());
    }
    if location.starts_with("https://") {
        return Err(format!("cannot reach {location}"));
    }
    let authority = authority(base);
    if let Some(rest) = location.strip_prefix("//") {
        return Ok(format!("http://{rest}"));
    }
    if location.starts_with('/') {
        return Ok(format!("http://{authority}{location}"));
    }
    let base: Uri = base.parse().map_err(|error| format!("{error}"))?;
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(format!("http://{authority}{folder}/{location}"))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_a_browser_would_go() {
        let join = |location: &str| join("http://web:80/a/up", location);
        assert_eq!(join("/ok").unwrap(), "http://web:80/ok");
        assert_eq!(join("ok?x=1").unwrap(), "http://web:80/a/ok?x=1");
        assert_eq!(join("//other/ok").unwrap(), "http://other/ok");
        assert_eq!(join("http://other:1/ok").unwrap(), "http://other:1/ok");
        assert!(join("https://web/ok").is_err());
    }
}
