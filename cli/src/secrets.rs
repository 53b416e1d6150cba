//! Looks secrets up by name, in the files and vaults that a project names.
//!
//! In: the project's secrets files (`.kamal/secrets-common`, then `.kamal/secrets` or
//! `.kamal/secrets.DESTINATION`), the environment, and the vendors' programs. Out: values in
//! [`SecretString`]s. Always true: files are read when the first value is asked for and only once,
//! by one thread at a time, as a vault may ask somebody for a password; no error, log or `Debug`
//! holds a value.
//!
//! Everything here waits for files and programs: call it from a thread that may.

pub mod adapter;
pub mod dotenv;
pub mod file;
mod inline;
pub mod request;
pub mod runner;
pub mod words;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;

use dotenv::DotenvError;
use file::FileError;
use runner::{ProcessRunner, Runner};

/// Where a project's secrets are.
pub struct SecretsOptions {
    /// The directory in which Kamal would be run; the files' paths are relative to it.
    pub project_dir: PathBuf,
    /// `secrets_path` of the config; Kamal's default is `.kamal/secrets`.
    pub secrets_path: String,
    /// The destination, if one was given.
    pub destination: Option<String>,
    /// The variables that `$NAME` may mean. Programs are given what `runner` gives them.
    pub env: BTreeMap<String, String>,
    /// Who runs commands; see [`runner::ProcessRunner`].
    pub runner: Arc<dyn Runner>,
}

impl SecretsOptions {
    /// For this process: its environment, its programs, and `KAMAL_DESTINATION` set for the commands
    /// of the files as Kamal sets it, or unset without a destination.
    pub fn of_process(
        project_dir: PathBuf,
        secrets_path: String,
        destination: Option<String>,
    ) -> Self {
        const DESTINATION: &str = "KAMAL_DESTINATION";
        let mut env = environment();
        env.remove(DESTINATION);
        let mut runner =
            ProcessRunner { directory: Some(project_dir.clone()), ..ProcessRunner::default() };
        match &destination {
            Some(destination) => {
                env.insert(DESTINATION.to_owned(), destination.clone());
                runner.env.push((DESTINATION.to_owned(), destination.clone()));
            }
            None => runner.without.push(DESTINATION.to_owned()),
        }
        Self { project_dir, secrets_path, destination, env, runner: Arc::new(runner) }
    }
}

/// The variables of this process; those that are no text are left out.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The secrets of a project.
pub struct Secrets {
    options: SecretsOptions,
    loaded: Mutex<Option<Arc<Loaded>>>,
}

/// What the files gave.
#[derive(Default)]
struct Loaded {
    /// The files that exist, by the names that messages use.
    files: Vec<String>,
    /// Each name once, at the place where it was first set.
    values: Vec<(String, SecretString)>,
    /// Where each name is in `values`.
    index: HashMap<String, usize>,
}

/// Why a secret is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The files have no such name.
    #[error("Secret '{name}' not found in {}", files.join(", "))]
    NotFound {
        /// The name that was asked for.
        name: String,
        /// The files that exist.
        files: Vec<String>,
    },
    /// There is no file at all.
    #[error("Secret '{name}' not found, no secret files ({}) provided", candidates.join(", "))]
    NoFiles {
        /// The name that was asked for.
        name: String,
        /// The files that were looked for.
        candidates: Vec<String>,
    },
    /// A file is there but cannot be read.
    #[error("{file}")]
    File {
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: FileError,
    },
    /// A file's text cannot be used, or a command in it failed.
    #[error("{file}")]
    Text {
        /// The file.
        file: String,
        /// Why not, with the line.
        #[source]
        source: DotenvError,
    },
}

impl Secrets {
    /// Remembers where the secrets are; reads nothing yet.
    pub fn new(options: SecretsOptions) -> Self {
        Self { options, loaded: Mutex::new(None) }
    }

    /// The value of `name`.
    ///
    /// # Errors
    ///
    /// [`SecretError`]; the two for a missing name read as in Kamal.
    pub fn get(&self, name: &str) -> Result<SecretString, SecretError> {
        let loaded = self.loaded()?;
        if let Some(at) = loaded.index.get(name) {
            return Ok(loaded.values[*at].1.clone());
        }
        let name = name.to_owned();
        if loaded.files.is_empty() {
            return Err(SecretError::NoFiles { name, candidates: self.candidates().into() });
        }
        Err(SecretError::NotFound { name, files: loaded.files.clone() })
    }

    /// All names and values, in the order of the files.
    ///
    /// # Errors
    ///
    /// [`SecretError::File`] and [`SecretError::Text`].
    pub fn all(&self) -> Result<Vec<(String, SecretString)>, SecretError> {
        Ok(self.loaded()?.values.clone())
    }

    /// The files that are looked for, in the order in which the later overrides the earlier. With a
    /// destination the plain file is not among them.
    pub fn candidates(&self) -> [String; 2] {
        let path = &self.options.secrets_path;
        let own = match &self.options.destination {
            Some(destination) => format!("{path}.{destination}"),
            None => path.clone(),
        };
        [format!("{path}-common"), own]
    }

    fn loaded(&self) -> Result<Arc<Loaded>, SecretError> {
        // A panic while loading leaves `None` behind, which is a valid state.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = loaded.as_ref() {
            return Ok(Arc::clone(loaded));
        }
        let fresh = Arc::new(self.load()?);
        *loaded = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    fn load(&self) -> Result<Loaded, SecretError> {
        let mut loaded = Loaded::default();
        for file in self.candidates() {
            let bytes = file::read(&self.options.project_dir.join(&file))
                .map_err(|source| SecretError::File { file: file.clone(), source })?;
            let Some(bytes) = bytes else { continue };
            // Each file has its own variables: those of `-common` are invisible to the second one.
            let mut world = inline::FileWorld::new(&self.options);
            let pairs = dotenv::decode(&bytes)
                .and_then(|text| dotenv::parse(text, &mut world))
                .map_err(|source| SecretError::Text { file: file.clone(), source })?;
            loaded.files.push(file);
            for (name, value) in pairs.into_values() {
                loaded.set(name, value);
            }
        }
        Ok(loaded)
    }
}

impl Loaded {
    fn set(&mut self, name: String, value: SecretString) {
        match self.index.get(&name) {
            Some(at) => self.values[*at].1 = value,
            None => {
                self.index.insert(name.clone(), self.values.len());
                self.values.push((name, value));
            }
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secrets").field("candidates", &self.candidates()).finish()
    }
}
