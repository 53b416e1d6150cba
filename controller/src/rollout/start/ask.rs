//! PURE: a start request, parsed.

use std::time::Duration;

use dhow_proto::model::error::{At, each, required};
use dhow_proto::model::{App, BlobRef, FieldError, HostName, RoleName, Version};
use dhow_proto::wire;

use super::random_id;
use crate::rollout::error::StartError;
use crate::rollout::record::{FailurePolicy, HookOffer, Operation, RolloutId};

/// Kamal's `--lock-wait-timeout`.
const LOCK_TIMEOUT: Duration = Duration::from_secs(900);

/// Kamal's `--lock-wait-interval`.
const LOCK_INTERVAL: Duration = Duration::from_secs(15);

/// How long to wait for a lock, and how often to look at the least; a change of it is seen at once anyway.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockWait {
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) id: RolloutId,
    pub(super) app: App,
    pub(super) operation: Operation,
    pub(super) version: Version,
    pub(super) spec: BlobRef,
    pub(super) bundles: Option<BlobRef>,
    pub(super) hosts: Vec<HostName>,
    pub(super) roles: Vec<RoleName>,
    pub(super) roles_given: bool,
    pub(super) wait_for_hosts: Duration,
    pub(super) skip_offline: bool,
    pub(super) lock_wait: Option<LockWait>,
    pub(super) policy: FailurePolicy,
    pub(super) await_client: Duration,
    pub(super) hooks: Vec<HookOffer>,
    pub(super) performer: String,
    pub(super) performer_name: String,
    pub(super) command: String,
    pub(super) subcommand: String,
    pub(super) parent: Option<String>,
}

fn duration(
    value: Option<prost_types::Duration>,
    field: &str,
) -> Result<Option<Duration>, FieldError> {
    value.map(|d| Duration::try_from(d).map_err(|e| FieldError::new(field, e))).transpose()
}

impl Ask {
    /// Checks a request; `await_client` is used where it names none.
    pub(super) fn parse(
        start: wire::StartRollout,
        await_client: Duration,
    ) -> Result<Self, StartError> {
        let operation = operation(start.operation())?;
        let id = match start.rollout_id.is_empty() {
            true => random_id().map_err(|_| StartError::Random)?,
            false => start.rollout_id.clone(),
        };
        Ok(Self::read(start, operation, id, await_client).at("start")?)
    }

    fn read(
        start: wire::StartRollout,
        operation: Operation,
        id: String,
        await_client: Duration,
    ) -> Result<Self, FieldError> {
        let options = required(start.options, "options")?;
        let policy = match options.failure_policy() {
            wire::FailurePolicy::Unspecified | wire::FailurePolicy::Stop => FailurePolicy::Stop,
            wire::FailurePolicy::Rollback => FailurePolicy::Rollback,
        };
        let lock_wait = options
            .lock_wait
            .map(|wait| {
                Ok::<_, FieldError>(LockWait {
                    timeout: duration(wait.timeout, "timeout")?.unwrap_or(LOCK_TIMEOUT),
                    interval: duration(wait.interval, "interval")?.unwrap_or(LOCK_INTERVAL),
                })
            })
            .transpose()
            .at("options.lock_wait")?;
        let hosts = each(options.hosts, "options.hosts", HostName::try_from)?;
        let roles = each(options.roles, "options.roles", RoleName::try_from)?;
        if hosts.is_empty() {
            return Err(FieldError::missing("options.hosts"));
        }
        if roles.is_empty() {
            return Err(FieldError::missing("options.roles"));
        }
        Ok(Self {
            id: RolloutId::try_from(id)?,
            app: App::try_from(required(start.app, "app")?).at("app")?,
            operation,
            version: Version::try_from(start.version).at("version")?,
            spec: BlobRef::try_from(required(start.spec, "spec")?).at("spec")?,
            bundles: start.bundles.map(BlobRef::try_from).transpose().at("bundles")?,
            hosts,
            roles,
            roles_given: options.roles_given,
            wait_for_hosts: duration(options.wait_for_hosts, "options.wait_for_hosts")?
                .unwrap_or_default(),
            skip_offline: options.skip_offline,
            lock_wait,
            policy,
            await_client: duration(options.await_client, "options.await_client")?
                .unwrap_or(await_client),
            hooks: start
                .hooks
                .into_iter()
                .map(|h| HookOffer { name: h.name, digest: hex::encode(h.digest) })
                .collect(),
            performer: start.performer,
            performer_name: start.performer_name,
            command: start.command,
            subcommand: start.subcommand,
            parent: Some(start.parent_rollout).filter(|p| !p.is_empty()),
        })
    }
}

fn operation(wire: wire::Operation) -> Result<Operation, StartError> {
    use wire::Operation as W;
    match wire {
        W::Setup => Ok(Operation::Setup),
        W::Deploy => Ok(Operation::Deploy),
        W::Redeploy => Ok(Operation::Redeploy),
        W::Rollback => Ok(Operation::Rollback),
        W::Unspecified => Err(FieldError::missing("start.operation").into()),
        W::App | W::Proxy | W::Accessory | W::Prune | W::Remove | W::Upgrade => {
            Err(StartError::Unsupported { operation: wire.as_str_name().to_owned() })
        }
    }
}
