//! Reads `kamal-proxy list` (kamal-proxy contract: `list` output).

use std::collections::BTreeMap;

/// State of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// Requests pass.
    Running,
    /// Requests are held.
    Paused,
    /// Requests get 503.
    Stopped,
}

/// A service as kamal-proxy lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Names; `*` for any.
    pub hosts: Vec<String>,
    /// Path prefixes; `/` by default.
    pub paths: Vec<String>,
    /// `host:port` each.
    pub targets: Vec<String>,
    /// State.
    pub state: RouteState,
    /// With TLS.
    pub tls: bool,
}

impl Route {
    /// True where a target is the container with this 12-digit id.
    pub fn reaches(&self, short_id: &str) -> bool {
        self.targets.iter().any(|t| t.split(':').next() == Some(short_id))
    }
}

/// A table that is not what the contract says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kamal-proxy's list was not understood: {0:?}")]
pub struct ListError(String);

/// Services by name.
///
/// # Errors
///
/// [`ListError`] with the line that was not understood.
pub fn parse_list(output: &str) -> Result<BTreeMap<String, Route>, ListError> {
    let mut routes = BTreeMap::new();
    let mut path_column = None;
    for line in output.lines() {
        let plain = strip_ansi(line);
        let cells: Vec<&str> = plain.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        let bad = || ListError(plain.chars().take(200).collect());
        match (path_column, cells.as_slice()) {
            (_, []) => {}
            (None, ["Service", "Host", "Path", "Target", "State", "TLS"]) => {
                path_column = Some(true)
            }
            // Before 0.9.0.
            (None, ["Service", "Host", "Target", "State", "TLS"]) => path_column = Some(false),
            (Some(true), [service, host, path, target, state, tls]) => {
                let route = route(host, path, target, state, tls).ok_or_else(bad)?;
                routes.insert((*service).to_owned(), route);
            }
            (Some(false), [service, host, target, state, tls]) => {
                let route = route(host, "/", target, state, tls).ok_or_else(bad)?;
                routes.insert((*service).to_owned(), route);
            }
            _ => return Err(bad()),
        }
    }
    if path_column.is_none() { Err(ListError(String::new())) } else { Ok(routes) }
}

fn route(host: &str, path: &str, target: &str, state: &str, tls: &str) -> Option<Route> {
    let list = |cell: &str| cell.split(',').map(str::to_owned).collect();
    let state = match state {
        "running" => RouteState::Running,
        "paused" => RouteState::Paused,
        "stopped" => RouteState::Stopped,
        _ => return None,
    };
    let tls = match tls {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    Some(Route { hosts: list(host), paths: list(path), targets: list(target), state, tls })
}

/// Without `ESC[…m`.
fn strip_ansi(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\x1b[3;94mService\x1b[0m  \x1b[3;94mHost\x1b[0m    \x1b[3;94mPath\x1b[0m  \x1b[3;94mTarget\x1b[0m           \x1b[3;94mState\x1b[0m    \x1b[3;94mTLS\x1b[0m  \n";

    #[test]
    fn the_header_alone_is_an_empty_table() {
        assert_eq!(parse_list(HEADER), Ok(BTreeMap::new()));
    }

    #[test]
    fn a_row_is_read_without_its_colours() {
        let text = format!(
            "{HEADER}\x1b[1;34mshop-web\x1b[0m  \x1b[ma.test,b.test\x1b[0m  \x1b[m/\x1b[0m  \x1b[m0123456789ab:80\x1b[0m  \x1b[mstopped\x1b[0m  \x1b[mno\x1b[0m  \n"
        );
        let routes = parse_list(&text).unwrap();
        let route = &routes["shop-web"];
        assert_eq!(route.hosts, ["a.test", "b.test"]);
        assert_eq!(route.state, RouteState::Stopped);
        assert!(route.reaches("0123456789ab"));
        assert!(!route.reaches("0123456789a"));
    }

    #[test]
    fn other_text_is_an_error_and_never_an_empty_table() {
        assert!(parse_list("").is_err());
        assert!(parse_list("something else").is_err());
        assert!(parse_list(&format!("{HEADER}one two\n")).is_err());
    }
}
