//! Takes a rollout in: everything that can be refused is refused here, before anything changes.

mod ask;
mod lock;

use std::time::Duration;

use dhow_proto::model::secrets::Purpose;
use dhow_proto::model::spec::Spec;
use dhow_proto::model::{BlobRef, Document as _, FieldError, HostName, Unit};
use dhow_proto::wire;
use futures_util::future::try_join_all;
use ring::rand::SecureRandom as _;
use tokio::time::Instant;

use super::book::read_header;
use super::error::{RolloutError, StartError};
use super::intents::placed;
use super::record::{HostFact, Operation};
use super::seams::Word;
use super::secrets::Bundles;
use super::{Rollouts, stages};
use crate::blob::BlobError;
use crate::claim;
use ask::Ask;

/// How often hosts are asked again whether Docker answers there, while that is waited for.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Time between two questions to a host that is waited for.
const BETWEEN: Duration = Duration::from_millis(200);

/// How long an Engine that is being started again is waited for, whatever is asked: a person is told within five seconds.
const RESTART: Duration = Duration::from_secs(2);

/// 16 random hexadecimal digits: enough to tell rollouts, processes and requests apart.
pub(super) fn random_id() -> Result<String, RolloutError> {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| RolloutError::Random)?;
    Ok(hex::encode(bytes))
}

impl Rollouts {
    /// Starts a rollout and returns its id. Repeating it with the same id returns the same rollout. Dropping the future
    /// before it returns leaves either nothing or a started rollout.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing was changed then.
    pub async fn start(&self, user: &str, start: wire::StartRollout) -> Result<String, StartError> {
        let ask = Ask::parse(start, self.inner.settings.await_client)?;
        let store = &*self.inner.rooms.store;
        if let Some(known) = read_header(store, &ask.id).await? {
            let same = known.app == ask.app && known.spec == ask.spec && known.started_by == user;
            return if same { Ok(ask.id.to_string()) } else { Err(StartError::IdTaken(ask.id)) };
        }
        let spec = self.spec(&ask).await?;
        let bundles = self.bundles(&ask).await?;
        let mut hosts = self.resolve(&ask, &spec).await?;
        check_secrets(&ask, &spec, &bundles, &hosts)?;
        // Both at once: one waits for the disk, the other for the network.
        tokio::try_join!(
            self.keep_blobs(&ask, &spec, &bundles),
            self.wait_for_hosts(&ask, &spec, &mut hosts)
        )?;
        for host in &mut hosts {
            host.mirror = self.inner.rooms.fleet.mirror(&host.name).unwrap_or_default();
        }
        for host in hosts.iter().filter(|h| !h.away) {
            let held = claim::read(store, &host.name).await?;
            claim::check(&host.name, &held, &claim::wanted(&spec, &host.config))?;
        }
        let id = ask.id.clone();
        self.store_rollout(user, ask, &spec, &bundles, hosts).await?;
        self.spawn(id.clone());
        Ok(id.to_string())
    }

    async fn load(&self, blob: BlobRef) -> Result<bytes::Bytes, StartError> {
        match self.inner.rooms.blobs.load(blob.digest).await {
            Err(BlobError::Missing(digest)) => Err(StartError::BlobMissing(digest)),
            other => Ok(other?),
        }
    }

    async fn spec(&self, ask: &Ask) -> Result<Spec, StartError> {
        let spec = Spec::from_bytes(&self.load(ask.spec).await?).map_err(StartError::Spec)?;
        spec.check().map_err(StartError::Spec)?;
        let bad = |path: String, problem: &str| {
            StartError::Spec(FieldError::new(format!("spec.{path}"), problem))
        };
        if spec.app != ask.app {
            return Err(bad("app".to_owned(), "is not the app that is asked for"));
        }
        if spec.version != ask.version {
            let (asked, found) = (ask.version.clone(), spec.version);
            return Err(StartError::VersionMismatch { asked, found });
        }
        if ask.operation == Operation::Setup && !spec.accessories.is_empty() {
            let accessories = spec.accessories.iter().map(|a| a.name.to_string()).collect();
            return Err(StartError::Accessories { accessories });
        }
        for name in &ask.roles {
            if spec.role(name).is_none() {
                return Err(bad(format!("roles.{name}"), "is asked for and not in the spec"));
            }
        }
        for host in &ask.hosts {
            let known = spec.app_hosts().contains(&host)
                || spec.accessories.iter().any(|a| a.hosts.contains(host));
            if !known {
                return Err(bad(format!("hosts.{host}"), "is asked for and not in the spec"));
            }
        }
        Ok(spec)
    }

    async fn has(&self, blob: BlobRef) -> Result<(), StartError> {
        match self.inner.rooms.blobs.has(blob.digest).await? {
            true => Ok(()),
            false => Err(StartError::BlobMissing(blob.digest)),
        }
    }

    async fn bundles(&self, ask: &Ask) -> Result<Bundles, StartError> {
        let Some(blob) = ask.bundles else { return Ok(Bundles::default()) };
        Ok(Bundles::from_bytes(&self.load(blob).await?)?)
    }

    /// Makes sure that everything the rollout's intents will name is here, and new to the collection of blobs: until the
    /// rollout is stored nothing names it.
    async fn keep_blobs(
        &self,
        ask: &Ask,
        spec: &Spec,
        bundles: &Bundles,
    ) -> Result<(), StartError> {
        let pages = spec.error_pages.iter().flatten().map(|page| page.content);
        let named = [ask.spec].into_iter().chain(ask.bundles).chain(bundles.ciphertexts());
        try_join_all(named.chain(pages).map(|blob| self.has(blob))).await?;
        let templates = spec.roles.iter().flat_map(|r| &r.templates);
        let put = templates.map(|t| self.inner.rooms.blobs.put(t.template.to_bytes()));
        try_join_all(put).await?;
        Ok(())
    }

    /// Config spellings to enrolled hosts; only hosts that run one of the roles are in effect.
    async fn resolve(&self, ask: &Ask, spec: &Spec) -> Result<Vec<HostFact>, StartError> {
        let mut found: Vec<HostFact> = Vec::new();
        let mut missing = Vec::new();
        for config in &ask.hosts {
            if !spec.roles_on(config).any(|r| ask.roles.contains(&r.name)) {
                continue;
            }
            match self.inner.hosts.resolve(config).await?.filter(|record| !record.revoked) {
                None => missing.push(config.clone()),
                Some(record) => {
                    if let Some(first) = found.iter().find(|f| f.name == record.name) {
                        let (first, second) = (first.config.clone(), config.clone());
                        return Err(StartError::SameHost { first, second, host: record.name });
                    }
                    let config = config.clone();
                    found.push(HostFact {
                        name: record.name,
                        config,
                        away: false,
                        mirror: String::new(),
                    });
                }
            }
        }
        if !missing.is_empty() {
            return Err(StartError::NotEnrolled { hosts: missing });
        }
        if found.is_empty() {
            let problem = "none of them runs one of the roles";
            return Err(FieldError::new("options.hosts", problem).into());
        }
        Ok(found)
    }

    /// Waits for hosts that are offline for as long as asked, then refuses or leaves them for later.
    async fn wait_for_hosts(
        &self,
        ask: &Ask,
        spec: &Spec,
        hosts: &mut [HostFact],
    ) -> Result<(), StartError> {
        let words = self.words(ask, hosts).await;
        for (host, word) in hosts.iter_mut().zip(&words) {
            host.away = *word == Word::None;
        }
        let offline: Vec<HostName> =
            hosts.iter().filter(|h| h.away).map(|h| h.config.clone()).collect();
        let without_engine = hosts.iter().zip(&words).filter(|(_, word)| **word == Word::NoEngine);
        let without_engine: Vec<HostName> =
            without_engine.map(|(host, _)| host.config.clone()).collect();
        if !without_engine.is_empty() {
            return Err(StartError::NoEngine { hosts: without_engine, offline });
        }
        if offline.is_empty() {
            return Ok(());
        }
        let primary = |h: &HostFact| spec.roles_on(&h.config).any(|r| r.name == spec.primary_role);
        // Other roles boot after a healthy primary container: where all its hosts are away there will be none.
        let without_primary =
            hosts.iter().any(primary) && !hosts.iter().any(|h| !h.away && primary(h));
        if ask.skip_offline && offline.len() < hosts.len() && !without_primary {
            return Ok(());
        }
        Err(StartError::Offline { hosts: offline })
    }

    /// What hosts say, once all are there or nobody waits any longer for those that are not.
    async fn words(&self, ask: &Ask, hosts: &[HostFact]) -> Vec<Word> {
        let fleet = &self.inner.rooms.fleet;
        let begun = Instant::now();
        let mut changes = fleet.changes();
        let mut words = vec![Word::None; hosts.len()];
        let mut everybody = true;
        loop {
            changes.mark_unchanged();
            let asked_at = Instant::now();
            // All at once, or the silent ones would add up.
            let asked = hosts.iter().zip(&words).map(|(host, word)| async move {
                match word {
                    // Once more when all the others are there.
                    Word::Here if !everybody => Word::Here,
                    _ => fleet.asked(&host.name).await,
                }
            });
            words = futures_util::future::join_all(asked).await;
            if words.iter().all(|word| *word == Word::Here) {
                if everybody {
                    return words;
                }
                everybody = true;
                continue;
            }
            everybody = false;
            let restarts = words.contains(&Word::NoEngine);
            let wait = ask.wait_for_hosts.max(if restarts { RESTART } else { Duration::ZERO });
            let left = wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return words;
            }
            let news = async {
                // Nothing tells of an Engine that answers again. Drop-safe: an unseen change stays unseen.
                let again = if restarts { ASK_AGAIN } else { Duration::MAX };
                let _ = tokio::time::timeout(again, changes.changed()).await;
                // The changes of a large fleet never end.
                tokio::time::sleep_until(asked_at + BETWEEN).await;
            };
            // Late, it is asked a last time.
            let _ = tokio::time::timeout(left, news).await;
        }
    }
}

/// Every secret a host will need must be sealed for it: found out now, not when the image is pulled.
fn check_secrets(
    ask: &Ask,
    spec: &Spec,
    bundles: &Bundles,
    hosts: &[HostFact],
) -> Result<(), StartError> {
    let lacking = |purpose: Purpose, unit: Unit, template: &dyn Fn(&HostFact) -> Option<usize>| {
        let lacks = |h: &&HostFact| {
            template(h).is_some_and(|t| bundles.sealed(purpose, &unit, t, &h.name).is_none())
        };
        let without: Vec<HostName> = hosts.iter().filter(lacks).map(|h| h.config.clone()).collect();
        (!without.is_empty()).then_some(without)
    };
    let app = Unit::App(spec.app.clone());
    if spec.registry.login
        && ask.operation != Operation::Rollback
        && let Some(hosts) = lacking(Purpose::Registry, app, &|_| Some(0))
    {
        return Err(StartError::SecretsMissing { what: "registry login".to_owned(), hosts });
    }
    for role in spec.roles.iter().filter(|r| ask.roles.contains(&r.name)) {
        let unit = Unit::Role(spec.app.clone(), role.name.clone());
        let env = |h: &HostFact| {
            let (index, template) = placed(role, &h.config)?;
            (!template.secret_env.is_empty()).then_some(index)
        };
        if let Some(hosts) = lacking(Purpose::Env, unit.clone(), &env) {
            let what = format!("environment of role {}", role.name);
            return Err(StartError::SecretsMissing { what, hosts });
        }
        let tls = |h: &HostFact| {
            (stages::prepares(spec) && role.tls_secrets.is_some())
                .then(|| placed(role, &h.config))?
                .map(|_| 0)
        };
        if let Some(hosts) = lacking(Purpose::Tls, unit, &tls) {
            let what = format!("certificate of role {}", role.name);
            return Err(StartError::SecretsMissing { what, hosts });
        }
    }
    Ok(())
}
