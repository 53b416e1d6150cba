//! Lets a test stop a program at an exact point, to kill it (or something else) right there.
//!
//! In: the path of a Unix socket, from a setting that only tests give. Out: at each point the program connects, writes the
//! point as one line and goes on when the other end closes. Always true: without the setting, or where nobody listens,
//! nothing waits; a point changes nothing and carries no secret.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// A wait at a point.
pub type Wait<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Whoever is asked at each point whether to go on.
pub trait Asked: Send + Sync + 'static {
    /// Goes on when this ends.
    fn ask<'a>(&'a self, point: &'a str) -> Wait<'a>;
}

/// The points of a program. The default asks nobody.
#[derive(Clone, Default)]
pub struct Breakpoints {
    asked: Option<Arc<dyn Asked>>,
}

impl Breakpoints {
    /// Asks whoever listens on a Unix socket; none: nobody.
    pub fn at(socket: Option<PathBuf>) -> Self {
        match socket {
            None => Self::default(),
            Some(socket) => Self::of(Arc::new(Socket(socket))),
        }
    }

    /// Asks this.
    pub fn of(asked: Arc<dyn Asked>) -> Self {
        Self { asked: Some(asked) }
    }

    /// A point. `what` is made only where somebody is asked.
    pub async fn reach(&self, what: impl FnOnce() -> String + Send) {
        if let Some(asked) = &self.asked {
            asked.ask(&what()).await;
        }
    }
}

impl fmt::Debug for Breakpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.asked.is_some() { "Breakpoints(asked)" } else { "Breakpoints(none)" })
    }
}

struct Socket(PathBuf);

impl Asked for Socket {
    #[cfg(unix)]
    fn ask<'a>(&'a self, point: &'a str) -> Wait<'a> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        Box::pin(async move {
            // Nobody listens, or no more: then nobody wants to stop anything.
            let Ok(mut stream) = tokio::net::UnixStream::connect(&self.0).await else { return };
            if stream.write_all(format!("{point}\n").as_bytes()).await.is_ok() {
                let _ = stream.read(&mut [0]).await;
            }
        })
    }

    #[cfg(not(unix))]
    fn ask<'a>(&'a self, _: &'a str) -> Wait<'a> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_program_waits_until_the_other_end_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let points = Breakpoints::at(Some(path));
        let mut program =
            tokio::spawn(async move { points.reach(|| "before pull".to_owned()).await });
        // The whole reading is off the runtime's only thread, on which the program has to write.
        let (line, stream) = tokio::task::spawn_blocking(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            (line, stream)
        })
        .await
        .unwrap();
        assert_eq!(line, "before pull\n");
        assert!(
            tokio::time::timeout(Duration::from_millis(50), &mut program).await.is_err(),
            "it did not wait"
        );
        drop(stream);
        program.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        for points in [
            Breakpoints::default(),
            Breakpoints::at(None),
            Breakpoints::at(Some(folder.path().join("nobody"))),
        ] {
            points.reach(|| "before pull".to_owned()).await;
        }
    }
}
