//! One thing a plan wants done, as data: it can be printed, stored and compared.

use std::fmt;
use std::time::Duration;

use dhow_proto::model::{BlobDigest, ContainerName, ImageDigest, ImageRef, RoleName, Version};

use crate::engine::ObservedContainer;
use crate::proxy::ProxyBoot;

mod kind;

pub use kind::StepKind;

/// A container as a step names it: the id, so that a rename meanwhile hits nobody else, and the name for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerRef {
    /// As it is called when the step runs.
    pub name: String,
    /// None where an earlier step of the plan creates it.
    pub id: Option<String>,
}

impl ContainerRef {
    /// One that was observed.
    pub fn observed(container: &ObservedContainer) -> Self {
        Self { name: container.name.clone(), id: Some(container.id.clone()) }
    }

    /// One that the plan creates.
    pub fn new(name: &ContainerName) -> Self {
        Self { name: name.to_string(), id: None }
    }

    /// What the Engine is asked for.
    pub fn key(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }

    /// The same under a new name.
    #[must_use]
    pub fn renamed(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }
}

impl fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Something done once per number, remembered beside the ledger because nothing on the host shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The staged image was pulled.
    Pulled(u64),
    /// Stale containers were stopped.
    Stale(u64),
    /// Pruned.
    Pruned(u64),
    /// The proxy was rebooted.
    ProxyBoot(u64),
    /// These files were laid out.
    Prepared(BlobDigest),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pulled(n) => write!(f, "pull {n}"),
            Self::Stale(n) => write!(f, "stale containers {n}"),
            Self::Pruned(n) => write!(f, "prune {n}"),
            Self::ProxyBoot(n) => write!(f, "proxy boot {n}"),
            Self::Prepared(_) => f.write_str("prepared files"),
        }
    }
}

/// One step. Durations count from the step's own beginning.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Appends a line to Kamal's audit log, before what it tells of.
    Audit {
        /// The line speaks of one role.
        role: Option<RoleName>,
        /// As Kamal words it.
        text: String,
    },
    /// Remembers that something was done.
    Remember(Mark),
    /// Creates the network `kamal`.
    CreateNetwork,
    /// Makes the directory that the proxy mounts for error pages and certificates.
    CreateProxyDirectory,
    /// Pulls an image with the intent's registry login, where it has one.
    Pull {
        /// By tag.
        image: ImageRef,
    },
    /// Checks the label `service` and the pinned digest of an image that is there.
    VerifyImage {
        /// By tag.
        image: ImageRef,
        /// None: any.
        digest: Option<ImageDigest>,
    },
    /// Creates kamal-proxy's container.
    CreateProxy(Box<ProxyBoot>),
    /// Waits until kamal-proxy answers its command line.
    AwaitProxy,
    /// Waits for all routing on the host to end, then stops kamal-proxy.
    StopProxy {
        /// Its container.
        container: ContainerRef,
    },
    /// Writes the env file of the role.
    WriteEnv {
        /// The role.
        role: RoleName,
    },
    /// Creates the role's container from its template.
    Create {
        /// Its name.
        container: ContainerName,
        /// Created from.
        image: ImageRef,
        /// Value of the label `dhow.intent`.
        intent: BlobDigest,
    },
    /// Connects a container to a further network.
    Connect {
        /// The container.
        container: ContainerRef,
        /// The network.
        network: String,
    },
    /// Starts a container.
    Start {
        /// The container.
        container: ContainerRef,
    },
    /// Thaws a paused container.
    Unpause {
        /// The container.
        container: ContainerRef,
    },
    /// Waits for every running `kamal-proxy deploy` of the service.
    AwaitDeploys {
        /// kamal-proxy's name of the role.
        service: String,
        /// At most.
        within: Duration,
    },
    /// Routes the service to a container; waits for its health check and for the old target to drain.
    Route {
        /// kamal-proxy's name of the role.
        service: String,
        /// New target.
        container: ContainerRef,
        /// Its port.
        port: u16,
    },
    /// Waits until a container without proxy is ready.
    AwaitReady {
        /// The container.
        container: ContainerRef,
        /// At most.
        within: Duration,
    },
    /// Waits for requests in flight to an old target, as the end of its switch was not seen.
    AwaitDrain {
        /// kamal-proxy's name of the role.
        service: String,
        /// How long.
        left: Duration,
    },
    /// Lets kamal-proxy answer 503.
    StopTraffic {
        /// kamal-proxy's name of the role.
        service: String,
        /// Shown on the page.
        message: String,
        /// For requests in flight.
        drain: Duration,
    },
    /// Ends maintenance.
    ResumeTraffic {
        /// kamal-proxy's name of the role.
        service: String,
    },
    /// Forgets the service.
    RemoveRoute {
        /// kamal-proxy's name of the role.
        service: String,
    },
    /// Stops a container and keeps it.
    Stop {
        /// The container.
        container: ContainerRef,
        /// Between SIGTERM and SIGKILL; none: the container's own.
        grace: Option<Duration>,
    },
    /// Renames a container.
    Rename {
        /// The container.
        container: ContainerRef,
        /// Its new name.
        to: String,
    },
    /// Removes a container that does not run.
    Remove {
        /// The container.
        container: ContainerRef,
    },
    /// Deletes assets of versions that no container of the role uses.
    CleanAssets {
        /// Directory names: `ROLE-VER`.
        names: Vec<String>,
    },
    /// Deletes error pages of versions that nothing refers to.
    CleanErrorPages {
        /// Directory names: `VER`.
        names: Vec<String>,
    },
    /// Takes Kamal's lock.
    TakeLock,
    /// Frees Kamal's lock.
    ReleaseLock,
    /// Copies a role's assets out of the image and merges them with the old version's.
    BridgeAssets {
        /// The role.
        role: RoleName,
        /// New version.
        version: Version,
        /// What serves now.
        old: Option<Version>,
        /// Where the assets are.
        image: ImageRef,
        /// Path in the image.
        path: String,
    },
    /// Lays out the error pages of a version.
    WriteErrorPages {
        /// The version.
        version: Version,
    },
    /// Lays out a role's certificate and key.
    WriteCertificate {
        /// The role.
        role: RoleName,
    },
    /// Makes the app's directory, by which Kamal knows that the host has apps.
    CreateAppDirectory,
    /// Tags an image.
    Tag {
        /// Existing reference.
        image: ImageRef,
        /// New reference.
        to: ImageRef,
    },
    /// Removes untagged images of the service.
    PruneDangling,
    /// Removes a reference of an image; in use is fine.
    RemoveImage {
        /// `REPO:TAG`.
        reference: String,
    },
    /// Removes the app's files.
    RemoveAppFiles,
    /// Removes the role's env file.
    RemoveEnv {
        /// The role.
        role: RoleName,
    },
}

impl Step {
    /// True where the step ends or changes what requests reach.
    pub fn is_routing(&self) -> bool {
        matches!(
            self,
            Self::Route { .. }
                | Self::StopTraffic { .. }
                | Self::ResumeTraffic { .. }
                | Self::RemoveRoute { .. }
        )
    }
}

/// The step of a plan that says most about why there is one: what it makes, starts or routes, before what only prepares for that.
pub fn most_telling(steps: &[Step]) -> Option<&Step> {
    // The first of those that say equally much: what comes after it may be its consequence.
    steps.iter().min_by_key(|step| step.kind().rank())
}

/// True where all that steps which succeeded did to kamal-proxy's table is what its own answers told: the switches.
pub fn tells_routes(steps: &[Step]) -> bool {
    let switches = |step: &Step| matches!(step, Step::Route { .. });
    let changes = |step: &Step| {
        matches!(
            step,
            Step::StopTraffic { .. }
                | Step::ResumeTraffic { .. }
                | Step::RemoveRoute { .. }
                | Step::AwaitDeploys { .. }
        )
    };
    steps.iter().any(switches) && !steps.iter().any(changes)
}

/// True where steps change files and what is remembered alone.
pub fn leaves_engine(steps: &[Step]) -> bool {
    steps.iter().all(|step| {
        matches!(
            step,
            Step::Audit { .. }
                | Step::Remember(_)
                | Step::TakeLock
                | Step::ReleaseLock
                | Step::CreateAppDirectory
                | Step::WriteErrorPages { .. }
                | Step::WriteCertificate { .. }
        )
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audit { role: Some(role), text } => write!(f, "audit [{role}] {text}"),
            Self::Audit { role: None, text } => write!(f, "audit {text}"),
            Self::Remember(mark) => write!(f, "remember {mark}"),
            Self::CreateNetwork => f.write_str("create network kamal"),
            Self::CreateProxyDirectory => f.write_str("create the proxy's directory"),
            Self::Pull { image } => write!(f, "pull {image}"),
            Self::VerifyImage { image, digest: Some(digest) } => {
                write!(f, "verify that {image} is {}", short(digest.as_str()))
            }
            Self::VerifyImage { image, digest: None } => write!(f, "verify {image}"),
            Self::CreateProxy(boot) => write!(f, "create kamal-proxy from {}", boot.image),
            Self::AwaitProxy => f.write_str("wait until kamal-proxy answers"),
            Self::StopProxy { container } => {
                write!(f, "stop {container} once no routing is under way")
            }
            Self::WriteEnv { role } => write!(f, "write env file of {role}"),
            Self::Create { container, image, .. } => write!(f, "create {container} from {image}"),
            Self::Connect { container, network } => write!(f, "connect {container} to {network}"),
            Self::Start { container } => write!(f, "start {container}"),
            Self::Unpause { container } => write!(f, "unpause {container}"),
            Self::AwaitDeploys { service, within } => {
                write!(f, "wait up to {}s for running deploys of {service}", within.as_secs())
            }
            Self::Route { service, container, port } => {
                write!(f, "route {service} to {container}:{port}")
            }
            Self::AwaitReady { container, within } => {
                write!(f, "wait up to {}s until {container} is ready", within.as_secs())
            }
            Self::AwaitDrain { service, left } => {
                write!(f, "let requests of {service} drain for {}s", left.as_secs())
            }
            Self::StopTraffic { service, .. } => write!(f, "put {service} into maintenance"),
            Self::ResumeTraffic { service } => write!(f, "end maintenance of {service}"),
            Self::RemoveRoute { service } => write!(f, "remove route {service}"),
            Self::Stop { container, grace: Some(grace) } => {
                write!(f, "stop {container} within {}s", grace.as_secs())
            }
            Self::Stop { container, grace: None } => write!(f, "stop {container}"),
            Self::Rename { container, to } => write!(f, "rename {container} to {to}"),
            Self::Remove { container } => write!(f, "remove {container}"),
            Self::CleanAssets { names } => write!(f, "clean assets {}", names.join(", ")),
            Self::CleanErrorPages { names } => {
                write!(f, "clean error pages of {}", names.join(", "))
            }
            Self::TakeLock => f.write_str("take Kamal's lock"),
            Self::ReleaseLock => f.write_str("release Kamal's lock"),
            Self::BridgeAssets { role, version, old: Some(old), .. } => {
                write!(f, "bridge assets of {role} from {old} to {version}")
            }
            Self::BridgeAssets { role, version, old: None, .. } => {
                write!(f, "extract assets of {role} {version}")
            }
            Self::WriteErrorPages { version } => write!(f, "write error pages of {version}"),
            Self::WriteCertificate { role } => write!(f, "write certificate of {role}"),
            Self::CreateAppDirectory => f.write_str("create the app's directory"),
            Self::Tag { image, to } => write!(f, "tag {image} as {to}"),
            Self::PruneDangling => f.write_str("prune dangling images"),
            Self::RemoveImage { reference } => write!(f, "remove image {reference}"),
            Self::RemoveAppFiles => f.write_str("remove the app's files"),
            Self::RemoveEnv { role } => write!(f, "remove env file of {role}"),
        }
    }
}

fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ContainerRef {
        ContainerRef { name: "shop-web-v1".to_owned(), id: None }
    }

    fn audit() -> Step {
        Step::Audit { role: None, text: "Booted app version v1".to_owned() }
    }

    fn connect() -> Step {
        Step::Connect { container: web(), network: "kamal".to_owned() }
    }

    fn route() -> Step {
        Step::Route { service: "shop-web".to_owned(), container: web(), port: 80 }
    }

    fn told(steps: &[Step]) -> String {
        most_telling(steps).unwrap().to_string()
    }

    #[test]
    fn what_is_missing_tells_more_than_what_prepares_for_it() {
        let role = RoleName::try_from("web").unwrap();
        let create = Step::Create {
            container: ContainerName::try_from("shop-web-v1").unwrap(),
            image: ImageRef { repository: "shop".to_owned(), tag: "v1".to_owned() },
            intent: BlobDigest::of(b"intent"),
        };
        let start = Step::Start { container: web() };
        let removed = [audit(), Step::WriteEnv { role: role.clone() }, create, start, route()];
        assert_eq!(told(&removed), "create shop-web-v1 from shop:v1");
        // Stopped: it is connected anew before it is started.
        let stopped = [connect(), audit(), Step::Start { container: web() }, route()];
        assert_eq!(told(&stopped), "start shop-web-v1");
        assert_eq!(told(&[connect(), route()]), "connect shop-web-v1 to kamal");
        assert_eq!(told(&[audit(), route()]), "route shop-web to shop-web-v1:80");
        let network = [Step::CreateProxyDirectory, Step::CreateNetwork, connect()];
        assert_eq!(told(&network), "create network kamal");
    }

    #[test]
    fn where_nothing_is_made_the_files_and_then_the_log_are_told() {
        let files = [Step::TakeLock, Step::CreateAppDirectory, Step::ReleaseLock];
        assert_eq!(told(&files), "create the app's directory");
        assert_eq!(told(&[audit()]), "audit Booted app version v1");
        assert_eq!(most_telling(&[]), None);
    }
}
