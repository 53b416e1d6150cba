//! Names that Kamal and kamal-proxy fix on a host, so that both can manage the same one.

/// Container of kamal-proxy.
pub const PROXY_CONTAINER: &str = "kamal-proxy";
/// Network all containers share.
pub const NETWORK: &str = "kamal";
/// Volume with kamal-proxy's state and certificates.
pub const PROXY_VOLUME: &str = "kamal-proxy-config";
/// Repository of kamal-proxy's image.
pub const PROXY_REPOSITORY: &str = "basecamp/kamal-proxy";
/// Version booted by default, and the oldest that is accepted (Kamal 2.11 and 2.12).
pub const PROXY_VERSION: &str = "v0.9.2";
/// Where the proxy container sees error pages and certificates.
pub const PROXY_APPS_CONFIG: &str = "/home/kamal-proxy/.apps-config";
/// Default directory of an app's files, relative to the home.
pub const RUN_DIRECTORY: &str = ".kamal";
/// Label with the service.
pub const LABEL_SERVICE: &str = "service";
/// Label with the role.
pub const LABEL_ROLE: &str = "role";
/// Label with the destination; present and empty without one.
pub const LABEL_DESTINATION: &str = "destination";
/// The one label more than Kamal's: digest of what shapes the container.
pub const LABEL_INTENT: &str = "dhow.intent";
/// Message of a lock that a command takes by itself; Kamal's `--lock-wait` looks for it.
pub const LOCK_MESSAGE: &str = "Automatic deploy lock";
/// Version of Kamal that dhow is compatible with (`minimum_version`).
pub const COMPATIBLE_VERSION: &str = "2.12.0";
