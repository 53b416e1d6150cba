//! Accessories of the spec.

use dhow_proto::model::name::{AccessoryName, HostName, ImageRef};
use dhow_proto::model::spec::AccessorySpec;
use dhow_proto::model::template::{AccessoryDirectory, AccessoryTemplate, Mount};

use super::super::diagnostic::Code;
use super::super::model::{Accessory, PathMount};
use super::{Compiler, container, options, registry};

impl Compiler<'_> {
    /// One accessory; `None` where a problem was reported.
    pub(super) fn accessory(&mut self, accessory: &Accessory) -> Option<AccessorySpec> {
        let path = format!("accessories/{}", accessory.name);
        let name: Option<AccessoryName> = self.name(&accessory.name, &path);
        let hosts: Vec<HostName> = self
            .config
            .accessory_hosts(accessory)
            .iter()
            .filter_map(|host| self.name(host, &path))
            .collect();
        let image = self.accessory_image(accessory, &path);
        let mut container = self.container(&container::Parts {
            image: image?,
            cmd: accessory.cmd.as_deref(),
            labels: &accessory.labels,
            network: &accessory.network,
            logging: &self.config.logging,
            volumes: &accessory.volumes,
            volumes_path: &format!("{path}/volumes"),
            options: &accessory.options,
            path: &path,
        })?;
        container.env.splice(0..0, container::clear_env(&accessory.env));
        if let Some(port) = &accessory.port
            && let Err(cause) = options::publish(&mut container.options, port)
        {
            self.report(Code::Invalid, &format!("{path}/port"), cause);
        }
        // Kamal's order of volume flags: volumes, files, directories.
        let files = self.accessory_files(accessory, name.as_ref(), &path);
        for file in &accessory.files {
            let below = format!("{}/{}", accessory.service, file.remote.trim_start_matches('/'));
            container.mounts.push(Mount::HomeBind(mount_text(&below, file)));
        }
        for directory in &accessory.directories {
            container.mounts.push(match host_directory(accessory, directory) {
                absolute if absolute.starts_with('/') => {
                    Mount::Bind(mount_text(&absolute, directory))
                }
                below => Mount::HomeBind(mount_text(&below, directory)),
            });
        }
        let proxy = match &accessory.proxy {
            Some(proxy) => Some(self.target(proxy, &format!("{path}/proxy"))?),
            None => None,
        };
        let directories = accessory
            .directories
            .iter()
            .map(|directory| AccessoryDirectory {
                path: host_directory(accessory, directory),
                mode: directory.mode.clone(),
                owner: directory.owner.clone(),
            })
            .collect();
        Some(AccessorySpec {
            name: name?,
            hosts,
            template: AccessoryTemplate {
                service: accessory.service.clone(),
                container,
                proxy,
                // As Kamal: `stop_timeout` is for roles; an accessory is stopped within Docker's own time.
                timeouts: self.timeouts(None)?,
                files,
                directories,
            },
            secret_env: container::secret_env(&accessory.env),
            registry: accessory.registry.as_ref().map(registry),
        })
    }

    fn accessory_image(&mut self, accessory: &Accessory, path: &str) -> Option<ImageRef> {
        if accessory.image.trim().is_empty() {
            self.report(Code::Missing, path, "an accessory needs an `image`");
            return None;
        }
        let server = accessory.registry.as_ref().map(|registry| registry.server.as_str());
        let full = match server.filter(|server| !server.is_empty()) {
            Some(server) => format!("{server}/{}", accessory.image),
            None => accessory.image.clone(),
        };
        // The last colon is a tag's (or a digest's) unless a slash follows: then it is a port's.
        Some(match full.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => {
                ImageRef { repository: repository.to_owned(), tag: tag.to_owned() }
            }
            _ => ImageRef { repository: full, tag: "latest".into() },
        })
    }
}

/// `HOST:REMOTE[:OPTIONS]`.
fn mount_text(host: &str, mount: &PathMount) -> String {
    match &mount.options {
        Some(options) => format!("{host}:{}:{options}", mount.remote),
        None => format!("{host}:{}", mount.remote),
    }
}

/// Where a directory is on the host: absolute, or below the accessory's own.
fn host_directory(accessory: &Accessory, directory: &PathMount) -> String {
    if directory.local.starts_with('/') {
        directory.local.clone()
    } else {
        format!("{}/{}", accessory.service, directory.local)
    }
}
