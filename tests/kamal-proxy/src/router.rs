//! All services, which of them gets a request, and the commands that change them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustls::sign::CertifiedKey;
use serde_json::json;

use crate::duration;
use crate::log::{self, Level};
use crate::options::{Gate, ServiceOptions, TargetOptions};
use crate::rpc::{Deploy, Request, RolloutDeploy};
use crate::service::{Rollout, Service, Setup};
use crate::state;
use crate::targets::TargetSet;

type Services = BTreeMap<String, Arc<Service>>;

/// What a service does about TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tls {
    pub(crate) enabled: bool,
    pub(crate) redirect: bool,
}

/// The services of this proxy.
pub(crate) struct Router {
    services: RwLock<Services>,
    state_file: PathBuf,
    /// Held while the state file is written, so that the newest state is written last.
    saving: Mutex<()>,
}

/// A service chosen for a request, and the prefix by which.
pub(crate) struct Route {
    pub(crate) service: Arc<Service>,
    pub(crate) prefix: String,
}

impl Router {
    /// Takes up what the state file says; a file that cannot be used in full is not used at all.
    pub(crate) fn restore(state_file: PathBuf) -> Arc<Self> {
        let path = state_file.display().to_string();
        let services = match state::load(&state_file) {
            Ok(Some(services)) => {
                log::info("Restored saved state", json!({"path": path}));
                services
            }
            Ok(None) => {
                log::info("No previous state to restore", json!({"path": path}));
                BTreeMap::new()
            }
            Err(error) => {
                log::write(
                    Level::Error,
                    "Failed to decode saved state",
                    json!({"path": path, "error": error}),
                );
                BTreeMap::new()
            }
        };
        Arc::new(Self { services: RwLock::new(services), state_file, saving: Mutex::new(()) })
    }

    /// Carries out a command; the answer is what the client prints.
    pub(crate) async fn carry_out(&self, request: Request) -> Result<String, String> {
        match request {
            Request::Deploy(deploy) => self.deploy(*deploy).await?,
            Request::Remove { service } => self.remove(&service)?,
            Request::Pause { service, drain_timeout, max_pause } => {
                self.close(&service, Gate::Paused { max_pause }, drain_timeout).await?;
            }
            Request::Stop { service, drain_timeout, message } => {
                self.close(&service, Gate::Stopped { message }, drain_timeout).await?;
            }
            Request::Resume { service } => {
                self.find(&service)?.set_gate(Gate::Running);
                self.save();
                log::info("Service resumed", json!({"service": service}));
            }
            Request::List => return Ok(self.list()),
            Request::RolloutDeploy(rollout) => self.rollout_deploy(rollout).await?,
            Request::RolloutSet { service, split } => {
                self.find(&service)?.change_rollout(|rollout| match rollout.targets {
                    Some(_) => {
                        rollout.split = Some(split);
                        Ok(())
                    }
                    None => Err("rollout target not set".to_owned()),
                })?;
                self.save();
            }
            Request::RolloutStop { service } => {
                self.find(&service)?.change_rollout(|rollout| rollout.split = None);
                self.save();
            }
        }
        Ok(String::new())
    }

    async fn deploy(&self, deploy: Deploy) -> Result<(), String> {
        let options = deploy.options;
        let about = json!({
            "service": deploy.service,
            "targets": deploy.targets,
            "hosts": options.hosts,
            "paths": options.path_prefixes,
            "tls": options.tls_enabled,
        });
        log::info("Deploying", about.clone());
        let target_options = Arc::new(deploy.target_options);
        let targets = TargetSet::new(&deploy.targets, &deploy.readers, &target_options)?;
        targets.start_checks();
        if !deploy.force {
            wait_until_ready(&targets, deploy.deploy_timeout).await?;
        }
        let old = self.install(&deploy.service, options, target_options, &targets);
        let old = old.inspect_err(|_| targets.stop_checks())?;
        self.save();
        if let Some(old) = old {
            old.stop_checks();
            old.drain(duration::wait(deploy.drain_timeout)).await;
        }
        log::info("Deployed", about);
        Ok(())
    }

    /// Puts the targets into service under the lock; gives the ones they replace.
    fn install(
        &self,
        name: &str,
        options: ServiceOptions,
        target_options: Arc<TargetOptions>,
        targets: &Arc<TargetSet>,
    ) -> Result<Option<Arc<TargetSet>>, String> {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        for other in services.values().filter(|other| other.name != name) {
            let theirs = other.setup();
            if options.claims().any(|claim| theirs.options.claims().any(|owned| owned == claim)) {
                log::write(
                    Level::Error,
                    "Host settings conflict with another service",
                    json!({"service": other.name}),
                );
                return Err("host settings conflict with another service".to_owned());
            }
        }
        let setup = Setup::load(options, target_options, targets.clone())?;
        if let Some(service) = services.get(name) {
            return Ok(Some(service.replace(setup)));
        }
        services
            .insert(name.to_owned(), Service::new(name, setup, Rollout::default(), Gate::Running));
        Ok(None)
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        let removed = self.services.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let removed = removed.ok_or("service not found")?;
        removed.setup().targets.stop_checks();
        if let Some(rollout) = removed.rollout().targets {
            rollout.stop_checks();
        }
        self.save();
        Ok(())
    }

    /// Pauses or stops: new requests are affected at once, the command returns after the drain.
    async fn close(&self, name: &str, gate: Gate, drain_timeout: i64) -> Result<(), String> {
        let service = self.find(name)?;
        let word = gate.word();
        service.set_gate(gate);
        log::info(&format!("Service {word}"), json!({"service": name}));
        service.drain(duration::wait(drain_timeout)).await;
        log::info("Service drained", json!({"service": name}));
        // Only now, as in the real proxy: one that dies during the drain starts as it was before.
        self.save();
        Ok(())
    }

    async fn rollout_deploy(&self, deploy: RolloutDeploy) -> Result<(), String> {
        let service = self.find(&deploy.service)?;
        let options = service.setup().target_options.clone();
        let targets = TargetSet::new(&deploy.targets, &deploy.readers, &options)?;
        targets.start_checks();
        wait_until_ready(&targets, deploy.deploy_timeout).await?;
        let old = service.change_rollout(|rollout| rollout.targets.replace(targets));
        self.save();
        if let Some(old) = old {
            old.stop_checks();
            old.drain(duration::wait(deploy.drain_timeout)).await;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Arc<Service>, String> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.get(name).cloned().ok_or_else(|| "service not found".to_owned())
    }

    /// One row a service, sorted by name.
    fn list(&self) -> String {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let rows: Vec<_> = services
            .values()
            .map(|service| {
                let setup = service.setup();
                let hosts = setup.options.hosts.join(",");
                let mut targets = setup.targets.writer_names();
                targets.extend(setup.targets.reader_names());
                [
                    service.name.clone(),
                    if hosts.is_empty() { "*".to_owned() } else { hosts },
                    setup.options.path_prefixes.join(","),
                    targets.join(","),
                    service.gate().word().to_owned(),
                    if tls_of(&services, &setup).enabled { "yes" } else { "no" }.to_owned(),
                ]
            })
            .collect();
        crate::list::render(&rows)
    }

    /// Chooses by exact host, else `*.rest`, else wildcard; then by the longest prefix. A host that
    /// is known has no second chance when none of its prefixes matches.
    pub(crate) fn route(&self, host: &str, path: &str) -> Option<Route> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        choose(&services, host, path)
    }

    /// What applies to TLS requests of a service.
    pub(crate) fn tls(&self, setup: &Setup) -> Tls {
        tls_of(&self.services.read().unwrap_or_else(PoisonError::into_inner), setup)
    }

    /// The certificate for a name; without one, the first TLS service's.
    pub(crate) fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else {
            let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
            return services.values().find_map(|service| service.setup().certificate.clone());
        };
        self.route(name, "/")?.service.setup().certificate.clone()
    }

    /// Writes the state file. The real proxy does not report a failure either.
    fn save(&self) {
        let _guard: MutexGuard<'_, ()> = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Err(error) = state::store(&self.state_file, services.values()) {
            log::write(Level::Error, "Failed to save state", json!({"error": error.to_string()}));
        }
    }
}

fn choose(services: &Services, host: &str, path: &str) -> Option<Route> {
    let parent = match host.split_once('.') {
        Some((first, rest)) if !first.is_empty() => Some(format!("*.{rest}")),
        _ => None,
    };
    for wanted in [Some(host), parent.as_deref(), Some("")].into_iter().flatten() {
        let mut best: Option<Route> = None;
        let mut known = false;
        for service in services.values() {
            let setup = service.setup();
            for (_, prefix) in setup.options.claims().filter(|(host, _)| *host == wanted) {
                known = true;
                if prefix_matches(prefix, path)
                    && best.as_ref().is_none_or(|best| best.prefix.len() < prefix.len())
                {
                    best = Some(Route { service: service.clone(), prefix: prefix.to_owned() });
                }
            }
        }
        if known {
            return best;
        }
    }
    None
}

/// A service below a prefix follows the root service of its first host, or has no TLS without one.
fn tls_of(services: &Services, setup: &Setup) -> Tls {
    let own = |options: &ServiceOptions| Tls {
        enabled: options.tls_enabled,
        redirect: options.tls_redirect,
    };
    if setup.options.serves_root() {
        return own(&setup.options);
    }
    let host = setup.options.hosts.first().map_or("", String::as_str);
    choose(services, host, "/")
        .map_or(Tls { enabled: false, redirect: true }, |root| own(&root.service.setup().options))
}

async fn wait_until_ready(targets: &TargetSet, deploy_timeout: i64) -> Result<(), String> {
    let ready = tokio::time::timeout(duration::wait(deploy_timeout), targets.became_ready()).await;
    ready.map_err(|_| {
        targets.stop_checks();
        format!(
            "target failed to become healthy within configured timeout ({})",
            duration::format(deploy_timeout)
        )
    })
}

/// Whether `path` lies in `prefix`, at a slash.
fn prefix_matches(prefix: &str, path: &str) -> bool {
    if prefix == "/" {
        return path.starts_with('/');
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_a_slash() {
        assert!(prefix_matches("/", "/x"));
        assert!(prefix_matches("/api", "/api"));
        assert!(prefix_matches("/api", "/api/x"));
        assert!(!prefix_matches("/api", "/apix"));
        assert!(!prefix_matches("/", "*"));
    }
}
