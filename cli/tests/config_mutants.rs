//! Some hundred configs of the corpus, changed at random, through the real Kamal and through dhow: same
//! output, same exit status.
//!
//! The seed is fixed, so that the test says the same every time. `DHOW_MUTANTS=N` tries N, and
//! `DHOW_SEED=S` others; a difference is printed with its file, to become a case of the corpus.

#[path = "config_corpus/corpus.rs"]
#[allow(dead_code, reason = "no test needs all of it")]
mod corpus;
#[path = "config_corpus/kamal.rs"]
mod kamal;
#[path = "config_corpus/mutate.rs"]
mod mutate;

use std::path::Path;

use dhow::config::yaml::Node;
use dhow::config::{LoadOptions, SystemOutside, kamal_output, load};
use mutate::{Random, mutate, parsed, some_of, written};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The trees to begin with: those that Kamal reads, and dhow likewise.
fn trees() -> Vec<Node> {
    let is_base = |name: &String| {
        corpus::recorded(name).starts_with("exit: 0")
            && corpus::deliberate(name).is_none()
            && corpus::destination(name).is_none()
    };
    let text =
        |name: String| std::fs::read_to_string(corpus::file(&name, "yml")).expect("it is there");
    let texts = corpus::names().into_iter().filter(is_base).map(text);
    texts.filter(|text| !text.contains("<%")).map(|text| parsed(&text)).collect()
}

/// A mutant, and what lies over it with a destination.
fn mutant(trees: &[Node], random: &mut Random) -> (String, Option<String>) {
    let mut root = random.pick(trees).clone();
    let destination = (random.below(5) == 0).then(|| {
        let mut over = some_of(random.pick(trees), random);
        if random.below(2) == 0 {
            mutate(&mut over, trees, random);
        }
        written(&over)
    });
    // A change may undo another or change nothing that counts; a few make one that does likely.
    for _ in 0..=random.below(3) {
        mutate(&mut root, trees, random);
    }
    (written(&root), destination)
}

/// dhow's answer, in the form of Kamal's.
fn dhow(file: &Path, destination: Option<&str>) -> (i32, String) {
    let options = LoadOptions {
        config_file: Some(file.to_owned()),
        destination: destination.map(str::to_owned),
        version: Some("V".to_owned()),
    };
    match load(&options, &SystemOutside) {
        Ok(loaded) => (0, kamal_output::render(&loaded.config, "V").expect("a tree is emitted")),
        Err(problems) => (1, problems.kamal_error(true)),
    }
}

/// Whether dhow may answer otherwise than Kamal; `docs/compatibility.md` tells why.
fn explained(kamal: &str, dhow: &str) -> bool {
    let classes = ["ConfigurationError", "ArgumentError", "RuntimeError", "Psych::"];
    let crashed = kamal.contains("ERROR (") && !classes.iter().any(|class| kamal.contains(class));
    crashed
        || [
            "comparison of String with",
            "Current version is 2.11.0",
            "Cannot set restart policy in docker options",
            "Conflicting proxy run configurations",
        ]
        .iter()
        .any(|words| kamal.contains(words))
        || (kamal.contains(":service_with_version: |-") && dhow.contains("Service name can only"))
        || ["ssl/certificate_pem: should", "ssl/private_key_pem: should"]
            .iter()
            .any(|words| dhow.contains(words))
}

#[test]
fn mutants_are_read_as_kamal_reads_them() {
    let (count, seed) = (setting("DHOW_MUTANTS", 400), setting("DHOW_SEED", 1));
    let folder = tempfile::tempdir().unwrap();
    let (trees, mut random) = (trees(), Random(seed));
    let mut lines = Vec::new();
    for number in 0..count {
        let (text, over) = mutant(&trees, &mut random);
        let file = folder.path().join(format!("{number}.yml"));
        std::fs::write(&file, text).unwrap();
        let mut words =
            ["config", "-c", file.to_str().unwrap(), "--version=V"].map(str::to_owned).to_vec();
        if let Some(over) = over {
            std::fs::write(file.with_extension("staging.yml"), over).unwrap();
            words.extend(["-d", "staging"].map(str::to_owned));
        }
        lines.push(kamal::Line { folder: folder.path().to_owned(), words });
    }
    let (mut differences, mut compared) = (Vec::new(), 0);
    for (line, theirs) in lines.iter().zip(kamal::answers(&lines)) {
        let file = Path::new(&line.words[2]);
        let ours = dhow(file, line.words.get(5).map(String::as_str));
        if ours != theirs && explained(&theirs.1, &ours.1) {
            continue;
        }
        compared += 1;
        if ours != theirs {
            let text = |file: &Path| std::fs::read_to_string(file).unwrap_or_default();
            differences.push(format!(
                "== {}{}\n-- kamal ({})\n{}-- dhow ({})\n{}",
                text(file),
                text(&file.with_extension("staging.yml")),
                theirs.0,
                theirs.1,
                ours.0,
                ours.1
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {compared} differ\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(
        compared * 10 >= lines.len() * 7,
        "only {compared} of {} could be compared",
        lines.len()
    );
}
