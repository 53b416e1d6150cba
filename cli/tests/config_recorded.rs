//! The corpus against what Kamal 2.11 printed for it, as recorded beside the files.
//!
//! `NAME.yml` (with `NAME.staging.yml` where a destination is given) is a config; `NAME.kamal` is
//! Kamal's exit status and output. Where dhow differs on purpose, `NAME.dhow` says why in its first
//! line and holds dhow's own; `DHOW_UPDATE=1` writes it anew for files that have one.
//! `config_differential` runs the real Kamal over the same files.

use std::fs;
use std::path::{Path, PathBuf};

use dhow::config::{LoadOptions, SystemOutside, kamal_output, load};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(corpus())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".yml").map(str::to_owned))
        .filter(|name| !name.ends_with(".staging"))
        .collect();
    names.sort();
    names
}

/// What dhow prints under the name `kamal`, in the form of the recorded files.
fn dhow(name: &str) -> String {
    let file = corpus().join(format!("{name}.yml"));
    let destination = corpus().join(format!("{name}.staging.yml")).exists();
    let options = LoadOptions {
        config_file: Some(file),
        destination: destination.then(|| "staging".to_owned()),
        version: Some("V".to_owned()),
    };
    match load(&options, &SystemOutside) {
        Ok(loaded) => {
            let version = loaded.version(&SystemOutside).unwrap();
            format!("exit: 0\n{}", kamal_output::render(&loaded.config, &version).unwrap())
        }
        Err(problems) => format!("exit: 1\n{}", problems.kamal_error(true)),
    }
    // The place of a working copy is nobody's business.
    .replace(corpus().to_str().unwrap(), "CORPUS")
}

#[test]
fn the_corpus_is_read_as_kamal_reads_it() {
    let mut differences = Vec::new();
    let names = names();
    assert!(names.len() >= 120, "the corpus has {} files", names.len());
    for name in &names {
        let ours = dhow(name);
        let deliberate = corpus().join(format!("{name}.dhow"));
        let kamal = fs::read_to_string(corpus().join(format!("{name}.kamal"))).unwrap();
        let expected = match fs::read_to_string(&deliberate) {
            Ok(text) => {
                let (reason, expected) = text.split_once('\n').unwrap_or((&text, ""));
                assert!(reason.len() > 10, "{name}.dhow has to say why it differs");
                if std::env::var_os("DHOW_UPDATE").is_some() {
                    fs::write(&deliberate, format!("{reason}\n{ours}")).unwrap();
                    continue;
                }
                assert_ne!(expected, kamal, "{name} does not differ any more");
                expected.to_owned()
            }
            Err(_) => kamal,
        };
        if ours != expected {
            differences.push(format!("== {name}\n-- expected\n{expected}-- dhow\n{ours}"));
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}
