//! `dhow status`: what every host says of the app, and what is wanted of it.

use dhow_proto::wire;

use super::{Globals, Outcome};
use crate::client::Client;
use crate::output::progress::print_line;
use crate::output::status::{json, text};
use crate::project::Project;

/// Options of status.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
///
/// The config, or what the controller says.
pub async fn run(globals: &Globals, _args: &Args) -> anyhow::Result<Outcome> {
    let app = Project::load_here(globals)?.app()?;
    let client = Client::connect().await?;
    let request = wire::StatusRequest { app: Some((&app).into()) };
    let status = client.control().status(request).await.map_err(Client::explain)?.into_inner();
    print_line(&if globals.json { json(&status).to_string() } else { text(&status) });
    Ok(Outcome::Done)
}
