//! Headers that the proxy adds, keeps and takes away.

use std::net::IpAddr;
use std::sync::OnceLock;

use http::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Request, Uri};
use rustls::crypto::SecureRandom;

use crate::path;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KAMAL_TARGET: HeaderName = HeaderName::from_static("x-kamal-target");

/// Adds the id and the start of a request where the client gave none.
pub(crate) fn add_request_id(headers: &mut HeaderMap) {
    if is_empty(headers, &REQUEST_ID) {
        insert(headers, REQUEST_ID, &uuid());
    }
    if is_empty(headers, &REQUEST_START) {
        let now = jiff::Timestamp::now().as_millisecond();
        insert(headers, REQUEST_START, &format!("t={now}"));
    }
}

/// Tells the app where the request came from. Only with `forward` is believed what the client says.
pub(crate) fn add_forwarded(
    headers: &mut HeaderMap,
    client: IpAddr,
    host: &str,
    scheme: &str,
    forward: bool,
    target: &str,
) {
    let before: Vec<String> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter(|_| forward)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    let chain = before.into_iter().chain([client.to_string()]).collect::<Vec<_>>().join(", ");
    insert(headers, FORWARDED_FOR, &chain);
    for (name, value) in [(FORWARDED_HOST, host), (FORWARDED_PROTO, scheme)] {
        if !forward || is_empty(headers, &name) {
            insert(headers, name, value);
        }
    }
    // Like the addresses: with another proxy of this kind in front, both targets are named.
    let before = headers.get_all(KAMAL_TARGET).iter().filter(|_| forward);
    let before = before.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let targets = before.chain([target.to_owned()]).collect::<Vec<_>>().join(", ");
    insert(headers, KAMAL_TARGET, &targets);
}

/// Takes away what concerns one connection only (RFC 9110, 7.6.1).
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    let known = [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    // The only value that may go on: the app may send trailers (RFC 9110, 10.1.4).
    let trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("trailers"));
    for name in known {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// What a request asks to upgrade to.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
}

/// The host a request is for, as sent (with a port, if any), and without its port.
pub(crate) fn host<B>(request: &Request<B>) -> (String, String) {
    let given = match request.headers().get(HOST) {
        Some(host) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        None => request.uri().authority().map(ToString::to_string).unwrap_or_default(),
    };
    let bare = match given.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host.to_owned(),
        _ => given.clone(),
    };
    (given, bare)
}

/// The value of a cookie.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// Path and query with `prefix` taken off; the query goes on byte for byte.
pub(crate) fn stripped(uri: &Uri, prefix: &str) -> String {
    let path = path::forwarded(uri.path(), prefix);
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// Whether a request only looks: GET or HEAD.
pub(crate) fn only_reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// What Go's `http.Error` says of a failure that has no page.
pub(crate) const INTERNAL_ERROR: &str = "Internal Server Error\n";

/// The headers of such an answer.
pub(crate) fn set_plain_text(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn is_empty(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get(name).is_none_or(HeaderValue::is_empty)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What the client sent as a host may not be a header value; then the app does without.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A random UUID (version 4).
fn uuid() -> String {
    static RANDOM: OnceLock<&'static dyn SecureRandom> = OnceLock::new();
    let random = RANDOM.get_or_init(|| rustls::crypto::ring::default_provider().secure_random);
    let mut bytes = [0; 16];
    // Without randomness the id is of no use, but the request is.
    let _ = random.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripping_keeps_the_query_and_a_leading_slash() {
        let stripped = |uri: &str, prefix| stripped(&uri.parse().unwrap(), prefix);
        assert_eq!(stripped("/api", "/api"), "/");
        assert_eq!(stripped("/api?x=%20", "/api"), "/?x=%20");
        assert_eq!(stripped("/api/u?x", "/api"), "/u?x");
        assert_eq!(stripped("/api/u", "/"), "/api/u");
    }

    #[test]
    fn an_id_is_a_random_uuid() {
        let id = uuid();
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
        assert_ne!(id, uuid());
    }

    #[test]
    fn incoming_forwarding_headers_count_only_when_forwarded() {
        let client = IpAddr::from([10, 0, 0, 1]);
        let sent = |forward| {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, HeaderValue::from_static("1.2.3.4"));
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
            add_forwarded(&mut headers, client, "a.test", "http", forward, "web:80");
            (
                headers[FORWARDED_FOR].clone(),
                headers[FORWARDED_PROTO].clone(),
                headers[FORWARDED_HOST].clone(),
            )
        };
        assert_eq!(
            sent(true),
            (
                "1.2.3.4, 10.0.0.1".parse().unwrap(),
                "https".parse().unwrap(),
                "a.test".parse().unwrap()
            )
        );
        assert_eq!(
            sent(false),
            ("10.0.0.1".parse().unwrap(), "http".parse().unwrap(), "a.test".parse().unwrap())
        );
    }
}
