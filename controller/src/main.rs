//! The controller program.

use std::process::ExitCode;

use clap::Parser as _;
use dhow_controller::command::Cli;
use dhow_controller::transport::crypto_provider;

#[tokio::main]
async fn main() -> ExitCode {
    // First: a library that asks for the process's default must find ours. It is not set twice.
    let _ = crypto_provider().as_ref().clone().install_default();
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // `writeln`, as stderr may be closed.
            let _ = writeln!(std::io::stderr(), "dhow-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}
