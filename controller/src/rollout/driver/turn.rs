//! From one stage to the next: what ends one, begins the next and writes its intents is stored at once, as each time the
//! store's disk is waited for.

use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;

use super::{Driver, number};
use crate::rollout::book::Entry;
use crate::rollout::fence::{DriveError, Write};
use crate::rollout::record::{FORMAT, Header, StageRecord, StageState, State};
use crate::rollout::stages::{Stage, Work};

impl Driver {
    /// Begins a stage that no record says was begun.
    pub(super) async fn begin(&mut self, index: usize) -> Result<StageRecord, DriveError> {
        let header = self.book.header.clone();
        let Some(stage) = self.book.stages.get(index).cloned() else {
            return Err(DriveError::Conflict);
        };
        self.point("before", stage.kind).await;
        let record = self.record(index, &stage);
        self.open(header, Entry::default(), index, &stage, record.clone()).await?;
        Ok(record)
    }

    /// A stage is over, which is part of `header` and `writes`: the next one begins, or the rollout has succeeded.
    pub(super) async fn advance(
        &mut self,
        index: usize,
        mut record: StageRecord,
        mut header: Header,
        writes: Vec<Write>,
    ) -> Result<(), DriveError> {
        let now = self.book.now();
        record.state = StageState::Done;
        record.finished_at = Some(now);
        header.stage = index + 1;
        header.state = State::Running;
        let took = now.duration_since(record.started_at);
        let finished = wire::StageFinished {
            stage: record.name.clone(),
            took: Some(prost_types::Duration {
                seconds: took.as_secs(),
                nanos: took.subsec_nanos(),
            }),
        };
        let mut entry = Entry::event(Kind::StageFinished(finished));
        entry.stages.push((index, record));
        entry.writes = writes;
        let Some(next) = self.book.stages.get(index + 1).cloned() else {
            return self.succeed(header, entry).await;
        };
        if self.book.hub().cancelled().is_some() {
            // Whether that still counts is decided before the next stage.
            return self.book.write(header, entry).await;
        }
        self.point("before", next.kind).await;
        let record = self.record(index + 1, &next);
        self.open(header, entry, index + 1, &next, record).await
    }

    /// Stores that a stage begins, with `entry`, and with its intents where that is one transaction.
    async fn open(
        &mut self,
        header: Header,
        mut entry: Entry,
        index: usize,
        stage: &Stage,
        record: StageRecord,
    ) -> Result<(), DriveError> {
        let started = wire::StageStarted {
            stage: stage.name.clone(),
            index: number(index),
            total: number(self.book.stages.len()),
            hosts: stage.hosts.iter().map(ToString::to_string).collect(),
        };
        entry.stages.push((index, record));
        entry.events.push(Kind::StageStarted(started));
        tracing::info!(rollout.id = %header.id, stage = %stage.name, "stage begins");
        if let Work::Intents { changes, .. } = &stage.work
            && self.are_claimed(&header, changes).await?
        {
            let mut together = entry.clone();
            together.writes.extend(self.changes(&header, changes).await?);
            if self.book.is_one_transaction(&header, &together) {
                match self.book.write(header.clone(), together).await {
                    // Another app's rollout changed a unit that is also its own: the stage writes it again.
                    Err(DriveError::Conflict) => {}
                    other => return other,
                }
            }
        }
        self.book.write(header, entry).await
    }

    fn record(&self, index: usize, stage: &Stage) -> StageRecord {
        let now = self.book.now();
        let until = match &stage.work {
            Work::Pause(wait) => now.checked_add(*wait).ok(),
            Work::FindContainers | Work::Intents { .. } | Work::Hook(_) | Work::Commit { .. } => {
                None
            }
        };
        StageRecord {
            v: FORMAT,
            name: stage.name.clone(),
            state: StageState::Running,
            hosts: stage.hosts.clone(),
            started_at: now,
            finished_at: None,
            until,
            hook: self.new_hook(index, &stage.work, now),
        }
    }
}
