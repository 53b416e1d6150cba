//! What was done once, remembered because nothing on the host shows it.

use dhow_proto::model::BlobDigest;
use serde::{Deserialize, Serialize};

use crate::plan::Mark;

/// Numbers of things done once, per unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// Of the staged image.
    pub pulled: Option<u64>,
    /// Of stopping stale containers.
    pub stale: Option<u64>,
    /// Of pruning.
    pub pruned: Option<u64>,
    /// Of the proxy's boot.
    pub proxy_boot: Option<u64>,
    /// Digest of what was laid out.
    pub prepared: Option<BlobDigest>,
}

impl Marks {
    /// Remembers a mark.
    pub fn set(&mut self, mark: &Mark) {
        match mark {
            Mark::Pulled(n) => self.pulled = Some(*n),
            Mark::Stale(n) => self.stale = Some(*n),
            Mark::Pruned(n) => self.pruned = Some(*n),
            Mark::ProxyBoot(n) => self.proxy_boot = Some(*n),
            Mark::Prepared(digest) => self.prepared = Some(*digest),
        }
    }
}
