//! The status of an app as text and JSON. PURE.

use std::collections::BTreeMap;

use dhow_proto::model::status::{Phase, Status};
use dhow_proto::wire;
use serde_json::{Value, json as object};

use super::event::{phase_word, rfc3339, state_word, unit_text, when};
use super::table;

/// For people: a line on the whole, a line per host and unit, then recent events.
pub fn text(status: &wire::StatusResponse) -> String {
    let app = status.app.clone().unwrap_or_default();
    let name = if app.destination.is_empty() {
        app.service
    } else {
        format!("{}@{}", app.service, app.destination)
    };
    let mut lines = vec![format!("{name}: {}", headline(status))];
    if let Some(running) = &status.running {
        lines.push(format!(
            "rollout {} of {} runs: {} (by {})",
            running.id, running.version, running.stage, running.started_by
        ));
    }
    let rows = status.hosts.iter().flat_map(rows);
    lines.push(table::render(["HOST", "UNIT", "STATE", "SERVES", "DETAIL"], rows));
    for event in &status.events {
        let inner = event.event.clone().unwrap_or_default();
        lines.push(format!("{} {}: {}", when(inner.at.as_ref()), event.host, inner.text));
    }
    lines.join("\n")
}

/// `2 of 3 on v3, 1 pending reconnect`.
pub fn headline(status: &wire::StatusResponse) -> String {
    if status.wanted_version.is_empty() && status.hosts.is_empty() {
        return "never deployed".to_owned();
    }
    let total = status.hosts.len();
    let on = status.hosts.iter().filter(|h| serves(h, &status.wanted_version)).count();
    let offline =
        status.hosts.iter().filter(|h| !h.online && !serves(h, &status.wanted_version)).count();
    let wanted =
        if status.wanted_version.is_empty() { "no version yet" } else { &status.wanted_version };
    let mut text = format!("{on} of {total} on {wanted}");
    if offline > 0 {
        text.push_str(&format!(", {offline} pending reconnect"));
    }
    let held = status
        .hosts
        .iter()
        .filter(|h| h.units.iter().any(|u| u.phase() == wire::Phase::Held))
        .count();
    if held > 0 {
        text.push_str(&format!(", {held} on hold"));
    }
    text
}

/// True where every role that reported serves the wanted version, and one did.
fn serves(host: &wire::HostStatus, version: &str) -> bool {
    let mut roles = host.units.iter().filter(|u| is_role(u)).peekable();
    roles.peek().is_some() && roles.all(|u| u.serving.iter().any(|s| s.version == version))
}

fn is_role(status: &wire::Status) -> bool {
    matches!(
        status.unit.as_ref().and_then(|u| u.kind.as_ref()),
        Some(wire::unit_ref::Kind::Role(_))
    )
}

fn rows(host: &wire::HostStatus) -> Vec<[String; 5]> {
    let name = host.config_host.clone();
    let offline = || {
        // The controller keeps this in memory: before it started it may well have seen the host.
        let seen = rfc3339(host.last_seen.as_ref())
            .map_or("not seen since the controller started".to_owned(), |t| {
                format!("last seen {t}")
            });
        [name.clone(), String::new(), "offline".to_owned(), String::new(), seen]
    };
    let mut rows = Vec::new();
    if !host.online {
        rows.push(offline());
    }
    for unit in &host.units {
        let serving: Vec<&str> = unit.serving.iter().map(|s| s.version.as_str()).collect();
        let state =
            if unit.maintenance { "maintenance".to_owned() } else { phase_word(unit.phase()) };
        rows.push([
            name.clone(),
            unit_text(unit.unit.as_ref()),
            state,
            serving.join(", "),
            detail(unit),
        ]);
    }
    for pending in &host.pending {
        rows.push([
            name.clone(),
            unit_text(pending.unit.as_ref()),
            "pending".to_owned(),
            String::new(),
            String::new(),
        ]);
    }
    rows
}

fn detail(unit: &wire::Status) -> String {
    let Ok(status) = Status::try_from(unit.clone()) else { return String::new() };
    match status.phase {
        Phase::Failed(failure) => failure.reason,
        Phase::Held(held) => held.to_string(),
        Phase::AwaitingSecrets(what) | Phase::AwaitingCondition(what) => what,
        Phase::Converging(Some(step)) => step.text,
        Phase::Converging(None)
        | Phase::Pending
        | Phase::Settled
        | Phase::Released
        | Phase::Removed => status.warnings.join("; "),
    }
}

/// For programs.
pub fn json(status: &wire::StatusResponse) -> Value {
    let hosts: Vec<Value> = status
        .hosts
        .iter()
        .map(|h| {
            let units: Vec<Value> = h
                .units
                .iter()
                .map(|u| {
                    let serving: Vec<Value> = u
                        .serving
                        .iter()
                        .map(|s| object!({"container": s.container, "version": s.version, "digest": s.digest}))
                        .collect();
                    object!({
                        "unit": unit_text(u.unit.as_ref()), "phase": phase_word(u.phase()),
                        "generation": u.generation.map(|g| g.number), "serving": serving, "detail": detail(u),
                        "maintenance": u.maintenance, "warnings": u.warnings,
                        "step_times_ms": u.step_times.iter().map(|s| (s.text.clone(), s.took.as_ref().map_or(0, |d| d.seconds * 1000 + i64::from(d.nanos) / 1_000_000))).collect::<BTreeMap<_, _>>(),
                    })
                })
                .collect();
            object!({
                "host": h.host, "config_host": h.config_host, "online": h.online,
                "last_seen": rfc3339(h.last_seen.as_ref()), "units": units,
                "pending": h.pending.iter().map(|p| unit_text(p.unit.as_ref())).collect::<Vec<_>>(),
            })
        })
        .collect();
    let events: Vec<Value> = status
        .events
        .iter()
        .map(|e| {
            let inner = e.event.clone().unwrap_or_default();
            object!({"host": e.host, "at": rfc3339(inner.at.as_ref()), "text": inner.text, "kind": inner.kind().as_str_name().trim_start_matches("EVENT_KIND_").to_lowercase()})
        })
        .collect();
    let running = status.running.as_ref().map(|r| {
        object!({"id": r.id, "version": r.version, "state": state_word(r.state()), "stage": r.stage, "by": r.started_by})
    });
    object!({"headline": headline(status), "wanted_version": status.wanted_version, "hosts": hosts, "rollout": running, "events": events})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, online: bool, version: &str) -> wire::HostStatus {
        let role = wire::RoleUnit {
            app: Some(wire::AppRef { service: "shop".into(), destination: String::new() }),
            role: "web".into(),
        };
        let unit = wire::UnitRef { kind: Some(wire::unit_ref::Kind::Role(role)) };
        let serving = vec![wire::Serving { version: version.into(), ..Default::default() }];
        wire::HostStatus {
            host: name.into(),
            config_host: name.into(),
            online,
            units: vec![wire::Status {
                unit: Some(unit),
                serving,
                phase: wire::Phase::Settled.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn the_headline_counts_hosts_that_are_away() {
        let status = wire::StatusResponse {
            hosts: vec![host("a", true, "v3"), host("b", true, "v3"), host("c", false, "v1")],
            wanted_version: "v3".into(),
            ..Default::default()
        };
        assert_eq!(headline(&status), "2 of 3 on v3, 1 pending reconnect");
    }

    #[test]
    fn of_a_host_that_is_away_the_table_claims_no_more_than_the_controller_knows() {
        let mut status = wire::StatusResponse {
            hosts: vec![host("a", false, "v3")],
            wanted_version: "v3".into(),
            ..Default::default()
        };
        let said = text(&status);
        assert!(
            said.contains("offline") && said.contains("not seen since the controller started"),
            "{said}"
        );
        status.hosts[0].last_seen =
            Some(prost_types::Timestamp { seconds: 1_750_000_000, nanos: 0 });
        let said = text(&status);
        assert!(said.contains("last seen 2025-06-15T15:06:40"), "{said}");
        assert_eq!(json(&status)["hosts"][0]["last_seen"], "2025-06-15T15:06:40Z");
    }
}
