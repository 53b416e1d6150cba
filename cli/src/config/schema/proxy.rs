//! The proxy section, of the root, of a role or of an accessory.

use super::{Key, Known, Section, Shape, key};

/// `proxy`.
pub static PROXY: Section = Section { name: "proxy", keys: KEYS };

static CERTIFICATE: Section = Section {
    name: "proxy.ssl",
    keys: &[
        key("certificate_pem", Shape::Text, "Name of the secret with the certificate chain"),
        key("private_key_pem", Shape::Text, "Name of the secret with the private key"),
    ],
};

static HEALTHCHECK: Section = Section {
    name: "proxy.healthcheck",
    keys: &[
        key("interval", Shape::Integer, "Seconds between two checks").or("1"),
        key("path", Shape::Text, "Path that answers 200").or("`/up`"),
        key("timeout", Shape::Integer, "Seconds for one check").or("5"),
    ],
};

static BUFFERING: Section = Section {
    name: "proxy.buffering",
    keys: &[
        key("requests", Shape::Boolean, "Whether requests are buffered").or("true"),
        key("responses", Shape::Boolean, "Whether responses are buffered").or("true"),
        key("max_request_body", Shape::Integer, "Bytes; larger requests are refused").or("1 GB"),
        key("max_response_body", Shape::Integer, "Bytes; larger responses are refused")
            .or("no limit"),
        key("memory", Shape::Integer, "Bytes kept in memory before a file is used").or("1 MB"),
    ],
};

static LOGGING: Section = Section {
    name: "proxy.logging",
    keys: &[
        key("request_headers", Shape::TextList, "Request headers in the log")
            .or("`Cache-Control`, `Last-Modified`, `User-Agent`"),
        key("response_headers", Shape::TextList, "Response headers in the log"),
    ],
};

static RUN: Section = Section {
    name: "proxy.run",
    keys: &[
        key("http_port", Shape::Integer, "HTTP port of the host").or("80"),
        key("https_port", Shape::Integer, "HTTPS port of the host").or("443"),
        key("metrics_port", Shape::Integer, "Port for Prometheus, in the container's network"),
        key("debug", Shape::Boolean, "Whether the proxy logs more").or("false"),
        key("log_max_size", Shape::Text, "Size at which its log is rotated").or("`10m`"),
        key("publish", Shape::Boolean, "Whether its ports are published").or("true"),
        key("bind_ips", Shape::TextList, "Addresses its ports are published on").or("all"),
        key("registry", Shape::Text, "Registry of its image").or("Docker Hub"),
        key("repository", Shape::Text, "Repository of its image").or("`basecamp/kamal-proxy`"),
        key("version", Shape::Text, "Tag of its image").or("`v0.9.2`"),
        key("options", Shape::AnyMap, "Further `docker run` options"),
    ],
};

const KEYS: &[Key] = &[
    key("host", Shape::Text, "Name the app answers to; several with commas"),
    key("hosts", Shape::Hosts, "Names the app answers to; not beside `host`"),
    key("app_port", Shape::Integer, "Port the app listens on").or("80"),
    key("ssl", Shape::Ssl(&CERTIFICATE), "HTTPS: by Let's Encrypt, or with own certificates")
        .or("false"),
    key("ssl_redirect", Shape::Boolean, "Whether HTTP is redirected to HTTPS").or("true"),
    key("forward_headers", Shape::Boolean, "Whether `X-Forwarded-…` of the client are kept")
        .or("false with `ssl`, else true"),
    key("response_timeout", Shape::Integer, "Seconds the app has for a response").or("30"),
    key("path_prefix", Shape::Text, "Paths that go to this app; several with commas"),
    key("path_prefixes", Shape::TextList, "Paths that go to this app"),
    key("strip_path_prefix", Shape::Boolean, "Whether the prefix is cut off").or("true"),
    key("healthcheck", Shape::Map(&HEALTHCHECK), "How the proxy sees that a container serves"),
    key("buffering", Shape::Map(&BUFFERING), "Buffering of requests and responses"),
    key("logging", Shape::Map(&LOGGING), "Which headers are logged"),
    key("run", Shape::Map(&RUN), "How the proxy itself is started on the hosts"),
    key(
        "enabled",
        Shape::Boolean,
        "Transitional: run kamal-proxy on the hosts listed under `hosts`",
    )
    .known(Known::Dhow),
];
