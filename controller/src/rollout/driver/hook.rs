//! A hook: asked of a client, run at most once, awaited for a while where no client is there.

use std::time::Duration;

use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{Driver, Went, failed, left};
use crate::rollout::book::{Entry, note};
use crate::rollout::fence::DriveError;
use crate::rollout::hooks::environment;
use crate::rollout::record::{HookRecord, HookRun, StageRecord, State, Unsuccess};
use crate::rollout::stages::{Hook, Work};

/// A client that just started a rollout attaches within this; only a longer absence is worth a note.
const ATTACHES: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn new_hook(&self, index: usize, work: &Work, now: Timestamp) -> Option<HookRecord> {
        let Work::Hook(hook) = work else { return None };
        Some(HookRecord {
            id: format!("{}-{index}", self.book.header.id),
            name: hook.name.to_owned(),
            run: HookRun::Requested,
            await_until: None,
            recorded_at: now,
        })
    }

    pub(super) async fn run_hook(
        &mut self,
        index: usize,
        hook: &Hook,
        stage: &StageRecord,
    ) -> Result<Went, DriveError> {
        let Some(mut record) = stage.hook.clone() else { return Ok(failed("has no hook record")) };
        let open = record.run == HookRun::Requested;
        self.book.hub().ask(self.request(hook, &record), open);
        let mut changes = self.book.hub().changes();
        let mut alone_since = None;
        let went = loop {
            changes.mark_unchanged();
            if let Some(went) = self.look_at_hook(index, stage, &mut record).await? {
                break went;
            }
            let wait = match (record.await_until, self.book.hub().hook().client) {
                (Some(until), _) => left(self.book.now(), until),
                (None, false) => {
                    let alone = alone_since.get_or_insert_with(Instant::now).elapsed();
                    if alone >= ATTACHES {
                        self.await_client(index, stage, &mut record).await?;
                        continue;
                    }
                    ATTACHES.saturating_sub(alone)
                }
                (None, true) => {
                    alone_since = None;
                    Duration::MAX
                }
            };
            let look = self.tell_silence().await?;
            tokio::select! {
                // Cancel-safe: deadlines are stored, an unseen change stays unseen.
                () = tokio::time::sleep(wait.min(look)) => {}
                _ = changes.changed() => {}
            }
        };
        self.book.hub().forget_hook();
        Ok(went)
    }

    fn request(&self, hook: &Hook, record: &HookRecord) -> wire::HookRequest {
        let env = environment(&self.book.header, hook, record);
        wire::HookRequest {
            hook_id: record.id.clone(),
            name: record.name.clone(),
            env: env
                .into_iter()
                .map(|(name, value)| wire::EnvVar { name: name.to_owned(), value })
                .collect(),
            hosts: hook.hosts.iter().map(ToString::to_string).collect(),
            rollout_id: self.book.header.id.to_string(),
            with_secrets: hook.with_secrets,
        }
    }

    /// Takes in what clients reported; the hook's outcome once it has one.
    async fn look_at_hook(
        &mut self,
        index: usize,
        stage: &StageRecord,
        record: &mut HookRecord,
    ) -> Result<Option<Went>, DriveError> {
        let view = self.book.hub().hook();
        if let HookRun::Finished { exit_code, error } = &record.run {
            return Ok(Some(self.outcome(&record.name, *exit_code, error)));
        }
        if let Some((exit_code, error)) = view.finished {
            record.run = HookRun::Finished { exit_code, error: error.clone() };
            record.await_until = None;
            self.save(index, stage, record, wire::HookState::Finished, exit_code).await?;
            return Ok(Some(self.outcome(&record.name, exit_code, &error)));
        }
        match record.run {
            HookRun::Requested if view.started => {
                record.run = HookRun::Started;
                record.await_until = None;
                self.book.hub().close_hook();
                // A client runs the hook only after it was told this: then it can run once only.
                self.save(index, stage, record, wire::HookState::Started, 0).await?;
                return Ok(None);
            }
            HookRun::Requested if view.client && record.await_until.is_some() => {
                record.await_until = None;
                self.save(index, stage, record, wire::HookState::Requested, 0).await?;
                return Ok(None);
            }
            HookRun::Started if !view.runner => {
                record.run = HookRun::Unknown;
                record.await_until = self.deadline();
                self.save(index, stage, record, wire::HookState::Unknown, 0).await?;
                return Ok(None);
            }
            HookRun::Requested | HookRun::Started | HookRun::Unknown | HookRun::Finished { .. } => {
            }
        }
        if let Some(reason) = self.book.hub().cancelled() {
            return Ok(Some(Went::Not(Unsuccess::Cancelled, reason)));
        }
        let name = &record.name;
        let what = match (&record.run, record.await_until) {
            (HookRun::Requested, Some(_)) => format!("a client to run hook {name}"),
            (HookRun::Unknown, _) => format!("the client that ran hook {name}"),
            (HookRun::Requested | HookRun::Started | HookRun::Finished { .. }, _) => {
                format!("hook {name}")
            }
        };
        self.book.hub().waiting_for(vec![what.clone()]);
        let over = record.await_until.is_some_and(|until| left(self.book.now(), until).is_zero());
        Ok(over.then(|| match record.run {
            HookRun::Unknown => failed(format!(
                "hook {name} was started, but its client went away and its outcome is unknown; it is not run again"
            )),
            HookRun::Requested | HookRun::Started | HookRun::Finished { .. } => {
                failed(format!("no client came back within {} s to run hook {name}", self.book.header.await_client_s))
            }
        }))
    }

    fn outcome(&self, name: &str, exit_code: i32, error: &str) -> Went {
        match (exit_code, error) {
            (0, "") => self.done(),
            (_, "") => failed(format!("hook {name} failed with exit status {exit_code}")),
            (_, error) => failed(format!("hook {name} could not be run: {error}")),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.book.now().checked_add(self.book.header.await_client()).ok()
    }

    async fn await_client(
        &mut self,
        index: usize,
        stage: &StageRecord,
        record: &mut HookRecord,
    ) -> Result<(), DriveError> {
        record.await_until = self.deadline();
        self.save(index, stage, record, wire::HookState::Requested, 0).await
    }

    async fn save(
        &mut self,
        index: usize,
        stage: &StageRecord,
        record: &HookRecord,
        state: wire::HookState,
        exit_code: i32,
    ) -> Result<(), DriveError> {
        let mut header = self.book.header.clone();
        let progress = wire::HookProgress {
            hook_id: record.id.clone(),
            name: record.name.clone(),
            state: state.into(),
            exit_code,
        };
        let mut entry = Entry::event(Kind::Hook(progress));
        header.state = match record.await_until {
            Some(_) => {
                let text = match record.run {
                    HookRun::Unknown => "the client went away while its hook ran",
                    HookRun::Requested | HookRun::Started | HookRun::Finished { .. } => {
                        "awaiting a client to run the hook"
                    }
                };
                let wait = self.book.header.await_client_s;
                entry.events.push(note(format!("{text} {} (for {wait} s)", record.name)));
                State::AwaitingClient { hook: record.name.clone() }
            }
            None => State::Running,
        };
        entry.stages.push((index, StageRecord { hook: Some(record.clone()), ..stage.clone() }));
        self.book.write(header, entry).await
    }
}
