//! What the cases about trouble share: an app that dhow and Kamal both deploy, load on it, and what hosts and people see.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dhow_tests::fleet::run::{Output, wait_until};
use dhow_tests::load::{self, Load, LoadReport, LoadSpec};
use dhow_tests::{Fleet, Host, Project, ProjectSpec};
use serde_json::Value;

use crate::deploy::Stage;

/// Short waits, so that cases about failures do not take long.
pub(crate) const HASTY: &str = "readiness_delay: 1\ndeploy_timeout: 10\ndrain_timeout: 3\n";

/// An app with the role `web` on these hosts, with short waits.
pub(crate) fn app(fleet: &Fleet, service: &str, hosts: &[usize]) -> ProjectSpec {
    ProjectSpec::new(fleet, service, hosts).yaml(HASTY)
}

impl Stage<'_> {
    /// `dhow deploy -P --version VERSION`, whatever the exit status.
    pub(crate) fn deploy(&self, project: &Project, version: &str) -> Result<Output> {
        self.dhow(project.dir(), &["deploy", "-P", "--version", version])
    }

    /// As [`Stage::deploy`], once agents that were started anew are back.
    pub(crate) fn deploy_when_back(&self, project: &Project, version: &str) -> Result<Output> {
        self.dhow(project.dir(), &["deploy", "-P", "--version", version, "--wait", "30"])
    }

    /// `dhow status --json`.
    pub(crate) fn status(&self, project: &Project) -> Result<Value> {
        let output = self.dhow(project.dir(), &["status", "--json"])?.ok()?;
        serde_json::from_str(&output.stdout).context("read the status")
    }

    /// The first line of `dhow status`, without the app's name.
    pub(crate) fn headline(&self, project: &Project) -> Result<String> {
        Ok(self.status(project)?["headline"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the status of the app is as asked for.
    pub(crate) fn until_status(
        &self,
        project: &Project,
        what: &str,
        limit: Duration,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait_until(what, limit, || {
            last = self.status(project)?;
            Ok(is(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("the last status was {last:#}"))
    }

    /// A host's events about the app, each with its time, newest last.
    pub(crate) fn events(&self, project: &Project, host: usize) -> Result<Vec<String>> {
        let address = self.fleet.host(host).address();
        let status = self.status(project)?;
        let events = status["events"].as_array().cloned().unwrap_or_default();
        let of_host = events.iter().filter(|event| event["host"] == address.as_str());
        let text =
            |event: &Value| Some(format!("{} {}", event["at"].as_str()?, event["text"].as_str()?));
        Ok(of_host.filter_map(text).collect())
    }
}

/// Phases of a host's roles in a status: `held`, `settled`. None of a host that is offline: what it said is old.
pub(crate) fn role_phases(status: &Value, host: &str) -> Vec<String> {
    let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
    let here = hosts.iter().filter(|h| h["config_host"] == host && h["online"] == true);
    let units = here.flat_map(|h| h["units"].as_array().cloned().unwrap_or_default());
    let roles = units.filter(|u| u["unit"].as_str().is_some_and(|unit| unit.starts_with("role ")));
    roles.filter_map(|u| u["phase"].as_str().map(str::to_owned)).collect()
}

/// Load on every one of these hosts, for an app with a name of its own or for the only one.
pub(crate) fn loads(fleet: &Fleet, hosts: &[usize], name: Option<&str>) -> Result<Vec<Load>> {
    let one = |host: &usize| {
        let url = format!("http://{}/echo", fleet.host(*host).address());
        let spec = LoadSpec {
            host: name.map(str::to_owned),
            duration_ms: 300_000,
            ..LoadSpec::mixed(&url)
        };
        Load::start(fleet, &spec)
    };
    hosts.iter().map(one).collect()
}

/// Ends loads; not one request may have failed. What they saw, in order.
pub(crate) fn none_lost(loads: Vec<Load>) -> Result<Vec<LoadReport>> {
    let reports = loads.into_iter().map(Load::finish).collect::<Result<Vec<_>>>()?;
    for (index, report) in reports.iter().enumerate() {
        ensure!(report.sent > 0, "load {index} sent nothing");
        ensure!(
            report.failed() == 0,
            "load {index}: {} of {} failed: {:?}",
            report.failed(),
            report.sent,
            report.failures
        );
    }
    Ok(reports)
}

/// The version that answers on a host for a name.
pub(crate) fn version_at(fleet: &Fleet, host: usize, name: Option<&str>) -> Result<String> {
    let url = format!("http://{}/", fleet.host(host).address());
    // Asked again by who waits: a packet that vanished with a network is not worth half a minute.
    let spec = LoadSpec {
        count: 1,
        host: name.map(str::to_owned),
        timeout_ms: 5_000,
        ..LoadSpec::new(&url)
    };
    let report = load::run(fleet, &spec)?;
    match (report.failed(), report.versions.keys().next()) {
        (0, Some(version)) => Ok(version.clone()),
        _ => bail!("host {host} answers {:?} {:?}", report.statuses, report.errors),
    }
}

/// Waits until a host answers with this version.
pub(crate) fn until_serves(
    fleet: &Fleet,
    host: usize,
    name: Option<&str>,
    version: &str,
    limit: Duration,
) -> Result<Duration> {
    let begun = Instant::now();
    let mut last = String::new();
    wait_until("the host serves the version", limit, || {
        last = version_at(fleet, host, name).unwrap_or_else(|error| error.to_string());
        Ok((last == version).then_some(()))
    })
    .with_context(|| format!("host {host} does not serve {version}: {last}"))?;
    Ok(begun.elapsed())
}

/// `docker ps` names beginning with `prefix`, sorted; `all` for those that do not run as well.
pub(crate) fn containers(host: &Host, prefix: &str, all: bool) -> Result<Vec<String>> {
    let args: &[&str] = if all { &["ps", "-a"] } else { &["ps"] };
    let text = host.docker(&[args, &["--format", "{{.Names}}"]].concat())?.ok()?.stdout;
    let mut names: Vec<String> =
        text.lines().filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// Whether `kamal-proxy deploy SERVICE` is under way on a host.
pub(crate) fn proxy_waits(host: &Host, service: &str) -> Result<bool> {
    let top = host.docker(&["top", "kamal-proxy"])?;
    Ok(top.stdout.lines().any(|l| l.contains("kamal-proxy deploy") && l.contains(service)))
}

/// `kamal-proxy list` of a host without its colours.
pub(crate) fn routes(host: &Host) -> Result<String> {
    let text = host.docker(&["exec", "kamal-proxy", "kamal-proxy", "list"])?.ok()?.stdout;
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    Ok(plain)
}

/// No lock of Kamal's is left on any host.
pub(crate) fn no_lock(fleet: &Fleet, service: &str) -> Result<()> {
    for host in fleet.hosts() {
        let lock = host.home().join(format!(".kamal/lock-{service}"));
        ensure!(!lock.exists(), "{} is left on host {}", lock.display(), host.number());
    }
    Ok(())
}
