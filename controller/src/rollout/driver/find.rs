//! Before a rollback: is there a container of the version for every role on every host?

use std::time::Duration;

use dhow_proto::model::{HostName, RoleName};
use futures_util::future::join_all;

use super::{Driver, Went, failed};
use crate::rollout::fence::DriveError;
use crate::rollout::gate::{Presence, SILENCE};
use crate::rollout::intents::fact;
use crate::rollout::record::Unsuccess;
use crate::rollout::stages::Stage;

/// Until a host that could not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

impl Driver {
    /// Kamal's rule and words: a rollback needs a container, in any state, for every role on every host.
    pub(super) async fn find_containers(&mut self, stage: &Stage) -> Result<Went, DriveError> {
        let header = self.book.header.clone();
        let begin = tokio::time::Instant::now();
        let answers = loop {
            self.until_heard(&stage.hosts).await;
            if let Some(reason) = self.book.hub().cancelled() {
                return Ok(Went::Not(Unsuccess::Cancelled, reason));
            }
            let asked = stage.hosts.iter().map(|h| self.fleet.containers(h, &header.app));
            let answers = join_all(asked).await;
            let mut both = stage.hosts.iter().zip(&answers);
            // One that left while it was asked is asked again when it is back.
            if both.any(|(host, answer)| answer.is_err() && self.patience(host).is_some()) {
                continue;
            }
            // An Engine that is started again is away for a moment, and steps on its host would wait for it.
            if answers.iter().all(Result::is_ok) || begin.elapsed() >= SILENCE {
                break answers;
            }
            let mut news = self.book.hub().changes();
            // Whatever comes first: a rollout that is cancelled does not wait.
            let _ = tokio::time::timeout(AGAIN, news.changed()).await;
        };
        for (host, answer) in stage.hosts.iter().zip(answers) {
            let containers = match answer {
                Ok(containers) => containers,
                Err(reason) => return Ok(failed(format!("{host}: {reason}"))),
            };
            for role in self.roles_on(host)? {
                let name = header.app.container_name(&role, &header.version);
                let found = containers.iter().any(|c| {
                    c.name == name.as_str()
                        // A container renamed for a newer one of its version is as good.
                        || (c.role == role.as_str() && c.version == header.version.as_str())
                });
                if !found {
                    let version = &header.version;
                    return Ok(failed(format!(
                        "the app version '{version}' is not available as a container of role {role} on {host} \
                         (use `dhow app containers` for available versions)"
                    )));
                }
            }
        }
        Ok(self.done())
    }

    /// Waits for hosts that are away, each for as long as silence is borne. A controller that just started has not heard of
    /// any yet. Ends early where the rollout is cancelled.
    async fn until_heard(&self, hosts: &[HostName]) {
        let (mut changes, mut news) = (self.fleet.changes(), self.book.hub().changes());
        loop {
            changes.mark_unchanged();
            news.mark_unchanged();
            if self.book.hub().cancelled().is_some() {
                return;
            }
            let Some(left) = hosts.iter().filter_map(|host| self.patience(host)).max() else {
                return;
            };
            tokio::select! {
                // Cancel-safe: an unseen change stays unseen, and silence is counted from what was heard.
                _ = changes.changed() => {}
                _ = news.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// How much longer a host that is away is waited for; none where it is here, or away for too long.
    pub(super) fn patience(&self, host: &HostName) -> Option<Duration> {
        match self.presence(host) {
            Presence::Here { .. } => None,
            Presence::Away { since } => SILENCE.checked_sub(since).filter(|left| !left.is_zero()),
        }
    }

    /// The rollout's roles on a host.
    pub(super) fn roles_on(&self, host: &HostName) -> Result<Vec<RoleName>, DriveError> {
        let config = &fact(&self.book.header, host)?.config;
        let names = self.book.spec.roles_on(config).map(|r| r.name.clone());
        Ok(names.filter(|name| self.book.header.roles.contains(name)).collect())
    }
}
