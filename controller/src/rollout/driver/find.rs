//! Before a rollback: is there a container of the version for every role on every host?

use dhow_proto::model::{HostName, RoleName};
use futures_util::future::join_all;

use super::{Driver, Went, failed};
use crate::rollout::fence::DriveError;
use crate::rollout::intents::fact;
use crate::rollout::stages::Stage;

impl Driver {
    /// Kamal's rule and words: a rollback needs a container, in any state, for every role on every host.
    pub(super) async fn find_containers(&mut self, stage: &Stage) -> Result<Went, DriveError> {
        let header = self.book.header.clone();
        let asked = stage.hosts.iter().map(|h| self.fleet.containers(h, &header.app));
        let answers = join_all(asked).await;
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

    /// The rollout's roles on a host.
    pub(super) fn roles_on(&self, host: &HostName) -> Result<Vec<RoleName>, DriveError> {
        let config = &fact(&self.book.header, host)?.config;
        let names = self.book.spec.roles_on(config).map(|r| r.name.clone());
        Ok(names.filter(|name| self.book.header.roles.contains(name)).collect())
    }
}
