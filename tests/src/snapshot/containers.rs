//! Containers, images, networks and volumes as lines; pure, from what `docker inspect` says.

use serde_json::Value;

/// The parts of a container that a deployer decides (reference: fields of the create request), and
/// the little of its state that matters. The Engine fills in the rest.
const CONTAINER_FIELDS: [&str; 4] =
    ["State.Status", "Config", "HostConfig", "NetworkSettings.Networks"];

/// What the Engine, not the deployer, puts there; or what says the same in another way.
const CONTAINER_NOISE: [&str; 11] = [
    // Set by the docker client to what leaving it out means.
    "HostConfig.MemorySwappiness",
    "HostConfig.ConsoleSize",
    "HostConfig.OomKillDisable",
    "HostConfig.PidsLimit",
    // The same for every container of an Engine.
    "HostConfig.MaskedPaths",
    "HostConfig.ReadonlyPaths",
    "HostConfig.CgroupnsMode",
    "HostConfig.Runtime",
    "HostConfig.ShmSize",
    // The client's own terminal.
    "Config.AttachStdout",
    "Config.AttachStderr",
];

/// What of a network endpoint a deployer decides; the rest is assigned.
const ENDPOINT_FIELDS: [&str; 3] = ["IPAMConfig", "Links", "Aliases"];

pub(super) fn container_lines(containers: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    for container in containers {
        let name = text(container, "/Name").trim_start_matches('/').to_owned();
        let mut add = |path: &str, value: &Value| {
            flatten(&format!("container/{name}"), path, value, &mut lines)
        };
        for field in CONTAINER_FIELDS {
            let pointer = format!("/{}", field.replace('.', "/"));
            let Some(value) = container.pointer(&pointer) else { continue };
            let value = match field {
                "Config" => named_env(value),
                "HostConfig" => sorted_binds(value),
                "NetworkSettings.Networks" => decided_endpoints(value, container),
                _ => value.clone(),
            };
            add(field, &value);
        }
    }
    lines.retain(|line| !CONTAINER_NOISE.iter().any(|noise| has_field(line, noise)));
    lines
}

fn has_field(line: &str, field: &str) -> bool {
    let path = line.split_once(" = ").map_or(line, |(path, _)| path);
    path.rsplit('/').next().is_some_and(|path| {
        path == field
            || path.starts_with(&format!("{field}["))
            || path.starts_with(&format!("{field}."))
    })
}

/// Variables by name instead of by number: with one more, not all lines after it shall differ. Of a
/// name that is there twice the last counts, as it does for the container.
fn named_env(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(env) = config.get_mut("Env") {
        let words = env.as_array().cloned().unwrap_or_default();
        let named = words.iter().filter_map(Value::as_str).map(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, "<unset>"));
            (name.to_owned(), Value::from(value))
        });
        *env = Value::Object(named.collect());
    }
    config
}

/// The docker client sends volumes in whatever order its hash map has.
fn sorted_binds(host_config: &Value) -> Value {
    let mut host_config = host_config.clone();
    if let Some(binds) = host_config.get_mut("Binds").and_then(Value::as_array_mut) {
        binds.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    host_config
}

fn decided_endpoints(networks: &Value, container: &Value) -> Value {
    let short = text(container, "/Id").get(..12).unwrap_or_default().to_owned();
    let Some(networks) = networks.as_object() else { return Value::Null };
    let kept = networks.iter().map(|(name, endpoint)| {
        let mut fields = serde_json::Map::new();
        for field in ENDPOINT_FIELDS {
            let mut value = endpoint.get(field).cloned().unwrap_or(Value::Null);
            if let Some(list) = value.as_array_mut() {
                // The Engine adds the short id by itself.
                list.retain(|alias| alias.as_str() != Some(&short));
            }
            fields.insert(field.to_owned(), value);
        }
        // So that a network without any decided field still shows.
        fields.insert("attached".to_owned(), Value::Bool(true));
        (name.clone(), Value::Object(fields))
    });
    Value::Object(kept.collect())
}

pub(super) fn image_lines(images: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    for image in images {
        let mut tags: Vec<&str> = strings(image, "RepoTags");
        tags.sort_unstable();
        let name = if tags.is_empty() { "<none>".to_owned() } else { tags.join(" + ") };
        lines.push(format!("image = {name}"));
    }
    lines
}

/// The given fields of things that have a name.
pub(super) fn plain_lines(kind: &str, things: &[Value], fields: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for thing in things {
        let name = text(thing, "/Name");
        for field in fields {
            if let Some(value) = thing.get(field) {
                flatten(&format!("{kind}/{name}"), field, value, &mut lines);
            }
        }
    }
    lines
}

/// A line for every leaf below `value` that is not empty: `0`, `false`, `""`, null and empty lists
/// mean "not asked for" in Docker's API.
fn flatten(thing: &str, path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            // `ExposedPorts` and `Volumes` are sets: names with an empty object each.
            for (name, field) in fields {
                let set = field.as_object().is_some_and(serde_json::Map::is_empty);
                let is_set = set && ["Config.ExposedPorts", "Config.Volumes"].contains(&path);
                // Labels and variables may be empty on purpose: it is their presence that counts.
                let label = path.ends_with("Labels") || path == "Config.Env";
                if is_set || (label && field.as_str() == Some("")) {
                    lines.push(format!("{thing}/{path}.{name} ="));
                } else {
                    flatten(thing, &format!("{path}.{name}"), field, lines);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                flatten(thing, &format!("{path}[{at:02}]"), item, lines);
            }
        }
        Value::Null | Value::Bool(false) => {}
        Value::Number(number) if number.as_f64() == Some(0.0) => {}
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => lines.push(format!("{thing}/{path} = {}", text.escape_debug())),
        other => lines.push(format!("{thing}/{path} = {other}")),
    }
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn strings<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    let list = value.get(field).and_then(Value::as_array);
    list.map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_what_its_deployer_asked_for() {
        let container = json!({
            "Id": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "Name": "/shop-web-v1",
            "State": {"Status": "running", "Pid": 7},
            "Config": {
                "Hostname": "host-1-0a1b2c3d4e5f",
                "Env": ["KAMAL_VERSION=v1", "A=1"],
                "ExposedPorts": {"80/tcp": {}},
                "Labels": {"service": "shop", "destination": ""},
                "AttachStdout": true, "Tty": false,
            },
            "HostConfig": {
                "NetworkMode": "kamal",
                "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
                "MemorySwappiness": -1, "ConsoleSize": [10, 20], "Binds": null,
            },
            "NetworkSettings": {"Networks": {"kamal": {
                "Aliases": ["0123456789ab"], "IPAddress": "172.18.0.2",
            }}},
        });
        expect![[r#"
            container/shop-web-v1/State.Status = running
            container/shop-web-v1/Config.Hostname = host-1-0a1b2c3d4e5f
            container/shop-web-v1/Config.Env.KAMAL_VERSION = v1
            container/shop-web-v1/Config.Env.A = 1
            container/shop-web-v1/Config.ExposedPorts.80/tcp =
            container/shop-web-v1/Config.Labels.service = shop
            container/shop-web-v1/Config.Labels.destination =
            container/shop-web-v1/HostConfig.NetworkMode = kamal
            container/shop-web-v1/HostConfig.RestartPolicy.Name = unless-stopped
            container/shop-web-v1/HostConfig.LogConfig.Type = json-file
            container/shop-web-v1/HostConfig.LogConfig.Config.max-size = 10m
            container/shop-web-v1/NetworkSettings.Networks.kamal.attached = true"#]]
        .assert_eq(&container_lines(&[container]).join("\n"));
    }
}
