//! The Docker Engine behind a narrow door, in our words.
//!
//! In: one call at a time. Out: what the Engine says now, as our own types.
//! Always true: every call ends by a deadline, output is bounded, and nothing secret is in an error
//! or in `Debug`. `docker` is the only room that knows bollard; `fake` is a model of an Engine.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use dhow_proto::model::ImageRef;

mod body;
#[cfg(test)]
mod contract;
pub mod docker;
mod error;
pub mod fake;
mod types;

pub(crate) use types::familiar;

pub use body::ContainerBody;
pub use error::EngineError;
pub use types::{
    ContainerState, Credentials, EngineEvent, EngineFacts, ExecOutput, Health, HealthStatus,
    ImageView, MountView, NetworkView, NewContainer, ObservedContainer, ProcessView, PullProgress,
};

/// What every call gives.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// A Docker Engine. Containers and images are named by id, name or reference as Docker takes them.
pub trait Engine: Send + Sync + 'static {
    /// Is it there?
    fn ping(&self) -> Answer<'_, ()>;

    /// Version, platform and first registry mirror.
    fn facts(&self) -> Answer<'_, EngineFacts>;

    /// Networks of exactly this name; more than one is Docker's duplicate trap.
    fn networks<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<NetworkView>>;

    /// Creates a bridge network; one of that name that exists already is success.
    fn create_network<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// Connects a container; connected already is success.
    fn connect<'a>(&'a self, network: &'a str, container: &'a str) -> Answer<'a, ()>;

    /// The image of a reference or id, none where there is none.
    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<ImageView>>;

    /// Images that carry this label (`key=value`), or with a reference of this repository.
    fn images<'a>(&'a self, filter: ImageFilter<'a>) -> Answer<'a, Vec<ImageView>>;

    /// Pulls one tag. Ends when nothing was heard for `idle`, however long the whole takes.
    fn pull<'a>(
        &'a self,
        image: &'a ImageRef,
        credentials: Option<&'a Credentials>,
        idle: Duration,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> Answer<'a, ()>;

    /// `docker tag SOURCE TARGET`.
    fn tag<'a>(&'a self, source: &'a str, target: &'a ImageRef) -> Answer<'a, ()>;

    /// Removes a reference (untags where others remain). Absent is success; in use is [`EngineError::Conflict`].
    fn remove_image<'a>(&'a self, reference: &'a str, force: bool) -> Answer<'a, ()>;

    /// Removes untagged images with this label.
    fn prune_dangling<'a>(&'a self, label: &'a str) -> Answer<'a, ()>;

    /// Containers in any state that carry all these labels (`key=value`, also `key=`), newest created first.
    fn containers<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Vec<ObservedContainer>>;

    /// One container by id or exact name, none where there is none.
    fn container<'a>(&'a self, name: &'a str) -> Answer<'a, Option<ObservedContainer>>;

    /// Creates a container and gives its id. [`EngineError::NotFound`] where the image is missing,
    /// [`EngineError::Conflict`] where the name is in use.
    fn create(&self, container: NewContainer) -> Answer<'_, String>;

    /// Starts; running already is success.
    fn start<'a>(&'a self, container: &'a str) -> Answer<'a, ()>;

    /// Thaws a paused container; not paused is success.
    fn unpause<'a>(&'a self, container: &'a str) -> Answer<'a, ()>;

    /// Stops; none: the container's own grace. Stopped or gone already is success.
    fn stop<'a>(&'a self, container: &'a str, grace: Option<Duration>) -> Answer<'a, ()>;

    /// Renames.
    fn rename<'a>(&'a self, container: &'a str, name: &'a str) -> Answer<'a, ()>;

    /// Removes a container that does not run, with its anonymous volumes. Gone already is success.
    fn remove<'a>(&'a self, container: &'a str) -> Answer<'a, ()>;

    /// The newest log lines of stdout and stderr, as asked.
    fn logs<'a>(&'a self, container: &'a str, query: &'a LogQuery) -> Answer<'a, Vec<String>>;

    /// A path of a container as tar, at most `limit` bytes; none where the path is missing.
    fn archive<'a>(
        &'a self,
        container: &'a str,
        path: &'a str,
        limit: usize,
    ) -> Answer<'a, Option<Bytes>>;

    /// Runs a command in a running container and waits for its end. [`EngineError::OutcomeUnknown`] where the
    /// connection or the deadline ended first.
    fn exec<'a>(
        &'a self,
        container: &'a str,
        argv: &'a [String],
        deadline: Duration,
    ) -> Answer<'a, ExecOutput>;

    /// Command lines that run in a container now: its process list and its running execs.
    fn processes<'a>(&'a self, container: &'a str) -> Answer<'a, Vec<ProcessView>>;

    /// Events of containers and networks from now on; ends when the connection does.
    fn events(&self) -> BoxStream<'_, Result<EngineEvent, EngineError>>;
}

/// Which log lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// At most so many, the newest.
    pub lines: usize,
    /// At most so many bytes, the newest.
    pub bytes: usize,
    /// None older than this.
    pub since: Option<std::time::SystemTime>,
    /// Each begins with its time.
    pub timestamps: bool,
}

impl LogQuery {
    /// The newest lines, from any time.
    pub fn newest(lines: usize, bytes: usize) -> Self {
        Self { lines, bytes, since: None, timestamps: false }
    }
}

/// Which images are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFilter<'a> {
    /// With this label (`key=value`).
    Label(&'a str),
    /// With a reference in this repository.
    Repository(&'a str),
}
