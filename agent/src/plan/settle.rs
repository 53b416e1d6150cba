//! Decides a `settle` intent from what serves.

use std::collections::BTreeSet;

use dhow_proto::model::{BlobDigest, Generation};

use super::observed::ObservedRole;
use super::wanted::Wanted;

/// What a `settle` intent comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// This generation is wanted.
    Generation(Generation),
    /// Nothing ever settled: leave everything as it is.
    Release,
}

/// The attempted generation where it serves, else the one before. `attempted` is the intent of the attempted generation,
/// none where it never reached this host. For units other than roles, pass `None` as `observed`: what settled before is wanted.
pub fn settle(
    attempted: Option<&Wanted>,
    otherwise: Option<Generation>,
    observed: Option<&ObservedRole>,
) -> Chosen {
    if let (Some(attempted), Some(observed)) = (attempted, observed)
        && serves(attempted, observed)
    {
        return Chosen::Generation(attempted.intent.generation);
    }
    otherwise.map_or(Chosen::Release, Chosen::Generation)
}

fn serves(wanted: &Wanted, observed: &ObservedRole) -> bool {
    let digests: BTreeSet<BlobDigest> = super::serving::intent_digests(wanted);
    super::current::live(wanted, observed).iter().any(|live| {
        digests.iter().any(|d| live.label(dhow_proto::model::kamal::LABEL_INTENT) == d.to_string())
    })
}
