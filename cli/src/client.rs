//! The connection to the controller.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use dhow_proto::dial::{Address, DialError, Dialer, Identity};
use dhow_proto::model::BlobRef;
use dhow_proto::wire;
use dhow_proto::wire::control_service_client::ControlServiceClient;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::home::{Home, Login};

/// Bytes of a blob in one message.
const CHUNK: usize = 32 * 1024;
/// Blobs on their way at once.
const UPLOADS: usize = 4;
/// An address that takes longer is not waited for alone.
const HESITATION: Duration = Duration::from_secs(2);
/// Longest time for the upload of one blob.
const UPLOAD: Duration = Duration::from_secs(120);

/// A logged-in client.
pub struct Client {
    home: Home,
    login: Login,
    channel: Channel,
}

impl Client {
    /// Connects as the user who logged in.
    ///
    /// # Errors
    ///
    /// Not logged in, or no controller answers.
    pub async fn connect() -> anyhow::Result<Self> {
        let home = Home::find(|name| std::env::var(name).ok())?;
        let login = home.login()?;
        let channel = dial(&login).await?;
        Ok(Self { home, login, channel })
    }

    /// Connects anew, to any address the controller told of.
    ///
    /// # Errors
    ///
    /// No controller answers.
    pub async fn reconnect(&mut self) -> anyhow::Result<()> {
        self.channel = dial(&self.login).await?;
        Ok(())
    }

    /// The API.
    pub fn control(&self) -> ControlServiceClient<Channel> {
        ControlServiceClient::new(self.channel.clone())
    }

    /// Address logged in to: names the controller in the list of known host keys.
    pub fn address(&self) -> &str {
        &self.login.address
    }

    /// The user's own files.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Uploads what the controller lacks.
    ///
    /// # Errors
    ///
    /// What the controller says.
    pub async fn upload(&self, contents: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let refs: Vec<BlobRef> = contents.iter().map(|c| BlobRef::of(c)).collect();
        let blobs = refs.iter().map(|b| (*b).into()).collect();
        let missing = self
            .control()
            .missing_blobs(wire::MissingBlobsRequest { blobs })
            .await
            .map_err(Self::explain)?;
        let missing = missing.into_inner().missing;
        let uploads = refs.iter().zip(contents).filter_map(|(blob, content)| {
            let wanted = wire::BlobRef::from(*blob);
            missing.contains(&wanted).then(|| self.upload_one(wanted, content))
        });
        // At the same time, as each waits for the controller's disk.
        stream::iter(uploads).buffer_unordered(UPLOADS).try_collect().await
    }

    async fn upload_one(&self, blob: wire::BlobRef, content: Vec<u8>) -> anyhow::Result<()> {
        let mut messages =
            vec![wire::UploadRequest { message: Some(wire::upload_request::Message::Blob(blob)) }];
        let content = bytes::Bytes::from(content);
        messages.extend((0..content.len().div_ceil(CHUNK)).map(|i| {
            let data = content.slice(i * CHUNK..content.len().min((i + 1) * CHUNK));
            wire::UploadRequest { message: Some(wire::upload_request::Message::Data(data)) }
        }));
        let mut control = self.control();
        let upload = control.upload(tokio_stream::iter(messages));
        tokio::time::timeout(UPLOAD, upload)
            .await
            .map_err(|_| anyhow!("the controller took no blob within {} s", UPLOAD.as_secs()))?
            .map_err(Self::explain)
            .map(drop)
    }

    /// What a status means for the person at the keyboard.
    pub fn explain(status: Status) -> anyhow::Error {
        let message = status.message();
        match status.code() {
            Code::Unavailable => anyhow!(
                "the controller cannot be reached ({message}); the apps keep running, try again when it is back"
            ),
            Code::Unauthenticated => anyhow!(
                "the controller does not accept this login: {message}; run `dhow login` again"
            ),
            Code::Unimplemented => {
                anyhow!("the controller is too old for this command ({message}); upgrade it")
            }
            // A transport that broke in the middle has no message of the controller's.
            Code::Unknown | Code::Internal
                if message.contains("transport") || message.contains("h2") =>
            {
                anyhow!("the connection to the controller broke: {message}")
            }
            _ => anyhow!("{message}"),
        }
    }
}

async fn dial(login: &Login) -> anyhow::Result<Channel> {
    let identity = Identity::from_pem(login.certificate.as_bytes(), login.private_key.as_bytes())?;
    let ca_set: Vec<Vec<u8>> = login
        .ca_set
        .iter()
        .map(|text| {
            crate::home::certificate_der(text)
                .context("the CA kept with the login is malformed; log in again")
        })
        .collect::<Result<_, _>>()?;
    let dialer = Dialer::enrolled(&identity, &ca_set)?;
    let first: Address = login.address.parse().map_err(unconnected)?;
    // Told by a controller, perhaps a newer one: what is not understood is no reason to ask none.
    let others = login.addresses.iter().filter_map(|a| a.parse().ok()).filter(|a| *a != first);
    let addresses: Vec<Address> = std::iter::once(first.clone()).chain(others).collect();
    first_that_answers(&dialer, &addresses).await.map_err(unconnected)
}

/// Dials the addresses one after the other, the next one as soon as one fails or hesitates, so that a person need not
/// wait for each of them.
///
/// # Errors
///
/// What is wrong with the first one.
async fn first_that_answers(dialer: &Dialer, addresses: &[Address]) -> Result<Channel, DialError> {
    let mut rest = addresses.iter().enumerate();
    let mut dialled = FuturesUnordered::new();
    let mut failed: Option<(usize, DialError)> = None;
    loop {
        if let Some((index, address)) = rest.next() {
            dialled.push(async move { (index, dialer.connect(address).await) });
        }
        let patience = if rest.len() == 0 { Duration::MAX } else { HESITATION };
        match tokio::time::timeout(patience, dialled.next()).await {
            Ok(Some((_, Ok(channel)))) => return Ok(channel),
            Ok(Some((index, Err(error)))) => {
                if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                    failed = Some((index, error));
                }
            }
            Ok(None) => {
                let none = || DialError::Address(String::new());
                return Err(failed.map_or_else(none, |(_, error)| error));
            }
            // It may still answer, and the next one is asked as well.
            Err(_) => {}
        }
    }
}

/// What a failed connection means for the person at the keyboard.
fn unconnected(error: DialError) -> anyhow::Error {
    let advice = match &error {
        DialError::Untrusted { .. } => {
            "what answers is not the controller of this login, and was told nothing; `dhow login` names the one to talk to"
        }
        DialError::Refused { .. } => "run `dhow login` again, with a new token",
        DialError::Unreachable { .. } | DialError::TimedOut(_) | DialError::Protocol { .. } => {
            "the controller cannot be reached; the apps keep running, try again when it is back"
        }
        DialError::Address(_) | DialError::Identity(_) => {
            "the kept login cannot be used; run `dhow login` again"
        }
    };
    anyhow::Error::from(error).context(advice)
}
