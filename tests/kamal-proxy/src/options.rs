//! What a deploy asks for, in the shape of the real proxy's state file. Durations are nanoseconds.

use serde::{Deserialize, Serialize};

/// Options of a service: where its requests come from and how they are treated before a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceOptions {
    /// `""` is the wildcard; never empty.
    pub(crate) hosts: Vec<String>,
    pub(crate) path_prefixes: Vec<String>,
    pub(crate) tls_enabled: bool,
    pub(crate) tls_certificate_path: String,
    pub(crate) tls_private_key_path: String,
    pub(crate) tls_redirect: bool,
    pub(crate) canonical_host: String,
    pub(crate) acme_directory: String,
    pub(crate) acme_cache_path: String,
    pub(crate) error_page_path: String,
    pub(crate) strip_prefix: bool,
    pub(crate) writer_affinity_timeout: i64,
    pub(crate) read_targets_accept_websockets: bool,
}

impl ServiceOptions {
    /// Gives hosts and prefixes their defaults, and prefixes one form: a slash before, none after.
    pub(crate) fn normalised(mut self) -> Self {
        if self.hosts.is_empty() {
            self.hosts.push(String::new());
        }
        for prefix in &mut self.path_prefixes {
            *prefix = format!("/{}", prefix.trim_matches('/'));
        }
        if self.path_prefixes.is_empty() {
            self.path_prefixes.push("/".to_owned());
        }
        self
    }

    /// What the client refuses before it asks the server.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.tls_enabled && !self.serves_root() {
            return Err("TLS settings must be specified on the root path service".to_owned());
        }
        // Without a host any name may be the canonical one.
        let named = self.hosts.first().is_some_and(|host| !host.is_empty());
        if named && !self.canonical_host.is_empty() && !self.hosts.contains(&self.canonical_host) {
            return Err(format!(
                "canonical-host '{}' must be present in the hosts list: [{}]",
                self.canonical_host,
                self.hosts.join(" ")
            ));
        }
        Ok(())
    }

    pub(crate) fn serves_root(&self) -> bool {
        self.path_prefixes.iter().any(|prefix| prefix == "/")
    }

    /// The (host, prefix) pairs that only one service may have.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (&str, &str)> {
        self.hosts.iter().flat_map(|host| {
            self.path_prefixes.iter().map(move |prefix| (host.as_str(), prefix.as_str()))
        })
    }
}

/// How targets are checked and spoken to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TargetOptions {
    pub(crate) health_check_config: HealthCheckConfig,
    pub(crate) response_timeout: i64,
    pub(crate) buffer_requests: bool,
    pub(crate) buffer_responses: bool,
    pub(crate) max_memory_buffer_size: i64,
    /// Bytes; 0 is no limit, here and below.
    pub(crate) max_request_body_size: i64,
    pub(crate) max_response_body_size: i64,
    pub(crate) log_request_headers: Option<Vec<String>>,
    pub(crate) log_response_headers: Option<Vec<String>>,
    pub(crate) forward_headers: bool,
    pub(crate) scope_cookie_paths: bool,
}

/// The health check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HealthCheckConfig {
    pub(crate) path: String,
    /// 0 is the target's own port.
    pub(crate) port: i64,
    pub(crate) interval: i64,
    pub(crate) timeout: i64,
    /// `""` is the target.
    pub(crate) host: String,
}

/// Which clients a rollout takes: cookie values, and a share of the others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RolloutSplit {
    pub(crate) percentage: i64,
    pub(crate) allowlist: Vec<String>,
}

impl RolloutSplit {
    /// Whether the client with this value of the cookie `kamal-rollout` belongs to the rollout.
    pub(crate) fn takes(&self, cookie: &str) -> bool {
        if cookie.is_empty() {
            return false;
        }
        if self.allowlist.iter().any(|allowed| allowed == cookie) {
            return true;
        }
        // FNV-1a, 32 bits, as the share of its range.
        let hash = cookie
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        f64::from(hash) <= f64::from(u32::MAX) * (self.percentage as f64 / 100.0)
    }
}

/// Whether a service answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    #[default]
    Running,
    /// Requests wait for at most this many nanoseconds each.
    Paused {
        max_pause: i64,
    },
    Stopped {
        message: String,
    },
}

impl Gate {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
            Self::Stopped { .. } => "stopped",
        }
    }
}
