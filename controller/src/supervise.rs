//! Starts, watches and stops the tasks of the controller.
//!
//! In: tasks, each with a name. Out: one result when all have ended. Always true: no task is left
//! unowned; a task that ends before it was told to is an error that stops the others; after the
//! signal to stop each has the same bounded time to finish.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks may take to end after they were told to: streams close with a status, a stage
/// in progress is stored. What takes longer is resumed after the next start.
pub const GRACE: Duration = Duration::from_secs(10);

/// What a task failed with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the controller stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// A task that should run for good returned.
    #[error("task {task} ended by itself")]
    Ended {
        /// Its name.
        task: &'static str,
    },
    /// A task failed.
    #[error("task {task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// A task panicked; the panic itself is on stderr.
    #[error("task {task} panicked")]
    Panicked {
        /// Its name.
        task: &'static str,
    },
}

/// The tasks of one controller.
#[derive(Debug, Default)]
pub struct Supervisor {
    lasting: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, &'static str>,
    passing: TaskTracker,
    shutdown: CancellationToken,
}

/// Starts tasks that may end at any time; a cheap handle.
#[derive(Clone, Debug)]
pub struct Tasks {
    passing: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// Starts a task that ends by itself, or soon after [`shutdown`](Self::shutdown) is cancelled.
    /// A panic in it is logged and stops nothing else.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        // A task of its own inside, so that its panic arrives here as a value.
        let inner = tokio::spawn(task);
        let shutdown = self.shutdown.clone();
        self.passing.spawn(async move {
            let abort = inner.abort_handle();
            let late = async {
                shutdown.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                ended = inner => if ended.is_err_and(|error| error.is_panic()) {
                    tracing::error!(task = name, "a task panicked");
                },
                () = late => abort.abort(),
            }
        });
    }

    /// Cancelled when the controller stops.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }
}

impl Supervisor {
    /// Without tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that runs until the token it gets is cancelled.
    pub fn spawn<F, E>(&mut self, name: &'static str, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let task = start(self.shutdown.clone());
        let handle = self.lasting.spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name);
    }

    /// The handle for tasks that may end at any time.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        Tasks { passing: self.passing.clone(), shutdown: self.shutdown.clone() }
    }

    /// Cancelled when the controller stops.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs until `stop` completes or a task ends, then ends the others.
    ///
    /// # Errors
    ///
    /// [`SuperviseError`] of the first task that ended before `stop`.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), SuperviseError> {
        let outcome = tokio::select! {
            // In this order: tasks that end because they were told to are no failure.
            biased;
            () = stop => Ok(()),
            () = self.shutdown.cancelled() => Ok(()),
            // Cancel-safe; and nothing is lost when `stop` is first.
            Some(ended) = self.lasting.join_next_with_id() => Err(self.blame(ended)),
        };
        self.shutdown.cancel();
        self.passing.close();
        if tokio::time::timeout(GRACE, self.finish()).await.is_err() {
            let mut late: Vec<&str> = self.names.values().copied().collect();
            late.sort_unstable();
            tracing::warn!(tasks = late.join(" "), "tasks did not end in time");
        }
        self.lasting.shutdown().await;
        outcome
    }

    async fn finish(&mut self) {
        while let Some(ended) = self.lasting.join_next_with_id().await {
            let name = self.forget(&ended);
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((_, Err(error))) => {
                    tracing::warn!(task = name, error = %error, "a task failed while stopping");
                }
                Err(_) => tracing::error!(task = name, "a task panicked while stopping"),
            }
        }
        self.passing.wait().await;
    }

    fn blame(&mut self, ended: Result<(Id, Result<(), BoxError>), JoinError>) -> SuperviseError {
        let task = self.forget(&ended);
        match ended {
            Ok((_, Ok(()))) => SuperviseError::Ended { task },
            Ok((_, Err(source))) => SuperviseError::Failed { task, source },
            Err(_) => SuperviseError::Panicked { task },
        }
    }

    fn forget(&mut self, ended: &Result<(Id, Result<(), BoxError>), JoinError>) -> &'static str {
        let id = match ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.names.remove(&id).unwrap_or("unnamed")
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    async fn obedient(shutdown: CancellationToken) -> Result<(), Infallible> {
        shutdown.cancelled().await;
        Ok(())
    }

    async fn panicking(_: CancellationToken) -> Result<(), Infallible> {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn told_to_stop_it_ends_its_tasks_and_is_content() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("a", obedient);
        supervisor.spawn("b", obedient);
        supervisor.run(async {}).await.unwrap();
    }

    #[tokio::test]
    async fn cancelling_the_token_is_telling_it_to_stop() {
        for _ in 0..20 {
            let mut supervisor = Supervisor::new();
            supervisor.spawn("a", obedient);
            supervisor.shutdown().cancel();
            tokio::task::yield_now().await;
            supervisor.run(std::future::pending()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_task_that_ends_early_stops_the_others_and_is_named() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("steady", obedient);
        supervisor.spawn("short", |_| async { Ok::<(), Infallible>(()) });
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "task short ended by itself");
    }

    #[tokio::test]
    async fn a_task_that_fails_or_panics_is_named() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("bad", |_| async { Err("no disk") });
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "task bad failed");
        let mut supervisor = Supervisor::new();
        supervisor.spawn("worse", panicking);
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "task worse panicked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_listen_is_cut_off_after_the_grace() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("deaf", |_| std::future::pending::<Result<(), Infallible>>());
        let start = tokio::time::Instant::now();
        supervisor.run(async {}).await.unwrap();
        assert_eq!(start.elapsed(), GRACE);
    }

    #[tokio::test]
    async fn passing_tasks_may_end_and_panic_and_are_waited_for() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("steady", obedient);
        let tasks = supervisor.tasks();
        tasks.spawn("short", async {});
        tasks.spawn("panics", async { panic!("on purpose") });
        let finished = Arc::new(AtomicBool::new(false));
        let (shutdown, flag) = (tasks.shutdown().clone(), finished.clone());
        tasks.spawn("waits", async move {
            shutdown.cancelled().await;
            tokio::task::yield_now().await;
            flag.store(true, Ordering::SeqCst);
        });
        supervisor.run(async {}).await.unwrap();
        assert!(finished.load(Ordering::SeqCst));
    }
}
