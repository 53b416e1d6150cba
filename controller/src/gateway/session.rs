//! One agent's session, from Hello to the end of its stream.

use std::sync::Arc;
use std::time::SystemTime;

use dhow_proto::model::error::FieldError;
use dhow_proto::model::status::Status;
use dhow_proto::model::{BlobDigest, Generation, HostName, PROTOCOL, Unit};
use dhow_proto::wire;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Streaming;
use wire::session_request::Message as Up;
use wire::session_response::Message as Down;

use super::dispatch::{intent_prefix, offerable, withhold};
use super::picture::{Fleet, Online};
use super::{HEARTBEAT, SILENCE, news};
use crate::clock::Clock;
use crate::store::{Key, Store, StoreError};

/// Units named in one page of Welcome: about 3 KiB.
const PAGE: usize = 24;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error("the agent closed the stream")]
    Closed,
    #[error("nothing was heard for {} s", SILENCE.as_secs())]
    Silent,
    #[error("a newer session took its place, or it did not keep up")]
    Replaced,
    #[error("the stream broke")]
    Broken(#[source] tonic::Status),
    #[error("the agent sent something malformed")]
    Malformed(#[from] FieldError),
    #[error("the store could not be read")]
    Store(#[from] StoreError),
}

/// What a session works with.
#[derive(Clone)]
pub struct Rooms {
    /// Where intents are.
    pub store: Arc<dyn Store>,
    /// The picture to paint.
    pub fleet: Fleet,
    /// When things were seen.
    pub clock: Arc<dyn Clock>,
    /// Where agents may reach a controller.
    pub addresses: Vec<String>,
    /// DER certificates agents trust.
    pub ca_set: Vec<bytes::Bytes>,
}

impl Rooms {
    fn now(&self) -> SystemTime {
        SystemTime::try_from(self.clock.now()).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Checks the first message of a session.
///
/// # Errors
///
/// A gRPC status: the host is not the certificate's, or no protocol version is common.
pub(crate) fn check_hello(hello: &wire::Hello, host: &HostName) -> Result<u32, tonic::Status> {
    if hello.host != host.as_str() {
        tracing::warn!(host.name = %host, claimed = %hello.host, "an agent claims another name than its certificate's");
        return Err(tonic::Status::permission_denied(format!(
            "the certificate is for host {host}, not for {}",
            hello.host
        )));
    }
    let newest = hello.protocol_max.min(*PROTOCOL.end());
    if newest < hello.protocol_min.max(*PROTOCOL.start()) {
        let (from, to) = (PROTOCOL.start(), PROTOCOL.end());
        return Err(tonic::Status::failed_precondition(format!(
            "no common protocol version: the agent speaks {} to {}, the controller {from} to {to}; upgrade the older one",
            hello.protocol_min, hello.protocol_max
        )));
    }
    Ok(newest)
}

/// Runs a session until its stream ends. The outbox is held weakly: the picture owns the only strong sender, so a
/// session that loses its place there loses its stream.
pub(crate) async fn run(
    rooms: Rooms,
    host: HostName,
    hello: wire::Hello,
    protocol: u32,
    mut inbound: Streaming<wire::SessionRequest>,
    outbox: mpsc::Sender<wire::SessionResponse>,
) -> SessionEnd {
    let weak = outbox.downgrade();
    let online = Online {
        since: rooms.now(),
        agent_version: hello.agent_version.clone(),
        features: hello.features.clone(),
        engine: hello.engine.clone(),
        boot_id: hello.boot_id.clone(),
        host_key_id: hello.host_key_id.to_vec(),
    };
    let number = rooms.fleet.arrive(&host, online, outbox);
    let session = Session { rooms: &rooms, host: &host, features: &hello.features, weak, number };
    let end = match session.welcome(protocol).await {
        Ok(()) => session.listen(&mut inbound).await,
        Err(end) => end,
    };
    rooms.fleet.leave(&host, number);
    end
}

struct Session<'a> {
    rooms: &'a Rooms,
    host: &'a HostName,
    features: &'a [String],
    weak: mpsc::WeakSender<wire::SessionResponse>,
    number: u64,
}

impl Session<'_> {
    async fn send(&self, message: Down) -> Result<(), SessionEnd> {
        let outbox = self.weak.upgrade().ok_or(SessionEnd::Replaced)?;
        outbox
            .send(wire::SessionResponse { message: Some(message) })
            .await
            .map_err(|_| SessionEnd::Closed)
    }

    async fn welcome(&self, protocol: u32) -> Result<(), SessionEnd> {
        let snapshot = self.rooms.store.read_all(intent_prefix(self.host)).await?;
        let mut units = Vec::with_capacity(snapshot.entries.len());
        for entry in &snapshot.entries {
            let intent = wire::Intent::decode(entry.value.clone())
                .map_err(|e| FieldError::new("intent", e))?;
            match offerable(&intent, self.features) {
                Ok(()) => units.push(wire::UnitGeneration {
                    unit: intent.unit,
                    generation: intent.generation,
                    digest: BlobDigest::of(&entry.value).as_bytes().to_vec().into(),
                }),
                Err(missing) => withhold(&self.rooms.fleet, self.host, &intent, &missing),
            }
        }
        let pages = units.len().div_ceil(PAGE).max(1);
        for page in 0..pages {
            let from = page * PAGE;
            let to = units.len().min(from + PAGE);
            let first = page == 0;
            self.send(Down::Welcome(wire::Welcome {
                page: page as u32,
                last: page + 1 == pages,
                units: units[from..to].to_vec(),
                controller_addresses: if first { self.rooms.addresses.clone() } else { Vec::new() },
                ca_set: if first { self.rooms.ca_set.clone() } else { Vec::new() },
                heartbeat_interval: prost_types::Duration::try_from(HEARTBEAT).ok(),
                protocol,
                renew: false,
            }))
            .await?;
        }
        Ok(())
    }

    async fn listen(&self, inbound: &mut Streaming<wire::SessionRequest>) -> SessionEnd {
        loop {
            let message = match tokio::time::timeout(SILENCE, inbound.message()).await {
                Err(_) => return SessionEnd::Silent,
                Ok(Err(status)) => return SessionEnd::Broken(status),
                Ok(Ok(None)) => return SessionEnd::Closed,
                Ok(Ok(Some(message))) => message,
            };
            if !self.rooms.fleet.is_current(self.host, self.number) {
                return SessionEnd::Replaced;
            }
            self.rooms.fleet.seen(self.host, self.rooms.now());
            let Some(message) = message.message else { continue };
            if let Err(end) = self.take(message).await {
                return end;
            }
        }
    }

    async fn take(&self, message: Up) -> Result<(), SessionEnd> {
        let fleet = &self.rooms.fleet;
        match message {
            // A second Hello says nothing new.
            Up::Hello(_) => {}
            Up::Want(want) => self.answer_want(want).await?,
            Up::Status(status) => fleet.report(self.host, Status::try_from(status)?),
            Up::Heartbeat(heartbeat) => {
                for status in heartbeat.statuses {
                    fleet.report(self.host, Status::try_from(status)?);
                }
            }
            Up::Reply(reply) => fleet.reply(self.host, reply),
            Up::Event(event) => {
                let sequence = event.sequence;
                tracing::info!(host.name = %self.host, event = %event.text, "host reports");
                news::keep(&*self.rooms.store, self.host, &event).await?;
                self.send(Down::EventAck(wire::EventAck { sequence })).await?;
            }
            Up::Refused(refused) => {
                let unit = Unit::try_from(
                    refused.unit.ok_or_else(|| FieldError::missing("refused.unit"))?,
                )?;
                let generation: Generation = refused.generation.unwrap_or_default().into();
                tracing::warn!(host.name = %self.host, unit = %unit, %generation, reason = %refused.reason, "agent refused an intent");
                fleet.refuse(self.host, unit, generation, refused.reason);
            }
        }
        Ok(())
    }

    async fn answer_want(&self, want: wire::Want) -> Result<(), SessionEnd> {
        let unit = Unit::try_from(want.unit.ok_or_else(|| FieldError::missing("want.unit"))?)?;
        let key = Key::from(format!("{}{}", intent_prefix(self.host), unit.key()));
        let Some(entry) = self.rooms.store.get(key).await? else {
            tracing::warn!(host.name = %self.host, unit = %unit, "agent wants an intent that is not there");
            return Ok(());
        };
        let intent = wire::Intent::decode(entry.value).map_err(|e| FieldError::new("intent", e))?;
        self.send(Down::Intent(intent)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(host: &str, min: u32, max: u32) -> wire::Hello {
        wire::Hello {
            host: host.into(),
            protocol_min: min,
            protocol_max: max,
            ..Default::default()
        }
    }

    #[test]
    fn a_name_the_certificate_does_not_carry_is_refused() {
        let host = HostName::try_from("h1").unwrap();
        let refused = check_hello(&hello("h2", 1, 1), &host).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }

    #[test]
    fn protocol_ranges_must_overlap() {
        let host = HostName::try_from("h1").unwrap();
        assert_eq!(check_hello(&hello("h1", 1, 7), &host).unwrap(), 1);
        assert_eq!(
            check_hello(&hello("h1", 2, 7), &host).unwrap_err().code(),
            tonic::Code::FailedPrecondition
        );
    }
}
