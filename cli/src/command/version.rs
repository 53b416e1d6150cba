//! `dhow version`: this program's, and the controller's where there is one.

use dhow_proto::wire;

use super::{Globals, Outcome};
use crate::client::Client;
use crate::output::progress::print_line;

/// Options of version.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Do not ask the controller
    #[arg(long)]
    pub client: bool,
}

/// Runs the command. A controller that cannot be asked is said, and is no failure.
///
/// # Errors
///
/// None.
pub async fn run(globals: &Globals, args: &Args) -> anyhow::Result<Outcome> {
    let own = env!("CARGO_PKG_VERSION");
    let controller = if args.client { None } else { Some(ask().await) };
    if globals.json {
        let controller = controller.and_then(Result::ok);
        let version = controller.as_ref().map(|c| c.version.clone());
        let user = controller.map(|c| c.user);
        print_line(
            &serde_json::json!({"client": own, "controller": version, "user": user}).to_string(),
        );
        return Ok(Outcome::Done);
    }
    print_line(&format!("dhow {own}"));
    match controller {
        None => {}
        Some(Ok(answer)) => {
            print_line(&format!("controller {} (as {})", answer.version, answer.user))
        }
        Some(Err(error)) => print_line(&format!("controller: {error:#}")),
    }
    Ok(Outcome::Done)
}

async fn ask() -> anyhow::Result<wire::VersionResponse> {
    let client = Client::connect().await?;
    Ok(client
        .control()
        .version(wire::VersionRequest {})
        .await
        .map_err(Client::explain)?
        .into_inner())
}
