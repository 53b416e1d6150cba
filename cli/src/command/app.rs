//! `dhow app`: questions put to the hosts of an app.

use std::time::Duration;

use clap::Subcommand;
use dhow_proto::wire;
use serde_json::{Value, json};
use wire::query_request::Kind;
use wire::reply::Kind as Answer;

use super::{Globals, Outcome};
use crate::client::Client;
use crate::output::event::{printable, rfc3339};
use crate::output::progress::print_line;
use crate::output::table;
use crate::project::Project;
use crate::selection::select;

/// How long hosts may take to answer.
const DEADLINE: Duration = Duration::from_secs(15);

/// Subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum App {
    /// The running version on every host
    Version,
    /// Running containers of every role
    Details,
    /// All containers of the app, stopped ones too
    Containers,
    /// Images of the app
    Images,
    /// Logs of the current containers
    Logs(LogsArgs),
}

/// Options of `app logs`.
#[derive(Clone, Debug, clap::Args)]
pub struct LogsArgs {
    /// Newest lines per container
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u32>,
    /// Since a time (RFC 3339) or so long ago (`42m`, `3h`)
    #[arg(short = 's', long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only lines that contain this
    #[arg(short = 'g', long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Without time stamps
    #[arg(short = 'T', long)]
    pub skip_timestamps: bool,
    /// Logs of this container instead of the current one
    #[arg(long, value_name = "ID")]
    pub container_id: Option<String>,
}

/// Lines without `--lines`, as Kamal's.
const LINES: u32 = 100;

/// Runs the command. A host that did not answer is told and makes it fail; the others' answers are printed.
///
/// # Errors
///
/// The config, or what the controller says.
pub async fn run(globals: &Globals, app: App) -> anyhow::Result<Outcome> {
    let project = Project::load_here(globals)?;
    let selection = select(&project.loaded.config, &globals.filter())?;
    let app_ref: wire::AppRef = (&project.app()?).into();
    let roles = selection.roles.clone();
    let kind = match &app {
        App::Version => Kind::Version(wire::AskVersion { app: Some(app_ref.clone()), roles }),
        App::Details => Kind::Containers(wire::ListContainers {
            app: Some(app_ref.clone()),
            running_only: true,
            roles,
        }),
        App::Containers => Kind::Containers(wire::ListContainers {
            app: Some(app_ref.clone()),
            running_only: false,
            roles: Vec::new(),
        }),
        App::Images => {
            Kind::Images(wire::ListImages { repository: project.loaded.config.repository() })
        }
        App::Logs(args) => Kind::Logs(wire::ReadLogs {
            app: Some(app_ref.clone()),
            roles,
            tail: args.lines.unwrap_or(if args.since.is_some() || args.grep.is_some() {
                0
            } else {
                LINES
            }),
            since: args.since.as_deref().map(since).transpose()?,
            timestamps: !args.skip_timestamps,
            container: args.container_id.clone().unwrap_or_default(),
            max_bytes: 0,
        }),
    };
    let grep = match &app {
        App::Logs(args) => args.grep.clone(),
        App::Version | App::Details | App::Containers | App::Images => None,
    };
    let client = Client::connect().await?;
    let request = wire::QueryRequest {
        app: Some(app_ref),
        hosts: selection.hosts,
        deadline: prost_types::Duration::try_from(DEADLINE).ok(),
        kind: Some(kind),
    };
    let mut stream = client.control().query(request).await.map_err(Client::explain)?.into_inner();
    let mut failed = false;
    while let Some(response) = stream.message().await.map_err(Client::explain)? {
        failed |= !show(globals, &response, grep.as_deref());
    }
    Ok(if failed { Outcome::Failed } else { Outcome::Done })
}

/// A point in time: RFC 3339, or a span back from now as `docker logs --since` takes it.
fn since(text: &str) -> anyhow::Result<prost_types::Timestamp> {
    let at = match text.parse::<jiff::Timestamp>() {
        Ok(at) => at,
        Err(_) => {
            let span: jiff::SignedDuration = text.parse().map_err(|_| {
                anyhow::anyhow!(
                    "--since {text}: write a time (2026-01-31T08:00:00Z) or a span (42m, 3h)"
                )
            })?;
            jiff::Timestamp::now() - span
        }
    };
    Ok(prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

/// Prints one host's answer; false where it is none.
fn show(globals: &Globals, response: &wire::QueryResponse, grep: Option<&str>) -> bool {
    let answer = response.reply.as_ref().and_then(|r| r.kind.as_ref());
    let error = match answer {
        Some(Answer::Error(error)) => Some(error.reason.clone()),
        None => Some(response.error.clone()),
        Some(_) => None,
    };
    if globals.json {
        let answer = answer.map_or(Value::Null, json_answer);
        print_line(
            &json!({"host": response.config_host, "error": error, "answer": answer}).to_string(),
        );
    } else if let Some(error) = &error {
        print_line(&format!("App Host: {}\n{error}\n", response.config_host));
    } else if let Some(answer) = answer {
        let text = text_answer(answer, grep);
        let heading = if globals.quiet {
            String::new()
        } else {
            format!("App Host: {}\n", response.config_host)
        };
        print_line(&format!("{heading}{text}\n"));
    }
    error.is_none()
}

fn text_answer(answer: &Answer, grep: Option<&str>) -> String {
    match answer {
        Answer::Versions(list) => {
            let version = |v: &wire::RoleVersion| {
                if v.version.is_empty() { "none".to_owned() } else { v.version.clone() }
            };
            match list.versions.as_slice() {
                [one] => version(one),
                many => many
                    .iter()
                    .map(|v| format!("{}: {}", v.role, version(v)))
                    .collect::<Vec<_>>()
                    .join("\n"),
            }
        }
        Answer::Containers(list) => table::render(
            ["CONTAINER ID", "IMAGE", "STATUS", "PORTS", "NAMES"],
            list.containers.iter().map(|c| {
                [c.id.clone(), c.image.clone(), c.status.clone(), c.ports.clone(), c.name.clone()]
            }),
        ),
        Answer::Images(list) => table::render(
            ["REPOSITORY", "TAG", "IMAGE ID", "SIZE"],
            list.images.iter().map(|i| {
                let id = i.id.trim_start_matches("sha256:").chars().take(12).collect();
                [i.repository.clone(), i.tag.clone(), id, format!("{:.1} MB", i.size as f64 / 1e6)]
            }),
        ),
        Answer::Logs(logs) => {
            let lines: Vec<String> = logs
                .lines
                .iter()
                .filter(|l| grep.is_none_or(|g| l.contains(g)))
                .map(|l| printable(l))
                .collect();
            if lines.is_empty() { "Nothing found".to_owned() } else { lines.join("\n") }
        }
        Answer::Error(error) => error.reason.clone(),
        Answer::Exec(result) => format!("exit code {}", result.exit_code),
        Answer::Pong(_) => "is there".to_owned(),
    }
}

fn json_answer(answer: &Answer) -> Value {
    match answer {
        Answer::Versions(list) => {
            list.versions.iter().map(|v| json!({"role": v.role, "version": v.version})).collect()
        }
        Answer::Containers(list) => list
            .containers
            .iter()
            .map(|c| {
                json!({
                    "id": c.id, "name": c.name, "image": c.image, "role": c.role, "version": c.version,
                    "state": c.state, "status": c.status, "routed": c.routed,
                    "created_at": rfc3339(c.created_at.as_ref()),
                })
            })
            .collect(),
        Answer::Images(list) => list
            .images
            .iter()
            .map(|i| json!({"id": i.id, "repository": i.repository, "tag": i.tag, "digest": i.digest, "size": i.size}))
            .collect(),
        Answer::Logs(logs) => {
            json!({"container": logs.container, "role": logs.role, "lines": logs.lines, "truncated": logs.truncated})
        }
        Answer::Error(error) => json!({"error": error.reason}),
        Answer::Exec(result) => json!({"exit_code": result.exit_code}),
        Answer::Pong(_) => json!({}),
    }
}
