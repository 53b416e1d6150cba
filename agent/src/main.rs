//! The `dhow-agent` program.

use std::process::ExitCode;

use clap::Parser as _;
use dhow_agent::command::Cli;

// Two: one may wait for a disk while the other keeps the session. A thread per core would only cost memory.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhow-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
