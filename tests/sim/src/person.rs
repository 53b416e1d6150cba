//! A person with a CLI: starts operations, runs hooks, comes back to a rollout whose stream broke, or goes away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dhow_proto::dial::{Dialer, Identity};
use dhow_proto::model::{BlobRef, Document as _};
use dhow_proto::wire;
use dhow_proto::wire::control_service_client::ControlServiceClient;
use dhow_proto::wire::deploy_request::Message as Up;
use dhow_proto::wire::deploy_response::Message as Down;
use dhow_proto::wire::rollout_event::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::furnish;
use crate::kills::Fate;
use crate::net::PORT;
use crate::scenario::{Action, CALM};
use crate::world::{CONTROLLERS, Person, World, app, hook_files};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(700);

/// Does what the scenario says, one thing after the other.
pub(crate) async fn run(world: Arc<World>, index: usize) -> anyhow::Result<()> {
    let person = &world.people[index];
    let identity = Identity::from_der(&person.certificate, &person.key)?;
    let outside = Arc::new(world.clock.clone());
    let dialer = Dialer::enrolled_in(outside, &identity, &world.ca_set)?;
    for (number, action) in world.scenario.people[index].iter().enumerate() {
        tokio::time::sleep(action.after).await;
        if world.now.elapsed() > CALM {
            break;
        }
        let mut visit = Visit {
            world: &world,
            dialer: &dialer,
            action,
            id: format!("rollout-p{index}-{number}"),
            seen: 0,
            announced: None,
            ran: Vec::new(),
            sealed: match world.scenario.furnished {
                true => furnish::uploads(&world, action.version),
                false => (None, Vec::new()),
            },
        };
        if number + 1 == world.scenario.people[index].len() {
            world.fate.iter().for_each(Fate::arm);
        }
        match action.leaves {
            // Dropped with its connection, whatever it is at.
            Some(after) => {
                let _ = tokio::time::timeout(after, visit.follow()).await;
            }
            None => mortal(person, &mut visit).await,
        }
    }
    Ok(())
}

/// To the end. What a client knew dies with it: but for the rollout's name, which its person saw.
async fn mortal(person: &Person, visit: &mut Visit<'_>) {
    let mut has_client = person.has_client.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = has_client.wait_for(|has| !has) => {}
            () = visit.follow() => return,
        }
        (visit.seen, visit.announced) = (0, None);
        visit.ran.clear();
        // The other end is gone with the simulation only.
        let _ = has_client.wait_for(|has| *has).await;
    }
}

struct Visit<'a> {
    world: &'a World,
    dialer: &'a Dialer,
    action: &'a Action,
    id: String,
    /// Sequence of the last event.
    seen: u64,
    announced: Option<wire::HookRequest>,
    /// Hooks that ran, and how they ended.
    ran: Vec<(String, i32)>,
    /// The list of sealed bundles, and what is uploaded beside the spec: sealed once, as one start is one rollout.
    sealed: (Option<BlobRef>, Vec<Vec<u8>>),
}

impl Visit<'_> {
    /// Until the operation is over or was refused.
    async fn follow(&mut self) {
        loop {
            match self.connect().await {
                Ok(channel) => match self.attempt(channel).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(status) if is_refusal(&status) => {
                        tracing::info!(rollout = self.id, %status, "refused");
                        self.world.answered(&self.id, Err(status.message().to_owned()));
                        return;
                    }
                    Err(status) => tracing::info!(rollout = self.id, %status, "broke"),
                },
                Err(error) => tracing::info!(rollout = self.id, %error, "no connection"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn connect(&self) -> Result<Channel, dhow_proto::dial::DialError> {
        let mut last = None;
        for name in CONTROLLERS {
            let address = format!("{name}:{PORT}").parse()?;
            match self.dialer.connect(&address).await {
                Ok(channel) => return Ok(channel),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is a controller to try"))
    }

    /// One stream; true once the rollout is over.
    async fn attempt(&mut self, channel: Channel) -> Result<bool, Status> {
        let mut client = ControlServiceClient::new(channel);
        let spec = self.world.spec(self.action.version, self.action.rolls_back).to_bytes();
        let blob = BlobRef::of(&spec);
        let (requests, stream) = mpsc::channel(16);
        let first = match self.world.answers.lock().expect("no panic holds it").get(&self.id) {
            Some(Ok(())) => Up::Attach(wire::AttachRollout {
                rollout_id: self.id.clone(),
                hooks: hook_files(&self.action.hooks),
                after_sequence: self.seen,
            }),
            _ => Up::Start(self.start(blob)),
        };
        if matches!(first, Up::Start(_)) {
            for bytes in std::iter::once(spec).chain(self.sealed.1.clone()) {
                upload(&mut client, bytes).await?;
            }
        }
        send(&requests, first).await;
        let mut responses = client.deploy(ReceiverStream::new(stream)).await?.into_inner();
        for (hook_id, exit_code) in &self.ran {
            send(&requests, finished(hook_id, *exit_code)).await;
        }
        while let Some(response) = responses.message().await? {
            match response.message {
                Some(Down::Accepted(_)) => self.world.answered(&self.id, Ok(())),
                Some(Down::Hook(hook)) => {
                    let hook_id = hook.hook_id.clone();
                    self.announced = Some(hook);
                    send(&requests, Up::HookStarted(wire::HookStarted { hook_id })).await;
                }
                Some(Down::Event(event)) => {
                    self.seen = self.seen.max(event.sequence);
                    let Some(Kind::Hook(hook)) = event.kind else { continue };
                    let started = hook.state() == wire::HookState::Started;
                    if started
                        && let Some(mine) = self.announced.take_if(|a| a.hook_id == hook.hook_id)
                    {
                        self.point("is to run", &mine.name).await;
                        self.world.hook_ran(&mine.hook_id);
                        self.point("ran", &mine.name).await;
                        let failed = self.action.failing == Some(mine.name.as_str());
                        self.ran.push((mine.hook_id.clone(), i32::from(failed)));
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        send(&requests, finished(&mine.hook_id, i32::from(failed))).await;
                    }
                    let unknown = hook.state() == wire::HookState::Unknown;
                    if unknown
                        && self.action.looks
                        && !self.ran.iter().any(|(id, _)| *id == hook.hook_id)
                    {
                        if !self.world.has_run(&hook.hook_id) {
                            self.world.hook_ran(&hook.hook_id);
                        }
                        self.ran.push((hook.hook_id.clone(), 0));
                        send(&requests, finished(&hook.hook_id, 0)).await;
                    }
                }
                Some(Down::Finished(over)) => {
                    tracing::info!(rollout = self.id, state = ?over.state(), over.reason, "over");
                    return Ok(true);
                }
                None => {}
            }
        }
        Ok(false)
    }

    async fn point(&self, what: &str, hook: &str) {
        self.world.breakpoints().reach(|| format!("client {what} {hook}")).await;
    }

    fn start(&self, spec: BlobRef) -> wire::StartRollout {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let roles = match self.world.scenario.jobs.is_empty() {
            true => vec!["web".to_owned()],
            false => vec!["web".to_owned(), "job".to_owned()],
        };
        let policy = match self.action.rolls_back {
            true => wire::FailurePolicy::Rollback,
            false => wire::FailurePolicy::Stop,
        };
        wire::StartRollout {
            app: Some((&app()).into()),
            operation: self.action.operation.into(),
            version: format!("v{}", self.action.version),
            spec: Some(spec.into()),
            bundles: self.sealed.0.map(Into::into),
            options: Some(wire::RolloutOptions {
                hosts: self.world.hosts.iter().map(|h| h.name.clone()).collect(),
                roles,
                skip_offline: self.action.skip_offline,
                wait_for_hosts: seconds(self.world.scenario.wait_for_hosts.as_secs().cast_signed()),
                failure_policy: policy.into(),
                await_client: seconds(20),
                ..Default::default()
            }),
            hooks: hook_files(&self.action.hooks),
            performer: "ann@sim".to_owned(),
            performer_name: "Ann".to_owned(),
            command: "deploy".to_owned(),
            subcommand: String::new(),
            parent_rollout: String::new(),
            rollout_id: self.id.clone(),
        }
    }
}

async fn upload(client: &mut ControlServiceClient<Channel>, bytes: Vec<u8>) -> Result<(), Status> {
    use wire::upload_request::Message;
    let messages = [Message::Blob(BlobRef::of(&bytes).into()), Message::Data(Bytes::from(bytes))];
    let requests = messages.map(|message| wire::UploadRequest { message: Some(message) });
    client.upload(tokio_stream::iter(requests)).await?;
    Ok(())
}

/// The stream that is over says so itself.
async fn send(requests: &mpsc::Sender<wire::DeployRequest>, message: Up) {
    let _ = requests.send(wire::DeployRequest { message: Some(message) }).await;
}

fn finished(hook_id: &str, exit_code: i32) -> Up {
    Up::HookFinished(wire::HookFinished {
        hook_id: hook_id.to_owned(),
        exit_code,
        error: String::new(),
    })
}

/// The controller said no; anything else is tried again.
fn is_refusal(status: &Status) -> bool {
    match status.code() {
        Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::NotFound
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}
