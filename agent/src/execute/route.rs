//! Switches a service's route, watching the new container meanwhile.

use std::time::Duration;

use dhow_proto::model::status::Failure;
use dhow_proto::model::{Unit, kamal};
use dhow_proto::wire::FailureKind;
use tokio::time::Instant;

use super::watch::Ended;
use super::{StepContext, Worker};
use crate::engine::EngineError;
use crate::plan::{ContainerRef, Step, Switch};
use crate::proxy;

/// kamal-proxy's socket is there a moment after its start.
const SOCKET: Duration = Duration::from_secs(10);
/// Beyond deploy and drain time, before the outcome counts as unknown (kamal-proxy contract: driving it).
const MARGIN: Duration = Duration::from_secs(10);
/// Between two looks at something that gives no event.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// What `kamal-proxy` says, without its prefix, on one bounded line.
pub(super) fn message(stderr: &str) -> String {
    let line = stderr.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("no message");
    line.strip_prefix("Error: ").unwrap_or(line).chars().take(300).collect()
}

/// How an attempt to run a command of kamal-proxy ended.
enum Attempt {
    Done,
    /// The server does not listen (yet).
    NotListening(String),
    /// It was begun, its end was not seen.
    Unknown(String),
    Refused(String),
}

impl Worker {
    async fn attempt(&self, argv: &[String], deadline: Duration) -> Result<Attempt, EngineError> {
        Ok(match self.engine.exec(kamal::PROXY_CONTAINER, argv, deadline).await {
            Ok(output) if output.exit_code == 0 => Attempt::Done,
            Ok(output) => {
                let message = message(&output.stderr);
                if message.starts_with("dial unix") {
                    Attempt::NotListening(message)
                } else if message == "unexpected EOF" {
                    Attempt::Unknown("kamal-proxy ended during the call".to_owned())
                } else {
                    Attempt::Refused(message)
                }
            }
            Err(EngineError::Conflict(m)) => Attempt::NotListening(m),
            Err(EngineError::NotFound(_)) => {
                Attempt::NotListening("there is no kamal-proxy container".to_owned())
            }
            Err(EngineError::OutcomeUnknown(m)) => Attempt::Unknown(m),
            Err(EngineError::TimedOut { .. }) => {
                Attempt::Unknown("kamal-proxy did not answer in time".to_owned())
            }
            Err(e) => return Err(e),
        })
    }

    /// Repeats while the server does not listen, for a few seconds.
    async fn listened(&self, argv: &[String], deadline: Duration) -> Result<Attempt, EngineError> {
        let until = Instant::now() + SOCKET;
        loop {
            match self.attempt(argv, deadline).await? {
                Attempt::NotListening(_) if Instant::now() < until => {
                    tokio::time::sleep(LOOK).await;
                }
                other => return Ok(other),
            }
        }
    }

    /// Runs a command of kamal-proxy that is safe to repeat. `absent` is fine where the service is not there.
    pub(super) async fn proxy_command(
        &self,
        step: &Step,
        argv: &[String],
        deadline: Duration,
        absent_is_fine: bool,
    ) -> Result<(), Box<Failure>> {
        let _routing = self.routing.read().await;
        match self.listened(argv, deadline).await.map_err(|e| self.engine_failure(step, &e))? {
            Attempt::Done => Ok(()),
            Attempt::Refused(m) if absent_is_fine && m == "service not found" => Ok(()),
            Attempt::NotListening(m) => {
                Err(self.failure(step, FailureKind::ProxyMissing, format!("kamal-proxy: {m}")))
            }
            Attempt::Unknown(m) | Attempt::Refused(m) => {
                Err(self.failure(step, FailureKind::ProxyRefused, format!("kamal-proxy: {m}")))
            }
        }
    }

    pub(super) async fn route(
        &self,
        step: &Step,
        context: &StepContext<'_>,
        service: &str,
        container: &ContainerRef,
        port: u16,
    ) -> Result<(), Box<Failure>> {
        let Unit::Role(app, role) = &context.wanted.intent.unit else {
            return Err(self.failure(step, FailureKind::Unsupported, "only roles are routed"));
        };
        let Some((variant, template)) = context.wanted.variants().next() else {
            return Err(self.failure(step, FailureKind::Other, "the role has no variant"));
        };
        let Some(target_options) = &template.proxy else {
            return Err(self.failure(step, FailureKind::Other, "the role is not behind the proxy"));
        };
        let view = self.must_exist(step, container.key()).await?;
        let target = format!("{}:{port}", view.short_id());
        let timeouts = &template.timeouts;
        let argv = proxy::deploy(app, role, &variant.version, target_options, timeouts, &target);
        let deadline = Duration::from_secs(timeouts.deploy_s + timeouts.drain_s) + MARGIN;
        let began = (self.now)();

        // A proxy stop waits until this is over.
        let _routing = self.routing.read().await;
        let attempt = tokio::select! {
            // Dropping it leaves kamal-proxy's own wait to end by itself; the next route waits for that.
            attempt = self.listened(&argv, deadline) => attempt,
            // Cancel-safe: only reads.
            ended = self.until_ended(&view.id) => {
                return Err(self.ended_failure(step, &view, ended).await);
            }
        };
        match attempt.map_err(|e| self.engine_failure(step, &e))? {
            // Its word is enough: what another deployer may do after it is for the next look to find.
            Attempt::Done => {
                self.switched(service, Switch::Returned { targets: vec![target] });
                Ok(())
            }
            Attempt::NotListening(m) => {
                let reason = format!("kamal-proxy: {m}");
                Err(self.failure(step, FailureKind::ProxyMissing, reason))
            }
            Attempt::Unknown(m) => match self.verify_route(step, service, &target).await {
                Ok(()) => Ok(()),
                Err(mut failure) => {
                    failure.reason = format!("{m}; {}", failure.reason);
                    Err(self.with_evidence(failure, &view.id).await)
                }
            },
            Attempt::Refused(m) => {
                let unhealthy = m.contains("failed to become healthy");
                let (mut kind, mut reason) =
                    (FailureKind::ProxyRefused, format!("kamal-proxy: {m}"));
                if unhealthy {
                    kind = FailureKind::Unhealthy;
                    let now = self.must_exist(step, &view.id).await?;
                    if !now.state.is_up() {
                        let ended = Ended { exit_code: now.exit_code };
                        return Err(self.ended_failure(step, &now, ended).await);
                    }
                    if let Some(why) = self.why_unhealthy(&now, template, began).await {
                        reason = format!("not healthy within {} s: {why}", timeouts.deploy_s);
                    }
                }
                let failure = self.failure(step, kind, reason);
                Err(self.with_evidence(failure, &view.id).await)
            }
        }
    }

    /// Looks where the service is routed to, where the return of kamal-proxy's deploy was not seen.
    async fn verify_route(
        &self,
        step: &Step,
        service: &str,
        target: &str,
    ) -> Result<(), Box<Failure>> {
        let until = Instant::now() + SOCKET;
        let routes = loop {
            match self.routes().await {
                Ok(routes) => break routes,
                Err(why) if Instant::now() >= until => {
                    let reason = format!("kamal-proxy does not tell what it routes: {why}");
                    return Err(self.failure(step, FailureKind::ProxyMissing, reason));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        let targets = routes.get(service).map(|r| r.targets.clone()).unwrap_or_default();
        if targets != [target] {
            let reason = match targets.as_slice() {
                [] => format!("kamal-proxy does not route {service}"),
                other => format!("kamal-proxy routes {service} to {}", other.join(", ")),
            };
            return Err(self.failure(step, FailureKind::ProxyRefused, reason));
        }
        self.switched(service, Switch::Seen { targets, since: (self.now)() });
        Ok(())
    }

    fn switched(&self, service: &str, switch: Switch) {
        let mut switches = self.switches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        switches.insert(service.to_owned(), switch);
    }

    pub(super) async fn await_deploys(
        &self,
        step: &Step,
        service: &str,
        within: Duration,
    ) -> Result<(), Box<Failure>> {
        let until = Instant::now() + within + MARGIN;
        loop {
            let deploying = self.deploying().await.map_err(|e| self.engine_failure(step, &e))?;
            if !deploying.contains(service) {
                return Ok(());
            }
            if Instant::now() >= until {
                let reason = format!("another kamal-proxy deploy of {service} does not end");
                return Err(self.failure(step, FailureKind::TimedOut, reason));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn await_proxy(&self, step: &Step) -> Result<(), Box<Failure>> {
        let until = Instant::now() + 3 * SOCKET;
        loop {
            let Err(why) = self.routes().await else { return Ok(()) };
            let view = self.must_exist(step, kamal::PROXY_CONTAINER).await?;
            if !view.state.is_up() {
                let ended = Ended { exit_code: view.exit_code };
                return Err(self.ended_failure(step, &view, ended).await);
            }
            if Instant::now() >= until {
                let reason = format!("kamal-proxy does not answer: {why}");
                let failure = self.failure(step, FailureKind::ProxyMissing, reason);
                return Err(self.with_evidence(failure, &view.id).await);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
