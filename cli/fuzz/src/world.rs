//! A world without files, programs and environment but those that a fuzzer made up.

use std::io;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;

use crate::config::Outside;
use crate::config::outside::CommandOutput;
use crate::dotenv::{Command, World, WorldError};

/// The two files of a project, and a few fixed answers.
pub struct Project<'a> {
    /// `config/deploy.yml`.
    pub base: &'a [u8],
    /// `config/deploy.staging.yml`.
    pub destination: &'a [u8],
}

impl Outside for Project<'_> {
    fn var(&self, name: &str) -> Option<String> {
        name.starts_with('S').then(|| format!("value of {name}"))
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let bytes = match path.file_name().and_then(|name| name.to_str()) {
            Some("deploy.yml") => self.base,
            Some("deploy.staging.yml") => self.destination,
            Some("there") => b"text",
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.to_owned())
    }

    fn exists(&self, path: &Path) -> bool {
        path.ends_with("there")
    }

    fn list(&self, _directory: &Path) -> io::Result<Vec<String>> {
        Ok(vec!["404.html".to_owned(), "there".to_owned()])
    }

    fn current_dir(&self) -> PathBuf {
        "/project".into()
    }

    /// Answers with the command itself, so that a template's output depends on its input.
    fn shell(&self, command: &str, _env: &[(String, String)]) -> io::Result<CommandOutput> {
        Ok(CommandOutput { status: Some(0), stdout: format!("{command}\n").into_bytes() })
    }

    fn git(&self, _args: &[&str]) -> io::Result<CommandOutput> {
        Ok(CommandOutput {
            status: Some(0),
            stdout: b"0123456789abcdef0123456789abcdef01234567\n".to_vec(),
        })
    }
}

/// A secrets file's world: commands print themselves, some variables exist.
#[derive(Default)]
pub struct Echo {
    /// How many bytes commands have printed.
    pub printed: usize,
}

impl World for Echo {
    fn variable(&self, name: &str) -> Option<String> {
        name.starts_with('S').then(|| format!("value of ${name}"))
    }

    fn command(&mut self, command: &Command<'_>) -> Result<Zeroizing<String>, WorldError> {
        if command.expanded.contains("fail") {
            return Err("failed".into());
        }
        self.printed += command.expanded.len();
        Ok(Zeroizing::new(command.expanded.to_owned()))
    }
}
