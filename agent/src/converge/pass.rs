//! One pass of a unit: choose the generation, observe, plan, execute, report.

mod fail;
mod hold;
mod rounds;
mod settle;
mod tell;
mod wait;

use std::time::Duration;

use dhow_proto::model::Unit;
use dhow_proto::model::intent::{Absent, Desired};
use dhow_proto::model::status::{Failure, Held, Phase};
use dhow_proto::wire::FailureKind;
use tokio::time::Instant;

use super::resolve::ResolveError;
use super::unit::UnitLoop;
use crate::execute::ObserveError;
use crate::ledger::{Accepted, Known};
use crate::plan::Impossible;
use rounds::Aim;
use tell::Seen;

/// How long a new generation waits for something outside its unit before that counts as a failure, where the intent does
/// not say.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At once: something newer is wanted.
    Again,
    /// Agreed, or nothing can be done until something changes.
    Idle,
    /// Something was tried and failed: again after a while, whatever the Engine tells.
    Retry,
    /// May come right by itself, or with an event.
    Wait,
}

/// What a pass converges on, and how it is told.
struct Target {
    /// The intent to bring about.
    accepted: Accepted,
    /// It has settled here before.
    settled: bool,
    /// What is foreign at the first look is adopted.
    adopts: bool,
    /// Told meanwhile, where that is not that it converges.
    tells: Option<Phase>,
}

/// How bringing a target about ended.
enum Outcome {
    Agreed,
    Superseded,
    Failed(Box<Failure>),
    /// A step failed while the Engine went away: that says nothing of the generation.
    Interrupted(Box<Failure>),
    Held(Held),
    AwaitingSecrets(String),
    Waiting(Impossible),
    /// What the intent names cannot be had yet.
    Unresolved(String),
    Unobservable(ObserveError),
}

impl UnitLoop {
    pub(super) async fn pass(&mut self) -> Next {
        let known = self.rooms.ledger.known(&self.unit);
        let Some(wanted) = known.wanted.clone() else {
            // Its file was unreadable: the controller sends it again.
            return Next::Idle;
        };
        if let Some((generation, failure)) = self.unrecorded.take()
            && generation == wanted.generation()
        {
            return self.fail(&wanted, failure);
        }
        // What is decided or begun does not wait again because of what its conditions have come to since.
        let decided =
            known.settled.as_ref() == Some(&wanted) || known.has_failed(wanted.generation());
        if !decided && !wanted.intent.after.is_empty() && !self.has_begun(&known, &wanted) {
            if let Some(missing) = self.missing_condition(&wanted.intent) {
                return self.wait_for(&known, &wanted, missing).await;
            }
            if let Err(error) = self.begin(&wanted) {
                tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
                return Next::Retry;
            }
        }
        match &wanted.intent.desired {
            Desired::Absent(Absent::Release) => self.release(&known, &wanted).await,
            Desired::Settle { attempted, otherwise } => {
                let (attempted, otherwise) = (*attempted, *otherwise);
                self.settle(&known, &wanted, attempted, otherwise).await
            }
            Desired::Absent(Absent::Remove) => self.remove(&known, &wanted).await,
            Desired::Proxy(_)
            | Desired::App(_)
            | Desired::Role(_)
            | Desired::Accessory(_)
            | Desired::Agent(_)
            | Desired::Task(_) => {
                if known.has_failed(wanted.generation()) {
                    self.fall_back(&known, &wanted).await
                } else {
                    self.converge(&known, &wanted).await
                }
            }
        }
    }

    /// Everything stays as it is, but for what a rollout that has ended began and never served.
    async fn release(&mut self, known: &Known, wanted: &Accepted) -> Next {
        let on_hold = self.unit.app().is_some_and(|app| self.rooms.ledger.held(app).is_some());
        if let Some(tried) = known.attempted.as_ref().filter(|_| !on_hold)
            && let Err(next) = self.give_up_attempt(known, wanted, tried).await
        {
            return next;
        }
        self.let_go(wanted).await
    }

    async fn let_go(&mut self, wanted: &Accepted) -> Next {
        if let Err(error) = self.clear().await {
            tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
            return Next::Retry;
        }
        self.post(wanted, Phase::Released, None);
        Next::Idle
    }

    /// Forgets the unit; with an app's own unit also what was remembered of the app, as another deployer's doings are no
    /// longer this agent's business.
    async fn clear(&self) -> std::io::Result<()> {
        if let Unit::App(app) = &self.unit {
            self.rooms.worker.forget(app).await?;
        }
        self.rooms.ledger.clear(&self.unit)
    }

    async fn remove(&mut self, known: &Known, wanted: &Accepted) -> Next {
        if let Some(next) = self.held(wanted).await {
            return next;
        }
        let adopts = self.adopts(known, wanted);
        let target = Target { accepted: wanted.clone(), settled: true, adopts, tells: None };
        match self.bring_about(wanted, &target).await {
            (Outcome::Agreed, _) => match self.clear().await {
                Ok(()) => {
                    self.post(wanted, Phase::Removed, None);
                    Next::Idle
                }
                Err(_) => Next::Retry,
            },
            (Outcome::Superseded, _) => Next::Again,
            (outcome, observed) => self.report_trouble(wanted, outcome, observed),
        }
    }

    /// A generation that has not failed.
    async fn converge(&mut self, known: &Known, wanted: &Accepted) -> Next {
        let settled = known.settled.as_ref() == Some(wanted);
        if let Some(next) = self.held(wanted).await {
            return next;
        }
        let adopts = !settled && self.adopts(known, wanted);
        let target = Target { accepted: wanted.clone(), settled, adopts, tells: None };
        let (outcome, observed) = self.bring_about(wanted, &target).await;
        match outcome {
            Outcome::Agreed => {
                self.waiting_since = None;
                if let Err(error) = self.rooms.ledger.settle(wanted) {
                    tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
                    return Next::Retry;
                }
                self.repaired();
                self.post(wanted, Phase::Settled, observed.as_ref());
                Next::Idle
            }
            Outcome::Superseded => Next::Again,
            Outcome::Failed(failure) if !settled => self.fail(wanted, *failure),
            Outcome::Interrupted(failure) if !settled && self.impatient(wanted, failure.kind) => {
                self.fail(wanted, *failure)
            }
            Outcome::Unobservable(ObserveError::Engine(error))
                if !settled && self.impatient(wanted, error.kind()) =>
            {
                let failure = Failure::new("observe", error.kind(), error.to_string(), self.now());
                self.fail(wanted, failure)
            }
            Outcome::Waiting(what) if !settled && self.impatient(wanted, what.kind) => {
                let failure = Failure::new("wait", what.kind, what.reason, self.now());
                self.fail(wanted, failure)
            }
            Outcome::Unresolved(reason) if !settled && self.given_up(wanted) => {
                self.fail(wanted, Failure::new("fetch", FailureKind::Other, reason, self.now()))
            }
            other => self.report_trouble(wanted, other, observed),
        }
    }

    /// True once what the intent names was missing for too long, not counting times without a controller: those are not
    /// the version's fault, and the controller decides how long it waits for the host.
    fn given_up(&mut self, wanted: &Accepted) -> bool {
        if !*self.rooms.source.online().borrow() {
            self.waiting_since = None;
            return false;
        }
        self.impatient(wanted, FailureKind::Other)
    }

    /// True once a new generation has waited for too long.
    fn impatient(&mut self, wanted: &Accepted, waits_for: FailureKind) -> bool {
        let patience = match &wanted.intent.desired {
            Desired::App(app) if waits_for == FailureKind::Locked => {
                app.lock.as_ref().and_then(|lock| lock.wait).unwrap_or(PATIENCE)
            }
            _ => PATIENCE,
        };
        match self.waiting_since {
            Some((of, since)) if of == wanted.generation() => since.elapsed() > patience,
            _ => {
                self.waiting_since = Some((wanted.generation(), Instant::now()));
                false
            }
        }
    }

    /// Brings a target about.
    async fn bring_about(&mut self, wanted: &Accepted, target: &Target) -> (Outcome, Option<Seen>) {
        let mut resolved = match self.rooms.resolve(&target.accepted.intent).await {
            Ok(resolved) => resolved,
            Err(ResolveError::Later(reason)) => return (Outcome::Unresolved(reason), None),
            Err(ResolveError::Never(reason)) => {
                let failure = Failure::new("plan", FailureKind::Unsupported, reason, self.now());
                return (Outcome::Failed(Box::new(failure)), None);
            }
        };
        if target.settled {
            resolved.wanted = resolved.wanted.settled();
        }
        let aim = Aim {
            wanted,
            resolved: &resolved,
            tells: target.tells.as_ref(),
            repairs: target.settled,
            adopts: target.adopts,
        };
        self.rounds(&aim).await
    }
}
