//! The table of keys in the documentation.

use super::{ENV, Key, Known, PATH_MAP, ROLE, ROOT, Section, Shape};

/// One key with its path; names that people choose are in capitals (`servers/ROLE/cmd`).
#[derive(Clone, Debug)]
pub struct Row {
    /// Joined with `/`.
    pub path: String,
    /// The key.
    pub key: &'static Key,
}

/// All keys with their paths, each section below its key, in the order of the tables.
///
/// A section that stands in several places is listed once, as its keys are the same: the proxy's,
/// for instance, at the root only.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut seen = Vec::new();
    section(&ROOT, "", &mut rows, &mut seen);
    rows
}

fn section(of: &'static Section, path: &str, rows: &mut Vec<Row>, seen: &mut Vec<&'static str>) {
    if seen.contains(&of.name) {
        return;
    }
    seen.push(of.name);
    for key in of.keys {
        let path =
            if path.is_empty() { key.name.to_owned() } else { format!("{path}/{}", key.name) };
        rows.push(Row { path: path.clone(), key });
        match key.shape {
            Shape::Map(below) | Shape::Ssl(below) | Shape::ProxyOrBoolean(below) => {
                if of.name == ROOT.name || !stands_at_root(below) {
                    section(below, &path, rows, seen);
                }
            }
            Shape::Named(below) => section(below, &format!("{path}/NAME"), rows, seen),
            Shape::Servers => section(&ROLE, &format!("{path}/ROLE"), rows, seen),
            Shape::Env if of.name == ROOT.name => section(&ENV, &path, rows, seen),
            Shape::Paths => section(&PATH_MAP, &format!("{path}/N"), rows, seen),
            Shape::Text
            | Shape::Integer
            | Shape::Boolean
            | Shape::TextList
            | Shape::TextOrList
            | Shape::AnyMap
            | Shape::TextMap
            | Shape::Hosts
            | Shape::Env
            | Shape::EnvTags
            | Shape::Aliases
            | Shape::Credential
            | Shape::SshConfig
            | Shape::HooksOutput => {}
        }
    }
}

/// Whether the root has this section too: then it is listed there.
fn stands_at_root(section: &Section) -> bool {
    ROOT.keys.iter().any(|key| match key.shape {
        Shape::Map(below) | Shape::ProxyOrBoolean(below) => below.name == section.name,
        _ => false,
    })
}

impl Shape {
    /// The type in words, for the table.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::TextList => "list of texts",
            Self::TextOrList => "text or list of texts",
            Self::AnyMap => "map",
            Self::TextMap => "map of texts",
            Self::Map(_) => "section",
            Self::Hosts => "list of hosts",
            Self::Servers => "list of hosts, or roles by name",
            Self::Named(_) => "sections by name",
            Self::Env => "variables, or a section",
            Self::EnvTags => "env by tag",
            Self::Aliases => "command lines by name",
            Self::Credential => "text, or list with one secret",
            Self::Ssl(_) | Self::ProxyOrBoolean(_) => "boolean or section",
            Self::SshConfig => "boolean, text or list of texts",
            Self::Paths => "list of texts or sections",
            Self::HooksOutput => "word, or words by hook",
        }
    }
}

impl Known {
    /// Since when Kamal has it, for the table.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Kamal => "2.11",
            Self::Kamal212 => "2.12",
            Self::Dhow => "no (old form)",
        }
    }
}
