//! The corpus against what Kamal 2.11 printed for it, as recorded beside the files.
//!
//! `NAME.yml` (with `NAME.staging.yml` where a destination is given) is a config; `NAME.kamal` is
//! Kamal's exit status and output. Where dhow differs on purpose, `NAME.dhow` says why in its first
//! line and holds dhow's own; `DHOW_UPDATE=1` writes it anew for files that have one.
//! `config_differential` runs the real programs over the same files.

#[path = "config_corpus/corpus.rs"]
#[allow(dead_code, reason = "no test needs all of it")]
mod corpus;

use dhow::config::{LoadOptions, SystemOutside, kamal_output, load};

/// What dhow prints under the name `kamal`, in the form of the recorded files.
fn dhow(name: &str) -> String {
    let options = LoadOptions {
        config_file: Some(corpus::file(name, "yml")),
        destination: corpus::destination(name).map(str::to_owned),
        version: Some("V".to_owned()),
    };
    let output = match load(&options, &SystemOutside) {
        Ok(loaded) => {
            let version = loaded.version(&SystemOutside).expect("it is given");
            let text = kamal_output::render(&loaded.config, &version).expect("a tree is emitted");
            format!("exit: 0\n{text}")
        }
        Err(problems) => format!("exit: 1\n{}", problems.kamal_error(true)),
    };
    corpus::without_folder(&output)
}

#[test]
fn the_corpus_is_read_as_kamal_reads_it() {
    let mut differences = Vec::new();
    let names = corpus::names();
    assert!(names.len() >= 120, "the corpus has {} files", names.len());
    for name in &names {
        let ours = dhow(name);
        let kamal = corpus::recorded(name);
        let expected = match corpus::deliberate(name) {
            Some((reason, expected)) => {
                assert!(reason.len() > 10, "{name}.dhow has to say why it differs");
                if std::env::var_os("DHOW_UPDATE").is_some() {
                    std::fs::write(corpus::file(name, "dhow"), format!("{reason}\n{ours}"))
                        .unwrap();
                    continue;
                }
                assert_ne!(expected, kamal, "{name} does not differ any more");
                expected
            }
            None => kamal,
        };
        if ours != expected {
            differences.push(format!("== {name}\n-- expected\n{expected}-- dhow\n{ours}"));
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}
