//! The targets a service has at one time: writers and readers that were deployed together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::health;
use crate::options::TargetOptions;
use crate::target::{InFlight, Target};

/// A set of targets. Requests go round the healthy writers; readers are only checked and listed.
pub(crate) struct TargetSet {
    writers: Vec<Arc<Target>>,
    readers: Vec<Arc<Target>>,
    turn: AtomicUsize,
    stop_checks: CancellationToken,
}

impl TargetSet {
    /// Makes the set without checking anything yet.
    pub(crate) fn new(
        writers: &[String],
        readers: &[String],
        options: &Arc<TargetOptions>,
    ) -> Result<Arc<Self>, String> {
        let make = |names: &[String]| {
            names
                .iter()
                .map(|name| Target::new(name, options.clone()))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Arc::new(Self {
            writers: make(writers)?,
            readers: make(readers)?,
            turn: AtomicUsize::new(0),
            stop_checks: CancellationToken::new(),
        }))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.writers.iter().chain(&self.readers)
    }

    /// Starts the checks, which run until [`Self::stop_checks`]; a lone target is left alone after
    /// its first success.
    pub(crate) fn start_checks(&self) {
        let only_once = self.all().count() == 1;
        for target in self.all() {
            tokio::spawn(health::check(target.clone(), only_once, self.stop_checks.clone()));
        }
    }

    /// Believes that all are healthy, as after a restart; several are checked from now on.
    pub(crate) fn trust(&self) {
        for target in self.all() {
            target.judge(true);
        }
        if self.all().count() > 1 {
            self.start_checks();
        }
    }

    pub(crate) fn stop_checks(&self) {
        self.stop_checks.cancel();
    }

    /// Ends when every target was healthy once.
    pub(crate) async fn became_ready(&self) {
        for target in self.all() {
            target.became_ready().await;
        }
    }

    /// Begins a request on a healthy target, or `None` if there is none.
    pub(crate) fn begin(&self) -> Option<InFlight> {
        // The real proxy counts before it looks, so the second of two is asked first.
        let first = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        (0..self.writers.len()).find_map(|offset| {
            self.writers[first.wrapping_add(offset) % self.writers.len()].begin()
        })
    }

    /// Drains all targets side by side.
    pub(crate) async fn drain(&self, timeout: Duration) {
        let mut draining: JoinSet<()> =
            self.all().cloned().map(|target| async move { target.drain(timeout).await }).collect();
        while draining.join_next().await.is_some() {}
    }

    pub(crate) fn writer_names(&self) -> Vec<String> {
        self.writers.iter().map(|target| target.name.clone()).collect()
    }

    pub(crate) fn reader_names(&self) -> Vec<String> {
        self.readers.iter().map(|target| target.name.clone()).collect()
    }
}

impl Drop for TargetSet {
    fn drop(&mut self) {
        // The last user is gone; nobody reads the verdicts.
        self.stop_checks.cancel();
    }
}
