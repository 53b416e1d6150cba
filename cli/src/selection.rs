//! Which hosts and roles a command is about: `--hosts`, `--roles` and `--primary` over a config.
//!
//! PURE. Kamal's rules (roles in alphabetical order, filters by shell glob, primary role first), but the primary host
//! always comes first in its list, also where an earlier role lives on another host.

use regex::Regex;

use crate::config::model::Config;

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `-h`: comma list with wildcards.
    pub hosts: Option<String>,
    /// `-r`: comma list with wildcards.
    pub roles: Option<String>,
    /// `-p`.
    pub primary: bool,
}

/// What a command is about; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Hosts of roles, primary host first, then the primary role's, then by role name.
    pub hosts: Vec<String>,
    /// Primary role first.
    pub roles: Vec<String>,
    /// Whether `-r` was given.
    pub roles_given: bool,
}

impl Selection {
    /// The primary host in effect.
    pub fn primary_host(&self) -> &str {
        &self.hosts[0]
    }
}

/// Why nothing is left to work on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Kamal's words.
    #[error("No --{kind} match for {pattern}")]
    NoMatch {
        /// `hosts` or `roles`.
        kind: &'static str,
        /// As given.
        pattern: String,
    },
    /// Both matched, but no selected host has a selected role.
    #[error("No host is left: no selected role runs on a selected host")]
    Empty,
}

/// Applies a filter.
///
/// # Errors
///
/// [`SelectionError`].
pub fn select(config: &Config, filter: &Filter) -> Result<Selection, SelectionError> {
    let all_roles: Vec<&str> = config.roles.iter().map(|r| r.name.as_str()).collect();
    let given_roles = match &filter.roles {
        Some(pattern) => Some(matching(pattern, &all_roles, "roles")?),
        None => None,
    };
    let hosts_of = |role: &str| -> Vec<&str> {
        config
            .role(role)
            .map(|r| r.hosts.iter().map(|h| h.host.as_str()).collect())
            .unwrap_or_default()
    };
    let all_hosts = config.all_hosts();
    let all_hosts: Vec<&str> = all_hosts.iter().map(String::as_str).collect();
    let selected: Vec<&str> = if filter.primary {
        let first_role =
            given_roles.as_ref().map_or(config.primary_role.as_str(), |roles| roles[0]);
        hosts_of(first_role).into_iter().take(1).collect()
    } else {
        match &filter.hosts {
            Some(pattern) => matching(pattern, &all_hosts, "hosts")?,
            None => all_hosts.clone(),
        }
    };
    let mut roles: Vec<&str> = given_roles
        .clone()
        .unwrap_or(all_roles)
        .into_iter()
        .filter(|role| hosts_of(role).iter().any(|h| selected.contains(h)))
        .collect();
    let mut hosts: Vec<&str> = selected
        .into_iter()
        .filter(|host| roles.iter().any(|role| hosts_of(role).contains(host)))
        .collect();
    if hosts.is_empty() || roles.is_empty() {
        return Err(SelectionError::Empty);
    }
    // Stable sorts: the rest keeps Kamal's order.
    let primary_role =
        roles.iter().copied().find(|r| *r == config.primary_role).unwrap_or(roles[0]);
    roles.sort_by_key(|role| *role != primary_role);
    let primary_hosts = hosts_of(primary_role);
    hosts.sort_by_key(|host| primary_hosts.iter().position(|h| h == host).unwrap_or(usize::MAX));
    Ok(Selection {
        hosts: hosts.into_iter().map(str::to_owned).collect(),
        roles: roles.into_iter().map(str::to_owned).collect(),
        roles_given: filter.roles.is_some(),
    })
}

/// Names that match any of a comma list of shell globs, in the order of the list.
fn matching<'a>(
    patterns: &str,
    names: &[&'a str],
    kind: &'static str,
) -> Result<Vec<&'a str>, SelectionError> {
    let mut found: Vec<&str> = Vec::new();
    for pattern in patterns.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let Ok(glob) = Regex::new(&glob_to_regex(pattern)) else { continue };
        for name in names {
            if glob.is_match(name) && !found.contains(name) {
                found.push(name);
            }
        }
    }
    if found.is_empty() {
        return Err(SelectionError::NoMatch { kind, pattern: patterns.to_owned() });
    }
    Ok(found)
}

/// A shell glob (`*`, `?`, `[ab]`, `{a,b}`) as an anchored regular expression.
fn glob_to_regex(glob: &str) -> String {
    let mut regex = String::from("^(?:");
    let mut braces = 0;
    for c in glob.chars() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' | ']' | '-' => regex.push(c),
            '{' => {
                braces += 1;
                regex.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                regex.push(')');
            }
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex.push_str(")$");
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        let is = |glob: &str, name: &str| Regex::new(&glob_to_regex(glob)).unwrap().is_match(name);
        assert!(is("10.0.0.*", "10.0.0.7") && !is("10.0.0.*", "10.0.1.7"));
        assert!(is("web?", "web1") && !is("web", "web1"));
        assert!(is("[ab]x", "bx") && !is("[ab]x", "cx"));
        assert!(!is("10.0.0.1", "10a0b0c1"), "a dot is a dot");
    }
}
