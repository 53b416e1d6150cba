//! The `dhow` command.

use std::process::ExitCode;

use clap::Parser as _;
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
        Err(error) => {
            eprintln!("{}", color.red(&format!("ERROR: {error:#}")));
            ExitCode::FAILURE
        }
    }
}
