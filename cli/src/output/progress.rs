//! Live progress of a rollout: one line a host on a terminal, plain lines elsewhere, or one JSON object a line.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::time::Duration;

use dhow_proto::wire;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use wire::rollout_event::Kind;

use super::event;
use super::style::Style;

/// Host and unit of what failed.
type Failed = HashSet<(String, String)>;

/// Where progress goes.
pub enum Progress {
    /// A terminal: host lines are redrawn, everything else scrolls above them.
    Live {
        /// All lines.
        lines: MultiProgress,
        /// A line per host.
        hosts: HashMap<String, ProgressBar>,
        /// Units that failed: what they do from then on is going back.
        failed: Failed,
        /// Colours.
        style: Style,
    },
    /// A pipe or file.
    Plain {
        /// The last line printed per host and unit: a step is told once.
        last: HashMap<String, String>,
        /// Units that failed: what they do from then on is going back.
        failed: Failed,
    },
    /// `--json`.
    Json,
    /// `-q`: failures only.
    Quiet,
}

impl Progress {
    /// The way of this command line.
    pub fn new(json: bool, quiet: bool, style: Style) -> Self {
        match (json, quiet, style.live) {
            (true, _, _) => Self::Json,
            (false, true, _) => Self::Quiet,
            (false, false, true) => {
                // Standard output, as that is what was found to be a terminal.
                let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
                Self::Live { lines, hosts: HashMap::new(), failed: Failed::new(), style }
            }
            (false, false, false) => Self::Plain { last: HashMap::new(), failed: Failed::new() },
        }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &wire::RolloutEvent) {
        match self {
            Self::Json => print_line(&event::json(event).to_string()),
            Self::Quiet => {
                if let Some(Kind::HostFailed(failed)) = &event.kind {
                    print_line(&event::failure(failed));
                }
            }
            Self::Plain { last, failed } => {
                if is_back(failed, event) {
                    return;
                }
                let Some(line) = event::plain(event) else { return };
                if let Some(Kind::HostProgress(p)) = &event.kind {
                    let key = format!("{} {}", p.host, event::unit_text(p.unit.as_ref()));
                    if last.insert(key, line.clone()).as_ref() == Some(&line) {
                        return;
                    }
                }
                print_line(&line);
            }
            Self::Live { lines, hosts, failed, style } => {
                if !is_back(failed, event) {
                    live(lines, hosts, *style, event);
                }
            }
        }
    }

    /// A line that is not an event: a hook's output, a warning. Nothing with `--json`.
    pub fn line(&self, text: &str) {
        match self {
            Self::Live { lines, .. } => {
                let _ = lines.println(text);
            }
            Self::Plain { .. } => print_line(text),
            Self::Json | Self::Quiet => {}
        }
    }

    /// Leaves the last state of every line on the terminal.
    pub fn finish(&mut self) {
        if let Self::Live { hosts, .. } = self {
            for (_, bar) in hosts.drain() {
                bar.abandon();
            }
        }
    }
}

/// True where a unit that failed is back at what settled before: to say `done` of it would read as if it had not failed.
fn is_back(failed: &mut Failed, event: &wire::RolloutEvent) -> bool {
    let of = |host: &String, unit| (host.clone(), event::unit_text(unit));
    match &event.kind {
        Some(Kind::HostFailed(of_host)) => {
            failed.insert(of(&of_host.host, of_host.unit.as_ref()));
            false
        }
        Some(Kind::HostProgress(progress)) => {
            progress.phase() == wire::Phase::Settled
                && failed.contains(&of(&progress.host, progress.unit.as_ref()))
        }
        _ => false,
    }
}

fn live(
    lines: &MultiProgress,
    hosts: &mut HashMap<String, ProgressBar>,
    style: Style,
    event: &wire::RolloutEvent,
) {
    match &event.kind {
        Some(Kind::HostProgress(progress)) => {
            let Some(text) = event::phase_text(progress) else { return };
            let unit = event::unit_text(progress.unit.as_ref());
            let bar = hosts.entry(progress.host.clone()).or_insert_with(|| {
                let template =
                    ProgressStyle::with_template("  {spinner} {prefix}  {wide_msg} {elapsed}");
                let bar = lines.add(ProgressBar::new_spinner());
                bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_prefix(progress.host.clone());
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            });
            bar.set_message(format!("{unit}: {text}"));
        }
        Some(Kind::StageStarted(stage)) => {
            for host in &stage.hosts {
                if let Some(bar) = hosts.get(host) {
                    bar.reset_elapsed();
                }
            }
            let _ = lines.println(style.dim(&event::plain(event).unwrap_or_default()));
        }
        Some(Kind::HostFailed(failed)) => {
            if let Some(bar) = hosts.remove(&failed.host) {
                bar.abandon_with_message(style.red("failed"));
            }
            let _ = lines.println(style.red(&event::failure(failed)));
        }
        _ => {
            if let Some(line) = event::plain(event) {
                let _ = lines.println(line);
            }
        }
    }
}

/// Prints to standard output; a reader that left is no error worth a panic.
pub fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(unit: Option<wire::UnitRef>, phase: wire::Phase) -> wire::RolloutEvent {
        let mut progress = wire::HostProgress { host: "h1".to_owned(), unit, ..Default::default() };
        progress.set_phase(phase);
        wire::RolloutEvent { kind: Some(Kind::HostProgress(progress)), ..Default::default() }
    }

    #[test]
    fn a_unit_that_failed_is_not_called_done_when_it_is_back() {
        let proxy = || Some((&dhow_proto::model::Unit::Proxy).into());
        let mut failed = Failed::new();
        assert!(!is_back(&mut failed, &progress(proxy(), wire::Phase::Settled)));
        let failure =
            wire::HostFailed { host: "h1".to_owned(), unit: proxy(), ..Default::default() };
        let failure =
            wire::RolloutEvent { kind: Some(Kind::HostFailed(failure)), ..Default::default() };
        assert!(!is_back(&mut failed, &failure), "the failure is told");
        assert!(!is_back(&mut failed, &progress(proxy(), wire::Phase::Converging)));
        assert!(is_back(&mut failed, &progress(proxy(), wire::Phase::Settled)));
        assert!(!is_back(&mut failed, &progress(None, wire::Phase::Settled)), "another unit");
    }
}
