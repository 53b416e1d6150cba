//! A client as the CLI is one: it starts a rollout or attaches to one, comes back to another controller, runs a hook once
//! the controller has recorded that it does, and tells again how that went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::wire;
use dhow_proto::wire::deploy_response::Message;
use dhow_proto::wire::rollout_event::Kind;
use tokio::sync::watch;

use super::fate::Fate;
use crate::rollout::{Attachment, ClientReport, Rollouts};

/// A process; what it knows dies with it.
pub(super) struct Client {
    fate: Arc<Fate>,
    controllers: watch::Receiver<Rollouts>,
    start: wire::StartRollout,
    /// Name or id of the hook that fails, and how.
    fails: Option<(String, i32)>,
    accepted: bool,
    sequence: u64,
    announced: Option<wire::HookRequest>,
    finished: BTreeMap<String, wire::HookFinished>,
}

impl Client {
    /// Of a person who starts the rollout.
    pub(super) fn starting(
        fate: &Arc<Fate>,
        controllers: &watch::Receiver<Rollouts>,
        start: &wire::StartRollout,
        fails: Option<(String, i32)>,
    ) -> Self {
        Self {
            fate: Arc::clone(fate),
            controllers: controllers.clone(),
            start: start.clone(),
            fails,
            accepted: false,
            sequence: 0,
            announced: None,
            finished: BTreeMap::new(),
        }
    }

    /// Of one who attaches to it, where it was started.
    pub(super) fn attaching(self) -> Self {
        Self { accepted: true, ..self }
    }

    /// Until the rollout is over.
    pub(super) async fn run(mut self) -> wire::RolloutFinished {
        loop {
            if let Some(attached) = self.connect().await
                && let Some(finished) = self.follow(attached).await
            {
                return finished;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// None where the connection is lost, or there is no driver to talk to yet.
    async fn connect(&mut self) -> Option<Attachment> {
        let rollouts = self.controllers.borrow_and_update().clone();
        if !self.accepted {
            self.fate.meet("client starts".to_owned()).await;
            tokio::select! {
                // First: nobody hears what is said to the dead.
                biased;
                _ = self.controllers.changed() => return None,
                started = rollouts.start("ann", self.start.clone()) => started.ok()?,
            };
            self.accepted = true;
            self.fate.meet("client started".to_owned()).await;
        }
        tokio::select! {
            biased;
            _ = self.controllers.changed() => None,
            attached = rollouts.attach(&self.start.rollout_id, &self.start.hooks, self.sequence) => {
                attached.ok()
            }
        }
    }

    async fn point(&self, what: &str, hook: &str) {
        self.fate.meet(format!("client {what} {hook}")).await;
    }

    /// None where the stream ends before the rollout does.
    async fn follow(&mut self, mut attached: Attachment) -> Option<wire::RolloutFinished> {
        for finished in self.finished.values() {
            let report = ClientReport::HookFinished(finished.clone());
            let _ = attached.reports.send(report).await;
        }
        while let Some(response) = attached.responses.recv().await {
            match response.message.unwrap() {
                Message::Hook(hook) => {
                    self.point("is asked for", &hook.name).await;
                    let started = wire::HookStarted { hook_id: hook.hook_id.clone() };
                    let _ = attached.reports.send(ClientReport::HookStarted(started)).await;
                    self.point("announced", &hook.name).await;
                    self.announced = Some(hook);
                }
                Message::Event(event) => {
                    self.sequence = self.sequence.max(event.sequence);
                    if let Some(Kind::Hook(hook)) = event.kind {
                        self.hook(hook, &attached).await;
                    }
                }
                Message::Finished(finished) => return Some(finished),
                Message::Accepted(_) => {}
            }
        }
        None
    }

    async fn hook(&mut self, hook: wire::HookProgress, attached: &Attachment) {
        let id = hook.hook_id.clone();
        if hook.state() == wire::HookState::Unknown && !self.finished.contains_key(&id) {
            // What a person says who looked: `--hook succeeded`, `--hook failed`.
            let exit_code =
                if self.fate.has_run(&id) { self.exit_code(&id, &hook.name) } else { 1 };
            self.report(attached, finished(id, exit_code)).await;
            return;
        }
        if hook.state() != wire::HookState::Started {
            return;
        }
        let Some(mine) = self.announced.take_if(|a| a.hook_id == id) else { return };
        self.point("is to run", &mine.name).await;
        self.fate.runs(&mine.hook_id);
        self.point("ran", &mine.name).await;
        let finished = finished(id.clone(), self.exit_code(&id, &mine.name));
        self.finished.insert(id, finished.clone());
        self.report(attached, finished).await;
        self.point("told how it went with", &mine.name).await;
    }

    fn exit_code(&self, id: &str, name: &str) -> i32 {
        let fails = self.fails.as_ref().filter(|(hook, _)| hook == id || hook == name);
        fails.map_or(0, |(_, code)| *code)
    }

    async fn report(&self, attached: &Attachment, finished: wire::HookFinished) {
        let _ = attached.reports.send(ClientReport::HookFinished(finished)).await;
    }
}

fn finished(hook_id: String, exit_code: i32) -> wire::HookFinished {
    wire::HookFinished { hook_id, exit_code, error: String::new() }
}
