//! Hosts that fall silent while the rollout is busy elsewhere: with a hook, a pause, or the hosts of another boot group.
//!
//! Nothing ends because of it: a host that a stage waits for is that gate's business. A person is told all the same, while
//! there is still something to decide.

use std::time::Duration;

use dhow_proto::model::HostName;
use tokio::time::Instant;

use super::Driver;
use crate::rollout::book::{Entry, note};
use crate::rollout::fence::DriveError;
use crate::rollout::gate::{HostFailure, Presence, SILENCE, Why};

/// How often hosts that were there are looked at: well within what is left of the 15 s in which a person is told.
const LOOK: Duration = Duration::from_secs(1);

/// Hosts that a line names.
const NAMED: usize = 10;

impl Driver {
    /// Tells of hosts in effect that fell silent, and of those among them that are heard of again. How long until that is to
    /// be asked again.
    pub(super) async fn tell_silence(&mut self) -> Result<Duration, DriveError> {
        if let Some(left) = self.look_at.map(|at| at.duration_since(Instant::now()))
            && !left.is_zero()
        {
            return Ok(left);
        }
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        let mut again = LOOK;
        let here = self.book.header.hosts.iter().filter(|host| !host.away);
        for name in here.map(|host| &host.name) {
            match self.presence(name) {
                Presence::Here { .. } => {
                    if self.silent.remove(name) {
                        back.push(name);
                    }
                }
                Presence::Away { since } if since >= SILENCE => {
                    if self.silent.insert(name.clone()) {
                        gone.push(name);
                    }
                }
                Presence::Away { since } => again = again.min(SILENCE.saturating_sub(since)),
            }
        }
        let seconds = SILENCE.as_secs();
        let gone = some(&gone).map(|hosts| format!("{hosts}: no word for {seconds} s"));
        let back = some(&back).map(|hosts| format!("{hosts}: heard of again"));
        let events: Vec<_> = gone.into_iter().chain(back).map(note).collect();
        if !events.is_empty() {
            let header = self.book.header.clone();
            self.book.write(header, Entry { events, ..Entry::default() }).await?;
        }
        self.look_at = Some(Instant::now() + again);
        Ok(again)
    }

    /// Those that failed for their silence are named by that.
    pub(super) fn named_silent(&mut self, failures: &[HostFailure]) {
        let silent = failures.iter().filter(|f| matches!(f.why, Why::Silent(_)));
        self.silent.extend(silent.map(|f| f.host.clone()));
    }
}

/// Hosts in one line; none where there are none. A switch that fails takes hundreds with it.
fn some(hosts: &[&HostName]) -> Option<String> {
    let names: Vec<&str> = hosts.iter().take(NAMED).map(|host| host.as_str()).collect();
    match hosts.len() {
        0 => None,
        n if n <= NAMED => Some(names.join(", ")),
        n => Some(format!("{} and {} more", names.join(", "), n - NAMED)),
    }
}
