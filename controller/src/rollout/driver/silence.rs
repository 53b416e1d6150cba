//! Hosts that fall silent while the rollout is busy elsewhere: with a hook, a pause, or the hosts of another boot group.
//!
//! Nothing ends because of it: a host that a stage waits for is that gate's business. A person is told all the same, while
//! there is still something to decide.

use std::time::Duration;

use super::Driver;
use crate::rollout::book::{Entry, note};
use crate::rollout::fence::DriveError;
use crate::rollout::gate::{HostFailure, Presence, SILENCE, Why};

/// How often hosts that were there are looked at: well within what is left of the 15 s in which a person is told.
const LOOK: Duration = Duration::from_secs(1);

impl Driver {
    /// Tells of hosts in effect that fell silent, and of those among them that are heard of again. How long until that is to
    /// be asked again.
    pub(super) async fn tell_silence(&mut self) -> Result<Duration, DriveError> {
        let mut events = Vec::new();
        let mut again = LOOK;
        let here = self.book.header.hosts.iter().filter(|host| !host.away);
        for name in here.map(|host| &host.name) {
            match self.presence(name) {
                Presence::Here { .. } => {
                    if self.silent.remove(name) {
                        events.push(note(format!("{name} is heard of again")));
                    }
                }
                Presence::Away { since } if since >= SILENCE => {
                    if self.silent.insert(name.clone()) {
                        let since = since.as_secs();
                        events.push(note(format!("{name}: no word from the host for {since} s")));
                    }
                }
                Presence::Away { since } => again = again.min(SILENCE.saturating_sub(since)),
            }
        }
        if !events.is_empty() {
            let header = self.book.header.clone();
            self.book.write(header, Entry { events, ..Entry::default() }).await?;
        }
        Ok(again)
    }

    /// Those that failed for their silence are named by that.
    pub(super) fn named_silent(&mut self, failures: &[HostFailure]) {
        let silent = failures.iter().filter(|f| matches!(f.why, Why::Silent(_)));
        self.silent.extend(silent.map(|f| f.host.clone()));
    }
}
