//! What the text of a secrets file may ask for: variables, shell commands, and `kamal secrets …`
//! or `dhow secrets …`, which are answered here rather than by another process.

use clap::Parser;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;

use super::SecretsOptions;
use super::dotenv::{Command, World, WorldError};
use super::request::{self, ExtractArgs, FetchArgs, Vaults};
use super::runner::Invocation;
use super::words;

/// Exit code of a shell that did not find the program (POSIX).
const NOT_FOUND: i32 = 127;

/// A command without any of these is started by Ruby without a shell.
const SHELL_CHARACTERS: [char; 22] = [
    '*', '?', '{', '}', '[', ']', '<', '>', '(', ')', '~', '&', '|', '\\', '$', ';', '\'', '`',
    '"', '\n', '#', '=',
];

/// The world of one secrets file.
pub(super) struct FileWorld<'a> {
    options: &'a SecretsOptions,
}

/// `kamal secrets …` inside a file.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum InlineCommand {
    Fetch(Global<FetchArgs>),
    Extract(Global<ExtractArgs>),
    Print(Ignored),
}

/// Options that every command of Kamal takes and these two have no use for.
#[derive(clap::Args)]
struct Global<A: clap::Args> {
    #[command(flatten)]
    args: A,
    #[arg(short, long)]
    verbose: bool,
    #[arg(short, long)]
    quiet: bool,
    #[arg(short, long)]
    config_file: Option<String>,
    #[arg(short, long)]
    destination: Option<String>,
}

#[derive(clap::Args)]
struct Ignored {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<String>,
}

/// Why a command of the file has no answer.
#[derive(Debug, thiserror::Error)]
enum InlineError {
    /// Clap's own message is dropped, as it repeats words that may be secrets.
    #[error(
        "`{0}`: wrong arguments (`secrets fetch --adapter A [--account X] [--from F] NAME…`, `secrets extract NAME JSON`)"
    )]
    Usage(String),
    #[error("`{0}`: it cannot be split into words")]
    Words(String, #[source] words::SplitError),
    #[error("`{0}`: the secrets file cannot print itself")]
    Print(String),
    #[error("`{0}`: there is no such program")]
    NoProgram(String),
    #[error("`{0}`: its variables are empty, so there is nothing to run")]
    Nothing(String),
}

impl<'a> FileWorld<'a> {
    pub(super) fn new(options: &'a SecretsOptions) -> Self {
        Self { options }
    }

    /// Answers the words after `kamal secrets`.
    fn secrets(&self, command: &Command<'_>) -> Result<Zeroizing<String>, WorldError> {
        let written = || command.written.trim().to_owned();
        let words = words::split(command.expanded)
            .map_err(|source| InlineError::Words(written(), source))?;
        let vaults = Vaults { runner: &*self.options.runner, env: &self.options.env };
        match InlineCommand::try_parse_from(&words[2..])
            .map_err(|_| InlineError::Usage(written()))?
        {
            InlineCommand::Fetch(Global { args, .. }) => {
                let found = request::fetch(&args, &vaults)?;
                Ok(Zeroizing::new(words::escape(&request::json(&found))))
            }
            InlineCommand::Extract(Global { args, .. }) => {
                let value = request::extract(&args)?;
                Ok(Zeroizing::new(chomp(value.expose_secret()).to_owned()))
            }
            InlineCommand::Print(_) => Err(InlineError::Print(written()).into()),
        }
    }
}

impl World for FileWorld<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.options.env.get(name).cloned()
    }

    /// The exit code does not matter, as in Kamal: only what was printed counts. But a plain command
    /// whose program is missing is an error, and so is none at all; Kamal then forgets the whole file without a word.
    fn command(&mut self, command: &Command<'_>) -> Result<Zeroizing<String>, WorldError> {
        if is_ours(command.expanded) {
            return self.secrets(command);
        }
        let invocation = Invocation::shell(command.written.trim(), command.expanded);
        if command.expanded.trim().is_empty() {
            return Err(InlineError::Nothing(invocation.shown).into());
        }
        let output = self.options.runner.run(&invocation)?;
        if output.code == Some(NOT_FOUND) && !command.expanded.contains(SHELL_CHARACTERS) {
            return Err(InlineError::NoProgram(invocation.shown).into());
        }
        let text = output.text(&invocation.shown)?;
        Ok(Zeroizing::new(chomp(text).to_owned()))
    }
}

/// Whether a command is `kamal secrets …` or `dhow secrets …`; a path such as `bin/kamal` is not.
fn is_ours(command: &str) -> bool {
    let mut words = command.split_ascii_whitespace();
    matches!(words.next(), Some("kamal" | "dhow"))
        && words.next() == Some("secrets")
        && words.next().is_some()
}

/// Ruby's `chomp`: one line break off the end.
fn chomp(text: &str) -> &str {
    text.strip_suffix("\r\n")
        .or_else(|| text.strip_suffix('\n'))
        .or_else(|| text.strip_suffix('\r'))
        .unwrap_or(text)
}
