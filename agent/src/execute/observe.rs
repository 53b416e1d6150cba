//! Reads what there is, just before planning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_proto::model::intent::{AppIntent, Desired};
use dhow_proto::model::{App, BlobDigest, RoleName, Unit, kamal};
use futures_util::future::try_join_all;

mod others;

use self::others::{adopted, app_labels, foreign, has_app_labels, stopped_by_others};
use super::{ObserveError, Worker};
use crate::engine::{ContainerState, EngineError, ImageFilter, ImageView, ObservedContainer};
use crate::host::{self, About, AppMemory, AssetKind, Layout};
use crate::plan::{
    self, AppFiles, Foreign, LockView, Observed, ObservedApp, ObservedProxy, ObservedRole,
    ProxyView, Routes, Switch, Wanted,
};
use crate::proxy::{self, BootFiles};

/// `kamal-proxy list` answers in milliseconds or not at all.
const LIST: Duration = Duration::from_secs(10);

fn files(path: &Path) -> impl FnOnce(std::io::Error) -> ObserveError {
    let path = path.to_owned();
    move |source| ObserveError::Files { path, source }
}

impl Worker {
    pub(super) async fn look(
        &self,
        wanted: &Wanted,
        before: Option<&Observed>,
    ) -> Result<Observed, ObserveError> {
        let unit = &wanted.intent.unit;
        let layout = self.settings.homes.layout(&wanted.intent.host)?;
        self.sweep(&layout).await;
        match unit {
            Unit::Proxy => self.look_at_proxy(wanted, &layout).await.map(Observed::Proxy),
            Unit::App(app) => {
                let before = match before {
                    Some(Observed::App(before)) => Some(before),
                    Some(Observed::Proxy(_) | Observed::Role(_)) | None => None,
                };
                self.look_at_app(wanted, app, &layout, before).await.map(Observed::App)
            }
            Unit::Role(app, role) => {
                let before = match before {
                    Some(Observed::Role(before)) => Some(before),
                    Some(Observed::Proxy(_) | Observed::App(_)) | None => None,
                };
                let seen = self.look_at_role(wanted, app, role, &layout, before).await;
                seen.map(Observed::Role)
            }
            Unit::Accessory(..) | Unit::Agent | Unit::Task { .. } => Err(ObserveError::Unsupported),
        }
    }

    /// Clears away, once in a process, what an earlier one left that was killed in the middle of a write. Whoever writes in
    /// these directories has looked before, so that nothing of this process is in the making there.
    async fn sweep(&self, layout: &Layout) {
        let flat: fn(&Path) -> std::io::Result<()> = host::sweep_directory;
        let places = [
            (self.settings.memory.clone(), flat),
            (layout.kamal.clone(), flat),
            (layout.proxy(), host::sweep_tree),
            (layout.run.join("apps"), host::sweep_tree),
        ];
        let mut swept = self.swept.lock().await;
        for (place, sweep) in places {
            if swept.contains(&place) {
                continue;
            }
            // The memory is also written by who has not looked.
            let _writing = self.writing.lock().await;
            if let Err(error) = sweep(&place) {
                let path = place.display();
                tracing::warn!(%path, %error, "could not clear away what was left half written");
            }
            swept.insert(place);
        }
    }

    async fn look_at_proxy(
        &self,
        wanted: &Wanted,
        layout: &Layout,
    ) -> Result<ObservedProxy, ObserveError> {
        let directory = layout.proxy();
        let read = |name: &str| {
            let path = directory.join(name);
            host::read_text(&path).map_err(files(&path))
        };
        let boot_files = BootFiles {
            options: read("options")?,
            image: read("image")?,
            image_version: read("image_version")?,
            run_command: read("run_command")?,
        };
        let boot_image = plan::boot_image(wanted, &boot_files).map(|image| image.to_string());
        let image = async {
            match &boot_image {
                Some(image) => Ok(self.engine.image(image).await?.is_some()),
                None => Ok(false),
            }
        };
        let networks = self.engine.networks(kamal::NETWORK);
        let (image, networks, proxy) = tokio::try_join!(image, networks, self.proxy_container())?;
        let mut observed = ObservedProxy {
            networks: networks.len(),
            proxy,
            boot_files,
            directory: layout.apps_config().is_dir(),
            image,
            marks: self.memory.marks(&Unit::Proxy).map_err(files(&self.settings.memory))?,
            foreign: self.foreign_to_the_proxy().await?,
            at: (self.now)(),
        };
        if plan::asks_proxy(wanted, &observed) {
            self.ask_proxy(&mut observed.proxy).await?;
        }
        Ok(observed)
    }

    /// Kamal writes what it does to the proxy into the log of the app it was called for.
    async fn foreign_to_the_proxy(&self) -> Result<Foreign, ObserveError> {
        // As in `look_at_app`.
        let _writing = self.writing.lock().await;
        for memory in self.memory.apps().map_err(files(&self.settings.memory))? {
            let Some(log) = &memory.audit_log else { continue };
            let line = host::foreign_line(log, memory.audit_from, &memory.own_lines, About::Proxy)
                .map_err(files(log))?;
            if line.is_some() {
                return Ok(Foreign { audit_line: line, ..Foreign::default() });
            }
        }
        Ok(Foreign::default())
    }

    async fn look_at_app(
        &self,
        wanted: &Wanted,
        app: &App,
        layout: &Layout,
        before: Option<&ObservedApp>,
    ) -> Result<ObservedApp, ObserveError> {
        let InEngine { containers, images, proxy } = match before {
            Some(before) => InEngine {
                containers: before.containers.clone(),
                images: before.images.clone(),
                proxy: before.proxy.clone(),
            },
            None => self.of_app_in_engine(wanted, app).await?,
        };
        let ours: Vec<ObservedContainer> =
            containers.iter().filter(|c| has_app_labels(c, app)).cloned().collect();
        let memory = self.app_memory(app, layout, &ours).await?;
        // Log, lock and memory are read as one: a line or lock of ours that is just being written is not foreign.
        let writing = self.writing.lock().await;
        let memory = self.memory.app(app).map_err(files(&self.settings.memory))?.unwrap_or(memory);
        let path = layout.lock(app);
        let lock = match host::read_lock(&path).map_err(files(&path))? {
            None => LockView::Free,
            Some(details) if memory.lock.as_ref() == Some(&details) => LockView::Ours(details),
            Some(details) => LockView::Foreign(details),
        };
        let apps_config = self.apps_config(layout, proxy.container.as_ref());
        let mut observed = ObservedApp {
            foreign: foreign(app, layout, &memory, &ours)?,
            files: app_files(app, layout, &apps_config)?,
            marks: self.memory.marks(&wanted.intent.unit).map_err(files(&self.settings.memory))?,
            containers,
            images,
            proxy,
            lock,
            at: (self.now)(),
        };
        drop(writing);
        if plan::asks_routes(wanted, &observed) {
            self.ask_proxy(&mut observed.proxy).await?;
        }
        Ok(observed)
    }

    async fn of_app_in_engine(&self, wanted: &Wanted, app: &App) -> Result<InEngine, ObserveError> {
        let label = format!("{}={}", kamal::LABEL_SERVICE, app.service);
        let in_repository = async {
            match &wanted.intent.desired {
                Desired::App(AppIntent { repository, .. }) => {
                    self.engine.images(ImageFilter::Repository(repository)).await
                }
                _ => Ok(Vec::new()),
            }
        };
        let (containers, mut images, in_repository, proxy) = tokio::try_join!(
            self.engine.containers(std::slice::from_ref(&label)),
            self.engine.images(ImageFilter::Label(&label)),
            in_repository,
            self.proxy_container(),
        )?;
        for image in in_repository {
            if !images.iter().any(|i| i.id == image.id) {
                images.push(image);
            }
        }
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(InEngine { containers, images, proxy })
    }

    async fn look_at_role(
        &self,
        wanted: &Wanted,
        app: &App,
        role: &RoleName,
        layout: &Layout,
        before: Option<&ObservedRole>,
    ) -> Result<ObservedRole, ObserveError> {
        let labels = app_labels(app);
        let service = app.role_prefix(role);
        let (all, images, proxy) = tokio::try_join!(
            async { Ok(self.engine.containers(&labels).await?) },
            self.role_images(wanted, app),
            self.proxy_view(&service, before.map(|b| &b.proxy)),
        )?;
        let of_app: Vec<ObservedContainer> =
            all.into_iter().filter(|c| has_app_labels(c, app)).collect();
        let memory = self.app_memory(app, layout, &of_app).await?;
        let (containers, others): (Vec<_>, Vec<_>) =
            of_app.into_iter().partition(|c| c.label(kamal::LABEL_ROLE) == role.as_str());
        let mut squatter = None;
        for (variant, _) in wanted.variants() {
            let name = app.container_name(role, &variant.version);
            if !containers.iter().any(|c| c.name == name.as_str()) {
                squatter = self.engine.container(name.as_str()).await?;
            }
        }
        let switch = self.saw_switch(&service, &proxy.routes);
        let roles: BTreeSet<RoleName> =
            others.iter().filter_map(|c| c.label(kamal::LABEL_ROLE).parse().ok()).collect();
        let referenced = others
            .iter()
            .filter(|c| c.state.is_up())
            .filter_map(|c| {
                let other: RoleName = c.label(kamal::LABEL_ROLE).parse().ok()?;
                plan::version_of(&app.role_prefix(&other), &c.name)
            })
            .collect();
        let env = layout.env_file(app, role);
        let env_file = host::read_text(&env).map_err(files(&env))?;
        let apps_config = self.apps_config(layout, proxy.container.as_ref());
        // As in `look_at_app`.
        let _writing = self.writing.lock().await;
        let memory = self.memory.app(app).map_err(files(&self.settings.memory))?.unwrap_or(memory);
        let stopped = stopped_by_others(wanted, &service, &proxy.routes);
        Ok(ObservedRole {
            foreign: Foreign { stopped, ..foreign(app, layout, &memory, &containers)? },
            files: app_files(app, layout, &apps_config)?,
            env_file: env_file.map(|text| BlobDigest::of(text.as_bytes())),
            containers,
            squatter,
            images,
            proxy,
            switch,
            referenced,
            roles,
            at: (self.now)(),
        })
    }

    /// Images of the variants and of the latest tag, by reference.
    async fn role_images(
        &self,
        wanted: &Wanted,
        app: &App,
    ) -> Result<BTreeMap<String, ImageView>, ObserveError> {
        let references = wanted.variants().flat_map(|(_, template)| {
            let image = &template.container.image;
            [image.to_string(), format!("{}:{}", image.repository, app.latest_tag())]
        });
        let references: BTreeSet<String> = references.collect();
        let asked = references.into_iter().map(|reference| async move {
            let image = self.engine.image(&reference).await?;
            Ok::<_, EngineError>(image.map(|image| (reference, image)))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// kamal-proxy's container, table and deploys under way. One that runs and does not answer is no error.
    async fn proxy_view(
        &self,
        service: &str,
        before: Option<&ProxyView>,
    ) -> Result<ProxyView, ObserveError> {
        let (mut view, deploying) = tokio::try_join!(self.proxy_container(), self.deploying())?;
        if let Some(routes) = before.and_then(|before| self.told_routes(service, before, &view)) {
            view.routes = Routes::Known(routes);
        } else if view.runs() {
            // After the deploys under way: one that ends in between is then seen in the table.
            view.routes = self.routes().await.map_or(Routes::Unknown, Routes::Known);
        }
        view.deploying = deploying;
        Ok(view)
    }

    /// The table as it was, with the targets that kamal-proxy has just said it switched the service to. None where it is
    /// not the same proxy any more, or did not say so.
    fn told_routes(
        &self,
        service: &str,
        before: &ProxyView,
        now: &ProxyView,
    ) -> Option<BTreeMap<String, proxy::Route>> {
        let (was, is) = (before.container.as_ref()?, now.container.as_ref()?);
        let same = was.id == is.id
            && was.started_at == is.started_at
            && is.state == ContainerState::Running;
        let Routes::Known(routes) = &before.routes else { return None };
        let mut routes = routes.clone();
        let switches = self.switches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match switches.get(service) {
            Some(Switch::Returned { targets }) if same => {
                routes.get_mut(service)?.targets.clone_from(targets);
                Some(routes)
            }
            _ => None,
        }
    }

    /// kamal-proxy's container alone.
    async fn proxy_container(&self) -> Result<ProxyView, EngineError> {
        let container = self.engine.container(kamal::PROXY_CONTAINER).await?;
        Ok(ProxyView { container, routes: Routes::Unknown, deploying: BTreeSet::new() })
    }

    /// Asks a kamal-proxy that runs for its table and its deploys under way. That starts a process in its container,
    /// which is what costs most in a look.
    async fn ask_proxy(&self, view: &mut ProxyView) -> Result<(), ObserveError> {
        if view.runs() {
            // Deploys first: one that ends in between is then seen in the table.
            view.deploying = self.deploying().await?;
            if let Ok(routes) = self.routes().await {
                view.routes = Routes::Known(routes);
            }
        }
        Ok(())
    }

    /// The table, or why there is none, in a sentence.
    pub(super) async fn routes(&self) -> Result<BTreeMap<String, proxy::Route>, String> {
        let output = self
            .engine
            .exec(kamal::PROXY_CONTAINER, &proxy::list(), LIST)
            .await
            .map_err(|e| e.to_string())?;
        if output.exit_code != 0 {
            return Err(super::route::message(&output.stderr));
        }
        proxy::parse_list(&output.stdout).map_err(|e| e.to_string())
    }

    /// Services with a `kamal-proxy deploy` under way; none where the proxy does not run.
    pub(super) async fn deploying(&self) -> Result<BTreeSet<String>, EngineError> {
        let processes = match self.engine.processes(kamal::PROXY_CONTAINER).await {
            Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => Vec::new(),
            other => other?,
        };
        Ok(processes
            .iter()
            .filter_map(|p| proxy::is_deploy_of(&p.argv).map(str::to_owned))
            .collect())
    }

    /// Remembers since when a route has its targets.
    fn saw_switch(&self, service: &str, routes: &Routes) -> Option<Switch> {
        let targets = routes.get(service)?.targets.clone();
        let mut switches = self.switches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = match switches.get(service) {
            Some(Switch::Returned { targets: t } | Switch::Seen { targets: t, .. }) => {
                *t == targets
            }
            None => false,
        };
        if !known {
            let since = (self.now)();
            switches.insert(service.to_owned(), Switch::Seen { targets, since });
        }
        switches.get(service).cloned()
    }

    /// Where the proxy that runs looks for error pages and certificates: another user may have booted it.
    pub(super) fn apps_config(
        &self,
        layout: &Layout,
        proxy: Option<&ObservedContainer>,
    ) -> PathBuf {
        proxy
            .and_then(|p| p.mounts.iter().find(|m| m.destination == kamal::PROXY_APPS_CONFIG))
            .map_or_else(|| layout.apps_config(), |m| PathBuf::from(&m.source))
    }

    /// What is remembered of an app; one never seen before is adopted as it is.
    async fn app_memory(
        &self,
        app: &App,
        layout: &Layout,
        containers: &[ObservedContainer],
    ) -> Result<AppMemory, ObserveError> {
        let _writing = self.writing.lock().await;
        let error = || files(&self.settings.memory);
        if let Some(memory) = self.memory.app(app).map_err(error())? {
            return Ok(memory);
        }
        let memory = adopted(app, layout, containers, None);
        self.memory.set_app(app, &memory).map_err(error())?;
        Ok(memory)
    }

    pub(super) async fn adopt_app(&self, app: &App, wanted: &Wanted) -> Result<(), ObserveError> {
        let layout = self.settings.homes.layout(&wanted.intent.host)?;
        let containers = self.engine.containers(&app_labels(app)).await?;
        let _writing = self.writing.lock().await;
        let lock = self.memory.app(app).map_err(files(&self.settings.memory))?.and_then(|m| m.lock);
        let memory = adopted(app, &layout, &containers, lock);
        self.memory.set_app(app, &memory).map_err(files(&self.settings.memory))
    }
}

/// What the Engine knows of an app.
struct InEngine {
    containers: Vec<ObservedContainer>,
    images: Vec<ImageView>,
    proxy: ProxyView,
}

fn app_files(app: &App, layout: &Layout, apps_config: &Path) -> Result<AppFiles, ObserveError> {
    let names = |path: PathBuf| host::names_in(&path).map_err(files(&path));
    let tls = apps_config.join(app.slug()).join("tls");
    let mut certificates = names(tls.clone())?;
    certificates.retain(|role| {
        ["cert.pem", "key.pem"].iter().all(|file| host::exists(&tls.join(role).join(file)))
    });
    Ok(AppFiles {
        directory: layout.app(app).is_dir(),
        asset_volumes: names(layout.assets(app, AssetKind::Volumes))?,
        error_pages: names(Layout::error_pages(apps_config, app))?,
        certificates,
    })
}
