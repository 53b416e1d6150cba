//! What a load consists of.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The most requests one load may have.
const MAX_COUNT: u64 = 1_000_000;

/// A load: so many requests a second, for so long, of these kinds in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSpec {
    /// `http://ADDRESS[:PORT]/PATH`; the path is used by [`Kind::Get`] and [`Kind::Post`].
    pub url: String,
    /// The `Host` header; default that of the URL.
    pub host: Option<String>,
    /// Requests per second.
    pub rate: f64,
    /// Time in which requests are sent, in milliseconds; at most an hour.
    pub duration_ms: u64,
    /// The most requests sent, whichever of the two ends first.
    pub count: u64,
    /// The kinds of requests, sent in this order again and again.
    pub mix: Vec<Kind>,
    /// Every how many requests one goes over a connection of its own; 1: all; 0: none, all over
    /// keep-alive connections.
    pub new_connection_every: u64,
    /// Time a request may take in milliseconds before it counts as failed.
    pub timeout_ms: u64,
    /// Length of a slice of the report in milliseconds.
    pub slice_ms: u64,
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `GET` of the URL.
    Get,
    /// `POST` of so many bytes to the URL.
    Post {
        /// Length of the body.
        bytes: usize,
    },
    /// `GET /slow?ms=N`, which the sample app answers after N milliseconds.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
}

impl LoadSpec {
    /// 50 `GET`s a second for at most a minute, every second one over a new connection.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            host: None,
            rate: 50.0,
            duration_ms: 60_000,
            count: MAX_COUNT,
            mix: vec![Kind::Get],
            new_connection_every: 2,
            timeout_ms: 30_000,
            slice_ms: 100,
        }
    }

    /// The mix of a busy app: mostly plain requests, some with bodies, some slow.
    #[must_use]
    pub fn mixed(url: &str) -> Self {
        let mix = vec![
            Kind::Get,
            Kind::Get,
            Kind::Post { bytes: 2048 },
            Kind::Get,
            Kind::Slow { ms: 300 },
        ];
        Self { mix, ..Self::new(url) }
    }

    /// The longest time it can take.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.duration_ms + self.timeout_ms)
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("write down a load")
    }

    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// Names the field that is out of bounds.
    pub fn check(&self) -> Result<()> {
        let bounds = [
            ("rate", self.rate > 0.0 && self.rate <= 20_000.0),
            ("duration_ms", self.duration_ms <= 3_600_000),
            ("count", self.count <= MAX_COUNT),
            ("mix", !self.mix.is_empty()),
            ("timeout_ms", self.timeout_ms > 0 && self.timeout_ms <= 600_000),
            ("slice_ms", self.slice_ms > 0),
        ];
        match bounds.iter().find(|(_, fine)| !fine) {
            Some((field, _)) => anyhow::bail!("{field} of the load is out of bounds: {self:?}"),
            None => Ok(()),
        }
    }
}
