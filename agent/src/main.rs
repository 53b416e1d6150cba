//! The `dhow-agent` program.

use std::process::ExitCode;

use clap::Parser as _;
use dhow_agent::command::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhow-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
