//! What there is, read just before planning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use dhow_proto::model::{BlobDigest, RoleName, Version};

use crate::engine::{ContainerState, ImageView, ObservedContainer};
use crate::host::Marks;
use crate::proxy::{BootFiles, Route};

/// Observed state of a unit.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time; boxes would only obscure the planners"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// Of the proxy unit.
    Proxy(ObservedProxy),
    /// Of an app unit.
    App(ObservedApp),
    /// Of a role unit.
    Role(ObservedRole),
}

impl Observed {
    /// When it was read.
    pub fn at(&self) -> SystemTime {
        match self {
            Self::Proxy(o) => o.at,
            Self::App(o) => o.at,
            Self::Role(o) => o.at,
        }
    }

    /// Signs of another deployer; of the proxy, which belongs to no app: in any app's audit log.
    pub fn foreign(&self) -> &Foreign {
        match self {
            Self::Proxy(o) => &o.foreign,
            Self::App(o) => &o.foreign,
            Self::Role(o) => &o.foreign,
        }
    }
}

/// kamal-proxy's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routes {
    /// It did not answer, or was not asked as nothing depends on it: what is live is not known.
    Unknown,
    /// By service.
    Known(BTreeMap<String, Route>),
}

impl Routes {
    /// The route of a service, as far as known.
    pub fn get(&self, service: &str) -> Option<&Route> {
        match self {
            Self::Unknown => None,
            Self::Known(routes) => routes.get(service),
        }
    }
}

/// kamal-proxy as units other than its own see it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyView {
    /// Its container.
    pub container: Option<ObservedContainer>,
    /// What it routes.
    pub routes: Routes,
    /// Services with a `kamal-proxy deploy` under way.
    pub deploying: BTreeSet<String>,
}

impl ProxyView {
    /// True where the proxy can be asked.
    pub fn runs(&self) -> bool {
        self.container.as_ref().is_some_and(|c| c.state == ContainerState::Running)
    }
}

/// The proxy unit.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedProxy {
    /// When it was read.
    pub at: SystemTime,
    /// Networks called `kamal`.
    pub networks: usize,
    /// The container and its table.
    pub proxy: ProxyView,
    /// Boot config files of the host.
    pub boot_files: BootFiles,
    /// True where the directory that the proxy mounts is there.
    pub directory: bool,
    /// True where the image to boot from is there.
    pub image: bool,
    /// What was done once.
    pub marks: Marks,
    /// Signs of another deployer at work on the proxy itself.
    pub foreign: Foreign,
}

/// Signs of another deployer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Newest line of the audit log that tells of a change and was not written here, since the last adoption.
    pub audit_line: Option<String>,
    /// Details of a lock that was not taken here.
    pub lock: Option<String>,
    /// Containers with the app's labels that were neither created here nor adopted.
    pub containers: Vec<String>,
    /// A service whose traffic is stopped or paused though its intent says live.
    pub stopped: Option<String>,
}

/// Kamal's lock directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LockView {
    /// Not there.
    #[default]
    Free,
    /// Taken here; its decoded details.
    Ours(String),
    /// Somebody else's; its decoded details.
    Foreign(String),
}

/// Files of an app on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppFiles {
    /// `apps/APP` is there.
    pub directory: bool,
    /// Names below `assets/volumes`: `ROLE-VER`.
    pub asset_volumes: BTreeSet<String>,
    /// Versions below `error_pages`.
    pub error_pages: BTreeSet<String>,
    /// Roles with a certificate and key.
    pub certificates: BTreeSet<String>,
}

/// An app unit.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedApp {
    /// When it was read.
    pub at: SystemTime,
    /// Every container with the label of the service, of all destinations and roles, newest created first.
    pub containers: Vec<ObservedContainer>,
    /// Images with the label of the service or in the repository.
    pub images: Vec<ImageView>,
    /// kamal-proxy.
    pub proxy: ProxyView,
    /// Kamal's lock.
    pub lock: LockView,
    /// Files.
    pub files: AppFiles,
    /// What was done once.
    pub marks: Marks,
    /// Signs of another deployer.
    pub foreign: Foreign,
}

/// A switch of a service's route, as this agent saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// kamal-proxy's `deploy` returned: the old target has drained.
    Returned {
        /// Targets routed to.
        targets: Vec<String>,
    },
    /// The targets were found; whether requests to others have ended is not known.
    Seen {
        /// Targets routed to.
        targets: Vec<String>,
        /// First seen.
        since: SystemTime,
    },
}

/// A role unit.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedRole {
    /// When it was read.
    pub at: SystemTime,
    /// Containers with the role's three labels in any state, newest created first.
    pub containers: Vec<ObservedContainer>,
    /// Who has the wanted name without having the labels.
    pub squatter: Option<ObservedContainer>,
    /// Images by reference: of the variants and of the latest tag; absent ones are not here.
    pub images: BTreeMap<String, ImageView>,
    /// kamal-proxy.
    pub proxy: ProxyView,
    /// The switch of the role's route.
    pub switch: Option<Switch>,
    /// Files of the app.
    pub files: AppFiles,
    /// Versions of the app's other roles that run or are routed to here.
    pub referenced: BTreeSet<Version>,
    /// Other roles of the app that have containers here: `web` must not clean up what is of `web-api`.
    pub roles: BTreeSet<RoleName>,
    /// Digest of the env file; none where there is none.
    pub env_file: Option<BlobDigest>,
    /// Signs of another deployer.
    pub foreign: Foreign,
}

impl ObservedApp {
    /// The image of a reference.
    pub fn image(&self, reference: &str) -> Option<&ImageView> {
        let wanted = familiar_reference(reference);
        self.images.iter().find(|i| i.tags.iter().any(|t| familiar_reference(t) == wanted))
    }
}

/// A reference as Docker lists it.
fn familiar_reference(reference: &str) -> &str {
    crate::engine::familiar(reference)
}
