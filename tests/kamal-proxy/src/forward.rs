//! Sends one request to a target and brings the answer back.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED,
    UPGRADE,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Error as ClientError;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::access::{Entry, Open};
use crate::body::{ProxyBody, Watched, in_chunks, whole};
use crate::duration;
use crate::headers;
use crate::target::InFlight;

/// Why there is no answer of the app.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The proxy answers with this status itself.
    Status { status: u16, entry: Entry },
    /// The app's answer broke off while it was buffered: the client's connection does so too.
    Broken,
}

/// Sends `request`, whose headers are ready but for hop-by-hop ones, to `path` on the target.
pub(crate) async fn forward(
    request: Request<Incoming>,
    path: &str,
    flight: InFlight,
    mut entry: Entry,
) -> Result<Response<ProxyBody>, Failure> {
    let cancel = flight.cancelled();
    let exchanged = tokio::select! {
        // Biased: what is cut must not look answered because both came at once.
        biased;
        () = cancel.cancelled() => Err(StatusCode::GATEWAY_TIMEOUT),
        exchanged = exchange(request, path, &flight) => exchanged,
    };
    let (mut response, client_side) = match exchanged {
        Ok(exchanged) => exchanged,
        Err(status) => return Err(Failure::Status { status: status.as_u16(), entry }),
    };
    let options = flight.target.options.clone();
    entry.answered(&response);
    entry.set_headers("resp", options.log_response_headers.as_ref(), response.headers());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match client_side {
            Some(client_side) => Ok(switch(response, client_side, flight, entry)),
            None => Err(Failure::Status { status: 502, entry }),
        };
    }
    let buffered = options.buffer_responses && !streams(&response);
    headers::remove_hop_by_hop(response.headers_mut());
    if !buffered {
        let open = Open { entry, _flight: Some(flight) };
        let ended = CancellationToken::new();
        return Ok(response.map(|body| Watched::new(body, cancel, ended, open).boxed()));
    }
    let (parts, body) = response.into_parts();
    let limit = limit(options.max_response_body_size);
    let collected = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Failure::Broken),
        collected = Limited::new(body, limit).collect() => collected,
    };
    match collected {
        Ok(collected) => {
            let bytes = collected.to_bytes();
            crate::body::Count::count(&mut entry, bytes.len());
            Ok(Response::from_parts(parts, whole(bytes)))
        }
        Err(error) if error.is::<LengthLimitError>() => {
            Ok(too_long(Response::from_parts(parts, ()), entry))
        }
        Err(_) => Err(Failure::Broken),
    }
}

/// Stands for an answer over the limit; the headers that do not speak of its body stay.
fn too_long(response: Response<()>, mut entry: Entry) -> Response<ProxyBody> {
    let mut response = response.map(|()| whole(headers::INTERNAL_ERROR));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    for of_the_body in [CONTENT_LENGTH, CONTENT_ENCODING, ETAG, LAST_MODIFIED, CACHE_CONTROL] {
        response.headers_mut().remove(of_the_body);
    }
    headers::set_plain_text(response.headers_mut());
    entry.answered(&response);
    crate::body::Count::count(&mut entry, headers::INTERNAL_ERROR.len());
    response
}

/// The client's side of a connection that may be upgraded.
type ClientSide = hyper::upgrade::OnUpgrade;

async fn exchange(
    mut request: Request<Incoming>,
    path: &str,
    flight: &InFlight,
) -> Result<(Response<Incoming>, Option<ClientSide>), StatusCode> {
    let target = &flight.target;
    let options = &target.options;
    let protocol = headers::upgrade(request.headers());
    let client_side = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
    headers::remove_hop_by_hop(request.headers_mut());
    if let Some(protocol) = protocol {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, protocol);
    }
    let uri =
        format!("http://{}{path}", target.name).parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    let (mut parts, body) = request.into_parts();
    parts.uri = uri;
    parts.version = http::Version::HTTP_11;
    let sent = CancellationToken::new();
    let body = if options.buffer_requests && client_side.is_none() {
        sent.cancel();
        let bytes = buffer(&parts.headers, body, limit(options.max_request_body_size)).await?;
        // What came in chunks goes on in chunks, though its length is known now.
        if parts.headers.contains_key(CONTENT_LENGTH) { whole(bytes) } else { in_chunks(bytes) }
    } else {
        Watched::new(body, flight.cancelled(), sent.clone(), ()).boxed()
    };
    let answer = tokio::select! {
        answer = target.client.request(Request::from_parts(parts, body)) => answer,
        // The time for an answer begins when the request is sent in full.
        () = too_late(&sent, duration::wait(options.response_timeout)) => {
            return Err(StatusCode::GATEWAY_TIMEOUT);
        }
    };
    answer.map(|response| (response, client_side)).map_err(|error| status_of(&error))
}

async fn too_late(sent: &CancellationToken, timeout: Duration) {
    if timeout.is_zero() {
        // None asked for: Go waits for ever.
        return std::future::pending().await;
    }
    sent.cancelled().await;
    tokio::time::sleep(timeout).await;
}

async fn buffer(
    headers: &http::HeaderMap,
    body: Incoming,
    limit: usize,
) -> Result<Bytes, StatusCode> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit as u64) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// 0 is no limit.
fn limit(bytes: i64) -> usize {
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(usize::MAX)
}

/// Answers that are passed through as they come even when answers are buffered. The real proxy means
/// chunked ones too, but the header it looks for is gone by then.
fn streams<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.split(';').next() == Some("text/event-stream"))
}

fn status_of(error: &ClientError) -> StatusCode {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let timed_out = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut);
        if timed_out {
            return StatusCode::GATEWAY_TIMEOUT;
        }
        cause = error.source();
    }
    StatusCode::BAD_GATEWAY
}

/// Joins both sides of an upgraded connection until one ends or a drain closes it.
fn switch(
    mut response: Response<Incoming>,
    client_side: ClientSide,
    flight: InFlight,
    entry: Entry,
) -> Response<ProxyBody> {
    flight.mark_upgraded();
    let app_side = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let open = Open { entry, _flight: None };
        let cancel = flight.cancelled();
        let join = async {
            let (Ok(client), Ok(app)) = (client_side.await, app_side.await) else { return };
            let (mut client, mut app) = (TokioIo::new(client), TokioIo::new(app));
            // Either side may break off at any time.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut app).await;
        };
        tokio::select! {
            () = join => {}
            // Both connections close as their halves are dropped.
            () = cancel.cancelled() => {}
        }
        drop(flight);
        drop(open);
    });
    response.map(|_| whole(Bytes::new()))
}
