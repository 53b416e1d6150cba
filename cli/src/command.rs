//! The command line: one file a command, thin: read, ask, print.

pub mod app;
pub mod config;
pub mod deploy;
pub mod docs;
pub mod host;
pub mod init;
pub mod line;
pub mod login;
pub mod proxy;
pub mod rollout;
pub mod secrets;
pub mod status;
pub mod version;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{ArgAction, Parser, Subcommand};

use crate::config::LoadOptions;
use crate::output::style::Style;
use crate::project::Project;
use crate::secrets::runner::ProcessRunner;
use crate::selection::Filter;

/// How a command ended. Failures print themselves; usage errors are clap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit status 0.
    Done,
    /// Exit status 1.
    Failed,
}

/// Options every command takes; spelled as Kamal's.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// More output
    #[arg(short = 'v', long, global = true)]
    pub verbose: bool,
    /// Failures only
    #[arg(short = 'q', long, global = true)]
    pub quiet: bool,
    /// App version: overrides VERSION and git
    #[arg(long = "version", value_name = "VERSION", global = true)]
    pub version: Option<String>,
    /// Only the primary host
    #[arg(short = 'p', long, global = true)]
    pub primary: bool,
    /// Only these hosts; comma list with wildcards
    #[arg(short = 'h', long, value_name = "HOSTS", global = true)]
    pub hosts: Option<String>,
    /// Only these roles; comma list with wildcards
    #[arg(short = 'r', long, value_name = "ROLES", global = true)]
    pub roles: Option<String>,
    /// Config file
    #[arg(short = 'c', long, value_name = "PATH", global = true)]
    pub config_file: Option<PathBuf>,
    /// Destination: also reads <config>.DESTINATION.yml
    #[arg(short = 'd', long, value_name = "DESTINATION", global = true)]
    pub destination: Option<String>,
    /// Run no hooks
    #[arg(short = 'H', long, global = true)]
    pub skip_hooks: bool,
    /// JSON: one object, or one event a line
    #[arg(long, global = true)]
    pub json: bool,
}

impl Globals {
    /// What to load.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            config_file: self.config_file.clone(),
            destination: self.destination.clone(),
            version: self.version.clone(),
        }
    }

    /// Which hosts and roles.
    pub fn filter(&self) -> Filter {
        Filter { hosts: self.hosts.clone(), roles: self.roles.clone(), primary: self.primary }
    }

    /// Colours and live lines of this process.
    pub fn style(&self) -> Style {
        Style::detect(|name| std::env::var(name).ok())
    }
}

/// Deploys web apps to your own Docker hosts; reads Kamal's configuration.
#[derive(Debug, Parser)]
#[command(
    name = "dhow",
    disable_help_flag = true,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    // What is appended to an alias overrides what it says.
    args_override_self = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// Print help
    #[arg(long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set hosts up and deploy the app
    Setup(deploy::Args),
    /// Deploy the app
    Deploy(deploy::Args),
    /// Deploy without booting the proxy or pruning
    Redeploy(deploy::Args),
    /// Boot an earlier version again
    Rollback(deploy::RollbackArgs),
    /// Ask about the app
    #[command(subcommand)]
    App(app::App),
    /// The proxy of the hosts
    #[command(subcommand)]
    Proxy(proxy::Proxy),
    /// What every host says of the app
    Status(status::Args),
    /// Rollouts of the app
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Print the config as it is understood, check it, or print its schema
    Config(config::Args),
    /// Log in to a controller
    Login(login::Args),
    /// Hosts of the controller
    #[command(subcommand)]
    Host(host::Host),
    /// Make the first files of a project
    Init(init::Args),
    /// Explain deploy.yml with examples
    Docs(docs::Args),
    /// Secrets of vaults and secrets files
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// Print versions
    Version(version::Args),
}

/// Runs a command line that was parsed.
///
/// # Errors
///
/// What went wrong, for the last line of the output.
pub async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let globals = &cli.globals;
    match cli.command {
        Command::Setup(args) => deploy::run(globals, deploy::Kind::Setup, &args).await,
        Command::Deploy(args) => deploy::run(globals, deploy::Kind::Deploy, &args).await,
        Command::Redeploy(args) => deploy::run(globals, deploy::Kind::Redeploy, &args).await,
        Command::Rollback(args) => deploy::rollback(globals, &args).await,
        Command::App(app) => app::run(globals, app).await,
        Command::Proxy(command) => proxy::run(globals, &command),
        Command::Status(args) => status::run(globals, &args).await,
        Command::Rollout(rollout) => rollout::run(globals, rollout).await,
        Command::Config(args) => config::run(globals, &args),
        Command::Login(args) => login::run(globals, &args).await,
        Command::Host(host) => host::run(globals, host).await,
        Command::Init(args) => {
            let directory = std::env::current_dir().context("the working directory is gone")?;
            init::run(&args, &directory, &mut std::io::stdout().lock())?;
            Ok(Outcome::Done)
        }
        Command::Docs(args) => {
            docs::run(&args, &mut std::io::stdout().lock())?;
            Ok(Outcome::Done)
        }
        Command::Secrets(command) => run_secrets(globals, &command),
        Command::Version(args) => version::run(globals, &args).await,
    }
}

fn run_secrets(globals: &Globals, command: &secrets::SecretsCommand) -> anyhow::Result<Outcome> {
    let out = &mut std::io::stdout().lock();
    match command {
        secrets::SecretsCommand::Fetch(args) => {
            let env = crate::secrets::environment();
            secrets::fetch(args, &ProcessRunner::default(), &env, out)?;
        }
        secrets::SecretsCommand::Extract(args) => secrets::extract(args, out)?,
        secrets::SecretsCommand::Print => {
            secrets::print(Project::load_here(globals)?.secrets(), out)?
        }
    }
    Ok(Outcome::Done)
}
