//! Steps on an app's files: assets, error pages, certificates.

use std::io;

use dhow_proto::model::intent::Desired;
use dhow_proto::model::secrets::Secrets;
use dhow_proto::model::status::Failure;
use dhow_proto::model::{App, ImageRef, RoleName, Version, kamal};
use dhow_proto::wire::FailureKind;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Place, StepContext, Worker};
use crate::engine::{ContainerBody, EngineError, NewContainer};
use crate::host::{self, AssetKind, Layout};
use crate::plan::Step;

/// Assets of one image that are copied at most.
const ASSETS: usize = 512 << 20;

type Done = Result<(), Box<Failure>>;

impl Worker {
    pub(super) async fn change_files(&self, step: &Step, context: &StepContext<'_>) -> Done {
        let (app, layout) = (self.app(step, context)?, self.layout(step, context)?);
        let proxy = self
            .engine
            .container(kamal::PROXY_CONTAINER)
            .await
            .map_err(|e| self.engine_failure(step, &e))?;
        let apps_config = self.apps_config(&layout, proxy.as_ref());
        match step {
            Step::CreateAppDirectory => {
                self.file(step, host::create_dirs(&layout.app(app), layout.owner))
            }
            Step::RemoveAppFiles => {
                let config = apps_config.join(app.slug());
                let both =
                    host::remove_tree(&layout.app(app)).and_then(|()| host::remove_tree(&config));
                self.file(step, both)
            }
            Step::RemoveEnv { role } => {
                self.file(step, host::remove_file(&layout.env_file(app, role)))
            }
            Step::CleanAssets { names } => {
                let remove = || -> io::Result<()> {
                    for kind in [AssetKind::Extracted, AssetKind::Volumes] {
                        for name in names {
                            host::remove_tree(&layout.assets(app, kind).join(name))?;
                        }
                    }
                    Ok(())
                };
                self.file(step, remove())
            }
            Step::CleanErrorPages { names } => {
                let pages = Layout::error_pages(&apps_config, app);
                let remove =
                    || names.iter().try_for_each(|name| host::remove_tree(&pages.join(name)));
                self.file(step, remove())
            }
            Step::WriteErrorPages { version } => {
                let pages = Layout::error_pages(&apps_config, app).join(version.as_str());
                self.write_error_pages(step, context, &pages, &layout)
            }
            Step::WriteCertificate { role } => {
                let directory = Layout::certificate(&apps_config, app, role);
                let Some(secrets) = context.secrets.tls.get(role) else {
                    let reason = format!("the certificate of {role} was not opened on this host");
                    return Err(self.failure(step, FailureKind::Secrets, reason));
                };
                self.write_certificate(step, secrets, &directory, &layout)
            }
            Step::BridgeAssets { role, version, old, image, path } => {
                let assets = Assets { app, role, version, old: old.as_ref(), image, path };
                self.bridge_assets(step, &assets, &layout).await
            }
            _ => Ok(()),
        }
    }

    fn write_error_pages(
        &self,
        step: &Step,
        context: &StepContext<'_>,
        pages: &std::path::Path,
        layout: &Layout,
    ) -> Done {
        let Desired::App(intent) = &context.wanted.intent.desired else { return Ok(()) };
        for page in intent.prepare.iter().flat_map(|p| &p.error_pages) {
            let Some(content) = context.wanted.file(&page.content) else {
                let reason = format!("the error page {} is not on this host", page.name);
                return Err(self.failure(step, FailureKind::Other, reason));
            };
            // Readable by the proxy's user.
            let path = pages.join(&page.name);
            self.file(step, host::write(&path, content, 0o644, layout.owner))?;
        }
        Ok(())
    }

    fn write_certificate(
        &self,
        step: &Step,
        secrets: &Secrets,
        directory: &std::path::Path,
        layout: &Layout,
    ) -> Done {
        for (name, file) in [("certificate_pem", "cert.pem"), ("private_key_pem", "key.pem")] {
            let Some(pem) = secrets.get(name) else {
                let reason = format!("the sealed certificate holds no {name}");
                return Err(self.failure(step, FailureKind::Secrets, reason));
            };
            // 0644 as Kamal has it: kamal-proxy is not root and its user id is not known here.
            let path = directory.join(file);
            let content = pem.expose_secret().as_bytes();
            self.file(step, host::write(&path, content, 0o644, layout.owner))?;
        }
        Ok(())
    }

    /// Copies the assets out of a container that is created and never started (host-effects: asset bridging).
    async fn bridge_assets(&self, step: &Step, assets: &Assets<'_>, layout: &Layout) -> Done {
        let Assets { app, role, version, old, image, path } = assets;
        let _bridging = self.bridging.lock().await;
        let name = format!("{}-assets", app.role_prefix(role));
        let fail = |e: EngineError| self.engine_failure(step, &e);
        // Left behind by a crash; one that runs (of an old Kamal) is stopped first.
        self.engine.stop(&name, None).await.map_err(fail)?;
        self.engine.remove(&name).await.map_err(fail)?;
        let body = json!({"Image": image.to_string(), "Cmd": ["true"]});
        let container = NewContainer { name, platform: None, body: ContainerBody::new(body) };
        let id = self.engine.create(container).await.map_err(fail)?;
        let tar = self.engine.archive(&id, &format!("{path}/."), ASSETS).await;
        let removed = self.engine.remove(&id).await;
        let Some(tar) = tar.map_err(fail)? else {
            let reason = format!("image {image} has no asset path {path}");
            return Err(self.failure(step, FailureKind::Other, reason));
        };
        removed.map_err(fail)?;
        let owner = layout.owner;
        let directory =
            |kind, version: &Version| layout.assets(app, kind).join(format!("{role}-{version}"));
        let new_extracted = directory(AssetKind::Extracted, version);
        let new_volume = directory(AssetKind::Volumes, version);
        let old = old
            .map(|old| (directory(AssetKind::Extracted, old), directory(AssetKind::Volumes, old)));
        // Off the runtime: this may be many files.
        let copy = move || -> io::Result<()> {
            host::extract(&tar, &new_extracted, owner)?;
            host::bridge(&new_extracted, &new_volume, owner)?;
            if let Some((extracted, volume)) = old {
                // May fail, as with Kamal: the old version may have no assets.
                let _ = host::bridge(&new_extracted, &volume, owner);
                let _ = host::bridge(&extracted, &new_volume, owner);
            }
            Ok(())
        };
        let bridged = match self.settings.place {
            Place::BlockingThread => tokio::task::spawn_blocking(copy).await,
            Place::Caller => Ok(copy()),
        };
        match bridged {
            Ok(result) => self.file(step, result),
            Err(_) => Err(self.failure(step, FailureKind::Other, "copying assets was interrupted")),
        }
    }
}

struct Assets<'a> {
    app: &'a App,
    role: &'a RoleName,
    version: &'a Version,
    old: Option<&'a Version>,
    image: &'a ImageRef,
    path: &'a str,
}
