//! `dhow docs [SECTION]`: a commented example of `deploy.yml`, or of one section of it.
//!
//! The pages are the files beside this one; tests hold them to the loader, and to the table of keys,
//! so that each key has an example.

use std::io::{self, Write};

/// Options of docs.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A section of the file; without one, the whole file in brief
    pub section: Option<String>,
}

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
pub enum DocsError {
    /// There is no such page.
    #[error("No documentation found for {section} (sections: {})", sections().join(", "))]
    Unknown {
        /// What was asked for.
        section: String,
    },
    /// Standard output is closed.
    #[error("could not print the page")]
    Print(#[source] io::Error),
}

/// The page without a section.
const ROOT: &str = include_str!("docs/root.yml");

/// Sections with their pages. The names are Kamal's but for `secrets`.
const PAGES: &[(&str, &str)] = &[
    ("accessory", include_str!("docs/accessory.yml")),
    ("alias", include_str!("docs/alias.yml")),
    ("boot", include_str!("docs/boot.yml")),
    ("builder", include_str!("docs/builder.yml")),
    ("env", include_str!("docs/env.yml")),
    ("logging", include_str!("docs/logging.yml")),
    ("output", include_str!("docs/output.yml")),
    ("proxy", include_str!("docs/proxy.yml")),
    ("registry", include_str!("docs/registry.yml")),
    ("role", include_str!("docs/role.yml")),
    ("secrets", include_str!("docs/secrets.env")),
    ("servers", include_str!("docs/servers.yml")),
    ("ssh", include_str!("docs/ssh.yml")),
    ("sshkit", include_str!("docs/sshkit.yml")),
];

/// The names that `docs` takes, in order.
pub fn sections() -> Vec<&'static str> {
    PAGES.iter().map(|(name, _)| *name).collect()
}

/// The page of a section, by its name or the key it documents (`aliases` for `alias`).
pub fn page(section: Option<&str>) -> Option<&'static str> {
    let Some(section) = section else { return Some(ROOT) };
    let name = match section.to_lowercase().as_str() {
        "accessories" => "accessory".to_owned(),
        "aliases" => "alias".to_owned(),
        "roles" => "role".to_owned(),
        other => other.to_owned(),
    };
    PAGES.iter().find(|(known, _)| *known == name).map(|(_, page)| *page)
}

/// Prints the page.
///
/// # Errors
///
/// [`DocsError`]; unlike Kamal, an unknown section is one.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), DocsError> {
    let Some(page) = page(args.section.as_deref()) else {
        let section = args.section.clone().unwrap_or_default();
        return Err(DocsError::Unknown { section });
    };
    out.write_all(page.as_bytes()).map_err(DocsError::Print)
}

#[cfg(test)]
mod tests;
