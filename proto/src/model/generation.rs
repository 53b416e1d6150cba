//! The number that orders the intents of a unit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire;

/// Orders intents: by epoch (raised by a restore from backup), then by number. Only grows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Raised when the store is restored from a backup.
    pub epoch: u64,
    /// Grows with every intent written for the unit.
    pub number: u64,
}

impl Generation {
    /// The one after this, in the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, number: self.number + 1 }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            0 => write!(f, "{}", self.number),
            epoch => write!(f, "{epoch}.{}", self.number),
        }
    }
}

impl From<wire::Generation> for Generation {
    fn from(wire: wire::Generation) -> Self {
        Self { epoch: wire.epoch, number: wire.number }
    }
}

impl From<Generation> for wire::Generation {
    fn from(generation: Generation) -> Self {
        Self { epoch: generation.epoch, number: generation.number }
    }
}
