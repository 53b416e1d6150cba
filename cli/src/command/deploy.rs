//! `dhow setup`, `deploy`, `redeploy` and `rollback`: compiles, seals, uploads, then follows the rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use dhow_proto::model::spec::Spec;
use dhow_proto::model::{App, BlobRef, Document as _, HostName};
use dhow_proto::wire;

use super::{Globals, Outcome};
use crate::bundle::{self, Login, Recipient, Recipients, Sealed};
use crate::caller::Caller;
use crate::client::Client;
use crate::config::compile::Compiled;
use crate::follow::{Follow, Followed, new_rollout_id};
use crate::hooks;
use crate::output::progress::{Progress, print_line};
use crate::performer::Performer;
use crate::project::{ConfigError, Project};
use crate::selection::{Selection, select};

/// Options of the commands that wait for the app's lock.
#[derive(Clone, Debug, clap::Args)]
pub struct LockArgs {
    /// Wait for another rollout of this app to end
    #[arg(long)]
    pub lock_wait: bool,
    /// Seconds to wait for it
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub lock_wait_timeout: u64,
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub lock_wait_interval: u64,
    /// Seconds to wait for hosts that are offline or without Docker, before anything changes
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
    /// Leave hosts that are offline out; they catch up when they are back
    #[arg(long)]
    pub skip_offline: bool,
}

/// Options of setup, deploy and redeploy.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Do not build and push an image: it is in the registry
    #[arg(short = 'P', long)]
    pub skip_push: bool,
    #[command(flatten)]
    lock: LockArgs,
}

/// Options of rollback.
#[derive(Clone, Debug, clap::Args)]
pub struct RollbackArgs {
    /// The version to boot again
    pub version: String,
    #[command(flatten)]
    lock: LockArgs,
}

/// Which of the commands it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `setup`.
    Setup,
    /// `deploy`.
    Deploy,
    /// `redeploy`.
    Redeploy,
    /// `rollback`.
    Rollback,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Deploy => "deploy",
            Self::Redeploy => "redeploy",
            Self::Rollback => "rollback",
        }
    }

    fn operation(self) -> wire::Operation {
        match self {
            Self::Setup => wire::Operation::Setup,
            Self::Deploy => wire::Operation::Deploy,
            Self::Redeploy => wire::Operation::Redeploy,
            Self::Rollback => wire::Operation::Rollback,
        }
    }
}

/// Runs `setup`, `deploy` or `redeploy`.
///
/// # Errors
///
/// Whatever kept the rollout from beginning; a rollout that failed is [`Outcome::Failed`].
pub async fn run(globals: &Globals, kind: Kind, args: &Args) -> anyhow::Result<Outcome> {
    if !args.skip_push {
        bail!(
            "building images is not supported yet: push the image yourself and run `dhow {} --skip-push` (-P)",
            kind.word()
        );
    }
    roll_out(globals, kind, &args.lock).await
}

/// Runs `rollback VERSION`.
///
/// # Errors
///
/// As [`run`].
pub async fn rollback(globals: &Globals, args: &RollbackArgs) -> anyhow::Result<Outcome> {
    let globals = Globals { version: Some(args.version.clone()), ..globals.clone() };
    roll_out(&globals, Kind::Rollback, &args.lock).await
}

async fn roll_out(globals: &Globals, kind: Kind, lock: &LockArgs) -> anyhow::Result<Outcome> {
    let project = Project::load_here(globals)?;
    let version = match project.version() {
        Ok(version) => version,
        Err(problems) => return Err(ConfigError::new(problems, globals).into()),
    };
    let Compiled { spec, blobs, .. } = project.compile(&version, globals)?;
    if kind == Kind::Setup && !spec.accessories.is_empty() {
        bail!(
            "`setup` does not boot accessories yet, and the config has {}: boot them with Kamal, then run `dhow deploy -P`",
            names(spec.accessories.iter().map(|a| a.name.as_str()))
        );
    }
    let config = &project.loaded.config;
    let selection = select(config, &globals.filter())?;
    // The transitional form: hosts that are not listed keep Traefik, which dhow does not drive.
    let with_traefik = config.hosts_with_traefik();
    let untouched: Vec<&str> =
        with_traefik.into_iter().filter(|host| selection.hosts.iter().any(|h| h == host)).collect();
    if !untouched.is_empty() {
        bail!(
            "{} run Traefik, as `proxy: hosts:` does not list them beside `enabled`: deploy to the listed hosts with `-h`, or list these once they are upgraded",
            untouched.join(", ")
        );
    }
    // Asks git and the system while the controller is asked: each answer takes some milliseconds.
    let directory = project.directory.clone();
    let performer = tokio::task::spawn_blocking(move || Performer::find(&directory));
    let mut client = Client::connect().await?;
    let recipients = recipients(&client, &selection).await?;
    let sealed = seal(&project, &spec, &recipients)?;
    let contents = blobs.into_iter().map(|(_, content)| content).collect();
    let parts = Parts { project: &project, spec: &spec, selection: &selection, kind, lock };
    let performer = performer.await.context("asking who runs this")?;
    let start = parts.start(globals, &sealed, &performer)?;
    upload(&client, &spec, sealed, contents).await?;
    let mut progress = Progress::new(globals.json, globals.quiet, globals.style());
    let follow = Follow { client: &mut client, project: &project, verbose: globals.verbose };
    let followed = follow.start(start, &mut progress).await;
    progress.finish();
    Ok(tell(followed?, kind.word(), &spec.app, spec.version.as_str(), globals))
}

/// Asks for the hosts' keys: also what says which hosts are not enrolled, before anything else happens.
async fn recipients(client: &Client, selection: &Selection) -> anyhow::Result<Recipients> {
    let request = wire::HostKeysRequest { hosts: selection.hosts.clone() };
    let keys =
        client.control().host_keys(request).await.map_err(Client::explain)?.into_inner().keys;
    let mut recipients = BTreeMap::new();
    for key in keys {
        let config_host = HostName::try_from(key.config_host)?;
        let host = HostName::try_from(key.host)?;
        recipients.insert(config_host, Recipient { host, public_key: key.public_key.to_vec() });
    }
    let seen: Vec<_> =
        recipients.values().map(|r: &Recipient| (r.host.clone(), r.public_key.clone())).collect();
    client.home().check_host_keys(client.address(), &seen)?;
    Ok(recipients)
}

fn seal(project: &Project, spec: &Spec, recipients: &Recipients) -> anyhow::Result<Sealed> {
    let registry = &project.loaded.config.registry;
    let login = match (&registry.username, &registry.password) {
        (Some(username), Some(password)) if spec.registry.login => Some(Login {
            username: project.credential(username)?,
            password: project.credential(password)?,
        }),
        _ => None,
    };
    Ok(bundle::seal(spec, recipients, login.as_ref(), |name| project.secret(name))?)
}

async fn upload(
    client: &Client,
    spec: &Spec,
    sealed: Sealed,
    mut contents: Vec<Vec<u8>>,
) -> anyhow::Result<()> {
    contents.push(spec.to_bytes());
    contents.extend(sealed.encoded());
    contents.extend(sealed.blobs);
    client.upload(contents).await.context("uploading what the rollout needs")
}

/// What a start is made from.
struct Parts<'a> {
    project: &'a Project,
    spec: &'a Spec,
    selection: &'a Selection,
    kind: Kind,
    lock: &'a LockArgs,
}

impl Parts<'_> {
    fn start(
        &self,
        globals: &Globals,
        sealed: &Sealed,
        performer: &Performer,
    ) -> anyhow::Result<wire::StartRollout> {
        let hooks = match globals.skip_hooks {
            true => Vec::new(),
            false => hooks::find(&self.project.hooks(), &hooks::ROLLOUT_HOOKS),
        };
        Ok(wire::StartRollout {
            app: Some((&self.spec.app).into()),
            operation: self.kind.operation().into(),
            version: self.spec.version.to_string(),
            spec: Some(self.spec.blob().into()),
            bundles: sealed.encoded().map(|b| BlobRef::of(&b).into()),
            options: Some(options(self.spec, self.selection, self.lock)),
            hooks,
            performer: performer.email_or_user(),
            performer_name: performer.name_or_user(),
            command: self.kind.word().to_owned(),
            subcommand: String::new(),
            parent_rollout: std::env::var("DHOW_ROLLOUT").unwrap_or_default(),
            rollout_id: new_rollout_id()?,
        })
    }
}

fn options(spec: &Spec, selection: &Selection, lock: &LockArgs) -> wire::RolloutOptions {
    let span = |seconds: u64| prost_types::Duration::try_from(Duration::from_secs(seconds)).ok();
    let policy = match spec.rollback_on_failure {
        true => wire::FailurePolicy::Rollback,
        false => wire::FailurePolicy::Stop,
    };
    wire::RolloutOptions {
        hosts: selection.hosts.clone(),
        roles: selection.roles.clone(),
        roles_given: selection.roles_given,
        wait_for_hosts: span(lock.wait),
        skip_offline: lock.skip_offline,
        lock_wait: lock.lock_wait.then(|| wire::LockWait {
            timeout: span(lock.lock_wait_timeout),
            interval: span(lock.lock_wait_interval.max(1)),
        }),
        failure_policy: policy.into(),
        await_client: None,
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Says how a rollout ended.
pub(super) fn tell(
    followed: Followed,
    what: &str,
    app: &App,
    version: &str,
    globals: &Globals,
) -> Outcome {
    if followed.state != wire::RolloutState::Succeeded {
        if !globals.json {
            tell_failure(&followed, &format!("{what} of {app} {version}"), globals);
        }
        return Outcome::Failed;
    }
    if !globals.json && !globals.quiet {
        let took = followed.runtime.as_secs_f64();
        let hosts = match followed.hosts {
            1 => "1 host".to_owned(),
            count => format!("{count} hosts"),
        };
        let line = format!("{app} {version} is live on {hosts} ({took:.1} s)");
        print_line(&globals.style().green(&line));
    }
    Outcome::Done
}

/// Says it where errors go: by the name `kamal` that is standard output, with what Kamal has no word of beside it.
fn tell_failure(followed: &Followed, what: &str, globals: &Globals) {
    let style = globals.style();
    let state = crate::output::event::state_word(followed.state).replace('_', " ");
    let reason = format!("{what} {state}: {}", followed.reason);
    let more = format!("See `dhow rollout show {}` and `dhow status`.", followed.rollout_id);
    let caller = Caller::of_process();
    if caller.is_kamal {
        print_line(caller.kamal_error(&anyhow!(reason)).trim_end());
    } else {
        eprintln!("{}", style.red(&reason));
    }
    eprintln!("{}", style.red(&more));
}
