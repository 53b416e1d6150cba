//! The proxy section as types.

use std::fmt;

use super::super::yaml::Map;

/// How a service is routed.
#[derive(Clone, Default, PartialEq)]
pub struct Proxy {
    /// Names; empty: every name that no other service has.
    pub hosts: Vec<String>,
    /// 80 by default.
    pub app_port: i128,
    /// HTTPS.
    pub tls: Tls,
    /// Redirect HTTP to HTTPS.
    pub ssl_redirect: Option<bool>,
    /// Keep the client's `X-Forwarded-…`.
    pub forward_headers: Option<bool>,
    /// Seconds.
    pub response_timeout: Option<i128>,
    /// Paths.
    pub path_prefixes: Vec<String>,
    /// Cut the prefix off.
    pub strip_path_prefix: Option<bool>,
    /// Path.
    pub health_path: Option<String>,
    /// Seconds.
    pub health_interval: Option<i128>,
    /// Seconds.
    pub health_timeout: Option<i128>,
    /// Buffer requests.
    pub buffer_requests: bool,
    /// Buffer responses.
    pub buffer_responses: bool,
    /// Bytes.
    pub buffer_memory: Option<i128>,
    /// Bytes.
    pub max_request_body: Option<i128>,
    /// Bytes.
    pub max_response_body: Option<i128>,
    /// Headers in the log.
    pub log_request_headers: Vec<String>,
    /// Headers in the log.
    pub log_response_headers: Vec<String>,
    /// How the proxy itself runs.
    pub run: Option<ProxyRun>,
}

/// A path may hold a token, and so may options.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("hosts", &self.hosts)
            .field("app_port", &self.app_port)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// `proxy.ssl:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// None.
    #[default]
    Off,
    /// By Let's Encrypt.
    Automatic,
    /// Names of the secrets with certificate and key.
    Custom {
        /// Secret with the chain.
        certificate: String,
        /// Secret with the key.
        key: String,
    },
}

/// `proxy.run:`.
#[derive(Clone, Default, PartialEq)]
pub struct ProxyRun {
    /// Host port.
    pub http_port: Option<i128>,
    /// Host port.
    pub https_port: Option<i128>,
    /// In the container's network.
    pub metrics_port: Option<i128>,
    /// Logs more.
    pub debug: bool,
    /// `None`: `10m`; empty: no limit given.
    pub log_max_size: Option<String>,
    /// Whether ports are published.
    pub publish: bool,
    /// Addresses.
    pub bind_ips: Vec<String>,
    /// Registry of the image.
    pub registry: Option<String>,
    /// Repository of the image.
    pub repository: Option<String>,
    /// Tag of the image.
    pub version: Option<String>,
    /// `docker run` options.
    pub options: Map,
}

/// Options may hold a token.
impl fmt::Debug for ProxyRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRun")
            .field("http_port", &self.http_port)
            .field("https_port", &self.https_port)
            .field("publish", &self.publish)
            .finish_non_exhaustive()
    }
}
