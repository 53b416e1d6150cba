//! One pass of a unit: choose the generation, observe, plan, execute, report.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dhow_proto::model::intent::{Absent, Desired, Intent};
use dhow_proto::model::status::{Failure, Held, Phase, Status, StepProgress};
use dhow_proto::model::{App, Generation, Unit};
use dhow_proto::wire::{EventKind, FailureKind};
use tokio::time::Instant;

use super::resolve::{ResolveError, Resolved};
use super::unit::UnitLoop;
use crate::execute::{ObserveError, StepContext};
use crate::ledger::{Accepted, Known};
use crate::plan::{self, Chosen, Impossible, Observed, Plan};

/// Rounds of observe, plan and execute before a pass gives up: two agree in all but odd cases.
const ROUNDS: usize = 5;
/// How long a new generation waits for something outside its unit before that counts as a failure, where the intent does
/// not say.
const PATIENCE: Duration = Duration::from_secs(60);
/// The mark that says which generation has adopted what was there.
const ADOPTED: &str = "adopted";
/// Step times kept in a status.
const STEP_TIMES: usize = 32;

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
}

/// How bringing a target about ended.
enum Outcome {
    Agreed,
    Superseded,
    Failed(Box<Failure>),
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
        if let Some(missing) = self.missing_condition(&wanted.intent) {
            self.post(&wanted, Phase::AwaitingCondition(missing), None);
            return Next::Idle;
        }
        match &wanted.intent.desired {
            Desired::Absent(Absent::Release) => self.release(&wanted).await,
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

    fn missing_condition(&self, intent: &Intent) -> Option<String> {
        intent.after.iter().find_map(|after| {
            let settled = self.rooms.ledger.known(&after.unit).settled.map(|s| s.generation());
            (settled < Some(after.generation)).then(|| {
                format!("{} must settle generation {} first", after.unit, after.generation)
            })
        })
    }

    async fn release(&mut self, wanted: &Accepted) -> Next {
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
        let target = Target { accepted: wanted.clone(), settled: true, adopts };
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

    /// A `settle` intent: the attempted generation where it serves, else the one before.
    async fn settle(
        &mut self,
        known: &Known,
        wanted: &Accepted,
        attempted: Generation,
        otherwise: Option<Generation>,
    ) -> Next {
        // It ends a rollout: it begins none, so it forgives nothing that happened meanwhile.
        if let Some(next) = self.held(wanted).await {
            return next;
        }
        let tried =
            known.attempted.iter().chain(&known.settled).find(|a| a.generation() == attempted);
        let mut chosen = plan::settle(None, otherwise, None);
        // Decided before, or settled when it was asked about: what is missing since is drift, not an outcome.
        let decided = known.settled.clone().filter(|s| s.generation() >= attempted);
        let resolved = match tried {
            Some(tried) if decided.is_none() => match self.rooms.resolve(&tried.intent).await {
                Ok(resolved) => Some(resolved),
                // Whether it serves cannot be told yet: nothing may be concluded.
                Err(error @ ResolveError::Later(_)) => return self.unresolved(wanted, &error),
                Err(ResolveError::Never(_)) => None,
            },
            _ => None,
        };
        if let Some(resolved) = resolved {
            match self.rooms.worker.observe(&resolved.wanted).await {
                Ok(Observed::Role(observed)) => {
                    chosen = plan::settle(Some(&resolved.wanted), otherwise, Some(&observed));
                }
                Ok(_) => {}
                Err(error) => return self.unobservable(wanted, error),
            }
        }
        let accepted = match chosen {
            _ if decided.is_some() => decided,
            Chosen::Release => return self.release(wanted).await,
            Chosen::Generation(generation) if generation == attempted => tried.cloned(),
            // Only the ledger's own settled intent can be older than the one named; its content is the same.
            Chosen::Generation(_) => known.settled.clone(),
        };
        let Some(accepted) = accepted else { return self.release(wanted).await };
        let target = Target { settled: true, accepted, adopts: false };
        let (outcome, observed) = self.bring_about(wanted, &target).await;
        match outcome {
            Outcome::Agreed => {
                if self.rooms.ledger.settle(&target.accepted).is_err() {
                    return Next::Retry;
                }
                if let Some(drift) = self.told.take() {
                    self.event(EventKind::Repaired, &format!("{}: repaired ({drift})", self.unit));
                }
                self.post(wanted, Phase::Settled, observed.as_ref());
                Next::Idle
            }
            Outcome::Superseded => Next::Again,
            other => self.report_trouble(wanted, other, observed),
        }
    }

    /// A generation that has not failed.
    async fn converge(&mut self, known: &Known, wanted: &Accepted) -> Next {
        let settled = known.settled.as_ref() == Some(wanted);
        if let Some(next) = self.held(wanted).await {
            return next;
        }
        let adopts = !settled && self.adopts(known, wanted);
        let target = Target { accepted: wanted.clone(), settled, adopts };
        let (outcome, observed) = self.bring_about(wanted, &target).await;
        match outcome {
            Outcome::Agreed => {
                self.waiting_since = None;
                if let Err(error) = self.rooms.ledger.settle(wanted) {
                    tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
                    return Next::Retry;
                }
                if let Some(drift) = self.told.take() {
                    self.event(EventKind::Repaired, &format!("{}: repaired ({drift})", self.unit));
                }
                self.post(wanted, Phase::Settled, observed.as_ref());
                Next::Idle
            }
            Outcome::Superseded => Next::Again,
            Outcome::Failed(failure) if !settled => self.fail(wanted, *failure),
            Outcome::Waiting(what) if !settled && self.impatient(wanted, &what) => {
                let failure = Failure::new("wait", what.kind, what.reason, self.now());
                self.fail(wanted, failure)
            }
            Outcome::Unresolved(reason) if !settled && self.given_up(wanted, &reason) => {
                self.fail(wanted, Failure::new("fetch", FailureKind::Other, reason, self.now()))
            }
            other => self.report_trouble(wanted, other, observed),
        }
    }

    /// True once what the intent names was missing for too long, not counting times without a controller: those are not
    /// the version's fault, and the controller decides how long it waits for the host.
    fn given_up(&mut self, wanted: &Accepted, reason: &str) -> bool {
        if !*self.rooms.source.online().borrow() {
            self.waiting_since = None;
            return false;
        }
        self.impatient(wanted, &Impossible { kind: FailureKind::Other, reason: reason.to_owned() })
    }

    /// True once a new generation has waited for too long.
    fn impatient(&mut self, wanted: &Accepted, what: &Impossible) -> bool {
        let patience = match &wanted.intent.desired {
            Desired::App(app) if what.kind == FailureKind::Locked => {
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

    /// Records a failure before anything else, so that no restart tries the generation again.
    fn fail(&mut self, wanted: &Accepted, failure: Failure) -> Next {
        self.waiting_since = None;
        tracing::warn!(unit = %self.unit, generation = %wanted.generation(), step = %failure.step, reason = %failure.reason, "generation failed");
        match self.rooms.ledger.fail(&self.unit, wanted.generation(), &failure) {
            // Said at once: going back may take long.
            Ok(()) => {
                self.post(wanted, Phase::Failed(failure), None);
                Next::Again
            }
            Err(error) => {
                tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
                self.unrecorded = Some((wanted.generation(), failure));
                Next::Retry
            }
        }
    }

    /// An app on hold, which only a newer rollout ends.
    async fn held(&mut self, wanted: &Accepted) -> Option<Next> {
        let app = self.unit.app()?.clone();
        if let Some(hold) = self.rooms.ledger.held(&app) {
            if !hold.adopted_by(&wanted.intent) {
                return Some(self.still_held(wanted, &app, hold.held).await);
            }
            // What is there is adopted before the hold ends: the app's other units would find it foreign, and the new
            // hold would be one that this rollout cannot end.
            match self.rooms.resolve(&wanted.intent).await {
                Ok(resolved) => {
                    if let Err(error) = self.rooms.worker.adopt(&app, &resolved.wanted).await {
                        return Some(self.unobservable(wanted, error));
                    }
                }
                Err(error @ ResolveError::Later(_)) => {
                    return Some(self.unresolved(wanted, &error));
                }
                Err(ResolveError::Never(_)) => return None,
            }
            if self.rooms.ledger.adopt(&app).is_err() {
                return Some(Next::Retry);
            }
            self.event(EventKind::Adopted, &format!("{app}: adopted by a rollout"));
        }
        None
    }

    /// True until a generation of a rollout has been looked at once: what is foreign then is adopted, what becomes so
    /// later is another deployer's doing.
    fn adopts(&self, known: &Known, wanted: &Accepted) -> bool {
        let generation = wanted.generation();
        self.unit.app().is_some()
            && wanted.intent.rollout_id.is_some()
            && self.looked_at != Some(generation)
            && known.marks.get(ADOPTED) != Some(&generation.to_string())
    }

    /// Observes; at the first look of a generation what is foreign is adopted, and all is looked at again.
    async fn look(
        &mut self,
        wanted: &Accepted,
        resolved: &Resolved,
        adopts: bool,
    ) -> Result<Observed, ObserveError> {
        let worker = self.rooms.worker.clone();
        let mut observed = worker.observe(&resolved.wanted).await?;
        if adopts {
            if let Some(app) = self.unit.app()
                && plan::hold(observed.foreign()).is_some()
            {
                worker.adopt(app, &resolved.wanted).await?;
                let generation = wanted.generation().to_string();
                if let Err(error) = self.rooms.ledger.mark(&self.unit, ADOPTED, &generation) {
                    // An agent that starts again adopts once more.
                    tracing::error!(unit = %self.unit, %error, "the ledger could not be written");
                }
                observed = worker.observe(&resolved.wanted).await?;
            }
            self.looked_at = Some(wanted.generation());
        }
        Ok(observed)
    }

    /// On hold, for the newest reason: a lock goes with the command that held it, what that did stays.
    async fn still_held(&mut self, wanted: &Accepted, app: &App, first: Held) -> Next {
        let mut held = first;
        if let Ok(resolved) = self.rooms.resolve(&wanted.intent).await
            && let Ok(observed) = self.rooms.worker.observe(&resolved.wanted).await
            && let Some(now) = plan::hold(observed.foreign())
        {
            if self.rooms.ledger.hold(app, now.clone()).is_err() {
                return Next::Retry;
            }
            held = now;
        }
        // No event tells of the end of a lock.
        let next = match held {
            Held::ForeignLock(_) => Next::Wait,
            Held::AuditLine(_)
            | Held::ForeignContainer(_)
            | Held::Local(_)
            | Held::StoppedTraffic(_) => Next::Idle,
        };
        self.post(wanted, Phase::Held(held), None);
        next
    }

    /// A generation that failed: what it started is stopped, what settled before serves on.
    async fn fall_back(&mut self, known: &Known, wanted: &Accepted) -> Next {
        let Some(failed) = known.failed.clone() else { return Next::Idle };
        let phase = || Phase::Failed(failed.failure.clone());
        // After a restart nothing was said yet, and what follows may take long or not come about.
        let told = self.rooms.board.get(&self.unit).is_some_and(|before| {
            before.generation == wanted.generation() && matches!(before.phase, Phase::Failed(_))
        });
        if !told {
            self.post(wanted, phase(), None);
        }
        if let Some(hold) = self.unit.app().and_then(|app| self.rooms.ledger.held(app)) {
            return self.failed_and_held(wanted, phase(), &hold.held, None);
        }
        let settled = match &known.settled {
            Some(settled) => match self.rooms.resolve(&settled.intent).await {
                Ok(resolved) => Some(resolved),
                Err(error) => {
                    tracing::warn!(unit = %self.unit, %error, "what settled before cannot be read");
                    return Next::Wait;
                }
            },
            None => None,
        };
        match self.rooms.resolve(&wanted.intent).await {
            Ok(mut given_up) => {
                given_up.wanted = given_up.wanted.abandoned(settled.as_ref().map(|s| &s.wanted));
                match self.rounds(wanted, &given_up, phase, false, false).await {
                    (Outcome::Agreed, observed) if settled.is_none() => {
                        self.post(wanted, phase(), observed.as_ref());
                        return Next::Idle;
                    }
                    (Outcome::Agreed, _) => {}
                    (Outcome::Superseded, _) => return Next::Again,
                    (Outcome::Unobservable(error), _) => return self.unobservable(wanted, error),
                    (Outcome::Held(held), observed) => {
                        return self.failed_and_held(wanted, phase(), &held, observed.as_ref());
                    }
                    (_, observed) => {
                        self.post(wanted, phase(), observed.as_ref());
                        return Next::Retry;
                    }
                }
            }
            Err(ResolveError::Later(_)) => return Next::Wait,
            // What cannot be understood was never begun.
            Err(ResolveError::Never(_)) => {}
        }
        let Some(mut settled) = settled else {
            self.post(wanted, phase(), None);
            return Next::Idle;
        };
        settled.wanted = settled.wanted.settled();
        match self.rounds(wanted, &settled, phase, true, false).await {
            (Outcome::Held(held), observed) => {
                self.failed_and_held(wanted, phase(), &held, observed.as_ref())
            }
            (Outcome::Agreed, observed) => {
                if let Some(drift) = self.told.take() {
                    self.event(EventKind::Repaired, &format!("{}: repaired ({drift})", self.unit));
                }
                self.post(wanted, phase(), observed.as_ref());
                Next::Idle
            }
            (Outcome::Superseded, _) => Next::Again,
            (Outcome::Unobservable(error), _) => self.unobservable(wanted, error),
            (_, observed) => {
                self.post(wanted, phase(), observed.as_ref());
                Next::Retry
            }
        }
    }

    /// The generation failed, and the app is on hold: it stays failed, and nothing is changed.
    fn failed_and_held(
        &mut self,
        wanted: &Accepted,
        phase: Phase,
        held: &Held,
        seen: Option<&Seen>,
    ) -> Next {
        let next = self.hold(held);
        if next != Next::Retry {
            let mut status = self.status(wanted, phase, seen);
            status.warnings.push(format!("on hold: {held}"));
            self.rooms.board.post(status);
        }
        next
    }

    /// Records that the app is on hold, and what to do after that. A lock that a rollout waits for ends with the wait: that
    /// would be a hold which the rollout itself could not end.
    fn hold(&self, held: &Held) -> Next {
        let Some(app) = self.unit.app().cloned() else { return Next::Idle };
        if matches!(held, Held::ForeignLock(_)) && self.lock_is_awaited(&app) {
            return Next::Wait;
        }
        if self.rooms.ledger.held(&app).is_none() {
            self.event(EventKind::Held, &format!("{app}: on hold, {held}"));
        }
        match self.rooms.ledger.hold(&app, held.clone()) {
            Ok(()) => Next::Idle,
            Err(_) => Next::Retry,
        }
    }

    fn lock_is_awaited(&self, app: &App) -> bool {
        let known = self.rooms.ledger.known(&Unit::App(app.clone()));
        known.wanted.is_some_and(|wanted| match &wanted.intent.desired {
            Desired::App(app) => app.lock.as_ref().is_some_and(|lock| lock.wait.is_some()),
            _ => false,
        })
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
        let phase = || Phase::Converging(None);
        self.rounds(wanted, &resolved, phase, target.settled, target.adopts).await
    }

    /// Observe, plan, execute, until the plan is empty.
    async fn rounds(
        &mut self,
        wanted: &Accepted,
        resolved: &Resolved,
        phase: impl Fn() -> Phase + Sync,
        repairs: bool,
        mut adopts: bool,
    ) -> (Outcome, Option<Seen>) {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let adopts = std::mem::take(&mut adopts);
            let observed = match self.look(wanted, resolved, adopts).await {
                Ok(observed) => observed,
                Err(error) => return (Outcome::Unobservable(error), None),
            };
            self.rooms.board.set_engine_reachable(true);
            let seen = || Seen::of(resolved, &observed, &times);
            let planned = plan::plan(&resolved.wanted, &observed);
            // The proxy is no app's: it is on hold only where something would be done about it.
            let left_alone = self.unit == Unit::Proxy && planned.is_empty();
            let held = || plan::hold(observed.foreign()).or_else(|| self.proxy_held());
            if repairs
                && !left_alone
                && let Some(held) = held()
            {
                return (Outcome::Held(held), Some(seen()));
            }
            let steps = match planned {
                Plan::Steps(steps) if steps.is_empty() => return (Outcome::Agreed, Some(seen())),
                Plan::Steps(steps) => steps,
                Plan::Held(held) => return (Outcome::Held(held), Some(seen())),
                Plan::AwaitingSecrets(what) => {
                    return (Outcome::AwaitingSecrets(what), Some(seen()));
                }
                Plan::Waiting(what) => return (Outcome::Waiting(what), Some(seen())),
                Plan::Impossible(what) => {
                    let failure = Failure::new("plan", what.kind, what.reason, self.now());
                    return (Outcome::Failed(Box::new(failure)), Some(seen()));
                }
            };
            if repairs && self.told.is_none() {
                let drift = format!("`{}` is needed", steps[0]);
                self.event(EventKind::Drift, &format!("{}: drift found, {drift}", self.unit));
                self.told = Some(drift);
            }
            tracing::info!(unit = %self.unit, generation = %wanted.generation(), steps = steps.len(), "plan computed");
            let total = u32::try_from(steps.len()).unwrap_or(u32::MAX);
            for (index, step) in steps.iter().enumerate() {
                if self.superseded(wanted) {
                    return (Outcome::Superseded, None);
                }
                let progress = StepProgress {
                    text: step.to_string(),
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    total,
                    started_at: self.now(),
                };
                // Without the times: they are told once, at the end.
                let base =
                    self.status(wanted, Phase::Pending, Some(&Seen::of(resolved, &observed, &[])));
                let converging = matches!(phase(), Phase::Converging(_));
                let show = |text: String| {
                    let step = StepProgress { text, ..progress.clone() };
                    let phase = if converging { Phase::Converging(Some(step)) } else { phase() };
                    self.rooms.board.post(Status { phase, ..base.clone() });
                };
                show(progress.text.clone());
                let began = Instant::now();
                let more = |detail: String| show(format!("{}: {detail}", progress.text));
                let context = StepContext {
                    wanted: &resolved.wanted,
                    secrets: &resolved.secrets,
                    progress: &more,
                };
                let result = self.rooms.worker.run(step, &context).await;
                if times.len() < STEP_TIMES {
                    times.push((progress.text.clone(), began.elapsed()));
                }
                tracing::info!(unit = %self.unit, step = %progress.text, elapsed_ms = began.elapsed().as_millis() as u64, ok = result.is_ok(), "step");
                if let Err(failure) = result {
                    return (Outcome::Failed(failure), Some(Seen::of(resolved, &observed, &times)));
                }
            }
        }
        let reason =
            "what is there does not come to agree with what is wanted; see the agent's log";
        let failure = Failure::new("plan", FailureKind::Other, reason, self.now());
        (Outcome::Failed(Box::new(failure)), None)
    }

    fn superseded(&self, wanted: &Accepted) -> bool {
        self.shutdown.is_cancelled()
            || self
                .rooms
                .ledger
                .known(&self.unit)
                .wanted
                .as_ref()
                .is_none_or(|newest| newest != wanted)
    }

    /// Tells of what stands in the way of something that is not a new generation's failure.
    fn report_trouble(
        &mut self,
        wanted: &Accepted,
        outcome: Outcome,
        observed: Option<Seen>,
    ) -> Next {
        match outcome {
            Outcome::Agreed | Outcome::Superseded => Next::Again,
            Outcome::Held(held) => {
                let next = self.hold(&held);
                if next != Next::Retry {
                    self.post(wanted, Phase::Held(held), observed.as_ref());
                }
                next
            }
            Outcome::AwaitingSecrets(what) => {
                self.post(wanted, Phase::AwaitingSecrets(what), observed.as_ref());
                Next::Idle
            }
            Outcome::Waiting(Impossible { reason, .. }) | Outcome::Unresolved(reason) => {
                self.post(wanted, Phase::AwaitingCondition(reason), observed.as_ref());
                Next::Wait
            }
            Outcome::Failed(failure) => {
                tracing::warn!(unit = %self.unit, step = %failure.step, reason = %failure.reason, "repair failed; it is tried again");
                let mut status = self.status(wanted, Phase::Converging(None), observed.as_ref());
                status
                    .warnings
                    .push(format!("repair failed at `{}`: {}", failure.step, failure.reason));
                self.rooms.board.post(status);
                Next::Retry
            }
            Outcome::Unobservable(error) => self.unobservable(wanted, error),
        }
    }

    fn unresolved(&mut self, wanted: &Accepted, error: &ResolveError) -> Next {
        self.post(wanted, Phase::AwaitingCondition(error.to_string()), None);
        Next::Wait
    }

    /// Nothing may be concluded: what was said before stays, with a warning.
    fn unobservable(&mut self, wanted: &Accepted, error: ObserveError) -> Next {
        let text = crate::session::chain(&error);
        let known = self.rooms.ledger.known(&self.unit);
        let finally = matches!(error, ObserveError::Unsupported | ObserveError::Layout(_));
        if finally
            && let Some(failed) = known.failed.filter(|f| f.generation == wanted.generation())
        {
            // Nothing was begun, so there is nothing to go back from; failing anew would never end.
            self.post(wanted, Phase::Failed(failed.failure), None);
            return Next::Idle;
        }
        if matches!(error, ObserveError::Unsupported) {
            let failure = Failure::new("plan", FailureKind::Unsupported, text, self.now());
            return self.fail(wanted, failure);
        }
        if matches!(error, ObserveError::Layout(_)) && known.settled.as_ref() != Some(wanted) {
            let failure = Failure::new("observe", FailureKind::Other, text, self.now());
            return self.fail(wanted, failure);
        }
        tracing::warn!(unit = %self.unit, error = %text, "the unit could not be observed");
        self.rooms.board.set_engine_reachable(
            self.rooms.board.engine_reachable() && !matches!(error, ObserveError::Engine(_)),
        );
        let mut status = match self.rooms.board.get(&self.unit) {
            Some(status) if status.generation == wanted.generation() => {
                Arc::unwrap_or_clone(status)
            }
            _ => self.status(wanted, Phase::Pending, None),
        };
        status.warnings = vec![text];
        self.rooms.board.post(status);
        Next::Wait
    }

    fn event(&self, kind: EventKind, text: &str) {
        tracing::info!(unit = %self.unit, "{text}");
        if let Err(error) = self.rooms.events.push(self.now(), Some(&self.unit), kind, text) {
            tracing::error!(%error, "an event could not be kept");
        }
    }

    fn now(&self) -> SystemTime {
        self.rooms.clock.now()
    }

    fn post(&self, wanted: &Accepted, phase: Phase, seen: Option<&Seen>) {
        self.rooms.board.post(self.status(wanted, phase, seen));
    }

    fn status(&self, wanted: &Accepted, phase: Phase, seen: Option<&Seen>) -> Status {
        let unit: Unit = self.unit.clone();
        let settled = self.rooms.ledger.known(&unit).settled.map(|s| s.generation());
        let before = self.rooms.board.get(&unit);
        let seen = seen.cloned().unwrap_or_else(|| Seen {
            serving: before.as_ref().map(|b| b.serving.clone()).unwrap_or_default(),
            staged_digest: None,
            maintenance: before.as_ref().is_some_and(|b| b.maintenance),
            step_times: Vec::new(),
        });
        // Times of the steps that brought a generation about stay with it.
        let step_times = match before {
            Some(before)
                if seen.step_times.is_empty() && before.generation == wanted.generation() =>
            {
                before.step_times.clone()
            }
            _ => seen.step_times,
        };
        Status {
            unit,
            generation: wanted.generation(),
            phase,
            serving: seen.serving,
            staged_digest: seen.staged_digest,
            observed_at: self.now(),
            settled,
            warnings: Vec::new(),
            maintenance: seen.maintenance,
            step_times,
        }
    }
}

/// What a status tells of an observation.
#[derive(Clone)]
struct Seen {
    serving: Vec<dhow_proto::model::status::Serving>,
    staged_digest: Option<dhow_proto::model::ImageDigest>,
    maintenance: bool,
    step_times: Vec<(String, Duration)>,
}

impl Seen {
    fn of(resolved: &Resolved, observed: &Observed, times: &[(String, Duration)]) -> Self {
        Self {
            serving: plan::serving(&resolved.wanted, observed),
            staged_digest: plan::staged_digest(&resolved.wanted, observed),
            maintenance: plan::is_maintenance(&resolved.wanted, observed),
            step_times: times.to_vec(),
        }
    }
}
