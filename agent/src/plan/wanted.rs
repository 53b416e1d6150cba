//! What is wanted of a unit, with everything the intent names resolved.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dhow_proto::model::intent::{Desired, Intent, Variant};
use dhow_proto::model::template::{ProxyTemplate, RoleTemplate};
use dhow_proto::model::{BlobDigest, BlobRef, Document as _, FieldError, RoleName};

/// Whether a sealed bundle of the intent can be used here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bundle {
    /// The intent has none.
    #[default]
    None,
    /// Opened; its values are looked up by whoever carries a step out.
    Opened,
    /// Cannot be opened; why, in a sentence.
    Locked(String),
}

/// The bundles of an intent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles {
    /// Environment of the role.
    pub env: Bundle,
    /// Registry login.
    pub registry: Bundle,
    /// Certificates by role.
    pub tls: BTreeMap<RoleName, Bundle>,
}

/// What to do with the generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bring it about.
    #[default]
    Converge,
    /// It failed: stop what it started and does not serve. Nothing of it is ever started.
    Abandon {
        /// Labels `dhow.intent` of what settled before, which may be the failed one's as well; none: nothing ever did.
        settled: Option<BTreeSet<BlobDigest>>,
    },
}

/// What is wanted of a unit. Already decided by the caller: which generation (see [`super::settle`]).
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The intent.
    pub intent: Intent,
    /// Its bundles.
    pub secrets: Bundles,
    /// True where this generation has settled on this host before: drift is repaired, nothing is proved anew.
    pub settled: bool,
    /// What to do with it.
    pub mode: Mode,
    roles: Vec<RoleTemplate>,
    proxy: Option<ProxyTemplate>,
    files: BTreeMap<BlobDigest, Bytes>,
}

/// Why an intent cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// A blob the intent names was not given.
    #[error("blob {} is not on this host", .0.digest)]
    Missing(BlobRef),
    /// A template cannot be read.
    #[error(transparent)]
    Document(#[from] FieldError),
}

impl Wanted {
    /// Resolves the documents of an intent; `blobs` holds at least those of [`Intent::blobs`].
    ///
    /// # Errors
    ///
    /// [`WantedError`] where a blob is missing or a template is not understood.
    pub fn new(
        intent: Intent,
        secrets: Bundles,
        blobs: &BTreeMap<BlobDigest, Bytes>,
    ) -> Result<Self, WantedError> {
        let get = |blob: &BlobRef| blobs.get(&blob.digest).ok_or(WantedError::Missing(*blob));
        let (mut roles, mut proxy, mut files) = (Vec::new(), None, BTreeMap::new());
        match &intent.desired {
            Desired::Role(role) => {
                for variant in &role.variants {
                    roles.push(RoleTemplate::from_bytes(get(&variant.template)?)?);
                }
            }
            Desired::Proxy(p) => {
                if let Some(template) = &p.template {
                    proxy = Some(ProxyTemplate::from_bytes(get(template)?)?);
                }
            }
            Desired::App(app) => {
                for file in app.prepare.iter().flat_map(|p| &p.error_pages) {
                    files.insert(file.content.digest, get(&file.content)?.clone());
                }
            }
            Desired::Accessory(_)
            | Desired::Agent(_)
            | Desired::Task(_)
            | Desired::Absent(_)
            | Desired::Settle { .. } => {}
        }
        Ok(Self { intent, secrets, settled: false, mode: Mode::Converge, roles, proxy, files })
    }

    /// The same, marked as settled here before.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.settled = true;
        self
    }

    /// The same, given up. `settled` is the generation that is wanted instead, if there is one.
    #[must_use]
    pub fn abandoned(mut self, settled: Option<&Self>) -> Self {
        self.mode = Mode::Abandon { settled: settled.map(super::serving::intent_digests) };
        self
    }

    /// The variants of a role's intent with their templates.
    pub(crate) fn variants(&self) -> impl Iterator<Item = (&Variant, &RoleTemplate)> {
        let variants = match &self.intent.desired {
            Desired::Role(role) => role.variants.as_slice(),
            _ => &[],
        };
        variants.iter().zip(&self.roles)
    }

    /// Template of the proxy unit.
    pub fn proxy_template(&self) -> Option<&ProxyTemplate> {
        self.proxy.as_ref()
    }

    /// Bytes of a file the intent names.
    pub fn file(&self, blob: &BlobRef) -> Option<&Bytes> {
        self.files.get(&blob.digest)
    }
}
