//! The logs of all programs of a fleet, merged by time.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::Regex;

use super::Fleet;

/// How many lines of one container are shown; a log flood would bury the rest.
const CONTAINER_LINES: &str = "200";

/// The logs of fleets that were dropped without [`Fleet::down`]: a failed test's, mostly. Bounded.
static DROPPED: Mutex<VecDeque<(PathBuf, String)>> = Mutex::new(VecDeque::new());

/// Fleets whose logs are kept; a test has one or two.
const DROPPED_FLEETS: usize = 4;

pub(super) fn remember(dir: &Path, logs: String) {
    let mut dropped = DROPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if dropped.len() == DROPPED_FLEETS {
        dropped.pop_front();
    }
    dropped.push_back((dir.to_path_buf(), logs));
}

/// Gives, and forgets, what all programs of fleets logged that were dropped without
/// [`Fleet::down`]: each fleet's directory, and its lines merged by time.
#[must_use]
pub fn take_logs_of_dropped_fleets() -> Vec<(PathBuf, String)> {
    DROPPED.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
}

/// A point in all logs: what is written later is of interest.
#[derive(Clone, Debug, Default)]
pub struct LogMark {
    sizes: BTreeMap<PathBuf, u64>,
    at: Option<Timestamp>,
}

impl Fleet {
    /// Remembers how far the logs have come.
    ///
    /// # Errors
    ///
    /// When the log directory cannot be read.
    pub fn log_mark(&self) -> Result<LogMark> {
        let mut sizes = BTreeMap::new();
        for path in self.log_files()? {
            sizes.insert(path.clone(), fs::metadata(&path).map_or(0, |data| data.len()));
        }
        Ok(LogMark { sizes, at: Some(Timestamp::now()) })
    }

    /// What all programs and containers have written since `mark`, merged by time: a line each, with
    /// the name of its source in front. Times are those the programs wrote.
    ///
    /// # Errors
    ///
    /// When a log cannot be read; containers of an Engine that is off are left out.
    pub fn logs_since(&self, mark: &LogMark) -> Result<String> {
        let mut lines = Vec::new();
        for path in self.log_files()? {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let from = mark.sizes.get(&path).copied().unwrap_or(0);
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            lines.extend(stamp(&name, &String::from_utf8_lossy(&bytes[from..]), mark.at));
        }
        for host in self.hosts() {
            let Ok(ids) = host.docker(&["ps", "-aq"]) else { continue };
            for id in ids.stdout.lines() {
                lines.extend(container_lines(host, id, mark));
            }
        }
        lines.sort_by_key(|(at, _)| *at);
        Ok(lines.into_iter().map(|(_, line)| line + "\n").collect())
    }

    fn log_files(&self) -> Result<Vec<PathBuf>> {
        let dir = self.dir().join("logs");
        let entries = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
        let mut files: Vec<PathBuf> =
            entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        files.sort();
        Ok(files)
    }
}

fn container_lines(host: &super::Host, id: &str, mark: &LogMark) -> Vec<Line> {
    let name = host.docker(&["inspect", "--format", "{{.Name}}", id]);
    let name = name.map_or_else(|_| id.to_owned(), |output| output.stdout.trim().to_owned());
    let since = mark.at.map(|at| at.to_string()).unwrap_or_else(|| "0".to_owned());
    let args = ["logs", "--timestamps", "--tail", CONTAINER_LINES, "--since", &since, id];
    let Ok(output) = host.docker(&args) else { return Vec::new() };
    stamp(&format!("{}{name}", host.name()), &output.text(), mark.at)
}

type Line = (Option<Timestamp>, String);

/// Gives each line its time: the first one written in it, else that of the line before.
fn stamp(source: &str, text: &str, start: Option<Timestamp>) -> Vec<Line> {
    let mut last = start;
    text.lines()
        .map(|line| {
            last = time_in(line).or(last);
            (last, format!("{source:<14} | {line}"))
        })
        .collect()
}

/// The first RFC 3339 time in `line`, also one without its zone, which is then UTC.
fn time_in(line: &str) -> Option<Timestamp> {
    static TIME: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let pattern = r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d:\d\d)?";
        Regex::new(pattern).ok()
    });
    let found = TIME.as_ref()?.captures(line)?;
    let zoned = found.get(0)?.as_str().replacen(' ', "T", 1);
    if let Ok(time) = zoned.parse::<Timestamp>() {
        return Some(time);
    }
    let civil: DateTime = found.get(1)?.as_str().parse().ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ordered_by_the_time_in_them_and_followers_stay_with_theirs() {
        let start = "2026-01-01T00:00:00Z".parse().ok();
        let mut lines = stamp("a", "2026-01-01T00:00:03Z late\n  at the end", start);
        lines.extend(stamp(
            "b",
            "time=\"2026-01-01T01:00:01.5+01:00\" early\nx 2026-01-01 00:00:02 z",
            start,
        ));
        lines.sort_by_key(|(at, _)| *at);
        let order: Vec<&str> =
            lines.iter().filter_map(|(_, line)| line.split_whitespace().last()).collect();
        assert_eq!(order, ["early", "z", "late", "end"]);
    }
}
