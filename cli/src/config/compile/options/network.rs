//! Options about ports, networks and names.

use dhow_proto::model::template::EngineOptions;
use serde_json::{Value as Json, json};

use super::{Translated, Word, parse, push};

impl Translated {
    /// Adds an option of this group; false when it is none.
    pub(super) fn add_network(&mut self, name: &str, word: &Word) -> Result<bool, String> {
        match name {
            "publish" | "p" => publish(&mut self.engine, word.text()?)?,
            "expose" => expose(&mut self.engine, word.text()?)?,
            "add-host" => {
                let text = word.text()?;
                let (host, address) = text
                    .split_once('=')
                    .or_else(|| text.split_once(':'))
                    .ok_or_else(|| format!("`{text}` is not NAME:ADDRESS"))?;
                let address = address.trim_start_matches('[').trim_end_matches(']');
                self.push("ExtraHosts", json!(format!("{host}:{address}")));
            }
            "network" | "net" => self.add_to_network(word.text()?)?,
            "network-alias" | "net-alias" => {
                push(&mut self.engine.endpoint, "Aliases", json!(word.text()?));
            }
            "link" => push(&mut self.engine.endpoint, "Links", json!(word.text()?)),
            "mac-address" => {
                self.engine.endpoint.insert("MacAddress".into(), json!(word.text()?));
            }
            "ip" => self.address("IPv4Address", json!(word.text()?)),
            "ip6" => self.address("IPv6Address", json!(word.text()?)),
            "link-local-ip" => {
                let mut known = self
                    .engine
                    .endpoint
                    .get("IPAMConfig")
                    .and_then(|config| config.get("LinkLocalIPs"))
                    .and_then(Json::as_array)
                    .cloned()
                    .unwrap_or_default();
                known.push(json!(word.text()?));
                self.address("LinkLocalIPs", Json::Array(known));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A network: the one that is fixed may be named, others not.
    fn add_to_network(&mut self, text: &str) -> Result<(), String> {
        let mut network = text.to_owned();
        if text.contains('=') {
            let fields = parse::csv(text);
            let named = fields.iter().find_map(|field| field.strip_prefix("name="));
            if fields.len() > 1 || named.is_none() {
                return Err("only the name of a network can be given".into());
            }
            network = named.unwrap_or_default().to_owned();
        }
        if matches!(network.as_str(), "host" | "none") || network.starts_with("container:") {
            return Err(format!(
                "`{network}` excludes the network that the proxy reaches containers on"
            ));
        }
        if network != "kamal" {
            // Dropped in silence, the app would miss its database only at run time.
            return Err(format!(
                "`{network}`: a container joins one network only; `kamal` is the one that is shared"
            ));
        }
        Ok(())
    }

    fn address(&mut self, key: &str, value: Json) {
        let config = self.engine.endpoint.entry("IPAMConfig".into()).or_insert_with(|| json!({}));
        config[key] = value;
    }
}

/// `[IP:][HOST:]CONTAINER[/PROTOCOL]`, ranges expanded, or `published=…,target=…,protocol=…`.
///
/// # Errors
///
/// Why it is no port mapping.
pub(crate) fn publish(engine: &mut EngineOptions, text: &str) -> Result<(), String> {
    if text.contains("target=") {
        return publish_long(engine, text);
    }
    let (mapping, protocol) = protocol(text)?;
    let (rest, container) = match mapping.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, mapping),
    };
    let (address, host) = match rest {
        None => ("", ""),
        // An address with a bracket keeps its colons: `[::1]:80`.
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, host)) => (address.trim_start_matches('[').trim_end_matches(']'), host),
            None => ("", rest),
        },
    };
    let containers = parse::ports(container)?;
    let mut hosts = match host {
        "" => None,
        host => {
            let ports = parse::ports(host)?;
            if ports.clone().count() != containers.clone().count() {
                return Err(format!("the ranges of `{text}` differ in length"));
            }
            Some(ports)
        }
    };
    for port in containers {
        let host = hosts.as_mut().and_then(Iterator::next);
        bind(
            engine,
            port,
            protocol,
            address,
            &host.map_or_else(String::new, |port| port.to_string()),
        );
    }
    Ok(())
}

fn publish_long(engine: &mut EngineOptions, text: &str) -> Result<(), String> {
    let (mut target, mut published, mut kind) = (None, String::new(), "tcp");
    let fields = parse::csv(text);
    for field in &fields {
        match field.split_once('=') {
            Some(("target", port)) => target = Some(parse::ports(port)?),
            Some(("published", port)) => published = parse::ports(port)?.start().to_string(),
            Some(("protocol", protocol @ ("tcp" | "udp" | "sctp"))) => {
                kind = match protocol {
                    "udp" => "udp",
                    "sctp" => "sctp",
                    _ => "tcp",
                };
            }
            _ => return Err(format!("`{field}` is none of published=, target=, protocol=")),
        }
    }
    let target = target.ok_or("needs target=")?;
    bind(engine, *target.start(), kind, "", &published);
    Ok(())
}

fn expose(engine: &mut EngineOptions, text: &str) -> Result<(), String> {
    let (ports, protocol) = protocol(text)?;
    for port in parse::ports(ports)? {
        let exposed = engine.config.entry("ExposedPorts".into()).or_insert_with(|| json!({}));
        exposed[format!("{port}/{protocol}")] = json!({});
    }
    Ok(())
}

fn protocol(text: &str) -> Result<(&str, &'static str), String> {
    match text.split_once('/') {
        None => Ok((text, "tcp")),
        Some((rest, "tcp")) => Ok((rest, "tcp")),
        Some((rest, "udp")) => Ok((rest, "udp")),
        Some((rest, "sctp")) => Ok((rest, "sctp")),
        Some((_, other)) => Err(format!("`{other}` is none of tcp, udp, sctp")),
    }
}

fn bind(engine: &mut EngineOptions, port: u16, protocol: &str, address: &str, host: &str) {
    let key = format!("{port}/{protocol}");
    let exposed = engine.config.entry("ExposedPorts".into()).or_insert_with(|| json!({}));
    exposed[&key] = json!({});
    let bindings = engine.host_config.entry("PortBindings".into()).or_insert_with(|| json!({}));
    let entry = json!({ "HostIp": address, "HostPort": host });
    match bindings.get_mut(&key).and_then(Json::as_array_mut) {
        Some(list) => list.push(entry),
        None => bindings[&key] = json!([entry]),
    }
}
