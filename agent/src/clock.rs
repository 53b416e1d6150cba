//! Time as a value that rooms are given, so that tests can turn it.

use std::time::SystemTime;

/// The time of day. Waiting is tokio's: tests pause it there.
pub trait Clock: Send + Sync + 'static {
    /// Now, as the operating system knows it.
    fn now(&self) -> SystemTime;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
