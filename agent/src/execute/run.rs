//! One step, one effect.

use std::io;
use std::time::Duration;

use dhow_proto::model::intent::Desired;
use dhow_proto::model::secrets::Secrets;
use dhow_proto::model::status::Failure;
use dhow_proto::model::{
    App, BlobDigest, ContainerName, ImageDigest, ImageRef, RoleName, Unit, kamal,
};
use dhow_proto::wire::FailureKind;

use super::body::{self, RoleContainer};
use super::failure::start_kind;
use super::{StepContext, Worker};
use crate::engine::{ContainerBody, Credentials, EngineError, NewContainer};
use crate::host::{self, About, Layout};
use crate::plan::{ContainerRef, Mark, Step};
use crate::proxy::{self, ProxyBoot, ProxyOptions};

/// A pull ends when nothing was heard of it for this long.
const PULL_IDLE: Duration = Duration::from_secs(120);
/// kamal-proxy finishes requests for up to 10 s after SIGTERM (contract: start and stop).
const PROXY_GRACE: Duration = Duration::from_secs(15);
/// For commands of kamal-proxy that wait for nothing.
const COMMAND: Duration = Duration::from_secs(20);
/// Lines of ours after which the audit log is looked through and they are forgotten.
const OWN_LINES: usize = 128;

type Done = Result<(), Box<Failure>>;

impl Worker {
    pub(super) async fn carry_out(&self, step: &Step, context: &StepContext<'_>) -> Done {
        match step {
            Step::Audit { role, text } => self.audit(step, context, role.as_ref(), text).await,
            Step::Remember(mark) => self.remember(step, context, mark).await,
            Step::CreateNetwork => {
                self.told(step, self.engine.create_network(kamal::NETWORK).await)
            }
            Step::CreateProxyDirectory => {
                let layout = self.layout(step, context)?;
                self.file(step, host::create_dirs(&layout.apps_config(), layout.owner))
            }
            Step::Pull { image } => self.pull(step, context, image).await,
            Step::VerifyImage { image, digest } => {
                self.verify_image(step, context, image, digest.as_ref()).await
            }
            Step::CreateProxy(boot) => self.create_proxy(step, context, boot).await,
            Step::AwaitProxy => self.await_proxy(step).await,
            Step::StopProxy { container } => {
                // Waits for every routing step on the host.
                let _stopping = self.routing.write().await;
                self.told(step, self.engine.stop(container.key(), Some(PROXY_GRACE)).await)
            }
            Step::WriteEnv { role } => self.write_env(step, context, role),
            Step::Create { container, image: _, intent } => {
                self.create_role(step, context, container, *intent).await
            }
            Step::Connect { container, network } => {
                self.told(step, self.engine.connect(network, container.key()).await)
            }
            Step::Start { container } => self.start(step, container).await,
            Step::Unpause { container } => {
                self.told(step, self.engine.unpause(container.key()).await)
            }
            Step::AwaitDeploys { service, within } => {
                self.await_deploys(step, service, *within).await
            }
            Step::Route { service, container, port } => {
                self.route(step, context, service, container, *port).await
            }
            Step::AwaitReady { container, within } => {
                let delay = context
                    .wanted
                    .variants()
                    .next()
                    .map_or(0, |(_, template)| template.timeouts.readiness_delay_s);
                let delay = Duration::from_secs(delay);
                self.await_ready(step, container.key(), *within, delay).await
            }
            Step::AwaitDrain { service: _, left } => {
                // Time itself is the condition: requests to the old target may last that long.
                tokio::time::sleep(*left).await;
                Ok(())
            }
            Step::StopTraffic { service, message, drain } => {
                let argv = proxy::stop(service, *drain, message);
                self.proxy_command(step, &argv, *drain + COMMAND, false).await
            }
            Step::ResumeTraffic { service } => {
                self.proxy_command(step, &proxy::resume(service), COMMAND, false).await
            }
            Step::RemoveRoute { service } => {
                self.proxy_command(step, &proxy::remove(service), COMMAND, true).await
            }
            Step::Stop { container, grace } => {
                self.told(step, self.engine.stop(container.key(), *grace).await)
            }
            Step::Rename { container, to } => {
                self.told(step, self.engine.rename(container.key(), to).await)
            }
            Step::Remove { container } => {
                self.told(step, self.engine.remove(container.key()).await)
            }
            Step::Tag { image, to } => {
                self.told(step, self.engine.tag(&image.to_string(), to).await)
            }
            Step::PruneDangling => {
                let label = context.wanted.intent.unit.app().map_or(String::new(), |app| {
                    format!("{}={}", kamal::LABEL_SERVICE, app.service)
                });
                self.told(step, self.engine.prune_dangling(&label).await)
            }
            Step::RemoveImage { reference } => {
                match self.engine.remove_image(reference, false).await {
                    // In use by a container of somebody else's: kept, as with Kamal.
                    Err(EngineError::Conflict(_)) => Ok(()),
                    other => self.told(step, other),
                }
            }
            Step::TakeLock => self.take_lock(step, context).await,
            Step::ReleaseLock => self.release_lock(step, context).await,
            Step::CleanAssets { .. }
            | Step::CleanErrorPages { .. }
            | Step::BridgeAssets { .. }
            | Step::WriteErrorPages { .. }
            | Step::WriteCertificate { .. }
            | Step::CreateAppDirectory
            | Step::RemoveAppFiles
            | Step::RemoveEnv { .. } => self.change_files(step, context).await,
        }
    }

    pub(super) fn told(&self, step: &Step, result: Result<(), EngineError>) -> Done {
        result.map_err(|e| self.engine_failure(step, &e))
    }

    pub(super) fn file(&self, step: &Step, result: io::Result<()>) -> Done {
        result.map_err(|e| self.file_failure(step, &e))
    }

    pub(super) fn layout(
        &self,
        step: &Step,
        context: &StepContext<'_>,
    ) -> Result<Layout, Box<Failure>> {
        let layout = self.settings.homes.layout(&context.wanted.intent.host);
        layout.map_err(|e| self.failure(step, FailureKind::Other, e.to_string()))
    }

    pub(super) fn app<'a>(
        &self,
        step: &Step,
        context: &StepContext<'a>,
    ) -> Result<&'a App, Box<Failure>> {
        context.wanted.intent.unit.app().ok_or_else(|| {
            self.failure(step, FailureKind::Unsupported, "the unit belongs to no app")
        })
    }

    async fn audit(
        &self,
        step: &Step,
        context: &StepContext<'_>,
        role: Option<&RoleName>,
        text: &str,
    ) -> Done {
        let (app, layout) = (self.app(step, context)?, self.layout(step, context)?);
        let performer = match &context.wanted.intent.desired {
            Desired::App(app) => app.lock.as_ref().map(|lock| lock.holder.as_str()),
            _ => None,
        };
        let performer = performer.unwrap_or("dhow");
        let line = host::Line { at: (self.now)(), performer, app, role, text }.format();
        let path = layout.audit_log(app);
        let _writing = self.writing.lock().await;
        let write = || -> io::Result<()> {
            let mut memory = self.memory.app(app)?.unwrap_or_default();
            if memory.own_lines.len() >= OWN_LINES
                && host::foreign_line(&path, memory.audit_from, &memory.own_lines, About::Anything)?
                    .is_none()
            {
                memory.audit_from = std::fs::metadata(&path)?.len();
                memory.own_lines.clear();
                self.memory.set_app(app, &memory)?;
            }
            self.memory.own_line(app, &line)?;
            host::append(&path, &line, layout.owner)
        };
        self.file(step, write())
    }

    async fn remember(&self, step: &Step, context: &StepContext<'_>, mark: &Mark) -> Done {
        let _writing = self.writing.lock().await;
        self.file(step, self.memory.set_mark(&context.wanted.intent.unit, mark))
    }

    async fn pull(&self, step: &Step, context: &StepContext<'_>, image: &ImageRef) -> Done {
        let login = match &context.wanted.intent.desired {
            Desired::Proxy(p) => p.registry.as_ref(),
            Desired::App(a) => a.staged.as_ref().and_then(|s| s.registry.as_ref()),
            _ => None,
        };
        let credentials = match login {
            None => None,
            Some(login) => Some(self.credentials(step, context, &login.server)?),
        };
        let progress = |p: crate::engine::PullProgress| {
            let mib = |bytes: u64| bytes / (1 << 20);
            (context.progress)(format!(
                "{}/{} layers, {}/{} MiB",
                p.layers_done,
                p.layers,
                mib(p.bytes),
                mib(p.total)
            ));
        };
        let pulled = self.engine.pull(image, credentials.as_ref(), PULL_IDLE, &progress).await;
        pulled.map_err(|e| {
            let reason = format!("could not pull {image}: {e}");
            self.failure(step, e.kind(), reason)
        })
    }

    fn credentials(
        &self,
        step: &Step,
        context: &StepContext<'_>,
        server: &str,
    ) -> Result<Credentials, Box<Failure>> {
        let bundle = context.secrets.registry.as_ref();
        let get = |name: &str| bundle.and_then(|b| b.get(name)).cloned();
        match (get("username"), get("password")) {
            (Some(username), Some(password)) => {
                Ok(Credentials { username, password, server: server.to_owned() })
            }
            _ => {
                let reason = "the registry login holds no username and password";
                Err(self.failure(step, FailureKind::Secrets, reason))
            }
        }
    }

    async fn verify_image(
        &self,
        step: &Step,
        context: &StepContext<'_>,
        image: &ImageRef,
        digest: Option<&ImageDigest>,
    ) -> Done {
        let app = self.app(step, context)?;
        let found = self.engine.image(&image.to_string()).await;
        let Some(view) = found.map_err(|e| self.engine_failure(step, &e))? else {
            let reason = format!("image {image} is not on this host");
            return Err(self.failure(step, FailureKind::ImageMissing, reason));
        };
        if let Some(pinned) = digest
            && !view.is(&image.repository, pinned.as_str())
        {
            let found = view.digest_in(&image.repository).unwrap_or(&view.id);
            let reason =
                format!("image {image} is {found} on this host, the rollout pinned {pinned}");
            return Err(self.failure(step, FailureKind::DigestMismatch, reason));
        }
        match view.labels.get(kamal::LABEL_SERVICE) {
            Some(service) if service == app.service.as_str() => Ok(()),
            _ => {
                let reason = format!("Image {image} is missing the 'service' label");
                Err(self.failure(step, FailureKind::LabelMissing, reason))
            }
        }
    }

    async fn create_proxy(&self, step: &Step, context: &StepContext<'_>, boot: &ProxyBoot) -> Done {
        let layout = self.layout(step, context)?;
        let own = ProxyOptions {
            mounts: body::mounts(&boot.container.mounts, &layout),
            restart: boot.container.restart.map(body::restart),
        };
        let body: ContainerBody = boot.body(&layout.apps_config(), own);
        let container = NewContainer {
            name: kamal::PROXY_CONTAINER.to_owned(),
            platform: boot.options.platform.clone(),
            body,
        };
        self.create(step, container).await
    }

    async fn create(&self, step: &Step, container: NewContainer) -> Done {
        let created = self.engine.create(container).await;
        created.map(|_| ()).map_err(|e| {
            let kind = match &e {
                EngineError::NotFound(_) => FailureKind::ImageMissing,
                EngineError::Conflict(_) | EngineError::Refused { .. } => {
                    FailureKind::CreateRefused
                }
                other => other.kind(),
            };
            self.failure(step, kind, e.to_string())
        })
    }

    async fn create_role(
        &self,
        step: &Step,
        context: &StepContext<'_>,
        name: &ContainerName,
        intent: BlobDigest,
    ) -> Done {
        let layout = self.layout(step, context)?;
        let (Unit::Role(app, role), Some((variant, template))) =
            (&context.wanted.intent.unit, context.wanted.variants().next())
        else {
            return Err(self.failure(step, FailureKind::Unsupported, "only roles are created"));
        };
        let none = Secrets::new();
        let container = RoleContainer {
            app,
            role,
            version: &variant.version,
            name,
            template,
            host: &context.wanted.intent.host,
            intent,
            layout: &layout,
            secrets: self.env(step, context)?.unwrap_or(&none),
        };
        self.create(step, container.build()).await
    }

    /// The opened environment; a role with a sealed one must have it.
    fn env<'a>(
        &self,
        step: &Step,
        context: &'a StepContext<'_>,
    ) -> Result<Option<&'a Secrets>, Box<Failure>> {
        let sealed = matches!(&context.wanted.intent.desired, Desired::Role(r) if r.env.is_some());
        match &context.secrets.env {
            None if sealed => {
                let reason = "the role's environment was not opened on this host";
                Err(self.failure(step, FailureKind::Secrets, reason))
            }
            env => Ok(env.as_ref()),
        }
    }

    fn write_env(&self, step: &Step, context: &StepContext<'_>, role: &RoleName) -> Done {
        let (app, layout) = (self.app(step, context)?, self.layout(step, context)?);
        let none = Secrets::new();
        let content = host::env_file(self.env(step, context)?.unwrap_or(&none));
        let path = layout.env_file(app, role);
        // Mostly it is there: secrets change less often than versions.
        if host::is_written(&path, content.as_bytes(), 0o600, layout.owner) {
            return Ok(());
        }
        self.file(step, host::write(&path, content.as_bytes(), 0o600, layout.owner))
    }

    async fn start(&self, step: &Step, container: &ContainerRef) -> Done {
        let Err(error) = self.engine.start(container.key()).await else { return Ok(()) };
        let kind = match &error {
            EngineError::Refused { message, .. } | EngineError::NotFound(message) => {
                start_kind(message)
            }
            EngineError::Conflict(message) => start_kind(message),
            other => other.kind(),
        };
        let failure = self.failure(step, kind, error.to_string());
        Err(self.with_evidence(failure, container.key()).await)
    }

    async fn take_lock(&self, step: &Step, context: &StepContext<'_>) -> Done {
        let (app, layout) = (self.app(step, context)?, self.layout(step, context)?);
        let Desired::App(intent) = &context.wanted.intent.desired else { return Ok(()) };
        let Some(lock) = &intent.lock else { return Ok(()) };
        let details = host::details(lock);
        let path = layout.lock(app);
        let _writing = self.writing.lock().await;
        let take = || -> io::Result<Option<String>> {
            let mut memory = self.memory.app(app)?.unwrap_or_default();
            // Before it is taken: a crash in between must not make our own lock foreign.
            memory.lock = Some(details.clone());
            self.memory.set_app(app, &memory)?;
            if host::take_lock(&path, &details, layout.owner)? {
                return Ok(None);
            }
            Ok(host::read_lock(&path)?.filter(|holder| *holder != details))
        };
        match take().map_err(|e| self.file_failure(step, &e))? {
            None => Ok(()),
            Some(holder) => {
                let reason = format!("another deployer holds Kamal's lock: {holder}");
                Err(self.failure(step, FailureKind::Locked, reason))
            }
        }
    }

    async fn release_lock(&self, step: &Step, context: &StepContext<'_>) -> Done {
        let (app, layout) = (self.app(step, context)?, self.layout(step, context)?);
        let path = layout.lock(app);
        let _writing = self.writing.lock().await;
        let release = || -> io::Result<()> {
            let mut memory = self.memory.app(app)?.unwrap_or_default();
            let there = host::read_lock(&path)?;
            if there.is_some() && there == memory.lock {
                host::release_lock(&path)?;
            }
            memory.lock = None;
            self.memory.set_app(app, &memory)
        };
        self.file(step, release())
    }
}
