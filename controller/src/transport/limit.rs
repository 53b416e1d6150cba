//! How many connections the operating system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and returns it; `None` is no limit.
///
/// Each connection is one file, so the limit is logged: it bounds the fleet.
#[must_use]
pub fn raise_open_files() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    if let Err(error) =
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum })
    {
        tracing::warn!(%error, "could not raise the limit of open files");
        return before.current;
    }
    before.maximum
}
