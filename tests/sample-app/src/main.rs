//! The web app that tests deploy; `README.md` lists what it can be told to do.

mod body;
mod control;
mod job;
mod routes;
mod serve;
mod settings;
mod sha1;
mod tools;
mod websocket;

use std::process::ExitCode;
use std::time::Duration;

use settings::{Mode, Settings};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let called = args[0].rsplit('/').next().unwrap_or_default();
    // Called as `sleep`, or as `sample-app sleep 5`: a tool. Called as itself, alone or with a mode: the app.
    let words = if called == "sample-app" { &args[1..] } else { &args[..] };
    let mode = match words.first().map(String::as_str) {
        None => None,
        Some("web") => Some(Mode::Web),
        Some("job") => Some(Mode::Job),
        Some(_) => return tools::run_tool(words),
    };
    match Settings::from_env(mode).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample-app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    println!("sample-app {} starts as {:?}", settings.version, settings.mode);
    if settings.crash_after == Some(Duration::ZERO) {
        println!("sample-app {} crashes at start", settings.version);
        std::process::exit(settings.crash_status);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        job::start_misbehaviour(&settings);
        match settings.mode {
            Mode::Web => serve::serve(settings).await,
            Mode::Job => job::run(&settings).await,
        }
    })
}
