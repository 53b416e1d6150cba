//! Gathers what an intent names: documents, files, opened secrets.

use std::collections::BTreeMap;

use bytes::Bytes;
use dhow_proto::model::intent::{Desired, Intent};
use dhow_proto::model::secrets::{SealedSecrets, Secrets};
use dhow_proto::model::{BlobDigest, BlobRef};
use dhow_proto::seal::Binding;

use super::Rooms;
use crate::execute::OpenedSecrets;
use crate::plan::{Bundle, Bundles, Wanted, WantedError};
use crate::session::FetchError;

/// Bytes of everything an intent names.
type Blobs = BTreeMap<BlobDigest, Bytes>;

/// What is wanted, ready to be planned, with the secrets beside it.
pub(super) struct Resolved {
    pub(super) wanted: Wanted,
    pub(super) secrets: OpenedSecrets,
}

/// Why an intent could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// May come right by itself.
    #[error("{0}")]
    Later(String),
    /// Never for this generation.
    #[error("{0}")]
    Never(String),
}

impl Rooms {
    /// Fetches, reads and opens what an intent names.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub(super) async fn resolve(&self, intent: &Intent) -> Result<Resolved, ResolveError> {
        let named = intent.blobs();
        let bytes = self.source.fetch(named.clone()).await.map_err(|not| match not.error {
            FetchError::TooLarge(_) => ResolveError::Never(not.to_string()),
            FetchError::Offline
            | FetchError::Refused(_)
            | FetchError::Broken(_)
            | FetchError::Keep(_) => ResolveError::Later(not.to_string()),
        })?;
        self.read(intent, &named, bytes)
    }

    /// The same for an intent that may have been begun; none where it was not: what it names is fetched before its first
    /// step, and kept while the ledger names it.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub(super) fn resolve_begun(&self, intent: &Intent) -> Result<Option<Resolved>, ResolveError> {
        let named = intent.blobs();
        match self.source.kept(&named) {
            Some(bytes) => self.read(intent, &named, bytes).map(Some),
            None => Ok(None),
        }
    }

    fn read(
        &self,
        intent: &Intent,
        named: &[BlobRef],
        bytes: Vec<Bytes>,
    ) -> Result<Resolved, ResolveError> {
        let blobs: Blobs = named.iter().map(|b| b.digest).zip(bytes).collect();
        let (bundles, secrets) = self.open(intent, &blobs)?;
        let wanted = Wanted::new(intent.clone(), bundles, &blobs).map_err(|error| match error {
            WantedError::Missing(_) => ResolveError::Later(error.to_string()),
            WantedError::Document(_) => ResolveError::Never(format!(
                "this agent does not understand the intent ({error}); upgrade it"
            )),
        })?;
        Ok(Resolved { wanted, secrets })
    }

    fn open(
        &self,
        intent: &Intent,
        blobs: &Blobs,
    ) -> Result<(Bundles, OpenedSecrets), ResolveError> {
        let (mut bundles, mut opened) = (Bundles::default(), OpenedSecrets::default());
        match &intent.desired {
            Desired::Role(role) => {
                (bundles.env, opened.env) = self.open_one(role.env.as_ref(), blobs)?
            }
            Desired::Proxy(proxy) => {
                let sealed = proxy.registry.as_ref().map(|r| &r.sealed);
                (bundles.registry, opened.registry) = self.open_one(sealed, blobs)?;
            }
            Desired::App(app) => {
                let login = app.staged.as_ref().and_then(|s| s.registry.as_ref());
                (bundles.registry, opened.registry) =
                    self.open_one(login.map(|r| &r.sealed), blobs)?;
                for role in app.prepare.iter().flat_map(|p| &p.roles) {
                    let (bundle, secrets) = self.open_one(role.tls.as_ref(), blobs)?;
                    bundles.tls.insert(role.role.clone(), bundle);
                    if let Some(secrets) = secrets {
                        opened.tls.insert(role.role.clone(), secrets);
                    }
                }
            }
            Desired::Accessory(_)
            | Desired::Agent(_)
            | Desired::Task(_)
            | Desired::Absent(_)
            | Desired::Settle { .. } => {}
        }
        Ok((bundles, opened))
    }

    fn open_one(
        &self,
        sealed: Option<&SealedSecrets>,
        blobs: &Blobs,
    ) -> Result<(Bundle, Option<Secrets>), ResolveError> {
        let Some(sealed) = sealed else { return Ok((Bundle::None, None)) };
        let Some(ciphertext) = blobs.get(&sealed.ciphertext.digest) else {
            let digest = sealed.ciphertext.digest;
            return Err(ResolveError::Later(format!("blob {digest} was not fetched")));
        };
        let binding = Binding { host: &self.host, unit: &sealed.unit, purpose: sealed.purpose };
        Ok(match self.host_key.open(ciphertext, &sealed.key, &binding) {
            Ok(secrets) => (Bundle::Opened, Some(secrets)),
            Err(error) => {
                (Bundle::Locked(format!("{} secrets: {error}", sealed.purpose.as_str())), None)
            }
        })
    }
}
