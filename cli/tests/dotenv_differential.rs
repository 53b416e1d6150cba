//! Secrets files made at random through the dotenv of the real Kamal and through dhow: same names and
//! values, and a failure where Kamal has one.
//!
//! The seed is fixed; `DHOW_SECRETS=N` tries N, and `DHOW_SEED=S` others. A difference is printed with its
//! file, to become a case of `secrets/dotenv_cases.txt`.

#[path = "config_corpus/kamal.rs"]
#[allow(dead_code, reason = "only the program's place is asked for")]
mod kamal;
#[path = "config_corpus/mutate.rs"]
#[allow(dead_code, reason = "only its numbers are taken")]
mod mutate;

#[path = "secrets/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use dhow::secrets::runner::ProcessRunner;
use dhow::secrets::{SecretError, Secrets, SecretsOptions};
use mutate::Random;
use secrecy::ExposeSecret as _;

/// How long Kamal may take for one file; the driver gives up sooner, but for what Ruby cannot interrupt.
const DEADLINE: Duration = Duration::from_secs(60);

/// Names and values in order; `None` where the file fails.
type Pairs = Option<Vec<(String, String)>>;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// All variables that either side has.
fn variables() -> BTreeMap<String, String> {
    let kept =
        ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    let ours = [("LANG", "C.UTF-8"), ("FROM_ENV", "from $A env"), ("EMPTY_ENV", "")];
    let ours = ours.map(|(name, value)| (name, value.to_owned()));
    kept.chain(ours).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The real Kamal, waiting for paths of secrets files.
struct Ruby {
    child: Child,
    paths: ChildStdin,
    answers: Receiver<String>,
}

impl Ruby {
    fn start() -> Self {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/secrets/driver.yml");
        let mut command = Command::new(kamal::program());
        command.arg("config").arg("-c").arg(driver).env_clear().envs(variables());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("Kamal starts");
        let paths = child.stdin.take().expect("it is piped");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, paths, answers }
    }

    /// Kamal's reading of a file; an error where it does not come to an end.
    fn read(&mut self, file: &Path) -> Result<Pairs, &'static str> {
        writeln!(self.paths, "{}", file.display()).map_err(|_| "it is gone")?;
        let answer = self.answers.recv_timeout(DEADLINE).map_err(|_| "it does not answer")?;
        Ok(serde_json::from_str(&answer).expect("a list of pairs"))
    }
}

impl Drop for Ruby {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// dhow's reading of the secrets file in a folder.
fn dhow(folder: &Path) -> Result<Vec<(String, String)>, SecretError> {
    let env = variables();
    let runner = ProcessRunner {
        directory: Some(folder.to_owned()),
        env: env.clone().into_iter().collect(),
        without: Vec::new(),
    };
    let secrets = Secrets::new(SecretsOptions {
        project_dir: folder.to_owned(),
        secrets_path: "secrets".to_owned(),
        destination: None,
        env,
        runner: Arc::new(runner),
    });
    let all = secrets.all()?;
    Ok(all.into_iter().map(|(name, value)| (name, value.expose_secret().to_owned())).collect())
}

/// Whether dhow fails on purpose where Kamal does not; `docs/compatibility.md` tells why.
fn is_deliberate(error: &SecretError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        if said.contains("there is no such program") || said.contains("there is nothing to run") {
            return true;
        }
        source = cause.source();
    }
    false
}

#[test]
fn secrets_files_are_read_as_kamal_reads_them() {
    let (count, seed) = (setting("DHOW_SECRETS", 1000), setting("DHOW_SEED", 1));
    let mut random = Random(seed);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file: PathBuf = folder.path().join("secrets");
    let mut ruby = Ruby::start();
    let (mut differences, mut read) = (Vec::new(), 0);
    for _ in 0..count {
        let text = generate::file(&mut random);
        std::fs::write(&file, &text).expect("a file can be written");
        let theirs = match ruby.read(&file) {
            Ok(pairs) => pairs,
            Err(why) => {
                differences.push(format!("{text:?}\n  kamal: {why}"));
                ruby = Ruby::start();
                continue;
            }
        };
        let ours = dhow(folder.path());
        if ours.as_ref().is_err_and(is_deliberate) {
            continue;
        }
        read += usize::from(theirs.as_ref().is_some_and(|pairs| !pairs.is_empty()));
        // In a command `$$` is the number of a process.
        if ours.as_ref().ok() != theirs.as_ref() && !text.contains("$$") {
            differences.push(format!("{text:?}\n  kamal {theirs:?}\n  dhow  {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
    assert!(read as u64 * 2 > count, "only {read} of {count} files set something");
}
