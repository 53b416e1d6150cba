//! Everything that is left on hosts and in the store, without what differs from run to run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dhow_agent::engine::{Engine as _, ImageFilter};
use dhow_proto::model::kamal;
use futures_util::FutureExt as _;

use crate::check::{self, Broken};
use crate::world::{REPOSITORY, World};

pub(super) fn of(world: &World) -> Result<Vec<String>, Broken> {
    let mut lines = Vec::new();
    for host in 0..world.hosts.len() {
        let mut own = on_host(world, host)?;
        own.sort();
        lines.extend(own.into_iter().map(|line| format!("h{host} {line}")));
    }
    for header in check::headers(world)? {
        lines.push(format!("rollout {} {:?}", header.id, header.state));
    }
    let hooks = world.hooks.lock().expect("no panic holds it");
    lines.extend(hooks.iter().map(|(id, times)| format!("hook {id} ran {times} times")));
    Ok(lines)
}

fn on_host(world: &World, host: usize) -> Result<Vec<String>, Broken> {
    let engine = &world.hosts[host].engine;
    let mut lines = Vec::new();
    let all = engine.all();
    let names: BTreeMap<&str, String> =
        all.iter().map(|c| (c.short_id(), unsuffixed(&c.name))).collect();
    for c in &all {
        let mut labels = c.labels.clone();
        let ours = labels.remove(kamal::LABEL_INTENT).is_some();
        lines.push(format!(
            "container {} {} {} {:?} ours {ours} {labels:?} env {:?}",
            unsuffixed(&c.name),
            c.state.as_str(),
            c.image,
            c.networks,
            engine.env_of(&c.id),
        ));
    }
    for (service, route) in engine.routes() {
        let targets = route.targets.iter().map(|target| {
            let (id, port) = target.split_once(':').unwrap_or((target, ""));
            format!("{}:{port}", names.get(id).map_or("nobody", String::as_str))
        });
        let targets: Vec<String> = targets.collect();
        lines.push(format!("route {service} {targets:?} {:?}", route.state));
    }
    let images = engine.images(ImageFilter::Repository(REPOSITORY)).now_or_never();
    for image in images.and_then(Result::ok).ok_or("the model answers at once")? {
        let mut tags = image.tags;
        tags.sort();
        lines.push(format!("image {tags:?}"));
    }
    let home = world.hosts[host].dir.join("home");
    files(&home, &home, &mut lines).map_err(|e| format!("h{host}: {e}"))?;
    let ledger = check::ledger(world, host)?;
    for unit in ledger.units() {
        let known = ledger.known(&unit);
        let wanted = known.wanted.map(|w| w.generation());
        let settled = known.settled.map(|s| s.generation());
        let failed = known.failed.map(|f| f.generation);
        lines.push(format!("unit {unit} wanted {wanted:?} settled {settled:?} failed {failed:?}"));
    }
    Ok(lines)
}

/// The hex of a renamed container comes from its id.
fn unsuffixed(name: &str) -> String {
    name.split_once("_replaced_").map_or(name.to_owned(), |(name, _)| format!("{name}_replaced"))
}

fn files(root: &Path, folder: &Path, lines: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if path.is_dir() {
            lines.push(format!("directory {name}"));
            files(root, &path, lines)?;
        } else if name.ends_with("audit.log") {
            // Written before what it tells of, so a step that is done again says so again.
            let text = std::fs::read_to_string(&path)?;
            let said: BTreeSet<String> = text
                .lines()
                .map(|l| unsuffixed(l.split_once("] ").map_or(l, |(_, rest)| rest)))
                // Of a container that was created and not started when somebody died.
                .filter(|line| !line.contains("Started app version"))
                .collect();
            lines.extend(said.into_iter().map(|line| format!("audit {line}")));
        } else {
            lines.push(format!("file {name} {:?}", std::fs::read_to_string(&path)?));
        }
    }
    Ok(())
}
