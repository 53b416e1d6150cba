//! The state of a host as text that two runs, or two deployers, can be compared by.
//!
//! In: a host. Out: lines `section/thing/field = value` in a fixed order.
//! Always true: what differs from run to run (ids, times, random hex, addresses of this fleet) is
//! masked, and what is masked still says whose id it was: `<id of shop-web-v1>`.

mod containers;
mod diff;
mod files;
mod mask;

use anyhow::{Context as _, Result};
use serde_json::Value;

pub use diff::{Allowed, difference};

use crate::fleet::Host;
use mask::Masks;

/// Everything a deployer leaves on a host: containers, networks, volumes, image tags, the files below
/// `.kamal` of its home, and the proxy's routes.
///
/// # Errors
///
/// When the Engine does not answer or a file cannot be read.
pub fn snapshot(host: &Host, hub_address: &str) -> Result<String> {
    let inspect = |kind: &str, list: &[&str]| -> Result<Vec<Value>> {
        let ids = host.docker(list)?.ok()?.stdout;
        let mut ids: Vec<&str> = ids.split_whitespace().collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let output = host.docker(&[&[kind, "inspect"][..], &ids].concat())?.ok()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("read the {kind}s"))
    };
    let containers = inspect("container", &["ps", "-aq", "--no-trunc"])?;
    let images = inspect("image", &["images", "-q", "--no-trunc"])?;
    let networks =
        inspect("network", &["network", "ls", "-q", "--no-trunc", "--filter", "type=custom"])?;
    let volumes = inspect("volume", &["volume", "ls", "-q"])?;
    let masks = Masks::new(&containers, &images)
        .address(&host.address(), "<host>")
        .address(hub_address, "<hub>");

    let mut lines = containers::container_lines(&containers);
    lines.extend(containers::image_lines(&images));
    lines.extend(containers::plain_lines(
        "network",
        &networks,
        &["Name", "Driver", "Options", "Labels"],
    ));
    lines.extend(containers::plain_lines(
        "volume",
        &volumes,
        &["Name", "Driver", "Options", "Labels"],
    ));
    lines.extend(files::file_lines(&host.home().join(".kamal"))?);
    lines.extend(route_lines(host)?);
    let mut lines: Vec<String> = lines.iter().map(|line| masks.apply(line)).collect();
    // Sections stay together, as their names begin the lines; after masking, order may not tell ids.
    lines.sort();
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

/// The part of a snapshot that concerns one app, its proxy and the network they share; for hosts on
/// which other apps come and go meanwhile.
#[must_use]
pub fn about(snapshot: &str, service: &str) -> String {
    let words = [service, "kamal-proxy", "network/kamal", "file/proxy ", "file/proxy/"];
    let lines = snapshot.lines().filter(|line| words.iter().any(|word| line.contains(word)));
    lines.map(|line| format!("{line}\n")).collect()
}

/// What `kamal-proxy list` says, a line for each service.
fn route_lines(host: &Host) -> Result<Vec<String>> {
    let list = host.docker(&["exec", "kamal-proxy", "kamal-proxy", "list"])?;
    if !list.success() {
        return Ok(vec!["route = none, as no proxy runs".to_owned()]);
    }
    Ok(parse_routes(&list.stdout))
}

fn parse_routes(list: &str) -> Vec<String> {
    let plain = mask::without_colours(list);
    let rows = plain.lines().skip(1).filter(|line| !line.trim().is_empty());
    rows.map(|row| {
        let cells: Vec<&str> =
            row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let (service, rest) = cells.split_first().unwrap_or((&"", &[]));
        format!("route/{service} = {}", rest.join(" "))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_one_line_without_colours() {
        let list = "\x1b[3;94mService\x1b[0m  \x1b[3;94mHost\x1b[0m  \x1b[3;94mTarget\x1b[0m  \n\
                    \x1b[1;34mshop-web\x1b[0m  \x1b[m*\x1b[0m     \x1b[m0123456789ab:80\x1b[0m  \n";
        assert_eq!(parse_routes(list), ["route/shop-web = * 0123456789ab:80"]);
    }
}
