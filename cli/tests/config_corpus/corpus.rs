//! The corpus of configs, shared by the tests that go through it.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the files are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The names of all cases, sorted.
pub(crate) fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("the corpus is there");
    let mut names: Vec<String> = files
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".yml").map(str::to_owned))
        .filter(|name| !name.ends_with(".staging"))
        .collect();
    names.sort();
    names
}

/// The file of a case with this ending.
pub(crate) fn file(name: &str, ending: &str) -> PathBuf {
    folder().join(format!("{name}.{ending}"))
}

/// The destination that a case is loaded with.
pub(crate) fn destination(name: &str) -> Option<&'static str> {
    file(name, "staging.yml").exists().then_some("staging")
}

/// What Kamal printed, in the form `exit: N`, then its standard output.
pub(crate) fn recorded(name: &str) -> String {
    fs::read_to_string(file(name, "kamal")).unwrap_or_else(|_| panic!("{name}.kamal is missing"))
}

/// Why dhow differs from Kamal here, and its own output.
pub(crate) fn deliberate(name: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(file(name, "dhow")).ok()?;
    let (reason, output) = text.split_once('\n').unwrap_or((&text, ""));
    Some((reason.to_owned(), output.to_owned()))
}

/// The place of a working copy is nobody's business: messages name `CORPUS`.
pub(crate) fn without_folder(text: &str) -> String {
    text.replace(&folder().display().to_string(), "CORPUS")
}
