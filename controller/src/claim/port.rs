//! PURE: ports of a host that a container publishes.

use dhow_proto::model::template::{EngineOptions, ProxyTemplate};

use super::Thing;

/// A range of ports longer than this is claimed by its first so many: no host has them all free anyway.
const LONGEST_RANGE: usize = 256;

fn tcp(port: u16, address: Option<String>) -> Thing {
    Thing::Port { protocol: "tcp".to_owned(), port, address }
}

/// Those of `options: publish` (Docker's `PortBindings`). Ports that Docker picks itself are in nobody's way.
pub(super) fn published(options: &EngineOptions) -> Vec<Thing> {
    let Some(bindings) = options.host_config.get("PortBindings").and_then(|b| b.as_object()) else {
        return Vec::new();
    };
    let mut ports = Vec::new();
    for (inside, list) in bindings {
        let protocol = inside.split_once('/').map_or("tcp", |(_, p)| p);
        for binding in list.as_array().into_iter().flatten() {
            let text = |field| binding.get(field).and_then(|v| v.as_str()).unwrap_or_default();
            let address = Some(text("HostIp")).filter(|a| !matches!(*a, "" | "0.0.0.0" | "::"));
            for port in range(text("HostPort")) {
                let (protocol, address) = (protocol.to_owned(), address.map(str::to_owned));
                ports.push(Thing::Port { protocol, port, address });
            }
        }
    }
    ports
}

/// `80` or `8000-8010`; nothing for an empty or malformed one, which the Engine judges.
fn range(text: &str) -> Vec<u16> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).filter(|p| *p > 0).take(LONGEST_RANGE).collect(),
        (Err(_), _) | (_, Err(_)) => Vec::new(),
    }
}

/// Those of the proxy itself.
pub(super) fn of_proxy(template: &ProxyTemplate) -> Vec<Thing> {
    let mut ports = published(&template.options);
    if template.publish {
        for port in [template.http_port, template.https_port] {
            match template.bind_ips.as_slice() {
                [] => ports.push(tcp(port, None)),
                some => ports.extend(some.iter().map(|ip| tcp(port, Some(ip.clone())))),
            }
        }
    }
    ports.dedup();
    ports
}
