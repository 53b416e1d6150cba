//! The command line of `dhow-agent`.

mod join;
mod run;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::settings::{Layer, Settings, SettingsError};

/// The agent of one Docker host.
#[derive(Debug, Parser)]
#[command(name = "dhow-agent", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this host with a one-time token
    Join(join::Args),
    /// Converge this host on what the controller wants, until told to stop
    Run(run::Args),
}

/// Where the agent keeps what it knows.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Folder of identity, ledger and blobs [env: DHOW_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Common {
    fn settings(&self, flags: Layer) -> Result<Settings, SettingsError> {
        let flags = Layer { state_dir: self.state_dir.clone(), ..flags };
        Settings::load(flags, |name| std::env::var(name).ok())
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// What went wrong, for the last line of the output.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Join(args) => join::run(args).await,
            Command::Run(args) => run::run(args).await,
        }
    }
}
