//! Starts, watches and stops the tasks of the agent.
//!
//! Always true: every task belongs to one [`Supervisor`]; a task that ends before it was asked to is an error that ends
//! the others too, as an agent with half of its tasks would look alive and do nothing.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time for tasks to end by themselves once asked to; a step of a plan is given this long.
pub const GRACE: Duration = Duration::from_secs(20);

/// Why the tasks ended.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// It ended though nobody asked.
    #[error("task {0} ended early")]
    EndedEarly(&'static str),
    /// A defect.
    #[error("task {0} panicked")]
    Panicked(&'static str),
}

/// The tasks of a process or of one room.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<&'static str>,
    names: std::collections::HashMap<tokio::task::Id, &'static str>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// Tasks end when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: Default::default(), shutdown }
    }

    /// Starts a task; it is expected to run until the token given to it is cancelled.
    pub fn start<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = task(self.shutdown.clone());
        let handle = self.tasks.spawn(async move {
            future.await;
            name
        });
        self.names.insert(handle.id(), name);
    }

    /// Waits until shutdown was asked for and all tasks have ended, or until one ended early; then ends the others.
    ///
    /// # Errors
    ///
    /// [`SuperviseError`] for the first task that ended early or panicked.
    pub async fn run(mut self) -> Result<(), SuperviseError> {
        let mut first = Ok(());
        let mut deadline = None;
        loop {
            if self.shutdown.is_cancelled() && deadline.is_none() {
                deadline = Some(tokio::time::Instant::now() + GRACE);
            }
            let ended = tokio::select! {
                // Cancel-safe: a task that is not joined stays in the set.
                ended = self.tasks.join_next_with_id() => ended,
                () = self.shutdown.cancelled(), if deadline.is_none() => continue,
                () = async { tokio::time::sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)).await },
                    if deadline.is_some() => {
                    tracing::warn!("tasks did not end in time and are dropped");
                    self.tasks.shutdown().await;
                    return first;
                }
            };
            let problem = match ended {
                None => return first,
                Some(Ok((_, _))) if self.shutdown.is_cancelled() => continue,
                Some(Ok((_, name))) => SuperviseError::EndedEarly(name),
                Some(Err(error)) if error.is_cancelled() => continue,
                Some(Err(error)) => {
                    SuperviseError::Panicked(self.names.get(&error.id()).unwrap_or(&"unknown"))
                }
            };
            if first.is_ok() {
                first = Err(problem);
            }
            self.shutdown.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_others() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.start("short", |_| async {});
        supervisor.start("long", |shutdown| async move { shutdown.cancelled().await });
        let error = supervisor.run().await.unwrap_err();
        assert_eq!(error.to_string(), "task short ended early");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_listen_is_dropped_after_the_grace() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        supervisor.start("deaf", |_| std::future::pending());
        shutdown.cancel();
        assert!(supervisor.run().await.is_ok());
    }
}
