//! Every kind of step there is, by name: what must hold of each step is tested of all of them.

use dhow_proto::enumerated;

use super::Step;

enumerated! {
    /// What a [`Step`] does, without to what.
    pub enum StepKind {
        /// Appends a line to Kamal's audit log, before what it tells of.
        Audit => "audit",
        /// Remembers that something was done.
        Remember => "remember",
        /// Creates the network `kamal`.
        CreateNetwork => "create-network",
        /// Makes the directory that the proxy mounts for error pages and certificates.
        CreateProxyDirectory => "create-proxy-directory",
        /// Pulls an image with the intent's registry login, where it has one.
        Pull => "pull",
        /// Checks the label `service` and the pinned digest of an image that is there.
        VerifyImage => "verify-image",
        /// Creates kamal-proxy's container.
        CreateProxy => "create-proxy",
        /// Waits until kamal-proxy answers its command line.
        AwaitProxy => "await-proxy",
        /// Waits for all routing on the host to end, then stops kamal-proxy.
        StopProxy => "stop-proxy",
        /// Writes the env file of the role.
        WriteEnv => "write-env",
        /// Creates the role's container from its template.
        Create => "create",
        /// Connects a container to a further network.
        Connect => "connect",
        /// Starts a container.
        Start => "start",
        /// Thaws a paused container.
        Unpause => "unpause",
        /// Waits for every running `kamal-proxy deploy` of the service.
        AwaitDeploys => "await-deploys",
        /// Routes the service to a container; waits for its health check and for the old target to drain.
        Route => "route",
        /// Waits until a container without proxy is ready.
        AwaitReady => "await-ready",
        /// Waits for requests in flight to an old target, as the end of its switch was not seen.
        AwaitDrain => "await-drain",
        /// Lets kamal-proxy answer 503.
        StopTraffic => "stop-traffic",
        /// Ends maintenance.
        ResumeTraffic => "resume-traffic",
        /// Forgets the service.
        RemoveRoute => "remove-route",
        /// Stops a container and keeps it.
        Stop => "stop",
        /// Renames a container.
        Rename => "rename",
        /// Removes a container that does not run.
        Remove => "remove",
        /// Deletes assets of versions that no container of the role uses.
        CleanAssets => "clean-assets",
        /// Deletes error pages of versions that nothing refers to.
        CleanErrorPages => "clean-error-pages",
        /// Takes Kamal's lock.
        TakeLock => "take-lock",
        /// Frees Kamal's lock.
        ReleaseLock => "release-lock",
        /// Copies a role's assets out of the image and merges them with the old version's.
        BridgeAssets => "bridge-assets",
        /// Lays out the error pages of a version.
        WriteErrorPages => "write-error-pages",
        /// Lays out a role's certificate and key.
        WriteCertificate => "write-certificate",
        /// Makes the app's directory, by which Kamal knows that the host has apps.
        CreateAppDirectory => "create-app-directory",
        /// Tags an image.
        Tag => "tag",
        /// Removes untagged images of the service.
        PruneDangling => "prune-dangling",
        /// Removes a reference of an image; in use is fine.
        RemoveImage => "remove-image",
        /// Removes the app's files.
        RemoveAppFiles => "remove-app-files",
        /// Removes the role's env file.
        RemoveEnv => "remove-env",
    }
}

impl StepKind {
    /// How little a step says about what was found wrong: 0 for what is missing itself.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::CreateNetwork
            | Self::CreateProxy
            | Self::Create
            | Self::Start
            | Self::Unpause => 0,
            // Also done before each start; without one it was the connection that was lost, and a route may follow from it.
            Self::Connect => 1,
            Self::StopProxy
            | Self::Route
            | Self::StopTraffic
            | Self::ResumeTraffic
            | Self::RemoveRoute
            | Self::Stop => 2,
            Self::CreateProxyDirectory
            | Self::Pull
            | Self::VerifyImage
            | Self::WriteEnv
            | Self::Rename
            | Self::Remove
            | Self::CleanAssets
            | Self::CleanErrorPages
            | Self::BridgeAssets
            | Self::WriteErrorPages
            | Self::WriteCertificate
            | Self::CreateAppDirectory
            | Self::Tag
            | Self::PruneDangling
            | Self::RemoveImage
            | Self::RemoveAppFiles
            | Self::RemoveEnv => 3,
            Self::AwaitProxy | Self::AwaitDeploys | Self::AwaitReady | Self::AwaitDrain => 4,
            Self::Audit | Self::Remember | Self::TakeLock | Self::ReleaseLock => 5,
        }
    }
}

impl Step {
    /// Its kind.
    pub fn kind(&self) -> StepKind {
        match self {
            Self::Audit { .. } => StepKind::Audit,
            Self::Remember(_) => StepKind::Remember,
            Self::CreateNetwork => StepKind::CreateNetwork,
            Self::CreateProxyDirectory => StepKind::CreateProxyDirectory,
            Self::Pull { .. } => StepKind::Pull,
            Self::VerifyImage { .. } => StepKind::VerifyImage,
            Self::CreateProxy(_) => StepKind::CreateProxy,
            Self::AwaitProxy => StepKind::AwaitProxy,
            Self::StopProxy { .. } => StepKind::StopProxy,
            Self::WriteEnv { .. } => StepKind::WriteEnv,
            Self::Create { .. } => StepKind::Create,
            Self::Connect { .. } => StepKind::Connect,
            Self::Start { .. } => StepKind::Start,
            Self::Unpause { .. } => StepKind::Unpause,
            Self::AwaitDeploys { .. } => StepKind::AwaitDeploys,
            Self::Route { .. } => StepKind::Route,
            Self::AwaitReady { .. } => StepKind::AwaitReady,
            Self::AwaitDrain { .. } => StepKind::AwaitDrain,
            Self::StopTraffic { .. } => StepKind::StopTraffic,
            Self::ResumeTraffic { .. } => StepKind::ResumeTraffic,
            Self::RemoveRoute { .. } => StepKind::RemoveRoute,
            Self::Stop { .. } => StepKind::Stop,
            Self::Rename { .. } => StepKind::Rename,
            Self::Remove { .. } => StepKind::Remove,
            Self::CleanAssets { .. } => StepKind::CleanAssets,
            Self::CleanErrorPages { .. } => StepKind::CleanErrorPages,
            Self::TakeLock => StepKind::TakeLock,
            Self::ReleaseLock => StepKind::ReleaseLock,
            Self::BridgeAssets { .. } => StepKind::BridgeAssets,
            Self::WriteErrorPages { .. } => StepKind::WriteErrorPages,
            Self::WriteCertificate { .. } => StepKind::WriteCertificate,
            Self::CreateAppDirectory => StepKind::CreateAppDirectory,
            Self::Tag { .. } => StepKind::Tag,
            Self::PruneDangling => StepKind::PruneDangling,
            Self::RemoveImage { .. } => StepKind::RemoveImage,
            Self::RemoveAppFiles => StepKind::RemoveAppFiles,
            Self::RemoveEnv { .. } => StepKind::RemoveEnv,
        }
    }
}
