//! One service: its options, its targets, whether it answers.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::duration;
use crate::options::{Gate, RolloutSplit, ServiceOptions, TargetOptions};
use crate::pages::ErrorPages;
use crate::target::InFlight;
use crate::targets::TargetSet;
use crate::tls;

/// A service. Deploys replace its [`Setup`] as a whole; the gate and the rollout outlive them.
pub(crate) struct Service {
    pub(crate) name: String,
    setup: RwLock<Arc<Setup>>,
    rollout: RwLock<Rollout>,
    gate: watch::Sender<Gate>,
    /// Whether the gate is a pause that was read from the state file.
    pause_restored: bool,
}

/// What one deploy decides.
pub(crate) struct Setup {
    pub(crate) options: ServiceOptions,
    pub(crate) target_options: Arc<TargetOptions>,
    pub(crate) targets: Arc<TargetSet>,
    pub(crate) pages: Option<ErrorPages>,
    pub(crate) certificate: Option<Arc<CertifiedKey>>,
}

impl Setup {
    /// Loads what the options name in the file system.
    pub(crate) fn load(
        options: ServiceOptions,
        target_options: Arc<TargetOptions>,
        targets: Arc<TargetSet>,
    ) -> Result<Arc<Self>, String> {
        let custom =
            !options.tls_certificate_path.is_empty() && !options.tls_private_key_path.is_empty();
        let certificate = match (options.tls_enabled, custom) {
            (true, true) => Some(tls::load(
                Path::new(&options.tls_certificate_path),
                Path::new(&options.tls_private_key_path),
            )?),
            (true, false) if options.hosts.iter().any(|host| host.contains('*')) => {
                return Err("automatic TLS does not support wildcards".to_owned());
            }
            _ => None,
        };
        let pages = match options.error_page_path.as_str() {
            "" => None,
            dir => Some(ErrorPages::load(Path::new(dir))?),
        };
        Ok(Arc::new(Self { options, target_options, targets, pages, certificate }))
    }
}

/// The second target set and the clients it is for.
#[derive(Clone, Default)]
pub(crate) struct Rollout {
    pub(crate) targets: Option<Arc<TargetSet>>,
    pub(crate) split: Option<RolloutSplit>,
}

/// What the gate says about a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    Open,
    TimedOut,
    Stopped { message: String },
}

impl Service {
    pub(crate) fn new(name: &str, setup: Arc<Setup>, rollout: Rollout, gate: Gate) -> Arc<Self> {
        // Only a restore gives a service that is not running.
        let pause_restored = matches!(gate, Gate::Paused { .. });
        let (gate, _) = watch::channel(gate);
        Arc::new(Self {
            name: name.to_owned(),
            setup: RwLock::new(setup),
            rollout: RwLock::new(rollout),
            gate,
            pause_restored,
        })
    }

    pub(crate) fn setup(&self) -> Arc<Setup> {
        read(&self.setup).clone()
    }

    /// Takes a new setup and gives the targets that serve no longer.
    pub(crate) fn replace(&self, setup: Arc<Setup>) -> Arc<TargetSet> {
        std::mem::replace(&mut *write(&self.setup), setup).targets.clone()
    }

    pub(crate) fn rollout(&self) -> Rollout {
        read(&self.rollout).clone()
    }

    pub(crate) fn change_rollout<T>(&self, change: impl FnOnce(&mut Rollout) -> T) -> T {
        change(&mut write(&self.rollout))
    }

    /// Begins a request on the targets for this client. The choice happens under the lock that a
    /// deploy needs to swap them, so a drain of the old targets cannot miss the request.
    pub(crate) fn begin(&self, rollout_cookie: Option<&str>) -> Option<InFlight> {
        if let Some(cookie) = rollout_cookie {
            let rollout = read(&self.rollout);
            if let (Some(targets), Some(split)) = (&rollout.targets, &rollout.split)
                && split.takes(cookie)
            {
                return targets.begin();
            }
        }
        read(&self.setup).targets.begin()
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate.borrow().clone()
    }

    /// Lets requests through, holds them or turns them away from now on.
    pub(crate) fn set_gate(&self, gate: Gate) {
        if self.pause_restored && !matches!(gate, Gate::Paused { .. }) {
            // The real proxy of this version panics here: the channel that a resume closes is only
            // made by a pause, not by a restart. As nothing was saved, the service is paused again
            // when the server is back. A deployer has to know, so it happens here too.
            eprintln!("panic: close of nil channel");
            std::process::exit(2);
        }
        self.gate.send_replace(gate);
    }

    /// Holds a request while the service is paused, at most as long as the pause said when it came.
    pub(crate) async fn pass(&self) -> Passage {
        let mut gate = self.gate.subscribe();
        let mut deadline = None;
        loop {
            let now = gate.borrow_and_update().clone();
            let until = match now {
                Gate::Running => return Passage::Open,
                Gate::Stopped { message } => return Passage::Stopped { message },
                Gate::Paused { max_pause } => *deadline
                    .get_or_insert_with(|| tokio::time::Instant::now() + duration::wait(max_pause)),
            };
            if tokio::time::timeout_at(until, gate.changed()).await.is_err() {
                return Passage::TimedOut;
            }
        }
    }

    /// Drains whatever may have requests now.
    pub(crate) async fn drain(&self, timeout: Duration) {
        let active = self.setup().targets.clone();
        match self.rollout().targets {
            Some(rollout) => tokio::join!(active.drain(timeout), rollout.drain(timeout)).0,
            None => active.drain(timeout).await,
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
