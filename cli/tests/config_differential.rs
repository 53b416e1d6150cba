//! The real Kamal and dhow's program over the whole corpus: same standard output, same exit status.
//!
//! Kamal is `$DHOW_KAMAL`, else the one that `make setup` installs. What it prints is compared with
//! the recorded files too, so that a stale recording is noticed; `DHOW_RECORD=1` records anew.

#[path = "config_corpus/corpus.rs"]
#[allow(dead_code, reason = "no test needs all of it")]
mod corpus;

#[path = "config_corpus/kamal.rs"]
mod kamal;

use std::path::Path;
use std::process::Command;

use kamal::Line;

/// The words of the command line for a case.
fn line(name: &str) -> Line {
    let file = corpus::file(name, "yml").display().to_string();
    let mut words: Vec<String> = ["config", "-c", &file, "--version=V"].map(str::to_owned).to_vec();
    if let Some(destination) = corpus::destination(name) {
        words.extend(["-d".to_owned(), destination.to_owned()]);
    }
    Line { folder: corpus::folder(), words }
}

/// dhow's answer to a command line, in the form of Kamal's.
fn dhow(program: &Path, line: &Line) -> (i32, String) {
    let mut command = Command::new(program);
    kamal::VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    let output =
        command.args(&line.words).current_dir(&line.folder).output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    (output.status.code().expect("it was not killed"), text)
}

#[test]
fn dhow_prints_what_the_real_kamal_prints() {
    let folder = tempfile::tempdir().unwrap();
    // By this name dhow is exactly Kamal, errors included.
    let program = folder.path().join("kamal");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &program).unwrap();
    let names = corpus::names();
    let lines: Vec<Line> = names.iter().map(|name| line(name)).collect();
    let shown =
        |(status, text): (i32, String)| corpus::without_folder(&format!("exit: {status}\n{text}"));
    let mut differences = Vec::new();
    for ((name, line), theirs) in names.iter().zip(&lines).zip(kamal::answers(&lines)) {
        let theirs = shown(theirs);
        if std::env::var_os("DHOW_RECORD").is_some() {
            std::fs::write(corpus::file(name, "kamal"), &theirs).expect("it can be recorded");
        } else if theirs != corpus::recorded(name) {
            differences.push(format!("== {name}: the recording is stale\n{theirs}"));
            continue;
        }
        let ours = shown(dhow(&program, line));
        let expected = corpus::deliberate(name).map_or(theirs, |(_, expected)| expected);
        if ours != expected {
            differences.push(format!("== {name}\n-- kamal\n{expected}-- dhow\n{ours}"));
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

/// The file that the real `kamal init` writes, with its ERB in comments, is read without complaint.
#[test]
fn the_file_of_kamal_init_is_read_as_kamal_reads_it() {
    let kamal = kamal::program();
    let folder = tempfile::tempdir().unwrap();
    let dhow = folder.path().join("kamal");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &dhow).unwrap();
    let run = |program: &Path, words: &[&str]| {
        let output = Command::new(program).args(words).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&kamal, &["init"]).0, Some(0));
    let words = ["config", "--version=V"];
    let theirs = run(&kamal, &words);
    assert_eq!(theirs.0, Some(0));
    assert_eq!(run(&dhow, &words), theirs);
}

/// What `dhow init` writes means what `kamal init` writes: both programs read either as the same, there is no secret,
/// and the same hooks have samples.
#[test]
fn the_files_of_dhow_init_mean_what_those_of_kamal_init_mean() {
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("kamal");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &named).unwrap();
    let programs = [kamal::program(), named];
    let projects = ["of-kamal", "of-dhow"].map(|name| folder.path().join(name));
    let run = |program: &Path, project: &Path, words: &[&str]| {
        let mut command = Command::new(program);
        kamal::VARIABLES.iter().for_each(|name| {
            command.env_remove(name);
        });
        let output = command.args(words).current_dir(project).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?} in {}: {output:?}", project.display());
        String::from_utf8(output.stdout).unwrap()
    };
    let mut said = Vec::new();
    for (program, project) in programs.iter().zip(&projects) {
        std::fs::create_dir(project).unwrap();
        said.push(run(program, project, &["init"]));
    }
    assert_eq!(said[0], said[1]);
    for (words, programs) in [
        (&["config", "--version=V"][..], &programs[..]),
        (&["secrets", "print"], &programs),
        // What Kamal's `config` does not print: proxy, env, boot and all else.
        (&["config", "--json", "--version=V"], &programs[1..]),
    ] {
        let answers: Vec<String> = programs
            .iter()
            .flat_map(|program| projects.iter().map(|project| run(program, project, words)))
            .collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{words:?}: {answers:#?}");
    }
    let files = |project: &Path| {
        let hooks = std::fs::read_dir(project.join(".kamal/hooks")).unwrap();
        let mut names: Vec<_> = hooks.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(&projects[0]), files(&projects[1]));
}
