//! kamal-proxy inside the model: its command line and its table.

use std::time::{Duration, SystemTime};

use dhow_proto::model::kamal;

use super::FakeEngine;
use super::model::State;
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
            let number = begin(&engine, &argv);
            match tokio::time::timeout(deadline, ended_deploy(&engine, number)).await {
                Ok(Ok(())) => Ok(ended(0, String::new(), "")),
                Ok(Err(message)) => Ok(ended(1, String::new(), &message)),
                Err(_) => Err(EngineError::OutcomeUnknown("the connection was lost".to_owned())),
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

/// A `kamal-proxy deploy`: it goes on when its caller goes away, as the real one does.
pub(super) struct Deploy {
    pub(super) argv: Vec<String>,
    /// When it looks at its target next, and when it gives up.
    next: SystemTime,
    until: SystemTime,
    /// How it ended.
    pub(super) ended: Option<Result<(), String>>,
}

impl Deploy {
    fn flag(&self, name: &str) -> Vec<String> {
        let prefix = format!("--{name}=");
        self.argv.iter().filter_map(|a| a.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    fn service(&self) -> String {
        self.argv.get(2).cloned().unwrap_or_default()
    }

    fn timeout(&self) -> String {
        self.flag("deploy-timeout").pop().unwrap_or_else(|| "30s".to_owned())
    }
}

fn begin(engine: &FakeEngine, argv: &[String]) -> u64 {
    let now = engine.now();
    let mut deploy = Deploy { argv: argv.to_vec(), next: now, until: now, ended: None };
    match deploy.timeout().trim_end_matches('s').parse() {
        Ok(seconds) => deploy.until = now + Duration::from_secs(seconds),
        Err(_) => deploy.ended = Some(Err("invalid duration".to_owned())),
    }
    if deploy.flag("target").is_empty() {
        deploy.ended = Some(Err("required flag(s) \"target\" not set".to_owned()));
    }
    let mut state = engine.lock();
    let number = state.number();
    state.deploys.insert(number, deploy);
    number
}

/// Waits for its end.
async fn ended_deploy(engine: &FakeEngine, number: u64) -> Result<(), String> {
    loop {
        let now = engine.now();
        let next = {
            let mut state = engine.lock();
            let deploy = state.deploys.get(&number).expect("only its caller removes it");
            match deploy.ended.clone() {
                Some(how) => {
                    state.deploys.remove(&number);
                    return how;
                }
                None => deploy.next,
            }
        };
        // Not nothing, or it would look again and again at the same time.
        let wait = next.duration_since(now).unwrap_or_default();
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
    }
}

/// What deploys do until `now`.
pub(super) fn pass(state: &mut State, now: SystemTime) {
    let numbers: Vec<u64> = state.deploys.keys().copied().collect();
    for number in numbers {
        while let Some(deploy) = state.deploys.get(&number)
            && deploy.ended.is_none()
            && deploy.next <= now
        {
            let (at, until) = (deploy.next, deploy.until);
            let how = look(state, deploy, at);
            let route = matches!(how, Some(Ok(()))).then(|| routed(state, deploy));
            let how = match route {
                Some(Ok((service, route))) => {
                    state.routes.insert(service, route);
                    how
                }
                Some(Err(conflict)) => Some(Err(conflict)),
                None => how,
            };
            if let Some(deploy) = state.deploys.get_mut(&number) {
                deploy.ended = how;
                deploy.next = until.min(at + CHECK).max(at + Duration::from_millis(1));
            }
        }
    }
}

/// One look at the target; none: not yet.
fn look(state: &State, deploy: &Deploy, at: SystemTime) -> Option<Result<(), String>> {
    if !state.find(kamal::PROXY_CONTAINER).is_some_and(super::model::FakeContainer::runs) {
        return Some(Err("unexpected EOF".to_owned()));
    }
    let target = deploy.flag("target").pop().unwrap_or_default();
    let id = target.split(':').next().unwrap_or_default();
    if state.find(id).is_some_and(|c| c.serves(at)) {
        return Some(Ok(()));
    }
    (at >= deploy.until).then(|| {
        let timeout = deploy.timeout();
        Err(format!("target failed to become healthy within configured timeout ({timeout})"))
    })
}

fn routed(state: &State, deploy: &Deploy) -> Result<(String, Route), String> {
    let service = deploy.service();
    let mut hosts = deploy.flag("host");
    if hosts.is_empty() {
        hosts.push("*".to_owned());
    }
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
        targets: deploy.flag("target"),
        state: kept,
        tls: !deploy.flag("tls").is_empty(),
    };
    Ok((service, route))
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
