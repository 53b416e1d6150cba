//! Carries a stored rollout out, from wherever it was left.
//!
//! In: a [`Book`]. Out: intents, events, an end. Always true: what is decided is stored before it is acted on, so a driver
//! that dies at any write is continued by the next one to the same end; a failure before the commit puts every host into
//! a state that nothing will retry.

mod commit;
mod ending;
mod find;
mod hook;
mod intents;
mod promise;
mod silence;
mod turn;

pub(crate) use commit::finished;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::breakpoint::Breakpoints;
use dhow_proto::model::HostName;
use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;
use jiff::Timestamp;
use tokio::time::Instant;

use super::book::{Book, Entry};
use super::fence::{DriveError, Write};
use super::gate::{HostFailure, Presence, Why};
use super::record::{Header, StageRecord, StageState, State, Unsuccess};
use super::seams::Watched;
use super::stages::Work;
use crate::blob::Blobs;

/// Drives one rollout; owned by one task.
pub(crate) struct Driver {
    book: Book,
    fleet: Arc<dyn Watched>,
    blobs: Blobs,
    breakpoints: Breakpoints,
    /// Before this, silence is not the hosts' fault: the controller itself may just have started.
    since: Timestamp,
    /// Hosts that a person was told are silent.
    silent: BTreeSet<HostName>,
    /// When hosts are looked at again for that.
    look_at: Option<Instant>,
}

/// How a stage went.
enum Went {
    /// Its gate opened; the header may have learned something, and these writes belong to that.
    Done(Box<Header>, Vec<Write>),
    /// It did not.
    Not(Unsuccess, String),
}

fn failed(reason: impl Into<String>) -> Went {
    Went::Not(Unsuccess::Failed, reason.into())
}

impl Driver {
    /// Of an open book.
    pub(crate) fn new(
        book: Book,
        fleet: Arc<dyn Watched>,
        blobs: Blobs,
        breakpoints: Breakpoints,
    ) -> Self {
        let since = book.now();
        let silent = BTreeSet::new();
        Self { book, fleet, blobs, breakpoints, since, silent, look_at: None }
    }

    /// Where a test may stop: `before`, `begun`, `written` or `after` a stage, or the end `put-back`.
    async fn point(&self, when: &'static str, what: impl fmt::Display + Send + Sync) {
        let header = &self.book.header;
        self.breakpoints
            .reach(|| format!("controller {when} {what} of {} {}", header.app, header.version))
            .await;
    }

    /// True once nothing more happens.
    pub(crate) fn is_over(&self) -> bool {
        self.book.header.state.is_over()
    }

    /// Drives to the end.
    ///
    /// # Errors
    ///
    /// [`DriveError`]; the rollout is then where it was last stored.
    pub(crate) async fn drive(&mut self) -> Result<(), DriveError> {
        loop {
            match &self.book.header.state {
                State::Running | State::AwaitingClient { .. } => self.step().await?,
                State::Ending { .. } => self.end().await?,
                State::Succeeded | State::Ended { .. } => return Ok(()),
            }
        }
    }

    async fn step(&mut self) -> Result<(), DriveError> {
        let index = self.book.header.stage;
        let Some(stage) = self.book.stages.get(index).cloned() else {
            return self.finish(State::Succeeded).await;
        };
        let begun = self.book.stage(index).await?;
        // Where recording has begun, a part of it may be stored that nothing takes back.
        let records = begun.is_some() && matches!(stage.work, Work::Commit { .. });
        if let Some(reason) = self.book.hub().cancelled()
            && !self.book.header.committed
            && !records
        {
            return self.begin_end(Unsuccess::Cancelled, reason, None).await;
        }
        let record = match begun {
            Some(record) => record,
            None => self.begin(index).await?,
        };
        self.point("begun", stage.kind).await;
        let went = match &stage.work {
            Work::FindContainers => self.find_containers(&stage).await?,
            Work::Intents { changes, gate, watched, pins } => {
                self.carry_out(stage.kind, changes, *gate, watched, *pins).await?
            }
            Work::Hook(hook) => self.run_hook(index, hook, &record).await?,
            Work::Pause(_) => self.pause(&record).await?,
            Work::Commit { keep_lock } => self.commit(*keep_lock).await?,
        };
        self.book.hub().waiting_for(Vec::new());
        self.point("after", stage.kind).await;
        // A hook may have written the record meanwhile.
        let record = self.book.stage(index).await?.unwrap_or(record);
        match went {
            Went::Done(header, writes) => self.advance(index, record, *header, writes).await,
            Went::Not(as_, reason) => {
                let reason = format!("{}: {reason}", stage.name);
                self.begin_end(as_, reason, Some((index, record))).await
            }
        }
    }

    /// The stage is over and nothing was learned.
    fn done(&self) -> Went {
        Went::Done(Box::new(self.book.header.clone()), Vec::new())
    }

    async fn begin_end(
        &mut self,
        as_: Unsuccess,
        reason: String,
        stage: Option<(usize, StageRecord)>,
    ) -> Result<(), DriveError> {
        tracing::warn!(rollout.id = %self.book.header.id, reason = %reason, "rollout does not succeed");
        let now = self.book.now();
        let mut header = self.book.header.clone();
        header.state = State::Ending { as_, reason };
        let stage = stage.map(|(index, mut record)| {
            record.state = StageState::Failed;
            record.finished_at = Some(now);
            (index, record)
        });
        let stages = stage.into_iter().collect();
        self.book.write(header, Entry { stages, ..Entry::default() }).await
    }

    /// Ends the rollout for a reason of the controller's own, without another look at its stages.
    ///
    /// # Errors
    ///
    /// [`DriveError`].
    pub(crate) async fn abandon(&mut self, reason: String) -> Result<(), DriveError> {
        match self.book.header.state.clone() {
            State::Running | State::AwaitingClient { .. } => {
                self.begin_end(Unsuccess::Failed, reason, None).await?;
                self.drive().await
            }
            State::Ending { as_, reason: first } => {
                let text = format!("{first}; and hosts could not be put back: {reason}");
                self.finish(State::Ended { as_, reason: text }).await
            }
            State::Succeeded | State::Ended { .. } => Ok(()),
        }
    }

    async fn pause(&mut self, record: &StageRecord) -> Result<Went, DriveError> {
        let mut changes = self.book.hub().changes();
        loop {
            changes.mark_unchanged();
            let left = record.until.map_or(Duration::ZERO, |u| left(self.book.now(), u));
            if left.is_zero() {
                return Ok(self.done());
            }
            if let Some(reason) = self.book.hub().cancelled() {
                return Ok(Went::Not(Unsuccess::Cancelled, reason));
            }
            self.book.hub().waiting_for(vec![format!("boot.wait: {} s left", left.as_secs())]);
            let look = self.tell_silence().await?;
            tokio::select! {
                // Cancel-safe: the deadline is stored, an unseen change stays unseen.
                () = tokio::time::sleep(left.min(look)) => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// What is known of a host now.
    fn presence(&self, host: &HostName) -> Presence {
        if let Some(features) = self.fleet.online(host) {
            return Presence::Here { features };
        }
        let heard = self.fleet.last_seen(host).and_then(|seen| Timestamp::try_from(seen).ok());
        let heard = heard.map_or(self.since, |seen| seen.max(self.since));
        Presence::Away { since: left(heard, self.book.now()) }
    }

    /// Events for failures that clients were not told of yet.
    fn news(&self, failures: &[HostFailure]) -> Vec<Kind> {
        let failures = failures.iter().map(|f| host_failed(f, self.book.now()));
        failures.filter(|f| !self.book.hub().has_failed(f)).map(Kind::HostFailed).collect()
    }
}

/// Time from `now` to `until`; zero once it is past.
fn left(now: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn host_failed(failure: &HostFailure, now: Timestamp) -> wire::HostFailed {
    let said = |kind: wire::FailureKind| wire::Failure {
        reason: failure.why.reason(),
        kind: kind.into(),
        at: Some(super::book::timestamp(now)),
        ..wire::Failure::default()
    };
    let detail = match &failure.why {
        Why::Failed(failure) => failure.into(),
        Why::Said(kind, _) => said(*kind),
        Why::Silent(_) => said(wire::FailureKind::TimedOut),
    };
    wire::HostFailed {
        host: failure.host.to_string(),
        unit: Some((&failure.unit).into()),
        failure: Some(detail),
    }
}

/// The first failure, and how many there are besides.
fn summary(failures: &[HostFailure]) -> String {
    let Some(first) = failures.first() else { return "failed".to_owned() };
    let text = format!("{}: {}: {}", first.host, first.unit, first.why.reason());
    match failures.len() {
        1 => text,
        n => format!("{text} (and {} more)", n - 1),
    }
}
