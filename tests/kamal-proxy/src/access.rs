//! The `Request` line of the log, written when a request is over, however it ends.

use std::net::SocketAddr;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, Request, Response};
use serde_json::{Map, Value, json};

use crate::body::Count;
use crate::log;
use crate::target::InFlight;

/// As nginx has it: the client left before there was an answer.
const CLIENT_CLOSED: u16 = 499;

/// What is known about a request so far.
#[derive(Debug)]
pub(crate) struct Entry {
    began: Instant,
    status: u16,
    sent: u64,
    fields: Map<String, Value>,
}

impl Entry {
    pub(crate) fn begin<B>(
        request: &Request<B>,
        host: &str,
        path: &str,
        port: u16,
        scheme: &str,
        client: SocketAddr,
    ) -> Self {
        let header = |name: HeaderName| text(request.headers(), &name);
        let forwarded = header(HeaderName::from_static("x-forwarded-for"));
        // Go says -1 where the length is not known beforehand.
        let unknown = if request.headers().contains_key(TRANSFER_ENCODING) { -1 } else { 0 };
        let length = header(CONTENT_LENGTH).parse::<i64>().unwrap_or(unknown);
        let fields = json!({
            "host": host,
            "port": port,
            "path": path,
            "request_id": header(HeaderName::from_static("x-request-id")),
            "service": "",
            "target": "",
            "method": request.method().as_str(),
            "req_content_length": length,
            "req_content_type": header(CONTENT_TYPE),
            "resp_content_type": "",
            "client_addr": client.ip().to_string(),
            "client_port": client.port().to_string(),
            "remote_addr": if forwarded.is_empty() { client.ip().to_string() } else { forwarded },
            "user_agent": header(USER_AGENT),
            "proto": format!("{:?}", request.version()),
            "scheme": scheme,
            "query": request.uri().query().unwrap_or_default(),
        });
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { began: Instant::now(), status: CLIENT_CLOSED, sent: 0, fields }
    }

    pub(crate) fn set(&mut self, field: &str, value: &str) {
        self.fields.insert(field.to_owned(), value.into());
    }

    /// Adds the headers a service wants logged: `req_user_agent`, `resp_…`.
    pub(crate) fn set_headers(
        &mut self,
        prefix: &str,
        names: Option<&Vec<String>>,
        headers: &HeaderMap,
    ) {
        for name in names.into_iter().flatten() {
            if let Ok(header) = name.parse::<HeaderName>() {
                let field = format!("{prefix}_{}", header.as_str().replace('-', "_"));
                let values = headers.get_all(&header).iter();
                let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
                self.set(&field, &values.collect::<Vec<_>>().join(","));
            }
        }
    }

    pub(crate) fn answered<B>(&mut self, response: &Response<B>) {
        self.status = response.status().as_u16();
        let kind = text(response.headers(), &CONTENT_TYPE);
        self.set("resp_content_type", &kind);
    }
}

impl Count for Entry {
    fn count(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.insert("status".to_owned(), self.status.into());
        fields.insert("duration".to_owned(), (self.began.elapsed().as_nanos() as u64).into());
        fields.insert("resp_content_length".to_owned(), self.sent.into());
        log::info("Request", Value::Object(fields));
    }
}

/// Held by an answer's body: the request is in flight, and not yet logged, until it is sent.
pub(crate) struct Open {
    pub(crate) entry: Entry,
    pub(crate) _flight: Option<InFlight>,
}

impl Count for Open {
    fn count(&mut self, bytes: usize) {
        self.entry.count(bytes);
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}
