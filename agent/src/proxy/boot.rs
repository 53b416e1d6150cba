//! How kamal-proxy's container is made (host-effects: kamal-proxy container).

use dhow_proto::model::ImageRef;
use dhow_proto::model::template::EngineOptions;

/// The files of `kamal proxy boot_config set`, as they are on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootFiles {
    /// `docker run` flags on one line.
    pub options: Option<String>,
    /// Repository without tag.
    pub image: Option<String>,
    /// Tag.
    pub image_version: Option<String>,
    /// Command.
    pub run_command: Option<String>,
}

impl BootFiles {
    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything that decides on the container.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyBoot {
    /// By tag.
    pub image: ImageRef,
    /// None: the image's.
    pub cmd: Option<Vec<String>>,
    /// `80/tcp` → host address and port.
    pub ports: Vec<PublishedPort>,
    /// Ports exposed beside 80 and 443: `9090/tcp`.
    pub expose: Vec<String>,
    /// `max-size` of the log; empty: none.
    pub log_max_size: String,
    /// Everything else.
    pub options: EngineOptions,
}

/// A port published on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// `80/tcp`.
    pub container: String,
    /// Empty: every address.
    pub host_ip: String,
    /// Empty: any free one.
    pub host_port: String,
}
