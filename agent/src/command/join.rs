//! `dhow-agent join`: a one-time token becomes this host's identity.

use std::path::PathBuf;

use dhow_proto::dial::Address;
use dhow_proto::model::HostName;
use dhow_proto::token;

use super::Common;
use crate::session::{Join, Token, join};
use crate::settings::Layer;

/// Options of join. The token itself is never an argument: arguments are visible to every process.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Address of a controller; may be repeated
    #[arg(long, value_name = "HOST:PORT", required = true)]
    controller: Vec<String>,
    /// File with the join token, `-` for standard input; else the variable DHOW_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The name the token was made for: as deploy.yml spells the host
    #[arg(long, value_name = "HOST")]
    name: String,
    /// Another spelling configs may use; may be repeated
    #[arg(long, value_name = "HOST")]
    alias: Vec<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.common.settings(Layer::default())?;
    let controllers =
        args.controller.iter().map(|c| c.parse::<Address>()).collect::<Result<Vec<_>, _>>()?;
    let aliases =
        args.alias.iter().map(|a| HostName::try_from(a.as_str())).collect::<Result<Vec<_>, _>>()?;
    let host = HostName::try_from(args.name.as_str())?;
    let token = token::read(args.token_file.as_deref(), std::env::var(token::VARIABLE).ok())?;
    let request = Join { controllers, token: Token::new(&token), host: host.clone(), aliases };
    join(&request, &settings.state_dir).await?;
    println!(
        "host {host} joined; start it with: dhow-agent run --state-dir {}",
        settings.state_dir.display()
    );
    Ok(())
}
