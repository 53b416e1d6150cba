//! Events of a rollout as text and JSON. PURE.

use std::fmt::Write as _;
use std::time::Duration;

use dhow_proto::model::Unit;
use dhow_proto::wire;
use serde_json::{Value, json};
use wire::rollout_event::Kind;

/// A unit as people read it; empty where the message names none.
pub fn unit_text(unit: Option<&wire::UnitRef>) -> String {
    unit.cloned().and_then(|u| Unit::try_from(u).ok()).map(|u| u.to_string()).unwrap_or_default()
}

/// A protobuf duration as seconds with one decimal.
pub fn seconds(duration: Option<&prost_types::Duration>) -> String {
    let duration = duration.copied().and_then(|d| Duration::try_from(d).ok()).unwrap_or_default();
    format!("{:.1} s", duration.as_secs_f64())
}

/// A time stamp as RFC 3339; none where it is not set or out of range.
pub fn rfc3339(stamp: Option<&prost_types::Timestamp>) -> Option<String> {
    let stamp = stamp?;
    jiff::Timestamp::new(stamp.seconds, stamp.nanos).ok().map(|t| t.to_string())
}

/// A time stamp for people: to the second; empty where there is none.
pub fn when(stamp: Option<&prost_types::Timestamp>) -> String {
    let at = stamp.and_then(|stamp| jiff::Timestamp::from_second(stamp.seconds).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// What to print of an event where lines are not redrawn; none for what only a live line shows.
pub fn plain(event: &wire::RolloutEvent) -> Option<String> {
    Some(match event.kind.as_ref()? {
        Kind::StageStarted(stage) => {
            let hosts = if stage.hosts.is_empty() {
                String::new()
            } else {
                format!(" on {}", stage.hosts.join(", "))
            };
            format!("[{}/{}] {}{hosts}", stage.index + 1, stage.total, stage.stage)
        }
        Kind::StageFinished(_) => return None,
        Kind::HostProgress(progress) => {
            format!(
                "  {}: {}: {}",
                progress.host,
                unit_text(progress.unit.as_ref()),
                phase_text(progress)?
            )
        }
        Kind::HostFailed(failed) => failure(failed),
        Kind::Hook(hook) => match hook.state() {
            wire::HookState::Started => format!("  hook {} runs", hook.name),
            wire::HookState::Finished if hook.exit_code == 0 => return None,
            wire::HookState::Finished => {
                format!("  hook {} failed with exit code {}", hook.name, hook.exit_code)
            }
            wire::HookState::Unknown => format!(
                "  hook {}: the client went away; its outcome is unknown and it is not run again",
                hook.name
            ),
            wire::HookState::Requested | wire::HookState::Unspecified => return None,
        },
        Kind::Note(note) => format!("  {}", note.text),
        Kind::Finished(_) => return None,
    })
}

/// Where a host is, in a few words; none where there is nothing worth a line.
pub fn phase_text(progress: &wire::HostProgress) -> Option<String> {
    match progress.phase() {
        wire::Phase::Converging => {
            let step = progress.step.as_ref()?;
            Some(format!("{} ({}/{})", step.text, step.index + 1, step.total))
        }
        wire::Phase::Settled => Some("done".to_owned()),
        wire::Phase::AwaitingCondition => Some(format!("waits: {}", progress.awaiting)),
        wire::Phase::AwaitingSecrets => Some(format!("awaits secrets: {}", progress.awaiting)),
        wire::Phase::Held => Some("held".to_owned()),
        // Told with its reason by the failure's own event.
        wire::Phase::Failed => None,
        wire::Phase::Pending
        | wire::Phase::Released
        | wire::Phase::Removed
        | wire::Phase::Unspecified => None,
    }
}

/// A failed host: the step, the reason in a sentence, exit code, health log and last log lines.
pub fn failure(failed: &wire::HostFailed) -> String {
    let default = wire::Failure::default();
    let failure = failed.failure.as_ref().unwrap_or(&default);
    let mut text = format!("  {}: {}: FAILED", failed.host, unit_text(failed.unit.as_ref()));
    if !failure.step.is_empty() {
        let _ = write!(text, " at `{}`", failure.step);
    }
    let _ = write!(text, ": {}", failure.reason);
    if let Some(code) = failure.exit_code {
        let _ = write!(text, " (exit code {code})");
    }
    let container = if failure.container.is_empty() { "container" } else { &failure.container };
    for (title, lines) in
        [("health checks", &failure.health_log), ("last log lines", &failure.log_lines)]
    {
        if !lines.is_empty() {
            let _ = write!(text, "\n    {title} of {container}:");
            for line in lines {
                let _ = write!(text, "\n      {}", printable(line));
            }
        }
    }
    text
}

/// Log lines come from a container: without what would move the cursor or change the terminal.
pub fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// An event as one JSON object.
pub fn json(event: &wire::RolloutEvent) -> Value {
    let (kind, detail) = match &event.kind {
        None => ("unknown", json!({})),
        Some(Kind::StageStarted(s)) => (
            "stage_started",
            json!({"stage": s.stage, "index": s.index, "total": s.total, "hosts": s.hosts}),
        ),
        Some(Kind::StageFinished(s)) => ("stage_finished", json!({"stage": s.stage})),
        Some(Kind::HostProgress(p)) => (
            "host_progress",
            json!({
                "host": p.host, "unit": unit_text(p.unit.as_ref()), "phase": phase_word(p.phase()),
                "step": p.step.as_ref().map(|s| json!({"text": s.text, "index": s.index, "total": s.total})),
                "awaiting": p.awaiting,
            }),
        ),
        Some(Kind::HostFailed(f)) => ("host_failed", failed_json(f)),
        Some(Kind::Hook(h)) => (
            "hook",
            json!({"name": h.name, "state": hook_word(h.state()), "exit_code": h.exit_code}),
        ),
        Some(Kind::Note(n)) => ("note", json!({"text": n.text})),
        Some(Kind::Finished(f)) => {
            ("finished", json!({"state": state_word(f.state()), "reason": f.reason}))
        }
    };
    json!({
        "sequence": event.sequence, "at": rfc3339(event.at.as_ref()), "rollout": event.rollout_id,
        "kind": kind, "detail": detail,
    })
}

/// A failed host as JSON.
pub fn failed_json(failed: &wire::HostFailed) -> Value {
    let failure = failed.failure.clone().unwrap_or_default();
    json!({
        "host": failed.host, "unit": unit_text(failed.unit.as_ref()), "step": failure.step, "reason": failure.reason,
        "failure": failure.kind().as_str_name().trim_start_matches("FAILURE_KIND_").to_lowercase(),
        "exit_code": failure.exit_code, "health_log": failure.health_log, "log_lines": failure.log_lines,
        "container": failure.container,
    })
}

/// `started`, `finished` …
pub fn hook_word(state: wire::HookState) -> String {
    state.as_str_name().trim_start_matches("HOOK_STATE_").to_lowercase()
}

/// `settled`, `failed` …
pub fn phase_word(phase: wire::Phase) -> String {
    phase.as_str_name().trim_start_matches("PHASE_").to_lowercase()
}

/// `succeeded`, `awaiting_client` …
pub fn state_word(state: wire::RolloutState) -> String {
    state.as_str_name().trim_start_matches("ROLLOUT_STATE_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_times_to_the_second() {
        let stamp = prost_types::Timestamp { seconds: 1_750_000_000, nanos: 123_456_789 };
        assert_eq!(when(Some(&stamp)), "2025-06-15T15:06:40Z");
        assert_eq!(when(None), "");
    }

    #[test]
    fn a_failure_names_host_step_reason_exit_code_and_logs() {
        let failed = wire::HostFailed {
            host: "10.0.0.1".into(),
            unit: None,
            failure: Some(wire::Failure {
                step: "start shop-web-v2".into(),
                reason: "the container exited before it was healthy".into(),
                exit_code: Some(3),
                log_lines: vec!["boot".into(), "no \u{1b}[31mdatabase".into()],
                container: "shop-web-v2".into(),
                ..Default::default()
            }),
        };
        let lines = [
            "  10.0.0.1: : FAILED at `start shop-web-v2`: the container exited before it was healthy (exit code 3)",
            "    last log lines of shop-web-v2:",
            "      boot",
            "      no \u{fffd}[31mdatabase",
        ];
        assert_eq!(failure(&failed), lines.join("\n"));
    }
}
