//! kamal-proxy inside the model: its command line and its table.

use std::time::Duration;

use dhow_proto::model::kamal;
use tokio::time::Instant;

use super::FakeEngine;
use crate::engine::{EngineError, ExecOutput};
use crate::proxy::{Route, RouteState};

/// Between two health checks.
const CHECK: Duration = Duration::from_secs(1);

fn ended(exit_code: i32, stdout: String, error: &str) -> ExecOutput {
    let stderr = if error.is_empty() { String::new() } else { format!("Error: {error}\n") };
    ExecOutput { exit_code, stdout, stderr }
}

/// Runs a command. One that waits goes on when its caller goes away, as the real one does.
pub(super) async fn run(
    engine: FakeEngine,
    argv: Vec<String>,
    deadline: Duration,
) -> Result<ExecOutput, EngineError> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["kamal-proxy", "list"] => Ok(ended(0, list(&engine), "")),
        ["kamal-proxy", "deploy", ..] => {
            let number = {
                let mut state = engine.lock();
                let number = state.number();
                state.deploys.insert(number, argv.clone());
                number
            };
            let task = tokio::spawn(async move {
                let result = deploy(&engine, &argv).await;
                engine.lock().deploys.remove(&number);
                result
            });
            match tokio::time::timeout(deadline, task).await {
                Ok(Ok(Ok(()))) => Ok(ended(0, String::new(), "")),
                Ok(Ok(Err(message))) => Ok(ended(1, String::new(), &message)),
                Ok(Err(_)) | Err(_) => {
                    Err(EngineError::OutcomeUnknown("the connection was lost".to_owned()))
                }
            }
        }
        ["kamal-proxy", verb @ ("remove" | "stop" | "resume"), service, ..] => {
            let mut state = engine.lock();
            let Some(route) = state.routes.get_mut(*service) else {
                return Ok(ended(1, String::new(), "service not found"));
            };
            match *verb {
                "stop" => route.state = RouteState::Stopped,
                "resume" => route.state = RouteState::Running,
                _ => {
                    state.routes.remove(*service);
                }
            }
            Ok(ended(0, String::new(), ""))
        }
        // Of the sample app's tools.
        ["echo", text] => Ok(ended(0, format!("{text}\n"), "")),
        ["false"] => Ok(ended(1, String::new(), "")),
        _ => Ok(ended(127, String::new(), "executable file not found")),
    }
}

async fn deploy(engine: &FakeEngine, argv: &[String]) -> Result<(), String> {
    let flag = |name: &str| {
        let prefix = format!("--{name}=");
        argv.iter().filter_map(move |a| a.strip_prefix(&prefix).map(str::to_owned))
    };
    let service = argv.get(2).cloned().unwrap_or_default();
    let target = flag("target").next().ok_or("required flag(s) \"target\" not set")?;
    let timeout = flag("deploy-timeout").next().unwrap_or_else(|| "30s".to_owned());
    let seconds = timeout.trim_end_matches('s').parse().map_err(|_| "invalid duration")?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let id = target.split(':').next().unwrap_or_default().to_owned();
    loop {
        if !proxy_runs(engine) {
            return Err("unexpected EOF".to_owned());
        }
        let now = engine.now();
        if engine.lock().find(&id).is_some_and(|c| c.serves(now)) {
            break;
        }
        if Instant::now() >= until {
            return Err(format!(
                "target failed to become healthy within configured timeout ({timeout})"
            ));
        }
        tokio::time::sleep_until(until.min(Instant::now() + CHECK)).await;
    }
    let mut hosts: Vec<String> = flag("host").collect();
    if hosts.is_empty() {
        hosts.push("*".to_owned());
    }
    let mut state = engine.lock();
    let conflict = |(name, route): (&String, &Route)| {
        *name != service && route.hosts.iter().any(|h| hosts.contains(h))
    };
    if state.routes.iter().any(conflict) {
        return Err("host settings conflict with another service".to_owned());
    }
    let kept = state.routes.get(&service).map_or(RouteState::Running, |r| r.state);
    let route = Route {
        hosts,
        paths: vec!["/".to_owned()],
        targets: vec![target],
        state: kept,
        tls: flag("tls").next().is_some(),
    };
    state.routes.insert(service, route);
    Ok(())
}

fn proxy_runs(engine: &FakeEngine) -> bool {
    engine.lock().find(kamal::PROXY_CONTAINER).is_some_and(|c| c.runs())
}

/// As kamal-proxy prints it, colours included.
fn list(engine: &FakeEngine) -> String {
    let cell = |text: &str| format!("\u{1b}[m{text}\u{1b}[0m  ");
    let header = ["Service", "Host", "Path", "Target", "State", "TLS"];
    let mut out: String = header.iter().map(|h| format!("\u{1b}[3;94m{h}\u{1b}[0m  ")).collect();
    out.push('\n');
    for (service, route) in &engine.lock().routes {
        let state = match route.state {
            RouteState::Running => "running",
            RouteState::Paused => "paused",
            RouteState::Stopped => "stopped",
        };
        let tls = if route.tls { "yes" } else { "no" };
        out.push_str(&format!("\u{1b}[1;34m{service}\u{1b}[0m  "));
        for text in [&route.hosts.join(","), &route.paths.join(","), &route.targets.join(",")] {
            out.push_str(&cell(text));
        }
        out.push_str(&cell(state));
        out.push_str(&cell(tls));
        out.push('\n');
    }
    out
}
