//! Stages as text, for tests and for people who read logs.

use std::fmt;

use super::{AppPart, Change, Content, Gate, Stage, Work};

/// One line for the stage, one more per intent.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match &self.work {
            Work::FindContainers => {
                for host in &self.hosts {
                    write!(f, "\n  ask {host}")?;
                }
            }
            Work::Intents { changes, gate, watched, pins } => {
                let pins = if *pins { ", pins the digest" } else { "" };
                match gate {
                    Gate::All => write!(f, " (all of {}{pins})", watched.len())?,
                    Gate::Any => write!(f, " (any of {}{pins})", watched.len())?,
                    Gate::Count(n) => write!(f, " ({n} of {}{pins})", watched.len())?,
                }
                for change in changes {
                    write!(f, "\n  {change}")?;
                }
            }
            Work::Hook(hook) => {
                let hosts: Vec<&str> = hook.hosts.iter().map(|h| h.as_str()).collect();
                write!(f, " (KAMAL_HOSTS={} KAMAL_LOCK={}", hosts.join(","), hook.locked)?;
                f.write_str(if hook.runtime { " KAMAL_RUNTIME)" } else { ")" })?;
            }
            Work::Pause(wait) => write!(f, " ({}s)", wait.as_secs())?,
            Work::Commit { keep_lock } => {
                f.write_str(if *keep_lock { " (app stays locked)" } else { " (app is free)" })?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.host, self.unit, self.content)?;
        if !self.after.is_empty() {
            let after: Vec<String> = self.after.iter().map(ToString::to_string).collect();
            write!(f, " after {}", after.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy { container: true } => f.write_str("network, container"),
            Self::Proxy { container: false } => f.write_str("network"),
            Self::App(part) => part.fmt(f),
            Self::Role(_) => f.write_str("boot"),
        }
    }
}

impl fmt::Display for AppPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.staged, "staged"),
            (self.locked, "locked"),
            (self.stale, "stale"),
            (self.prepared, "prepared"),
            (self.tagged, if self.when_serving { "tagged when serving" } else { "tagged" }),
            (self.pruned, "pruned"),
        ];
        let set: Vec<&str> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        f.write_str(&set.join("+"))
    }
}
