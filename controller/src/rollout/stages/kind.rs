//! Every kind of stage there is, by name: what must hold at each stage is tested at all of them.

use dhow_proto::enumerated;

use super::Stage;
#[cfg(test)]
use super::Work;

enumerated! {
    /// What a [`Stage`] is about. One of them may come several times, once for each boot group.
    pub enum StageKind {
        /// The first primary host takes Kamal's lock and pulls the image, which pins the digest.
        PullFirst => "pull-first",
        /// The others pull it.
        Pull => "pull",
        /// Looks for containers of a version to go back to.
        FindContainers => "find-containers",
        /// Takes Kamal's lock where another host pulls first, or none does.
        Lock => "lock",
        /// A hook.
        PreDeploy => "pre-deploy",
        /// Looks for the image of a version to go back to.
        FindImage => "find-image",
        /// Network and kamal-proxy, and containers that nothing needs are stopped.
        Proxy => "proxy",
        /// Error pages, assets and certificates.
        Prepare => "prepare",
        /// A hook.
        PreAppBoot => "pre-app-boot",
        /// The primary role of the first group, up to the barrier.
        BootPrimary => "boot-primary",
        /// The roles of a group.
        Boot => "boot",
        /// A hook.
        PostAppBoot => "post-app-boot",
        /// Between two groups.
        Pause => "pause",
        /// The latest tag, and old containers and images after it.
        TagLatest => "tag-latest",
        /// Frees Kamal's lock.
        Unlock => "unlock",
        /// The version is the app's.
        Record => "record",
        /// A hook.
        PostDeploy => "post-deploy",
    }
}

impl StageKind {
    /// True for what a client runs.
    pub fn is_hook(self) -> bool {
        match self {
            Self::PreDeploy | Self::PreAppBoot | Self::PostAppBoot | Self::PostDeploy => true,
            Self::PullFirst
            | Self::Pull
            | Self::FindContainers
            | Self::Lock
            | Self::FindImage
            | Self::Proxy
            | Self::Prepare
            | Self::BootPrimary
            | Self::Boot
            | Self::Pause
            | Self::TagLatest
            | Self::Unlock
            | Self::Record => false,
        }
    }
}

impl Stage {
    /// True where `work` is what its kind says: a hook runs in a stage of a hook, and so on.
    #[cfg(test)]
    pub(super) fn is_of_its_kind(&self) -> bool {
        match &self.work {
            Work::FindContainers => self.kind == StageKind::FindContainers,
            Work::Hook(hook) => self.kind.is_hook() && self.kind.as_str() == hook.name,
            Work::Pause(_) => self.kind == StageKind::Pause,
            Work::Commit { .. } => self.kind == StageKind::Record,
            Work::Intents { .. } => {
                let others = [StageKind::FindContainers, StageKind::Pause, StageKind::Record];
                !self.kind.is_hook() && !others.contains(&self.kind)
            }
        }
    }
}
