//! `dhow rollout list`, `show` and `attach`.

use anyhow::bail;
use clap::Subcommand;
use dhow_proto::model::App;
use dhow_proto::wire;
use serde_json::json;

use super::{Globals, Outcome, deploy};
use crate::client::Client;
use crate::follow::{Follow, HookOutcome};
use crate::hooks;
use crate::output::event::{failed_json, failure, hook_word, rfc3339, state_word, when};
use crate::output::progress::{Progress, print_line};
use crate::output::table;
use crate::project::Project;

/// Subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Rollout {
    /// Rollouts of the app, newest first
    #[command(alias = "ls")]
    List {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
    /// One rollout with its stages
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Follows a rollout whose client went away, and runs its hooks
    Attach {
        /// Its id, or the beginning of it
        id: String,
        /// What became of the hook that the client left behind
        #[arg(long, value_name = "OUTCOME")]
        hook: Option<HookOutcome>,
    },
}

/// Runs the command.
///
/// # Errors
///
/// The config, or what the controller says.
pub async fn run(globals: &Globals, rollout: Rollout) -> anyhow::Result<Outcome> {
    match rollout {
        Rollout::List { limit } => list(globals, limit).await?,
        Rollout::Show { id } => show(globals, id).await?,
        Rollout::Attach { id, hook } => return attach(globals, id, hook).await,
    }
    Ok(Outcome::Done)
}

async fn attach(
    globals: &Globals,
    id: String,
    hook: Option<HookOutcome>,
) -> anyhow::Result<Outcome> {
    let project = Project::load_here(globals)?;
    let mut client = Client::connect().await?;
    let request = wire::GetRolloutRequest { id };
    let answer = client.control().get_rollout(request).await.map_err(Client::explain)?.into_inner();
    let rollout = answer.rollout.unwrap_or_default();
    // Another app's hooks have no business here, even where they are the same files.
    let app = project.app()?;
    if rollout.app != Some((&app).into()) {
        bail!("rollout {} is not one of {app}: run this in its project", rollout.id);
    }
    let hooks = hooks::find(&project.hooks(), &hooks::ROLLOUT_HOOKS);
    let mut progress = Progress::new(globals.json, globals.quiet, globals.style());
    let follow = Follow { client: &mut client, project: &project, verbose: globals.verbose };
    let followed = follow.attach(&rollout, hooks, &answer.hooks, hook, &mut progress).await;
    progress.finish();
    let (what, version) = (operation(rollout.operation()), &rollout.version);
    Ok(deploy::tell(followed?, &what, &app, version, globals))
}

async fn list(globals: &Globals, limit: u32) -> anyhow::Result<()> {
    let app: App = Project::load_here(globals)?.app()?;
    let client = Client::connect().await?;
    let request = wire::ListRolloutsRequest { app: Some((&app).into()), limit };
    let rollouts = client
        .control()
        .list_rollouts(request)
        .await
        .map_err(Client::explain)?
        .into_inner()
        .rollouts;
    if globals.json {
        print_line(
            &serde_json::Value::from(rollouts.iter().map(summary).collect::<Vec<_>>()).to_string(),
        );
        return Ok(());
    }
    let rows = rollouts.iter().map(|r| {
        [
            r.id.clone(),
            operation(r.operation()),
            r.version.clone(),
            state_word(r.state()),
            r.started_by.clone(),
            when(r.started_at.as_ref()),
        ]
    });
    print_line(&table::render(["ID", "OPERATION", "VERSION", "STATE", "BY", "STARTED"], rows));
    Ok(())
}

async fn show(globals: &Globals, id: String) -> anyhow::Result<()> {
    let client = Client::connect().await?;
    let request = wire::GetRolloutRequest { id };
    let answer = client.control().get_rollout(request).await.map_err(Client::explain)?.into_inner();
    let rollout = answer.rollout.clone().unwrap_or_default();
    if globals.json {
        let stages: Vec<_> = answer
            .stages
            .iter()
            .map(|s| json!({"name": s.name, "state": stage_word(s.state()), "hosts": s.hosts, "started_at": rfc3339(s.started_at.as_ref()), "finished_at": rfc3339(s.finished_at.as_ref())}))
            .collect();
        let failures: Vec<_> = answer.failures.iter().map(failed_json).collect();
        let hooks: Vec<_> = answer.hooks.iter().map(|h| json!({"name": h.name, "state": hook_word(h.state()), "exit_code": h.exit_code})).collect();
        let whole = json!({"rollout": summary(&rollout), "stages": stages, "failures": failures, "hooks": hooks, "waiting_for": answer.waiting_for});
        print_line(&whole.to_string());
        return Ok(());
    }
    print_line(&format!(
        "{} {} of {}: {}{}",
        operation(rollout.operation()),
        rollout.id,
        rollout.version,
        state_word(rollout.state()),
        if rollout.reason.is_empty() { String::new() } else { format!(": {}", rollout.reason) }
    ));
    print_line(&format!(
        "by {}, {} to {}",
        rollout.started_by,
        when(rollout.started_at.as_ref()),
        match &rollout.finished_at {
            None => "now".to_owned(),
            at => when(at.as_ref()),
        }
    ));
    let rows =
        answer.stages.iter().map(|s| [s.name.clone(), stage_word(s.state()), s.hosts.join(" ")]);
    print_line(&table::render(["STAGE", "STATE", "HOSTS"], rows));
    for what in &answer.waiting_for {
        print_line(&format!("waits for {what}"));
    }
    for failed in &answer.failures {
        print_line(&failure(failed));
    }
    Ok(())
}

fn operation(operation: wire::Operation) -> String {
    operation.as_str_name().trim_start_matches("OPERATION_").to_lowercase()
}

fn stage_word(state: wire::StageState) -> String {
    state.as_str_name().trim_start_matches("STAGE_STATE_").to_lowercase()
}

fn summary(r: &wire::RolloutSummary) -> serde_json::Value {
    json!({
        "id": r.id, "operation": operation(r.operation()), "version": r.version, "state": state_word(r.state()),
        "reason": r.reason, "started_by": r.started_by, "started_at": rfc3339(r.started_at.as_ref()),
        "finished_at": rfc3339(r.finished_at.as_ref()), "stage": r.stage, "hosts": r.hosts,
    })
}
