//! Observe, plan, execute, until what is there agrees with what is wanted.

use std::time::Duration;

use dhow_proto::model::Unit;
use dhow_proto::model::status::{Failure, Phase, Status, StepProgress};
use dhow_proto::wire::{EventKind, FailureKind};
use tokio::time::Instant;

use super::super::resolve::Resolved;
use super::super::unit::UnitLoop;
use super::Outcome;
use super::tell::Seen;
use crate::execute::StepContext;
use crate::ledger::Accepted;
use crate::plan::{self, Observed, Plan, Step};

/// Rounds of observe, plan and execute before a pass gives up: two agree in all but odd cases.
const ROUNDS: usize = 5;
/// Step times kept in a status.
const STEP_TIMES: usize = 32;

/// What is brought about, and as which phase it is told.
pub(super) struct Aim<'a> {
    /// The newest intent: steps end when there is a newer one, and statuses carry its generation.
    pub(super) wanted: &'a Accepted,
    /// What the plan is computed for.
    pub(super) resolved: &'a Resolved,
    /// Told while steps run; none: converging, with the step in progress.
    pub(super) tells: Option<&'a Phase>,
    /// What is found different is drift, and another deployer's doing is respected.
    pub(super) repairs: bool,
    /// What is foreign at the first look is adopted.
    pub(super) adopts: bool,
}

impl UnitLoop {
    /// Observe, plan, execute, until the plan is empty.
    pub(super) async fn rounds(&mut self, aim: &Aim<'_>) -> (Outcome, Option<Seen>) {
        let mut times = Vec::new();
        let mut before: Option<Observed> = None;
        for round in 0..ROUNDS {
            let adopts = aim.adopts && round == 0;
            let look = self.look(aim.wanted, aim.resolved, adopts, before.as_ref());
            let observed = match look.await {
                Ok(Some(observed)) => observed,
                Ok(None) => return (Outcome::Superseded, None),
                Err(error) => return (Outcome::Unobservable(error), None),
            };
            self.rooms.board.set_engine_reachable(true);
            let steps = match self.steps(aim, &observed) {
                Ok(steps) => steps,
                Err(outcome) => {
                    return (outcome, Some(Seen::of(aim.resolved, &observed, &times)));
                }
            };
            if aim.repairs
                && self.told.is_none()
                && !self.goes_back
                && let Some(step) = plan::most_telling(&steps)
            {
                let needed = step.to_string();
                let text = format!("{}: drift found, `{needed}` is needed", self.unit);
                self.event(EventKind::Drift, &text);
                self.told = Some(needed);
            }
            tracing::info!(unit = %self.unit, generation = %aim.wanted.generation(), steps = steps.len(), "plan computed");
            for index in 0..steps.len() {
                if self.superseded(aim.wanted) {
                    return (Outcome::Superseded, None);
                }
                // Without the times: they are told once, at the end.
                let seen = Seen::of(aim.resolved, &observed, &[]);
                let breaks = self.rooms.board.engine_breaks();
                match self.step(aim, &steps, index, seen, &mut times).await {
                    Ok(()) => self.waiting_since = None,
                    Err(failure) => {
                        let seen = Some(Seen::of(aim.resolved, &observed, &times));
                        return match self.engine_went_away(breaks, &failure).await {
                            true => (Outcome::Interrupted(failure), seen),
                            false => (Outcome::Failed(failure), seen),
                        };
                    }
                }
            }
            let told = match &observed {
                Observed::Role(_) => plan::tells_routes(&steps),
                Observed::App(_) => plan::leaves_engine(&steps),
                Observed::Proxy(_) => false,
            };
            before = told.then_some(observed);
        }
        let reason =
            "what is there does not come to agree with what is wanted; see the agent's log";
        let failure = Failure::new("plan", FailureKind::Other, reason, self.now());
        (Outcome::Failed(Box::new(failure)), None)
    }

    /// The steps there are to do, or how it ends without any.
    fn steps(&self, aim: &Aim<'_>, observed: &Observed) -> Result<Vec<Step>, Outcome> {
        let planned = plan::plan(&aim.resolved.wanted, observed);
        // The proxy is no app's: it is on hold only where something would be done about it.
        let left_alone = self.unit == Unit::Proxy && planned.is_empty();
        let held = || plan::hold(observed.foreign()).or_else(|| self.proxy_held());
        if aim.repairs
            && !left_alone
            && let Some(held) = held()
        {
            return Err(Outcome::Held(held));
        }
        Err(match planned {
            Plan::Steps(steps) if steps.is_empty() => Outcome::Agreed,
            Plan::Steps(steps) => return Ok(steps),
            Plan::Held(held) => Outcome::Held(held),
            Plan::AwaitingSecrets(what) => Outcome::AwaitingSecrets(what),
            Plan::Waiting(what) => Outcome::Waiting(what),
            Plan::Impossible(what) => {
                let failure = Failure::new("plan", what.kind, what.reason, self.now());
                Outcome::Failed(Box::new(failure))
            }
        })
    }

    /// Runs one step, and tells of it while it runs.
    async fn step(
        &self,
        aim: &Aim<'_>,
        steps: &[Step],
        index: usize,
        seen: Seen,
        times: &mut Vec<(String, Duration)>,
    ) -> Result<(), Box<Failure>> {
        let step = &steps[index];
        let progress = StepProgress {
            text: step.to_string(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            total: u32::try_from(steps.len()).unwrap_or(u32::MAX),
            started_at: self.now(),
        };
        let base = self.status(aim.wanted, Phase::Pending, Some(&seen));
        let show = |text: String| {
            let phase = match aim.tells {
                Some(phase) => phase.clone(),
                None => Phase::Converging(Some(StepProgress { text, ..progress.clone() })),
            };
            self.rooms.board.post(Status { phase, ..base.clone() });
        };
        show(progress.text.clone());
        let began = Instant::now();
        let more = |detail: String| show(format!("{}: {detail}", progress.text));
        let context = StepContext {
            wanted: &aim.resolved.wanted,
            secrets: &aim.resolved.secrets,
            progress: &more,
        };
        let result = self.rooms.worker.run(step, &context).await;
        // A line of a log takes no time worth a word on the wire.
        let counts = !matches!(step, Step::Audit { .. } | Step::Remember(_));
        if counts && times.len() < STEP_TIMES {
            times.push((progress.text.clone(), began.elapsed()));
        }
        tracing::info!(unit = %self.unit, step = %progress.text, elapsed_ms = began.elapsed().as_millis() as u64, ok = result.is_ok(), "step");
        result
    }

    /// True where the Engine was lost since it had been lost `breaks` times: what a step did meanwhile is only known by
    /// looking again.
    async fn engine_went_away(&self, breaks: u64, failure: &Failure) -> bool {
        failure.kind == FailureKind::EngineUnreachable
            || self.rooms.board.engine_breaks() != breaks
            // The stream of events may notice a moment later, or be waiting to be opened again.
            || self.rooms.worker.engine().ping().await.is_err()
    }

    fn superseded(&self, wanted: &Accepted) -> bool {
        let known = self.rooms.ledger.known(&self.unit);
        self.shutdown.is_cancelled() || known.wanted.as_ref().is_none_or(|newest| newest != wanted)
    }
}
