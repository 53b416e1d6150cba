//! The `dhow-agent` program.

use std::process::ExitCode;

use clap::Parser as _;
use dhow_agent::command::Cli;
use dhow_proto::token;

/// As the parser exits with.
const USAGE: u8 = 2;

// Two: one may wait for a disk while the other keeps the session. A thread per core would only cost memory.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    if token::is_among(std::env::args_os()) {
        eprintln!("dhow-agent: {}", token::ON_COMMAND_LINE);
        return ExitCode::from(USAGE);
    }
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhow-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
