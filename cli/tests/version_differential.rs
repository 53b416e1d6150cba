//! Which version is deployed, in repositories of every state: as the real Kamal has it.

#[path = "config_corpus/kamal.rs"]
mod kamal;

use std::path::Path;
use std::process::Command;

use kamal::Line;

const CONFIG: &str = "service: shop\nimage: shop\nservers: [192.0.2.1]\n\
    registry: {username: u, password: [P]}\nbuilder: {arch: amd64}\n";

/// Changes in a repository are part of what is built here.
const WITH_CONTEXT: &str = "builder: {arch: amd64, context: .}";

fn git(folder: &Path, words: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=n", "-c", "user.email=n@example.com"]).args(words);
    let output = command.current_dir(folder).output().expect("git starts");
    assert!(output.status.success(), "git {words:?}: {output:?}");
}

/// A project below `root`, in a repository where `commits` is said, with a change or without.
fn project(root: &Path, name: &str, config: &str, commits: Option<bool>, changed: bool) -> Line {
    let folder = root.join(name);
    std::fs::create_dir_all(folder.join("config")).expect("a folder can be made");
    std::fs::write(folder.join("config/deploy.yml"), config).expect("a file can be written");
    if let Some(commits) = commits {
        git(&folder, &["init", "-q"]);
        if commits {
            git(&folder, &["add", "."]);
            git(&folder, &["commit", "-q", "-m", "first"]);
        }
    }
    if changed {
        std::fs::write(folder.join("new"), "").expect("a file can be written");
    }
    Line { folder, words: vec!["config".to_owned()] }
}

/// dhow's answer by the name `kamal`, in the form of Kamal's.
fn dhow(program: &Path, line: &Line) -> (i32, String) {
    let mut command = Command::new(program);
    kamal::VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    let output = command.args(&line.words).current_dir(&line.folder).output().expect("it starts");
    (output.status.code().expect("it ends"), String::from_utf8(output.stdout).expect("it is text"))
}

/// The text with the 16 random digits of each version replaced, and how many versions have them.
fn without_random(text: &str) -> (String, usize) {
    let random = regex::Regex::new("_uncommitted_[0-9a-f]{16}\\b").expect("it is one");
    let found = random.find_iter(text).count();
    (random.replace_all(text, "_uncommitted_RANDOM").into_owned(), found)
}

#[test]
fn versions_are_kamals_in_every_state_of_a_repository() {
    let root = tempfile::tempdir().expect("a folder can be made");
    let program = root.path().join("kamal");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &program).expect("a link can be made");
    let context = CONFIG.replace("builder: {arch: amd64}", WITH_CONTEXT);
    let make = |name: &str, config: &str, commits, changed| {
        project(root.path(), name, config, commits, changed)
    };
    let lines = [
        make("none", CONFIG, None, false),
        make("unborn", CONFIG, Some(false), false),
        make("clean", CONFIG, Some(true), false),
        make("changed", CONFIG, Some(true), true),
        make("context", &context, Some(true), false),
        make("context-changed", &context, Some(true), true),
        make("context-unborn", &context, Some(false), false),
    ];
    let mut suffixed = Vec::new();
    for (line, (status, text)) in lines.iter().zip(kamal::answers(&lines)) {
        let (theirs, random) = without_random(&text);
        let (our_status, our_text) = dhow(&program, line);
        let (ours, our_random) = without_random(&our_text);
        let folder = line.folder.file_name().expect("it has a name").to_str().expect("it is text");
        assert_eq!((our_status, &ours, our_random), (status, &theirs, random), "{folder}");
        if random > 0 {
            suffixed.push(folder);
        }
    }
    assert_eq!(suffixed, ["context-changed", "context-unborn"]);
}
