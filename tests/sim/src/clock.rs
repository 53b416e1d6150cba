//! Simulated time. No program of a simulation reads any other: certificates, leases, statuses and waits all keep to it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dhow_proto::dial::{Connecting, Outside, Socket};
use jiff::Timestamp;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Where simulations begin, in seconds since 1970.
const BEGIN: u64 = 1_800_000_000;

/// How far the simulation is; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now(Arc<AtomicU64>);

impl Now {
    /// For whoever looks from outside of the simulated hosts.
    pub(crate) fn set(&self, elapsed: Duration) {
        self.advance(elapsed);
    }

    fn advance(&self, elapsed: Duration) -> Duration {
        let nanos =
            u64::try_from(elapsed.as_nanos()).expect("a simulation is shorter than 500 years");
        Duration::from_nanos(self.0.fetch_max(nanos, Ordering::Relaxed).max(nanos))
    }

    /// Since the begin of the simulation.
    pub(crate) fn elapsed(&self) -> Duration {
        match turmoil::sim_elapsed() {
            Some(elapsed) => elapsed,
            None => Duration::from_nanos(self.0.load(Ordering::Relaxed)),
        }
    }

    /// The same, and never less than anybody was told: hosts are simulated one after the other, and so is their time.
    fn monotonic(&self) -> Duration {
        self.advance(self.elapsed())
    }
}

/// The clock of one host: right about how time passes, wrong by `ahead` seconds about what time it is.
#[derive(Clone)]
pub(crate) struct HostClock {
    pub(crate) now: Now,
    pub(crate) ahead: i64,
}

impl HostClock {
    pub(crate) fn time(&self) -> SystemTime {
        let begin = BEGIN.checked_add_signed(self.ahead).expect("offsets are small");
        SystemTime::UNIX_EPOCH + Duration::from_secs(begin) + self.now.elapsed()
    }
}

impl fmt::Debug for HostClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostClock({:+} s)", self.ahead)
    }
}

impl dhow_controller::clock::Clock for HostClock {
    fn now(&self) -> Timestamp {
        Timestamp::try_from(self.time()).expect("within what a timestamp holds")
    }

    fn monotonic(&self) -> Duration {
        self.now.monotonic()
    }
}

impl dhow_agent::clock::Clock for HostClock {
    fn now(&self) -> SystemTime {
        self.time()
    }
}

impl TimeProvider for HostClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.time().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// The simulated network, and the host's clock.
impl Outside for HostClock {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect((host, port)).await?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(self.clone())
    }
}
