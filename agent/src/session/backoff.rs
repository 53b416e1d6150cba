//! How long to wait before dialling again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// No wait is longer: a controller that is back finds its whole fleet within this time. Shorter than a host may be silent
/// (14 s from the controller's start), or every rollout that it resumes after a longer absence would fail.
pub(super) const CAP: Duration = Duration::from_secs(10);

/// A session that lived so long was a real one: the next break starts anew.
pub(super) const PROVEN: Duration = Duration::from_secs(30);

/// Exponential with jitter, so that a fleet does not come back all at once.
pub(super) struct Backoff(ExponentialBackoff);

impl Backoff {
    pub(super) fn new() -> Self {
        // Jitter adds up to as much again, hence half of the cap.
        let builder = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(CAP / 2)
            .with_jitter()
            .with_jitter_seed(seed())
            .without_max_times();
        Self(builder.build())
    }

    pub(super) fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(CAP).min(CAP)
    }
}

/// Differs between processes and calls. Without a seed backon draws the same numbers everywhere, and a fleet would come
/// back in step.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_differ() {
        let waits = || {
            let mut backoff = Backoff::new();
            (0..40).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        let (a, b) = (waits(), waits());
        assert!(a[0] < Duration::from_millis(600), "{:?}", a[0]);
        assert!(a.iter().all(|wait| *wait <= CAP));
        assert!(a[30..].iter().all(|wait| *wait >= CAP / 2));
        assert_ne!(a, b, "no jitter");
    }
}
