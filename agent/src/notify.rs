//! What systemd is told: that the agent is up, stops, and, by its work loop, that it is alive (sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the service manager that its loop is alive, as often as asked for; nothing where it does not ask.
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
}

impl Watchdog {
    /// As the environment of the process says (`WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn of_the_service() -> Self {
        // Twice within the limit, as sd_watchdog_enabled(3) advises.
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 2) }
    }

    /// Nobody watches.
    pub fn none() -> Self {
        Self { every: None }
    }

    /// Waits until it is time to [`ping`](Self::ping) again; for ever where nobody watches.
    pub async fn due(&self) {
        match self.every {
            Some(every) => tokio::time::sleep(every).await,
            None => std::future::pending().await,
        }
    }

    /// Tells that the loop is alive.
    pub fn ping(&self) {
        if self.every.is_some() {
            tell(NotifyState::Watchdog);
        }
    }
}

/// Does nothing when systemd did not start us.
pub(crate) fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "could not tell systemd");
    }
}
