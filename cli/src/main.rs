//! The `dhow` command.

use std::process::ExitCode;

use clap::Parser as _;
use dhow::command::docs::DocsError;
use dhow::command::secrets::SecretsCommandError;
use dhow::command::{Cli, Outcome};

/// Wrong usage (sysexits.h EX_USAGE). 2 is kept for "changes" of a plan.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let color = cli.globals.style();
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
            eprintln!("{}", color.red(&format!("ERROR: {error:#}")));
            ExitCode::FAILURE
        }
    }
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
