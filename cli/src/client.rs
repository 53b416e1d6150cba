//! The connection to the controller.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use dhow_proto::dial::{Address, Dialer, Identity};
use dhow_proto::model::BlobRef;
use dhow_proto::wire;
use dhow_proto::wire::control_service_client::ControlServiceClient;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::home::{Home, Login};

/// Bytes of a blob in one message.
const CHUNK: usize = 32 * 1024;
/// Blobs on their way at once.
const UPLOADS: usize = 4;
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
    let others = login.addresses.iter().filter(|a| **a != login.address);
    let mut first_error = None;
    for address in std::iter::once(&login.address).chain(others) {
        let address: Address = address.parse()?;
        match dialer.connect(&address).await {
            Ok(channel) => return Ok(channel),
            Err(error) => first_error.get_or_insert(error),
        };
    }
    let error = first_error.map_or_else(|| anyhow!("no address is known"), anyhow::Error::from);
    Err(error.context(
        "the controller cannot be reached; the apps keep running, try again when it is back",
    ))
}
