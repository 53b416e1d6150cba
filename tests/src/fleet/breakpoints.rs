//! Stops dhow's programs of a fleet at exact points of their work, so that a test can kill something right there.
//!
//! In: traps. Out: programs that wait in them, and every point that was reached. Always true: a program that no trap is for
//! goes on at once, and one that waits goes on when what holds it is dropped.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Fleet;

/// A program says where it is as soon as it is connected, or is dead.
const SAYS: Duration = Duration::from_secs(5);

type Stops = Box<dyn Fn(&str) -> bool + Send>;

#[derive(Default)]
struct State {
    reached: Vec<String>,
    traps: Vec<(Stops, Sender<Held>)>,
    over: bool,
}

/// Listens for as long as it lives. Programs of the fleet that are started meanwhile ask it at each point.
pub struct Breakpoints {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    listens: Option<JoinHandle<()>>,
}

impl fmt::Debug for Breakpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakpoints").field("path", &self.path).finish_non_exhaustive()
    }
}

/// One program will wait in it.
#[derive(Debug)]
pub struct Trap {
    caught: Receiver<Held>,
}

/// A program that waits; it goes on when this is dropped, if it still lives.
#[derive(Debug)]
pub struct Held {
    /// Where: `agent before start of role shop/web on 10.77.0.11`.
    pub point: String,
    _stream: UnixStream,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Breakpoints {
    /// Begins to listen. Programs that run already are not asked.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made, as when somebody listens already.
    pub fn listen(fleet: &Fleet) -> Result<Self> {
        Self::at(fleet.breakpoints())
    }

    fn at(path: PathBuf) -> Result<Self> {
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let listens = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if lock(&shared).over {
                    break;
                }
                meet(&shared, stream);
            }
        });
        Ok(Self { path, state, listens: Some(listens) })
    }

    /// The next program at a point that `stops` says yes to waits there; only that one.
    pub fn trap(&self, stops: impl Fn(&str) -> bool + Send + 'static) -> Trap {
        let (sender, caught) = channel();
        lock(&self.state).traps.push((Box::new(stops), sender));
        Trap { caught }
    }

    /// Every point that was reached since this was asked last, in order.
    #[must_use]
    pub fn reached(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).reached)
    }
}

/// What to do with a program that is at a point.
fn meet(state: &Mutex<State>, stream: UnixStream) {
    let mut point = String::new();
    let said = stream
        .set_read_timeout(Some(SAYS))
        .and_then(|()| BufReader::new(&stream).read_line(&mut point));
    // Killed before it could say anything.
    if said.is_err() || !point.ends_with('\n') {
        return;
    }
    let point = point.trim_end().to_owned();
    let mut state = lock(state);
    state.reached.push(point.clone());
    if let Some(at) = state.traps.iter().position(|(stops, _)| stops(&point)) {
        let (_, sender) = state.traps.remove(at);
        // Where nobody waits for it any more, it goes on.
        let _ = sender.send(Held { point, _stream: stream });
    }
}

impl Trap {
    /// Waits until a program is in it.
    ///
    /// # Errors
    ///
    /// When none is within `limit`.
    pub fn wait(&self, limit: Duration) -> Result<Held> {
        match self.caught.recv_timeout(limit) {
            Ok(held) => Ok(held),
            Err(_) => bail!("no program came to the point within {} s", limit.as_secs_f32()),
        }
    }
}

impl Drop for Breakpoints {
    fn drop(&mut self) {
        lock(&self.state).over = true;
        // Wakes the listener, which then ends.
        drop(UnixStream::connect(&self.path));
        if let Some(listens) = self.listens.take() {
            let _ = listens.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Where programs of a fleet ask, if anybody listens there.
pub(super) fn asked(fleet_dir: &Path) -> Option<PathBuf> {
    let path = socket(fleet_dir);
    path.exists().then_some(path)
}

/// Short: a socket's path may have 107 bytes.
pub(super) fn socket(fleet_dir: &Path) -> PathBuf {
    fleet_dir.join("points")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn says(path: &Path, point: &str) -> UnixStream {
        let mut stream = UnixStream::connect(path).unwrap();
        writeln!(stream, "{point}").unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    #[test]
    fn only_who_a_trap_is_for_waits_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket(dir.path());
        let points = Breakpoints::at(path.clone()).unwrap();
        let trap = points.trap(|point| point.starts_with("agent before pull"));
        let mut passes = says(&path, "agent before create of x");
        assert_eq!(passes.read(&mut [0]).unwrap(), 0, "it was held");
        drop(UnixStream::connect(&path).unwrap());
        let mut stays = says(&path, "agent before pull of x");
        let held = trap.wait(SOON).unwrap();
        assert_eq!(held.point, "agent before pull of x");
        let mut second = says(&path, "agent before pull of x");
        assert_eq!(second.read(&mut [0]).unwrap(), 0, "the trap caught twice");
        stays.set_nonblocking(true).unwrap();
        assert!(stays.read(&mut [0]).is_err(), "it was let go");
        stays.set_nonblocking(false).unwrap();
        drop(held);
        assert_eq!(stays.read(&mut [0]).unwrap(), 0);
        assert_eq!(points.reached().len(), 3);
        drop(points);
        assert!(!path.exists());
    }
}
