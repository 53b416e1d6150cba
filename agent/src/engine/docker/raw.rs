//! Creates a container without bollard, which logs the bodies it sends and drops options it does not know.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::translate::refused;
use crate::engine::{EngineError, NewContainer};

/// Answers of the Engine to a create are a few hundred bytes.
const ANSWER: usize = 64 * 1024;

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// `POST /containers/create`.
pub(super) async fn create(
    socket: &Path,
    container: &NewContainer,
    within: Duration,
) -> Result<String, EngineError> {
    let body = serde_json::to_vec(container.body.json())
        .map_err(|_| EngineError::Unexpected("a create body that is no JSON".to_owned()))?;
    let mut uri = format!("/containers/create?name={}", container.name);
    if let Some(platform) = &container.platform {
        uri.push_str(&format!("&platform={}", encoded(platform)));
    }
    let call = async {
        let (status, answer) = post(socket, &uri, body).await?;
        if status == StatusCode::CREATED {
            let created: Created = serde_json::from_slice(&answer)
                .map_err(|_| EngineError::Unexpected("no id of a new container".to_owned()))?;
            return Ok(created.id);
        }
        let message = serde_json::from_slice(&answer)
            .map_or_else(|_| status.to_string(), |r: Refusal| r.message);
        Err(refused(status.as_u16(), message))
    };
    match tokio::time::timeout(within, call).await {
        Ok(result) => result,
        Err(_) => Err(EngineError::TimedOut { what: "a new container".to_owned(), after: within }),
    }
}

async fn post(socket: &Path, uri: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), EngineError> {
    let unreachable = |e: &dyn std::fmt::Display| EngineError::Unreachable(e.to_string());
    let stream = UnixStream::connect(socket).await.map_err(|e| unreachable(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(&e))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("host", "docker")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| EngineError::Unexpected(e.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        let body = body.map_err(|e| EngineError::Unexpected(e.to_string()))?.to_bytes();
        Ok((status, body))
    };
    // The connection is driven here, so that it ends with the call.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let mut driven = false;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            // Ended early or not: the exchange tells.
            _ = &mut connection, if !driven => driven = true,
        }
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986).
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}
