//! Waits for containers: until one is ready, or has ended.

use std::time::Duration;

use dhow_proto::model::status::Failure;
use dhow_proto::wire::FailureKind;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::{Step, Worker};
use crate::engine::{ContainerState, EngineError, HealthStatus, ObservedContainer};

/// Looks again this often also when no event said so; a missed event costs this much.
const PERIOD: Duration = Duration::from_secs(1);
/// Restarts of a role without proxy after which it counts as a crash loop. A single one may be a start before its
/// database; Kamal would go on looking for the whole deploy time.
const CRASH_LOOP: u32 = 3;

/// A container's end.
pub(super) struct Ended {
    /// Where it is known.
    pub(super) exit_code: Option<i32>,
}

impl Worker {
    /// Ends when the container stops running for any reason, a restart included.
    pub(super) async fn until_ended(&self, id: &str) -> Ended {
        let mut restarts = None;
        let mut events = self.engine.events();
        let mut died: Option<Option<i32>> = None;
        loop {
            match self.engine.container(id).await {
                Ok(None) => return Ended { exit_code: died.flatten() },
                Ok(Some(view)) => {
                    let before = *restarts.get_or_insert(view.restarts);
                    let ended = match view.state {
                        ContainerState::Running | ContainerState::Paused => view.restarts > before,
                        ContainerState::Created => false,
                        ContainerState::Restarting
                        | ContainerState::Exited
                        | ContainerState::Dead
                        | ContainerState::Removing => true,
                    };
                    if ended || died.is_some() {
                        let exit_code = died.flatten().or(view.exit_code);
                        return Ended { exit_code };
                    }
                }
                // The Engine is away; whoever called notices by its own call.
                Err(_) => {}
            }
            let next = Self::next_event(&mut events, id).await;
            if let Some((action, code)) = next
                && action == "die"
            {
                died = Some(code);
            }
        }
    }

    /// The next event of the container, or none after a while. A stream that ended is waited out.
    async fn next_event(
        events: &mut futures_util::stream::BoxStream<
            '_,
            Result<crate::engine::EngineEvent, EngineError>,
        >,
        id: &str,
    ) -> Option<(String, Option<i32>)> {
        let until = Instant::now() + PERIOD;
        loop {
            // Cancel-safe: a stream keeps what it has not given out.
            match tokio::time::timeout_at(until, events.next()).await {
                Err(_) => return None,
                Ok(None | Some(Err(_))) => {
                    tokio::time::sleep_until(until).await;
                    return None;
                }
                Ok(Some(Ok(event))) if event.id == id => {
                    let code = event.attributes.get("exitCode").and_then(|c| c.parse().ok());
                    return Some((event.action, code));
                }
                Ok(Some(Ok(_))) => {}
            }
        }
    }

    /// Waits as Kamal's poller does, but looks when something happens, and fails as soon as that is certain.
    pub(super) async fn await_ready(
        &self,
        step: &Step,
        key: &str,
        within: Duration,
        readiness_delay: Duration,
    ) -> Result<(), Box<Failure>> {
        let deadline = Instant::now() + within;
        let mut events = self.engine.events();
        let first = self.must_exist(step, key).await?;
        let mut running_since: Option<(u32, Instant)> = None;
        loop {
            let view = self.must_exist(step, &first.id).await?;
            let crashes = view.restarts.saturating_sub(first.restarts);
            let gone = matches!(
                view.state,
                ContainerState::Exited | ContainerState::Dead | ContainerState::Removing
            );
            if gone || crashes >= CRASH_LOOP {
                let ended = super::watch::Ended { exit_code: view.exit_code };
                return Err(self.ended_failure(step, &view, ended).await);
            }
            let mut wake = deadline;
            match &view.health {
                Some(health) if health.status == HealthStatus::Healthy => return Ok(()),
                Some(_) => {}
                None if view.state == ContainerState::Running => {
                    // Counted from this look at the earliest: clocks of Engine and agent may differ.
                    let since = match running_since {
                        Some((restarts, since)) if restarts == view.restarts => since,
                        Some(_) | None => Instant::now(),
                    };
                    running_since = Some((view.restarts, since));
                    if Instant::now() >= since + readiness_delay {
                        return Ok(());
                    }
                    wake = since + readiness_delay;
                }
                None => running_since = None,
            }
            // Running within time, the second look may come after it, as with Kamal.
            let second_look = running_since.is_some();
            if Instant::now() >= deadline && !second_look {
                let state = state(&view);
                let mut reason =
                    format!("container not ready after {} seconds ({state})", within.as_secs());
                if let Some(said) = view.health.as_ref().and_then(|h| h.log.last()) {
                    let said: String = said.chars().take(200).collect();
                    reason.push_str(&format!("; its health check's last word: {said}"));
                }
                let failure = self.failure(step, FailureKind::Unhealthy, reason);
                return Err(self.with_evidence(failure, &view.id).await);
            }
            let look = tokio::time::timeout_at(wake, Self::next_event(&mut events, &first.id));
            // Timed out: time for the second look.
            let _ = look.await;
        }
    }
}

fn state(view: &ObservedContainer) -> &'static str {
    view.health.as_ref().map_or(view.state.as_str(), |h| h.status.as_str())
}
