//! A stand-in for kamal-proxy v0.9.2: server and client in one program, for tests only.
//!
//! It does what a deployer can observe of the real one: commands, error texts, exit codes, health
//! checks, drains, routing, persistence. The conformance suite in `tests/` runs against either.
//! Left out: ACME, HTTP/2 and HTTP/3, metrics, spilling buffers to disk, sending reads to read targets.

mod access;
mod body;
mod cli;
mod duration;
mod flags;
mod forward;
mod front;
mod headers;
mod health;
mod list;
mod log;
mod options;
mod pages;
mod path;
mod router;
mod rpc;
mod server;
mod service;
mod state;
mod target;
mod targets;
mod tls;

use std::io::Write as _;
use std::process::ExitCode;

use cli::Command;

const HELP: &str = "HTTP proxy for zero downtime deployments (stand-in for tests)

Usage:
  kamal-proxy [command]

Available Commands:
  deploy      Deploy a target host
  list        List the services currently running
  pause       Pause a service
  remove      Remove the service
  resume      Resume a service
  rollout     Manage rollout deployments
  run         Run the server
  stop        Stop a service
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = cli::read(&words).and_then(|command| match command {
        Command::Help => Ok(HELP.to_owned()),
        Command::Run { ports, debug } => run(ports, debug),
        Command::Call(request) => {
            server::data_dir();
            rpc::call(&request)
        }
    });
    match done {
        Ok(output) => {
            // Nobody is left to tell when stdout is closed.
            let _ = std::io::stdout().write_all(output.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("Error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(ports: server::Ports, debug: bool) -> Result<String, String> {
    if debug {
        log::enable_debug();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let ended = runtime.block_on(server::run(ports));
    // What still runs after the stop timeout is cut off.
    runtime.shutdown_background();
    ended.map(|()| String::new())
}
