//! The `dhow` command.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};
use dhow::caller::Caller;
use dhow::command::docs::DocsError;
use dhow::command::line::{LineError, refuse_traefik, resolve};
use dhow::command::secrets::SecretsCommandError;
use dhow::command::{Cli, Outcome};
use dhow::config::{SystemOutside, alias, is_transitional};
use dhow::project::ConfigError;
use dhow_proto::token;

/// Wrong usage (sysexits.h EX_USAGE). 2 is kept for "changes" of a plan.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let caller = Caller::of_process();
    if token::is_among(std::env::args_os()) {
        eprintln!("ERROR: {}", token::ON_COMMAND_LINE);
        return ExitCode::from(USAGE);
    }
    if let Some(code) = alone() {
        return code;
    }
    let cli = match words().map(Cli::try_parse_from) {
        Ok(Ok(cli)) => cli,
        Ok(Err(error)) => return usage(&error, caller),
        Err(error) => return no_line(&error, caller),
    };
    let (color, json) = (cli.globals.style(), cli.globals.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}", color.red(&format!("ERROR: no runtime: {error}")));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dhow::command::run(cli)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        // `dhow … | head`: whoever reads has read enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<ConfigError>() {
                Some(problems) if problems.is_json() => print(&format!("{problems}\n")),
                problems if caller.is_kamal => {
                    print(&caller.kamal_error(&error));
                    if let Some(error) = problems {
                        eprint!("{}", error.problems.beside_kamal_error(color.color));
                    }
                }
                Some(problems) => eprintln!("{problems}"),
                None => {
                    // Beside the text: a program that reads events should not have to read that.
                    if json {
                        print(&format!("{}\n", serde_json::json!({"error": format!("{error:#}")})));
                    }
                    eprintln!("{}", color.red(&format!("ERROR: {error:#}")));
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// `dhow -h` and `dhow --version`, with nothing else: people try these first. With a command they are options that take
/// a value, as Kamal's.
fn alone() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let (word, None) = (words.next()?, words.next()) else { return None };
    match word.to_str()? {
        "-h" => print(&Cli::command().render_help().to_string()),
        "--version" => print(&format!("dhow {}\n", env!("CARGO_PKG_VERSION"))),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// The command line, the program's name first, with whole commands. Words that are no text are left
/// to the parser, which refuses them.
fn words() -> Result<Vec<OsString>, LineError> {
    let all: Vec<OsString> = std::env::args_os().collect();
    let (name, words) =
        all.split_first().map_or((None, &[][..]), |(name, rest)| (Some(name), rest));
    let texts: Option<Vec<String>> =
        words.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let Some(texts) = texts else { return Ok(all) };
    let look_up = |name: &str, options: &_| alias(name, options, &SystemOutside);
    let resolved = resolve(texts, &Cli::command(), &look_up)?;
    let transitional = |options: &_| is_transitional(options, &SystemOutside);
    refuse_traefik(&resolved, &Cli::command(), &transitional)?;
    let name = name.cloned().unwrap_or_else(|| "dhow".into());
    Ok(std::iter::once(name).chain(resolved.into_iter().map(OsString::from)).collect())
}

/// What the parser says of a line. Without a command it lists them, which is no error.
fn usage(error: &clap::Error, caller: Caller) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        print(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if caller.is_kamal => {
            eprintln!("Could not find command \"{word}\".");
        }
        _ => {
            let _ = error.print();
        }
    }
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

fn no_line(error: &LineError, caller: Caller) -> ExitCode {
    match error {
        LineError::Unreadable { problems, .. } if caller.is_kamal => {
            print(&problems.kamal_error(caller.color));
            eprint!("{}", problems.beside_kamal_error(false));
            return ExitCode::FAILURE;
        }
        LineError::Unreadable { problems, .. } => {
            eprintln!("ERROR: {error}");
            eprint!("{}", problems.render(false));
        }
        _ if caller.is_kamal => eprintln!("{error}"),
        _ => eprintln!("ERROR: {error}"),
    }
    ExitCode::from(USAGE)
}

/// Prints; a reader that left is no error.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Whether output ended because its reader left. Only errors of printing are looked at: a pipe that
/// broke on the way to a controller is a failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let print = error
        .downcast_ref::<std::io::Error>()
        .or_else(|| match error.downcast_ref::<SecretsCommandError>() {
            Some(SecretsCommandError::Print(error)) => Some(error),
            _ => None,
        })
        .or_else(|| match error.downcast_ref::<DocsError>() {
            Some(DocsError::Print(error)) => Some(error),
            _ => None,
        });
    print.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
