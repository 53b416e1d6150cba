//! Follows a rollout from this machine: starts it or attaches to it, shows its events, runs its hooks.
//!
//! A client that goes away does not stop a rollout. When the stream breaks while it runs, this room attaches again
//! and goes on where it was; a hook that was started is never run twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dhow_proto::wire;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use wire::deploy_request::Message as Up;
use wire::deploy_response::Message as Down;

use crate::client::Client;
use crate::errors::chain;
use crate::hooks::{self, RunningHook};
use crate::output::event::printable;
use crate::output::progress::Progress;
use crate::project::Project;

/// Messages on their way to the controller: hook output is the only burst, and it may wait.
const OUTBOX: usize = 16;
/// How often a broken stream is attached again before giving up, one second apart and growing.
const REATTACHES: u32 = 8;
/// Bytes of a failed hook's output that are shown where it was not shown as it came.
const TAIL: usize = 8192;

/// A new rollout's id, chosen by the client so that a repeated start is the same rollout.
///
/// # Errors
///
/// No random bytes from the operating system.
pub fn new_rollout_id() -> anyhow::Result<String> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .ok()
        .context("no random bytes from the operating system")?;
    Ok(hex::encode(bytes))
}

/// How a rollout ended.
pub struct Followed {
    /// Its id.
    pub rollout_id: String,
    /// Its last state.
    pub state: wire::RolloutState,
    /// Why, where it did not succeed.
    pub reason: String,
    /// How long it took.
    pub runtime: Duration,
    /// Hosts it was about.
    pub hosts: usize,
}

/// What following needs.
pub struct Follow<'a> {
    /// The connection.
    pub client: &'a mut Client,
    /// Where hooks are.
    pub project: &'a Project,
    /// Show the output of all hooks.
    pub verbose: bool,
}

/// What a person says of a hook whose client went away while it ran: nobody else can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HookOutcome {
    /// It did what it should: the rollout goes on.
    Succeeded,
    /// It did not: the rollout ends.
    Failed,
}

enum End {
    Finished(wire::RolloutFinished),
    Broken(tonic::Status),
}

struct Seen {
    rollout_id: String,
    accepted: bool,
    sequence: u64,
    /// Hooks that were run here, with how they ended: told again after a broken stream, never run again.
    hooks: BTreeMap<String, wire::HookFinished>,
    /// A hook the controller asked for and that has not begun here. It runs once the controller has recorded that it
    /// does: so at most once, whatever is lost; the record is told again after a broken stream.
    announced: Option<wire::HookRequest>,
    /// The hook that a person spoke of, and what they said became of it.
    outcome: Option<(String, HookOutcome)>,
    /// Hooks that had ended before this client came: nobody has to say anything of them any more.
    over: BTreeSet<String>,
}

impl Seen {
    /// The answer for a hook with an unknown outcome, where a person gave one; how to give one, where not.
    fn told(&self, event: &wire::RolloutEvent, progress: &Progress) -> Option<wire::HookFinished> {
        let Some(wire::rollout_event::Kind::Hook(hook)) = &event.kind else { return None };
        let known = self.hooks.contains_key(&hook.hook_id) || self.over.contains(&hook.hook_id);
        if hook.state() != wire::HookState::Unknown || known {
            return None;
        }
        let said = self.outcome.as_ref().filter(|(id, _)| *id == hook.hook_id);
        let Some((_, outcome)) = said else {
            progress.line(&format!(
                "    look what hook {} did, then say so: `dhow rollout attach {} --hook succeeded` or `--hook failed`",
                hook.name, self.rollout_id
            ));
            return None;
        };
        let (exit_code, error) = match outcome {
            HookOutcome::Succeeded => (0, String::new()),
            HookOutcome::Failed => (1, "a person said that it failed".to_owned()),
        };
        Some(wire::HookFinished { hook_id: hook.hook_id.clone(), exit_code, error })
    }

    /// What a client knows that comes later; `outcome` is of the hook that was left behind.
    fn attaching(
        rollout_id: String,
        asked: &[wire::HookProgress],
        outcome: Option<HookOutcome>,
    ) -> anyhow::Result<Self> {
        use wire::HookState::{Finished, Started, Unknown};
        let of = |states: &[wire::HookState]| {
            let asked = asked.iter().filter(|hook| states.contains(&hook.state()));
            asked.map(|hook| hook.hook_id.clone()).collect::<BTreeSet<_>>()
        };
        // The controller may not have noticed yet that its client is gone.
        let left = of(&[Started, Unknown]).into_iter().next();
        let outcome = match (outcome, left) {
            (None, _) => None,
            (Some(outcome), Some(id)) => Some((id, outcome)),
            (Some(_), None) => bail!("no client left a hook of rollout {rollout_id} behind"),
        };
        Ok(Self { outcome, over: of(&[Finished]), ..Self::of(rollout_id) })
    }

    fn of(rollout_id: String) -> Self {
        Self {
            rollout_id,
            accepted: false,
            sequence: 0,
            hooks: BTreeMap::new(),
            announced: None,
            outcome: None,
            over: BTreeSet::new(),
        }
    }
}

impl Follow<'_> {
    /// Starts a rollout and follows it to its end.
    ///
    /// # Errors
    ///
    /// The controller refused it, or was lost for good.
    pub async fn start(
        self,
        start: wire::StartRollout,
        progress: &mut Progress,
    ) -> anyhow::Result<Followed> {
        let hosts = start.options.as_ref().map_or(0, |o| o.hosts.len());
        let seen = Seen::of(start.rollout_id.clone());
        let hooks = start.hooks.clone();
        self.follow(Up::Start(start), hooks, hosts, seen, progress).await
    }

    /// Attaches to a rollout that runs and follows it to its end, running its hooks from here on. `asked` are those it came
    /// to so far; `outcome` is of the one that was left behind.
    ///
    /// # Errors
    ///
    /// There is no such rollout, these are not its hooks, none was left behind, or the controller was lost for good.
    pub async fn attach(
        self,
        rollout: &wire::RolloutSummary,
        hooks: Vec<wire::HookFile>,
        asked: &[wire::HookProgress],
        outcome: Option<HookOutcome>,
        progress: &mut Progress,
    ) -> anyhow::Result<Followed> {
        let seen = Seen::attaching(rollout.id.clone(), asked, outcome)?;
        let first = Up::Attach(wire::AttachRollout {
            rollout_id: rollout.id.clone(),
            hooks: hooks.clone(),
            after_sequence: 0,
        });
        self.follow(first, hooks, rollout.hosts.len(), seen, progress).await
    }

    async fn follow(
        mut self,
        mut first: Up,
        hook_files: Vec<wire::HookFile>,
        hosts: usize,
        mut seen: Seen,
        progress: &mut Progress,
    ) -> anyhow::Result<Followed> {
        let mut attempt = 0;
        let finished = loop {
            let before = seen.sequence;
            let status = match self.stream(first.clone(), &mut seen, progress).await {
                End::Finished(finished) => break finished,
                End::Broken(status) => status,
            };
            attempt = if seen.sequence > before { 1 } else { attempt + 1 };
            let lost = matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
            );
            if !lost || attempt > REATTACHES {
                if seen.accepted && lost {
                    bail!(
                        "the controller was lost ({}); the rollout goes on without this client: `dhow rollout attach {}`",
                        status.message(),
                        seen.rollout_id
                    );
                }
                return Err(Client::explain(status));
            }
            progress.line(&format!("connection lost ({}): attaching again", status.message()));
            // The controller needs a moment to come back; nothing signals that it has.
            tokio::time::sleep(Duration::from_secs(u64::from(attempt))).await;
            self.client.reconnect().await.ok();
            if seen.accepted {
                first = Up::Attach(wire::AttachRollout {
                    rollout_id: seen.rollout_id.clone(),
                    hooks: hook_files.clone(),
                    after_sequence: seen.sequence,
                });
            }
        };
        let runtime = finished.runtime.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default();
        let state = finished.state();
        Ok(Followed { rollout_id: seen.rollout_id, state, reason: finished.reason, runtime, hosts })
    }

    async fn stream(&mut self, first: Up, seen: &mut Seen, progress: &mut Progress) -> End {
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        if outbox.send(wire::DeployRequest { message: Some(first) }).await.is_err() {
            return End::Broken(tonic::Status::unavailable("the stream could not be opened"));
        }
        for finished in seen.hooks.values() {
            let message = Some(Up::HookFinished(finished.clone()));
            // Bounded by the hooks of one rollout, which are fewer than the outbox holds between two reads.
            let _ = outbox.try_send(wire::DeployRequest { message });
        }
        let mut inbound = match self.client.control().deploy(ReceiverStream::new(outgoing)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return End::Broken(status),
        };
        loop {
            let message = match inbound.message().await {
                Ok(Some(message)) => message.message,
                Ok(None) => {
                    return End::Broken(tonic::Status::unavailable(
                        "the controller closed the stream",
                    ));
                }
                Err(status) => return End::Broken(status),
            };
            match message {
                Some(Down::Accepted(accepted)) => {
                    seen.accepted = true;
                    seen.rollout_id = accepted.rollout_id;
                }
                Some(Down::Event(mut event)) => {
                    if event.rollout_id.is_empty() {
                        event.rollout_id.clone_from(&seen.rollout_id);
                    }
                    // Events of live progress carry no sequence.
                    seen.sequence = seen.sequence.max(event.sequence);
                    progress.event(&event);
                    if let Some(finished) = seen.told(&event, progress) {
                        let message = Some(Up::HookFinished(finished));
                        let _ = outbox.send(wire::DeployRequest { message }).await;
                    }
                    let Some(hook) = seen.announced.take_if(|hook| starts(&event, &hook.hook_id))
                    else {
                        continue;
                    };
                    let finished = self.run_hook(&hook, progress).await;
                    let message = Some(Up::HookFinished(finished.clone()));
                    seen.hooks.insert(hook.hook_id, finished);
                    // A controller that is gone is noticed by the reader of the stream.
                    let _ = outbox.send(wire::DeployRequest { message }).await;
                }
                Some(Down::Hook(hook)) => {
                    if let Some(finished) = seen.hooks.get(&hook.hook_id) {
                        let message = Some(Up::HookFinished(finished.clone()));
                        let _ = outbox.send(wire::DeployRequest { message }).await;
                        continue;
                    }
                    let started =
                        Up::HookStarted(wire::HookStarted { hook_id: hook.hook_id.clone() });
                    let _ = outbox.send(wire::DeployRequest { message: Some(started) }).await;
                    seen.announced = Some(hook);
                }
                Some(Down::Finished(finished)) => return End::Finished(finished),
                None => {}
            }
        }
    }

    async fn run_hook(&self, hook: &wire::HookRequest, progress: &Progress) -> wire::HookFinished {
        let finished = |exit_code, error| wire::HookFinished {
            hook_id: hook.hook_id.clone(),
            exit_code,
            error,
        };
        let secrets = match hook.with_secrets.then(|| self.project.all_secrets()).transpose() {
            Ok(secrets) => secrets,
            Err(error) => return finished(1, chain(&error)),
        };
        let env: BTreeMap<String, String> =
            hook.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
        let (hooks, project) = (self.project.hooks(), &self.project.directory);
        let running = match RunningHook::start(&hooks, project, &hook.name, &env, secrets.as_ref())
        {
            Ok(running) => running,
            Err(error) => return finished(1, chain(&error)),
        };
        let shown = self.verbose || self.project.loaded.config.hooks_output.shows(&hook.name);
        let show = |data: &[u8]| {
            for line in String::from_utf8_lossy(data).lines() {
                progress.line(&format!("    {}: {}", hook.name, printable(line)));
            }
        };
        let (sender, mut output) = mpsc::channel::<hooks::Output>(OUTBOX);
        let mut tail = Vec::new();
        let listen = async {
            while let Some(piece) = output.recv().await {
                if shown {
                    show(&piece.data);
                }
                tail.extend_from_slice(&piece.data);
                let excess = tail.len().saturating_sub(TAIL);
                tail.drain(..excess);
            }
        };
        let (exit, ()) = tokio::join!(running.wait(sender), listen);
        match exit {
            Ok(code) => {
                if code != 0 && !shown {
                    show(&tail);
                }
                finished(code, String::new())
            }
            Err(error) => finished(1, chain(&error)),
        }
    }
}

/// True where the event says that the hook counts as started.
fn starts(event: &wire::RolloutEvent, hook_id: &str) -> bool {
    match &event.kind {
        Some(wire::rollout_event::Kind::Hook(hook)) => {
            hook.hook_id == hook_id && hook.state() == wire::HookState::Started
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use wire::HookState::{Finished, Started, Unknown};

    use super::*;

    fn hook(id: &str, state: wire::HookState) -> wire::HookProgress {
        let name = "pre-deploy".to_owned();
        wire::HookProgress { hook_id: id.to_owned(), name, state: state.into(), exit_code: 0 }
    }

    /// What a client tells of these hooks as it hears of each that its outcome is unknown.
    fn told(seen: &Seen, ids: &[&str]) -> Vec<(String, i32)> {
        let progress = Progress::Quiet;
        let heard = ids.iter().filter_map(|id| {
            let kind = Some(wire::rollout_event::Kind::Hook(hook(id, Unknown)));
            seen.told(&wire::RolloutEvent { kind, ..Default::default() }, &progress)
        });
        heard.map(|finished| (finished.hook_id, finished.exit_code)).collect()
    }

    #[test]
    fn what_a_person_says_is_of_the_hook_that_was_left_behind_and_of_no_other() {
        let asked = [hook("r-1", Finished), hook("r-4", Unknown)];
        let ids = ["r-1", "r-4", "r-7"];
        let attached = |outcome| Seen::attaching("r".to_owned(), &asked, outcome).unwrap();
        assert_eq!(told(&attached(None), &ids), []);
        let said = |code| vec![("r-4".to_owned(), code)];
        assert_eq!(told(&attached(Some(HookOutcome::Succeeded)), &ids), said(0));
        assert_eq!(told(&attached(Some(HookOutcome::Failed)), &ids), said(1));
        // Not noticed yet that its client is gone.
        let early =
            Seen::attaching("r".to_owned(), &[hook("r-4", Started)], Some(HookOutcome::Failed));
        assert_eq!(told(&early.unwrap(), &ids), said(1));
    }

    #[test]
    fn a_hook_that_ran_here_is_nobody_elses_business() {
        let mut seen = Seen::attaching("r".to_owned(), &[], None).unwrap();
        seen.hooks.insert("r-4".to_owned(), wire::HookFinished::default());
        seen.outcome = Some(("r-4".to_owned(), HookOutcome::Failed));
        assert_eq!(told(&seen, &["r-4"]), []);
    }

    #[test]
    fn where_no_hook_was_left_behind_there_is_nothing_to_say() {
        let asked = [hook("r-1", Finished)];
        let refused = Seen::attaching("r".to_owned(), &asked, Some(HookOutcome::Succeeded));
        let text = refused.err().map(|error| error.to_string());
        assert_eq!(text.as_deref(), Some("no client left a hook of rollout r behind"));
    }
}
