use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::*;
use crate::config::outside::CommandOutput;
use crate::config::schema::{self, Section, Shape};
use crate::config::{LoadOptions, Outside, load};

/// A project of one file.
struct OneFile(String);

impl Outside for OneFile {
    fn var(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &Path, _limit: u64) -> io::Result<Vec<u8>> {
        if path.ends_with("config/deploy.yml") {
            return Ok(self.0.clone().into_bytes());
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> bool {
        path.ends_with("config/deploy.yml")
    }

    fn list(&self, _directory: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn current_dir(&self) -> PathBuf {
        "/project".into()
    }

    fn shell(&self, _command: &str, _env: &[(String, String)]) -> io::Result<CommandOutput> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn git(&self, _args: &[&str]) -> io::Result<CommandOutput> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What makes a config of an example of one section.
const REST: &[(&str, &str)] = &[
    ("service", "service: shop"),
    ("image", "image: acme/shop"),
    ("registry", "registry: {username: me, password: [PASSWORD]}"),
    ("servers", "servers: [192.0.2.10]"),
    ("builder", "builder: {arch: amd64}"),
];

/// The examples of a page, one YAML document each.
fn examples(page: &'static str) -> impl Iterator<Item = (&'static str, Value)> {
    page.split("\n---\n").map(|text| (text, serde_yaml::from_str(text).unwrap()))
}

/// All YAML pages, the root's first.
fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rest = PAGES.iter().copied().filter(|(name, _)| *name != "secrets");
    std::iter::once(("root", ROOT)).chain(rest)
}

#[test]
fn the_loader_takes_every_example() {
    for (name, page) in pages() {
        for (text, value) in examples(page) {
            let mut whole = text.to_owned();
            for (key, line) in REST {
                if value.get(key).is_none() {
                    whole.push_str(&format!("\n{line}\n"));
                }
            }
            let loaded = load(&LoadOptions::default(), &OneFile(whole));
            let loaded = loaded.unwrap_or_else(|problems| panic!("{name}: {problems}"));
            assert!(loaded.warnings.is_empty(), "{name}: {}", loaded.warnings.render(false));
        }
    }
}

/// Keys of all sections, as `section.key`.
fn all_keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut open: Vec<&Section> =
        vec![&schema::ROOT, &schema::ROLE, &schema::ENV, &schema::PATH_MAP, &schema::ACCESSORY];
    while let Some(section) = open.pop() {
        for key in section.keys {
            keys.insert(format!("{}.{}", section.name, key.name));
            open.extend(below(key.shape).filter(|below| {
                below.keys.iter().any(|key| !keys.contains(&format!("{}.{}", below.name, key.name)))
            }));
        }
    }
    keys
}

/// The section that a value of this shape is described by.
fn below(shape: Shape) -> impl Iterator<Item = &'static Section> {
    match shape {
        Shape::Map(section)
        | Shape::Named(section)
        | Shape::Ssl(section)
        | Shape::ProxyOrBoolean(section) => Some(section),
        Shape::Servers => Some(&schema::ROLE),
        Shape::Env => Some(&schema::ENV),
        Shape::Paths => Some(&schema::PATH_MAP),
        _ => None,
    }
    .into_iter()
}

/// Notes the keys of `value`, which `section` describes.
fn note(value: &Value, section: &'static Section, seen: &mut BTreeSet<String>) {
    let Some(map) = value.as_mapping() else { return };
    for key in section.keys {
        let Some(value) = map.get(key.name) else { continue };
        seen.insert(format!("{}.{}", section.name, key.name));
        let Some(below) = below(key.shape).next() else { continue };
        match key.shape {
            Shape::Named(_) | Shape::Servers => {
                for (_, value) in value.as_mapping().into_iter().flatten() {
                    note(value, below, seen);
                }
            }
            Shape::Paths => {
                for value in value.as_sequence().into_iter().flatten() {
                    note(value, below, seen);
                }
            }
            _ => note(value, below, seen),
        }
    }
}

#[test]
fn every_key_has_an_example() {
    let mut seen = BTreeSet::new();
    for (_, page) in pages() {
        for (_, value) in examples(page) {
            note(&value, &schema::ROOT, &mut seen);
        }
    }
    let missing: Vec<_> = all_keys().difference(&seen).cloned().collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
    assert!(seen.len() > 140, "{} keys were seen", seen.len());
}

#[test]
fn the_page_on_secrets_is_a_secrets_file() {
    use secrecy::zeroize::Zeroizing;

    use crate::secrets::dotenv::{Command, World, WorldError, parse};

    struct Quiet;
    impl World for Quiet {
        fn variable(&self, _name: &str) -> Option<String> {
            None
        }
        fn command(&mut self, _command: &Command<'_>) -> Result<Zeroizing<String>, WorldError> {
            Ok(Zeroizing::default())
        }
    }
    let pairs = parse(page(Some("secrets")).unwrap(), &mut Quiet).unwrap();
    let names: Vec<_> = pairs.into_values().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "REGISTRY_PASSWORD",
            "APP_KEY",
            "SECRETS",
            "DB_PASSWORD",
            "SENTRY_DSN",
            "BANNER",
            "PATTERN"
        ]
    );
}

#[test]
fn pages_are_found_by_section_and_by_key() {
    let printed = |section: Option<&str>| {
        let mut out = Vec::new();
        run(&Args { section: section.map(str::to_owned) }, &mut out).map(|()| out)
    };
    assert_eq!(printed(None).unwrap(), ROOT.as_bytes());
    assert_eq!(printed(Some("alias")).unwrap(), printed(Some("aliases")).unwrap());
    assert_eq!(printed(Some("Proxy")).unwrap(), printed(Some("proxy")).unwrap());
    let said = printed(Some("nope")).unwrap_err().to_string();
    assert!(said.starts_with("No documentation found for nope (sections: accessory, "), "{said}");
}

#[test]
fn pages_fit_a_terminal() {
    for (name, page) in PAGES.iter().copied().chain([("root", ROOT)]) {
        assert!(page.ends_with('\n'), "{name}");
        for line in page.lines() {
            assert!(line.chars().count() <= 120 && !line.ends_with(' '), "{name}: {line}");
        }
    }
}
