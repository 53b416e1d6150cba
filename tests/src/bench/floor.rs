//! The floor of a deploy: the calls that change a host, and one look before each decision, back to back on one
//! keep-alive socket. No deployer that leaves the same host behind can do with less.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use super::engine::Engine;

/// What is deployed, and where.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The Engine's socket.
    pub(super) socket: PathBuf,
    /// `X-Registry-Auth` and its line end.
    pub(super) login: String,
    /// Of the app.
    pub(super) service: String,
    /// `ADDRESS:PORT/NAME`.
    pub(super) repository: String,
    /// Requests with this name are the app's.
    pub(super) host_name: String,
    /// Stopped containers that stay.
    pub(super) retain: usize,
}

/// The steps of a deploy, named as in the table.
pub(super) const STEPS: [&str; 8] =
    ["pull", "look", "create", "start", "route", "stop", "tag", "prune"];

/// How long each of [`STEPS`] took on one host.
pub(super) type Steps = [Duration; STEPS.len()];

/// Deploys `version` on all hosts at once. The wall time, and the steps of each host.
pub(super) fn deploy(targets: &[Target], version: &str) -> Result<(Duration, Vec<Steps>)> {
    let begun = Instant::now();
    let steps = std::thread::scope(|scope| {
        let hosts: Vec<_> =
            targets.iter().map(|target| scope.spawn(|| host(target, version))).collect();
        let join = |host: std::thread::ScopedJoinHandle<'_, Result<Steps>>| {
            host.join().map_err(|_| anyhow!("a thread of the floor panicked"))?
        };
        hosts.into_iter().map(join).collect::<Result<Vec<Steps>>>()
    })?;
    Ok((begun.elapsed(), steps))
}

fn host(target: &Target, version: &str) -> Result<Steps> {
    let mut engine = Engine::connect(&target.socket)?;
    let mut steps = Steps::default();
    let mut clock = Instant::now();
    let mut lap = |step: usize| {
        steps[step] += clock.elapsed();
        clock = Instant::now();
    };
    let Target { service, repository, .. } = target;
    let image = format!("{repository}:{version}");
    let path = format!("/images/create?fromImage={repository}&tag={version}");
    engine.call_with("POST", &path, &target.login, &Value::Null)?;
    // Is it the service's own? And the digest that the other hosts must pull.
    engine.call("GET", &format!("/images/{image}/json"), &Value::Null)?;
    lap(0);

    engine.call("GET", &format!("/networks?filters={}", filters("name", "kamal")), &Value::Null)?;
    engine.call("GET", "/containers/kamal-proxy/json", &Value::Null)?;
    engine.exec("kamal-proxy", &["kamal-proxy", "list"])?;
    let before = containers(&mut engine, service)?;
    let old = before.iter().find(|c| c["State"] == "running");
    let old = old.and_then(|c| c["Id"].as_str()).context("a version of the app runs")?.to_owned();
    let inspected = engine.call("GET", &format!("/containers/{old}/json"), &Value::Null)?;
    lap(1);

    let name = format!("{service}-web-{version}");
    let path = format!("/containers/create?name={name}");
    let made = engine.call("POST", &path, &like(&inspected, &image))?;
    let id = made["Id"].as_str().context("a container has an id")?.to_owned();
    lap(2);
    engine.call("POST", &format!("/containers/{id}/start"), &Value::Null)?;
    lap(3);
    let (target_flag, host_flag) =
        (format!("--target={}:80", &id[..12]), format!("--host={}", target.host_name));
    let argv = [
        "kamal-proxy",
        "deploy",
        &format!("{service}-web"),
        &target_flag,
        &host_flag,
        "--deploy-timeout=30s",
        "--drain-timeout=30s",
        "--health-check-interval=1s",
        "--health-check-timeout=5s",
        "--health-check-path=/up",
    ];
    engine.exec("kamal-proxy", &argv)?;
    lap(4);
    engine.call("POST", &format!("/containers/{old}/stop"), &Value::Null)?;
    lap(5);
    let path = format!("/images/{image}/tag?repo={repository}&tag=latest");
    engine.call("POST", &path, &Value::Null)?;
    lap(6);

    let now = containers(&mut engine, service)?;
    let stopped = now.iter().filter(|c| c["State"] != "running");
    for gone in stopped.skip(target.retain).filter_map(|c| c["Id"].as_str()) {
        engine.call("DELETE", &format!("/containers/{gone}?v=1"), &Value::Null)?;
    }
    let label = format!("service={service}");
    let path = format!(
        "/images/prune?filters={}",
        encoded(&json!({"dangling": ["true"], "label": [label]}))
    );
    engine.call("POST", &path, &Value::Null)?;
    let path = format!("/images/json?filters={}", filters("label", &label));
    let images = engine.call("GET", &path, &Value::Null)?;
    let used: Vec<&str> =
        now.iter().take(target.retain + 1).filter_map(|c| c["Image"].as_str()).collect();
    let tags = images.as_array().into_iter().flatten().flat_map(|i| i["RepoTags"].as_array());
    let old_tags = tags
        .flatten()
        .filter_map(Value::as_str)
        .filter(|tag| !used.contains(tag) && *tag != image && !tag.ends_with(":latest"));
    for tag in old_tags {
        engine.call("DELETE", &format!("/images/{tag}"), &Value::Null)?;
    }
    lap(7);
    Ok(steps)
}

/// All containers of the service, newest first.
fn containers(engine: &mut Engine, service: &str) -> Result<Vec<Value>> {
    let filters = filters("label", &format!("service={service}"));
    let found =
        engine.call("GET", &format!("/containers/json?all=1&filters={filters}"), &Value::Null)?;
    let mut found = found.as_array().cloned().unwrap_or_default();
    found.sort_by_key(|c| std::cmp::Reverse(c["Created"].as_i64()));
    Ok(found)
}

/// The create body of a container like the one inspected, of another image.
fn like(inspected: &Value, image: &str) -> Value {
    let mut body = inspected["Config"].clone();
    body["Image"] = image.into();
    body["HostConfig"] = inspected["HostConfig"].clone();
    body
}

fn filters(key: &str, value: &str) -> String {
    encoded(&json!({key: [value]}))
}

/// JSON in a query: percent-encoded but for unreserved characters.
fn encoded(json: &Value) -> String {
    json.to_string().bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}
