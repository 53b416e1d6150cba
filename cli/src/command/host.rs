//! `dhow host`: tokens for hosts to join with, and the list of hosts.

use std::time::Duration;

use clap::Subcommand;
use dhow_proto::wire;

use super::{Globals, Outcome};
use crate::client::Client;
use crate::output::event::{rfc3339, when};
use crate::output::progress::print_line;
use crate::output::table;

/// Subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Host {
    /// Print a one-time token with which a host joins
    Token(TokenArgs),
    /// List the hosts
    #[command(alias = "ls")]
    List,
}

/// Options of `host token`.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArgs {
    /// The host as deploy.yml names it
    pub name: String,
    /// Allow a host that is enrolled already to enrol anew
    #[arg(long)]
    pub reenrol: bool,
    /// For how long the token is good: minutes, or a span as `90s` or `2h`
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = span)]
    pub valid_for: Duration,
}

/// Runs the command.
///
/// # Errors
///
/// What the controller says.
pub async fn run(globals: &Globals, host: Host) -> anyhow::Result<Outcome> {
    let client = Client::connect().await?;
    match host {
        Host::Token(args) => token(globals, &client, args).await?,
        Host::List => list(globals, &client).await?,
    }
    Ok(Outcome::Done)
}

async fn token(globals: &Globals, client: &Client, args: TokenArgs) -> anyhow::Result<()> {
    let valid_for = prost_types::Duration::try_from(args.valid_for).ok();
    let request =
        wire::CreateHostTokenRequest { host: args.name.clone(), valid_for, reenrol: args.reenrol };
    let response =
        client.control().create_host_token(request).await.map_err(Client::explain)?.into_inner();
    if globals.json {
        let expires_at = rfc3339(response.expires_at.as_ref());
        print_line(
            &serde_json::json!({"token": response.token, "expires_at": expires_at}).to_string(),
        );
    } else {
        // Standard output has the token alone, so that it can be piped to the host.
        if !globals.quiet {
            eprintln!(
                "On {}: dhow-agent join --controller {} --token-file - --name {} --state-dir /var/lib/dhow-agent",
                args.name,
                client.address(),
                args.name
            );
        }
        print_line(&response.token);
    }
    Ok(())
}

/// A number is minutes.
fn span(text: &str) -> Result<Duration, String> {
    if let Ok(minutes) = text.parse::<u32>() {
        return Ok(Duration::from_secs(60 * u64::from(minutes)));
    }
    let span = text.parse::<jiff::SignedDuration>().ok();
    span.and_then(|span| Duration::try_from(span).ok())
        .ok_or_else(|| "write minutes (30) or a span (90s, 2h)".to_owned())
}

async fn list(globals: &Globals, client: &Client) -> anyhow::Result<()> {
    let hosts = client
        .control()
        .list_hosts(wire::ListHostsRequest {})
        .await
        .map_err(Client::explain)?
        .into_inner()
        .hosts;
    if globals.json {
        let hosts: Vec<_> = hosts.iter().map(json).collect();
        print_line(&serde_json::Value::from(hosts).to_string());
        return Ok(());
    }
    let rows = hosts.iter().map(|h| {
        let engine = h.engine.clone().unwrap_or_default();
        let state = if h.revoked {
            "revoked".to_owned()
        } else if h.online {
            "online".to_owned()
        } else {
            "offline".to_owned()
        };
        [h.name.clone(), state, h.agent_version.clone(), engine.version, when(h.last_seen.as_ref())]
    });
    print_line(&table::render(["HOST", "STATE", "AGENT", "DOCKER", "LAST SEEN"], rows));
    Ok(())
}

fn json(host: &wire::HostSummary) -> serde_json::Value {
    let engine = host.engine.clone().unwrap_or_default();
    serde_json::json!({
        "name": host.name, "aliases": host.aliases, "online": host.online, "revoked": host.revoked,
        "last_seen": rfc3339(host.last_seen.as_ref()), "agent_version": host.agent_version,
        "engine": {"version": engine.version, "api_version": engine.api_version, "storage_driver": engine.storage_driver},
        "enrolled_at": rfc3339(host.enrolled_at.as_ref()),
        "certificate_expires_at": rfc3339(host.certificate_expires_at.as_ref()),
    })
}
