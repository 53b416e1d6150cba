//! Dials, holds a session, dials again: with back-off and jitter, over all addresses, with the newest certificate.

use std::path::PathBuf;
use std::sync::Arc;

use dhow_proto::dial::{Address, DialError, Dialer, Outside};
use dhow_proto::model::{FEATURES, PROTOCOL};
use dhow_proto::wire;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::backoff::{Backoff, PROVEN};
use super::board::Board;
use super::dispatch::chain;
use super::fetch::Fetcher;
use super::identity::Stored;
use super::renew::{is_due, renew};
use super::requests::{Host, Requests};
use super::stream::{self, Lasting, News, SessionEnd};
use crate::clock::Clock;
use crate::ledger::{Events, Ledger};

/// Answers on their way from the host to the session.
const REPLIES: usize = 16;

/// Time between looks at the certificate's age. Certificates live for a day or more.
const RENEW_LOOK: std::time::Duration = std::time::Duration::from_secs(300);

/// What a session works with.
#[derive(Clone)]
pub struct Rooms {
    /// Wanted and settled intents.
    pub ledger: Arc<Ledger>,
    /// Events that wait.
    pub events: Arc<Events>,
    /// What units say.
    pub board: Board,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
}

/// What Hello tells beside the ledger.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Where the identity is kept.
    pub state_dir: PathBuf,
    /// Of this build.
    pub agent_version: String,
    /// SHA-256 of the running binary; empty where it could not be read.
    pub binary_digest: Vec<u8>,
    /// Changes with every boot of the host; empty where it could not be read.
    pub boot_id: String,
    /// Network and clock of this host.
    pub outside: Arc<dyn Outside>,
}

/// Holds the one connection to a controller.
pub struct Connector {
    rooms: Rooms,
    settings: SessionSettings,
    stored: Stored,
    dialer: Dialer,
    host: Arc<dyn Host>,
    fetcher: Fetcher,
}

impl Connector {
    /// Ready to dial.
    ///
    /// # Errors
    ///
    /// [`DialError::Identity`] where the stored identity is unusable.
    pub fn new(
        rooms: Rooms,
        settings: SessionSettings,
        stored: Stored,
        host: Arc<dyn Host>,
        fetcher: Fetcher,
    ) -> Result<Self, DialError> {
        let outside = Arc::clone(&settings.outside);
        let dialer = Dialer::enrolled_in(outside, &stored.dial()?, &stored.ca_set)?;
        Ok(Self { rooms, settings, stored, dialer, host, fetcher })
    }

    /// Runs until `shutdown`. A controller that is away, or that revoked this host, changes nothing for the converge
    /// loops.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (replies, receiver) = mpsc::channel(REPLIES);
        let requests = Requests::new(self.host.clone(), replies, shutdown.clone());
        let mut lasting = Lasting { requests, replies: receiver, reported: Default::default() };
        let mut backoff = Backoff::new();
        let mut turn = 0;
        loop {
            let address = self.stored.controllers[turn % self.stored.controllers.len()].clone();
            turn = turn.wrapping_add(1);
            let began = Instant::now();
            match self.session(&address, &mut lasting, &shutdown).await {
                Ok(SessionEnd::Shutdown) => break,
                Ok(SessionEnd::Revoked(reason)) => {
                    tracing::error!(host.name = %self.stored.host, %reason, "the controller revoked this host: it goes on converging on its own; join again with a new token");
                    shutdown.cancelled().await;
                    break;
                }
                Ok(end) => {
                    tracing::warn!(controller = %address, error = %chain(&end), "session ended");
                    // The one that worked is tried first.
                    turn = turn.wrapping_sub(1);
                }
                Err(error) => {
                    tracing::warn!(controller = %address, error = %chain(&error), "no session");
                }
            }
            if began.elapsed() >= PROVEN {
                backoff = Backoff::new();
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
        lasting.requests.end().await;
    }

    async fn session(
        &mut self,
        address: &Address,
        lasting: &mut Lasting,
        shutdown: &CancellationToken,
    ) -> Result<SessionEnd, DialError> {
        let channel = tokio::select! {
            () = shutdown.cancelled() => return Ok(SessionEnd::Shutdown),
            channel = self.dialer.connect(address) => channel?,
        };
        let hello = self.hello().await;
        let (news, mut heard) = mpsc::channel(1);
        let rooms = self.rooms.clone();
        self.fetcher.set_channel(Some(channel.clone()));
        let end = {
            let session = stream::run(&rooms, hello, channel.clone(), lasting, &news, shutdown);
            tokio::pin!(session);
            let mut look = tokio::time::interval(RENEW_LOOK);
            loop {
                tokio::select! {
                    end = &mut session => break end,
                    // Cancel-safe: news not taken stays.
                    Some(news) = heard.recv() => {
                        // Concurrently with the session: a renewal waits for the controller.
                        tokio::select! {
                            end = &mut session => break end,
                            () = self.learn(news, address, &channel) => {}
                        }
                    }
                    _ = look.tick() => {
                        if is_due(&self.stored, self.rooms.clock.now()) {
                            tokio::select! {
                                end = &mut session => break end,
                                () = self.renew(&channel) => {}
                            }
                        }
                    }
                }
            }
        };
        self.fetcher.set_channel(None);
        Ok(end)
    }

    async fn learn(&mut self, news: News, address: &Address, channel: &Channel) {
        let News::Welcome { addresses, ca_set, renew } = news;
        let controllers = super::enrol::with_address(address, &addresses);
        let mut next = self.stored.clone();
        if !addresses.is_empty() {
            // Addresses that were known go only when the controller names others; the joined one stays.
            next.controllers = controllers;
        }
        if !ca_set.is_empty() {
            next.ca_set = ca_set;
        }
        if next.controllers != self.stored.controllers || next.ca_set != self.stored.ca_set {
            self.keep(next);
        }
        if renew {
            self.renew(channel).await;
        }
    }

    async fn renew(&mut self, channel: &Channel) {
        match renew(&self.stored, channel.clone()).await {
            Ok(renewed) => {
                if self.keep(renewed) {
                    tracing::info!(host.name = %self.stored.host, "certificate renewed");
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the certificate was not renewed; it is tried again");
            }
        }
    }

    /// Uses and stores an identity, or neither.
    fn keep(&mut self, next: Stored) -> bool {
        let used = next
            .dial()
            .and_then(|identity| Dialer::enrolled(&identity, &next.ca_set).map(|_| identity))
            .map_err(|e| chain(&e))
            .and_then(|identity| {
                next.save(&self.settings.state_dir).map_err(|e| chain(&e))?;
                self.dialer.replace(&identity, &next.ca_set).map_err(|e| chain(&e))
            });
        match used {
            Ok(()) => {
                self.stored = next;
                true
            }
            Err(error) => {
                tracing::error!(%error, "a new certificate or CA set cannot be used; the old one stays");
                false
            }
        }
    }

    async fn hello(&self) -> wire::Hello {
        let applied = self.rooms.ledger.units().into_iter().filter_map(|unit| {
            let wanted = self.rooms.ledger.known(&unit).wanted?;
            Some(wire::UnitGeneration {
                unit: Some((&unit).into()),
                generation: Some(wanted.generation().into()),
                digest: wanted.digest.as_bytes().to_vec().into(),
            })
        });
        wire::Hello {
            host: self.stored.host.to_string(),
            agent_version: self.settings.agent_version.clone(),
            protocol_min: *PROTOCOL.start(),
            protocol_max: *PROTOCOL.end(),
            target_triple: format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
            binary_digest: self.settings.binary_digest.clone().into(),
            features: FEATURES.iter().map(|f| (*f).to_owned()).collect(),
            boot_id: self.settings.boot_id.clone(),
            engine: self.host.engine_info().await,
            applied: applied.collect(),
            host_key_id: self.stored.host_key.id().to_vec().into(),
            last_event: self.rooms.events.last(),
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("stored", &self.stored).finish_non_exhaustive()
    }
}
