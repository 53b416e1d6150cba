//! Fetches blobs over the connection that is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dhow_proto::model::{BlobDigest, BlobRef};
use dhow_proto::wire;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tonic::transport::Channel;
use wire::fleet_service_client::FleetServiceClient;

use crate::ledger::{BlobError, Blobs};

/// Larger blobs are refused: templates and pages have KiB, an agent's binary a few MiB.
pub const MAX_BLOB: u64 = 64 * 1024 * 1024;

/// A transfer that says nothing for so long is over.
const IDLE: Duration = Duration::from_secs(15);

/// Transfers at the same time: an intent names a few blobs.
const TRANSFERS: usize = 4;

/// Transfers begin again at the offset they broke at, so often.
const ATTEMPTS: u32 = 3;

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no session; look again when there is one.
    #[error("no controller to fetch it from")]
    Offline,
    /// Over [`MAX_BLOB`].
    #[error("it has {0} bytes, more than the {MAX_BLOB} allowed")]
    TooLarge(u64),
    /// The controller does not give it.
    #[error("the controller refused: {0}")]
    Refused(String),
    /// Broke more than [`ATTEMPTS`] times.
    #[error("the transfer broke: {0}")]
    Broken(String),
    /// Not the bytes that were asked for, or not kept.
    #[error(transparent)]
    Keep(#[from] BlobError),
}

/// A blob that is not here.
#[derive(Debug, thiserror::Error)]
#[error("blob {blob} cannot be had: {error}")]
pub struct NotFetched {
    /// Which.
    pub blob: BlobDigest,
    /// Why.
    pub error: FetchError,
}

/// Where blobs come from.
pub trait BlobSource: Send + Sync + 'static {
    /// The bytes of blobs, in their order, verified and kept on this host; of an error, whose it is.
    fn fetch(&self, blobs: Vec<BlobRef>) -> BoxFuture<'_, Result<Vec<Bytes>, NotFetched>>;

    /// The bytes of blobs, in their order, where all of them are on this host.
    fn kept(&self, blobs: &[BlobRef]) -> Option<Vec<Bytes>>;

    /// Moves when fetching may work again.
    fn online(&self) -> watch::Receiver<bool>;
}

/// Fetches from the controller and keeps what it fetched. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    blobs: Arc<Blobs>,
    channel: Arc<std::sync::Mutex<Option<Channel>>>,
    online: watch::Sender<bool>,
}

impl Fetcher {
    /// Offline at first.
    pub fn new(blobs: Arc<Blobs>) -> Self {
        Self { blobs, channel: Arc::default(), online: watch::Sender::new(false) }
    }

    /// Fetches over this connection from now on; none: there is none.
    pub(super) fn set_channel(&self, channel: Option<Channel>) {
        let online = channel.is_some();
        *self.channel.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = channel;
        self.online.send_replace(online);
    }

    async fn transfer(&self, blob: BlobRef) -> Result<Bytes, FetchError> {
        if blob.size > MAX_BLOB {
            return Err(FetchError::TooLarge(blob.size));
        }
        let mut bytes = BytesMut::new();
        let mut attempts = 0;
        loop {
            let channel =
                self.channel.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let channel = channel.ok_or(FetchError::Offline)?;
            match piece(channel, blob, &mut bytes).await {
                Ok(()) => break,
                Err(FetchError::Broken(reason)) => {
                    attempts += 1;
                    if attempts == ATTEMPTS {
                        return Err(FetchError::Broken(reason));
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Ok(bytes.freeze())
    }
}

async fn piece(channel: Channel, blob: BlobRef, bytes: &mut BytesMut) -> Result<(), FetchError> {
    let refused = |status: tonic::Status| match status.code() {
        tonic::Code::NotFound | tonic::Code::PermissionDenied | tonic::Code::InvalidArgument => {
            FetchError::Refused(status.message().to_owned())
        }
        _ => FetchError::Broken(status.message().to_owned()),
    };
    let idle = |_| FetchError::Broken(format!("nothing came for {IDLE:?}"));
    let request = wire::FetchRequest {
        digest: blob.digest.as_bytes().to_vec().into(),
        offset: bytes.len() as u64,
    };
    let mut client = FleetServiceClient::new(channel);
    let opened = tokio::time::timeout(IDLE, client.fetch(request)).await.map_err(idle)?;
    let mut stream = opened.map_err(refused)?.into_inner();
    while let Some(next) =
        tokio::time::timeout(IDLE, stream.message()).await.map_err(idle)?.map_err(refused)?
    {
        if (bytes.len() + next.data.len()) as u64 > blob.size {
            return Err(FetchError::Refused("it is longer than the intent says".to_owned()));
        }
        bytes.extend_from_slice(&next.data);
    }
    if (bytes.len() as u64) < blob.size {
        return Err(FetchError::Broken("it ended early".to_owned()));
    }
    Ok(())
}

impl BlobSource for Fetcher {
    fn fetch(&self, blobs: Vec<BlobRef>) -> BoxFuture<'_, Result<Vec<Bytes>, NotFetched>> {
        Box::pin(async move {
            let cached: Vec<Option<Bytes>> = blobs.iter().map(|b| self.blobs.get(b)).collect();
            let missing: Vec<BlobRef> =
                blobs.iter().zip(&cached).filter(|(_, c)| c.is_none()).map(|(b, _)| *b).collect();
            let transfers = missing.into_iter().map(|blob| async move {
                let not = |error| NotFetched { blob: blob.digest, error };
                Ok::<_, NotFetched>((blob, self.transfer(blob).await.map_err(not)?))
            });
            // One after the other they would be a round trip and a wait for the disk each.
            let results: Vec<Result<(BlobRef, Bytes), NotFetched>> =
                stream::iter(transfers).buffered(TRANSFERS).collect().await;
            let (mut came, mut failed) = (Vec::new(), None);
            for result in results {
                match result {
                    Ok(blob) => came.push(blob),
                    Err(not) => failed = failed.or(Some(not)),
                }
            }
            // What came need not come again, whatever became of the others.
            self.blobs.put_all(&came).map_err(|error| NotFetched {
                blob: error.blob(),
                error: FetchError::Keep(error),
            })?;
            if let Some(not) = failed {
                return Err(not);
            }
            let mut came = came.into_iter().map(|(_, bytes)| bytes);
            Ok(cached.into_iter().filter_map(|cached| cached.or_else(|| came.next())).collect())
        })
    }

    fn kept(&self, blobs: &[BlobRef]) -> Option<Vec<Bytes>> {
        blobs.iter().map(|blob| self.blobs.get(blob)).collect()
    }

    fn online(&self) -> watch::Receiver<bool> {
        self.online.subscribe()
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("blobs", &self.blobs).finish_non_exhaustive()
    }
}
