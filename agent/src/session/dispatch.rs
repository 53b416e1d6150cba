//! What a message of the controller leads to: the catch-up after Welcome, and the answer to an intent.

use std::collections::BTreeSet;

use dhow_proto::model::intent::Desired;
use dhow_proto::model::{BlobDigest, Generation, Unit};
use dhow_proto::wire;
use prost::Message as _;
use wire::session_request::Message as Up;

use crate::ledger::{Accept, Ledger};

/// Catches up with the pages of a Welcome: newest generations only.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    named: BTreeSet<Unit>,
}

impl CatchUp {
    /// What to say about a page: a `Want` for each unit that is newer there, a refusal for each that contradicts us.
    pub(super) fn page(&mut self, ledger: &Ledger, units: Vec<wire::UnitGeneration>) -> Vec<Up> {
        units.into_iter().filter_map(|unit| self.unit(ledger, unit)).collect()
    }

    fn unit(&mut self, ledger: &Ledger, offered: wire::UnitGeneration) -> Option<Up> {
        let generation = Generation::from(offered.generation.unwrap_or_default());
        let unit = match offered
            .unit
            .clone()
            .ok_or("missing".to_owned())
            .and_then(|unit| Unit::try_from(unit).map_err(|e| e.to_string()))
        {
            Ok(unit) => unit,
            Err(error) => {
                // A kind of unit that a newer controller knows; it withholds such intents anyway.
                tracing::warn!(%error, "the controller names a unit this agent does not know");
                return None;
            }
        };
        self.named.insert(unit.clone());
        let want =
            || Up::Want(wire::Want { unit: offered.unit.clone(), generation: offered.generation });
        let Some(wanted) = ledger.known(&unit).wanted else { return Some(want()) };
        let ours = wanted.generation();
        if generation > ours {
            return Some(want());
        }
        let digest = BlobDigest::try_from(offered.digest.as_ref()).ok();
        if generation == ours && digest == Some(wanted.digest) {
            return None;
        }
        let reason = if generation == ours {
            format!("generation {generation} was already accepted with other content")
        } else {
            format!("generation {generation} is older than {ours}")
        };
        tracing::error!(%unit, %generation, %reason, "the controller contradicts this host's ledger");
        Some(Up::Refused(wire::IntentRefused {
            unit: offered.unit,
            generation: offered.generation,
            reason,
        }))
    }

    /// Units of the ledger that no page named: left alone and reported. Those that were told to go are no news.
    pub(super) fn unnamed(&self, ledger: &Ledger) -> Vec<Unit> {
        let managed = |unit: &Unit| {
            ledger
                .known(unit)
                .wanted
                .is_some_and(|w| !matches!(w.intent.desired, Desired::Absent(_)))
        };
        ledger.units().into_iter().filter(|u| !self.named.contains(u) && managed(u)).collect()
    }
}

/// Offers an intent to the ledger; what is to be said is a refusal with its reason.
pub(super) fn take_intent(ledger: &Ledger, intent: wire::Intent) -> Option<Up> {
    let (unit, generation) = (intent.unit.clone(), intent.generation);
    let shown = || {
        let name = unit.clone().and_then(|u| Unit::try_from(u).ok());
        name.map_or("unknown".to_owned(), |u| u.to_string())
    };
    let number = Generation::from(generation.unwrap_or_default());
    match ledger.accept(&intent.encode_to_vec()) {
        Ok(Accept::New) => {
            tracing::info!(unit = shown(), generation = %number, "intent accepted");
            None
        }
        Ok(Accept::Known) => None,
        Err(error) => {
            let reason = chain(&error);
            tracing::warn!(unit = shown(), generation = %number, error = %reason, "intent refused");
            Some(Up::Refused(wire::IntentRefused { unit, generation, reason }))
        }
    }
}

/// An error with its sources, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
