//! Who owns what apps share on a host: container names, published ports, proxy services, proxied hosts and paths.
//!
//! In: a spec. Out: the claims it makes on a host, or who is in the way; the proxy of a host as all its apps want it.
//! Always true: a claim has one owner; a second is refused, naming both; claims last until the app gives them up.

mod port;
mod proxy;

pub use proxy::{ProxyConflict, compose};

use std::fmt;

use dhow_proto::model::spec::Spec;
use dhow_proto::model::template::ProxyTemplate;
use dhow_proto::model::{App, FieldError, HostName};
use serde::{Deserialize, Serialize};

use crate::store::{Compare, Entry, Key, Op, Store, StoreError};

/// Format of a claim's record.
const FORMAT: u32 = 1;

/// What is claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// Containers whose names begin so: `shop-web`.
    Containers(String),
    /// A port of the host.
    Port {
        /// `tcp` or `udp`.
        protocol: String,
        /// The port.
        port: u16,
        /// Address it is published on; none: all.
        address: Option<String>,
    },
    /// A name among kamal-proxy's services.
    Service(String),
    /// What kamal-proxy routes.
    Route {
        /// Host name; none: every name no other service has.
        host: Option<String>,
        /// Path prefix.
        path: String,
    },
    /// A say in how the host's proxy runs: one per app, so never in the way of another.
    Proxy(App),
}

impl Thing {
    /// The part of the store key after the host. No name in it can hold `!`.
    fn key(&self) -> String {
        match self {
            Self::Containers(prefix) => format!("containers/{prefix}"),
            Self::Port { protocol, port, address } => {
                format!("port/{protocol}!{port}!{}", address.as_deref().unwrap_or("*"))
            }
            Self::Service(name) => format!("service/{name}"),
            Self::Route { host, path } => {
                format!("route/{}!{path}", host.as_deref().unwrap_or("*"))
            }
            Self::Proxy(app) => format!("proxy/{}!{}", app.service, app.destination_label()),
        }
    }

    /// True where both cannot be on one host with different owners.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Port { protocol, port, address },
                Self::Port { protocol: other_protocol, port: other_port, address: other_address },
            ) => {
                let overlap =
                    address == other_address || address.is_none() || other_address.is_none();
                protocol == other_protocol && port == other_port && overlap
            }
            _ => self == other,
        }
    }
}

/// As people read it.
impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containers(prefix) => write!(f, "container name {prefix}-…"),
            Self::Port { protocol, port, address: None } => write!(f, "port {port}/{protocol}"),
            Self::Port { protocol, port, address: Some(address) } => {
                write!(f, "port {address}:{port}/{protocol}")
            }
            Self::Service(name) => write!(f, "proxy service {name}"),
            Self::Route { host: Some(host), path } => write!(f, "proxied host {host}{path}"),
            Self::Route { host: None, path } => write!(f, "proxied path {path} of all hosts"),
            Self::Proxy(app) => write!(f, "proxy settings of {app}"),
        }
    }
}

/// Who owns a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Owner {
    /// An app.
    App(App),
    /// The host's kamal-proxy, whichever apps it serves.
    Proxy,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(app) => write!(f, "app {app}"),
            Self::Proxy => f.write_str("kamal-proxy"),
        }
    }
}

/// A claim on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// On what.
    pub thing: Thing,
    /// By whom.
    pub owner: Owner,
    /// How the proxy should run, for [`Thing::Proxy`].
    pub proxy: Option<ProxyTemplate>,
}

/// A claim's stored form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    v: u32,
    owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyTemplate>,
}

/// A claim that is in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{thing} on host {host} is claimed by {owner}; {wanted_by} cannot have it")]
pub struct Taken {
    /// The host.
    pub host: HostName,
    /// What both want.
    pub thing: Thing,
    /// Who has it.
    pub owner: Owner,
    /// Who wants it.
    pub wanted_by: Owner,
}

/// Why an app's claims on a host are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefused {
    /// Another owner has it.
    #[error(transparent)]
    Taken(#[from] Box<Taken>),
    /// Another app spells out another proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyConflict),
}

/// A claim as stored.
#[derive(Clone, Debug)]
pub struct Held {
    /// The claim.
    pub claim: Claim,
    entry: Entry,
}

/// PURE: what the app claims on a host, all its roles there taken together.
pub fn wanted(spec: &Spec, config_host: &HostName) -> Vec<Claim> {
    let owner = Owner::App(spec.app.clone());
    let mut claims: Vec<Claim> = Vec::new();
    let mut add = |thing: Thing, owner: &Owner, proxy: Option<ProxyTemplate>| {
        if !claims.iter().any(|c: &Claim| c.thing == thing) {
            claims.push(Claim { thing, owner: owner.clone(), proxy });
        }
    };
    for role in spec.roles_on(config_host) {
        let prefix = spec.app.role_prefix(&role.name);
        add(Thing::Containers(prefix.clone()), &owner, None);
        let placed = role.hosts.iter().find(|h| h.host == *config_host);
        let Some(template) = placed.and_then(|h| role.templates.get(h.template)) else { continue };
        for port in port::published(&template.template.container.options) {
            add(port, &owner, None);
        }
        let Some(target) = &template.template.proxy else { continue };
        add(Thing::Service(prefix), &owner, None);
        for route in routes(&target.hosts, &target.path_prefixes) {
            add(route, &owner, None);
        }
    }
    if spec.has_proxy(config_host) {
        add(Thing::Proxy(spec.app.clone()), &owner, Some(spec.proxy.clone()));
        for port in port::of_proxy(&spec.proxy) {
            add(port, &Owner::Proxy, None);
        }
    }
    claims
}

fn routes(hosts: &[String], paths: &[String]) -> Vec<Thing> {
    let hosts: Vec<Option<String>> = match hosts {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    // kamal-proxy's default prefix; a slash at the end makes no difference to it.
    let root = ["/".to_owned()];
    let paths = if paths.is_empty() { &root } else { paths };
    let path = |p: &String| format!("/{}", p.trim_matches('/'));
    hosts
        .iter()
        .flat_map(|h| paths.iter().map(move |p| Thing::Route { host: h.clone(), path: path(p) }))
        .collect()
}

/// PURE: whether what is wanted goes with what others hold.
///
/// # Errors
///
/// [`ClaimRefused`], naming both.
pub fn check(host: &HostName, held: &[Held], wanted: &[Claim]) -> Result<(), ClaimRefused> {
    for claim in wanted {
        let other = held
            .iter()
            .find(|h| h.claim.owner != claim.owner && h.claim.thing.excludes(&claim.thing));
        if let Some(other) = other {
            return Err(Box::new(Taken {
                host: host.clone(),
                thing: claim.thing.clone(),
                owner: other.claim.owner.clone(),
                wanted_by: claim.owner.clone(),
            })
            .into());
        }
    }
    let others =
        held.iter().map(|h| &h.claim).filter(|h| wanted.iter().all(|c| c.thing != h.thing));
    let together: Vec<Claim> = others.chain(wanted).cloned().collect();
    compose(&together)?;
    Ok(())
}

fn key(host: &HostName, thing: &Thing) -> Key {
    format!("claim/{host}/{}", thing.key()).into()
}

/// Every claim on a host.
///
/// # Errors
///
/// [`StoreError`]; a malformed record reads as [`StoreError::Unavailable`].
pub async fn read(store: &dyn Store, host: &HostName) -> Result<Vec<Held>, StoreError> {
    let prefix = format!("claim/{host}/");
    let entries = store.read_all(prefix.as_str()).await?.entries;
    entries
        .into_iter()
        .map(|entry| {
            let malformed = |e: FieldError| StoreError::Unavailable { reason: e.to_string() };
            let path = entry.key.to_string();
            let rest = entry.key.as_str().and_then(|k| k.strip_prefix(&prefix)).unwrap_or_default();
            let thing = parse(rest).ok_or_else(|| malformed(FieldError::new(&path, "no claim")))?;
            let record: Record = serde_json::from_slice(&entry.value)
                .map_err(|e| malformed(FieldError::new(&path, e)))?;
            let claim = Claim { thing, owner: record.owner, proxy: record.proxy };
            Ok(Held { claim, entry })
        })
        .collect()
}

fn parse(text: &str) -> Option<Thing> {
    let (kind, name) = text.split_once('/')?;
    let any = |text: &str| (text != "*").then(|| text.to_owned());
    Some(match kind {
        "containers" => Thing::Containers(name.to_owned()),
        "service" => Thing::Service(name.to_owned()),
        "route" => {
            let (host, path) = name.split_once('!')?;
            Thing::Route { host: any(host), path: path.to_owned() }
        }
        "port" => {
            let mut parts = name.splitn(3, '!');
            let protocol = parts.next()?.to_owned();
            let port = parts.next()?.parse().ok()?;
            Thing::Port { protocol, port, address: any(parts.next()?) }
        }
        "proxy" => {
            let (service, destination) = name.split_once('!')?;
            let destination = match destination {
                "" => None,
                name => Some(name.try_into().ok()?),
            };
            Thing::Proxy(App { service: service.try_into().ok()?, destination })
        }
        _ => return None,
    })
}

/// What to write so that `wanted` is held, each with the condition it is written under. Empty where all is held.
pub fn acquire(host: &HostName, held: &[Held], wanted: &[Claim]) -> Vec<(Compare, Op)> {
    let mut writes = Vec::new();
    for claim in wanted {
        let key = key(host, &claim.thing);
        let record = Record { v: FORMAT, owner: claim.owner.clone(), proxy: claim.proxy.clone() };
        let value = serde_json::to_vec(&record).expect("a claim is JSON: strings and numbers");
        match held.iter().find(|h| h.claim.thing == claim.thing) {
            Some(mine) if mine.claim == *claim => {}
            Some(mine) => writes.push((Compare::unchanged(&mine.entry), Op::put(key, value))),
            None => writes.push((Compare::absent(&key), Op::put(key, value))),
        }
    }
    writes
}

/// What to delete so that the app holds no more than `keep` on the host. With nothing to keep, the app is gone from it.
pub fn give_up(held: &[Held], app: &App, keep: &[Claim]) -> Vec<(Compare, Op)> {
    let kept = |h: &Held| keep.iter().any(|c| c.thing == h.claim.thing);
    let is_mine = |h: &Held| h.claim.owner == Owner::App(app.clone());
    let mut gone: Vec<&Held> = held.iter().filter(|h| is_mine(h) && !kept(h)).collect();
    // The proxy's ports are those of the proxy as the remaining apps want it.
    let stays = |h: &&Held| !gone.iter().any(|g| g.entry.key == h.entry.key);
    let remaining: Vec<Claim> = held.iter().filter(stays).map(|h| h.claim.clone()).collect();
    if let Ok(template) = compose(&remaining) {
        let ports = template.as_ref().map(port::of_proxy).unwrap_or_default();
        let unused = |h: &&Held| h.claim.owner == Owner::Proxy && !ports.contains(&h.claim.thing);
        gone.extend(held.iter().filter(unused));
    }
    gone.into_iter()
        .map(|h| (Compare::unchanged(&h.entry), Op::delete(h.entry.key.clone())))
        .collect()
}

#[cfg(test)]
mod tests;
