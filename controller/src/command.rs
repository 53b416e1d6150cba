//! What the program can be told: one file a command.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::settings::{Layer, LogFormat, Settings, SettingsError};

pub mod init;
pub mod run;
pub mod token;

/// The controller of dhow: holds the desired state of a fleet and drives its rollouts.
#[derive(Debug, Parser)]
#[command(name = "dhow-controller", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new controller in an empty folder and print a one-time login token for its admin
    Init(init::Init),
    /// Serve agents and people until told to stop
    Run(run::Run),
    /// Print a new one-time admin login token, while the controller is stopped
    Token(token::Token),
}

/// Flags that every command has.
#[derive(Debug, Args)]
pub struct Common {
    /// Folder of the store and the controller's other files [env: DHOW_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Settings file; by default controller.toml in the state folder, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with the passphrase of the CA's key [env: DHOW_CA_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
    /// What to log, as `info` or `dhow_controller=debug,info` [env: DHOW_LOG]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look [env: DHOW_LOG_FORMAT]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Common {
    /// Reads all sources, the flags being these, and `listen` and `names` where a command has them.
    fn settings(
        &self,
        listen: Option<SocketAddr>,
        names: Option<Vec<String>>,
    ) -> Result<Settings, SettingsError> {
        let flags = Layer {
            state_dir: self.state_dir.clone(),
            ca_passphrase_file: self.ca_passphrase_file.clone(),
            log: self.log.clone(),
            log_format: self.log_format,
            listen,
            names,
            ..Layer::default()
        };
        Settings::load(flags, self.config.as_deref())
    }
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    ///
    /// The chain of what went wrong, to be printed.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Init(init) => init.run().await,
            Command::Run(run) => run.run().await,
            Command::Token(token) => token.run().await,
        }
    }
}
