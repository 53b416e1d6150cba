//! Fleets by hand: `up N`, `enter FLEET HOST [COMMAND …]`, `clean`.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use dhow_tests::fleet::{self, Fleet, FleetOptions};

const USAGE: &str = "usage: dhow-fleet up HOSTS      bring up a fleet and leave it running
       dhow-fleet hold HOSTS    bring up a fleet and take it down when stdin ends
       dhow-fleet enter FLEET HOST [COMMAND ...]
       dhow-fleet clean         remove all fleets that no test is using";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhow-fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str]) -> Result<()> {
    match words {
        ["up", hosts] => {
            let options = FleetOptions { sshd: true, ..FleetOptions::hosts(number(hosts)?) };
            let mut fleet = Fleet::start_with(options)?;
            println!("{}", fleet.addresses().join(" "));
            fleet.keep()
        }
        ["hold", hosts] => {
            let fleet = Fleet::start(number(hosts)?)?;
            println!("up {}", fleet.addresses().join(" "));
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("read stdin")?;
            fleet.down()
        }
        ["enter", slot, host, rest @ ..] => {
            let slot = slot.parse().with_context(|| format!("{slot} is no fleet's number"))?;
            let rest = if rest.is_empty() { &["bash"] } else { rest };
            let mut enter = fleet::enter_running(slot, number(host)?)?;
            Err(enter.env("HOME", "/root").args(rest).exec()).context("run nsenter")
        }
        ["clean"] => {
            println!("removed {} fleets", fleet::clean()?.len());
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn number(word: &str) -> Result<usize> {
    word.parse().with_context(|| format!("{word} is no number"))
}
