//! `make demo`: `up` brings it up and deploys, `down` removes it, `images` makes the images and prints their paths.

use std::process::ExitCode;

use anyhow::{Result, bail};
use dhow_tests::demo::{self, Settings};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str]) -> Result<()> {
    match words {
        ["up"] => demo::up(&Settings::from_env()?),
        ["down"] => demo::down(&Settings::from_env()?),
        ["images"] => demo::images(),
        _ => bail!("usage: dhow-demo up|down|images"),
    }
}
