//! Whether what a rollout tried is what serves: how it ended on this host, where nobody was there to see it.

use dhow_proto::model::intent::{Desired, Run};

use super::observed::ObservedRole;
use super::wanted::Wanted;
use super::{Impossible, role};

/// True where the role's intent has come to serve: behind kamal-proxy once that routes to its container, else once the
/// container is ready, by the same rule as when it was booted. A container that merely runs may be one that never worked.
///
/// # Errors
///
/// It cannot be told yet, and why.
pub fn has_come_to_serve(wanted: &Wanted, observed: &ObservedRole) -> Result<bool, Impossible> {
    match &wanted.intent.desired {
        Desired::Role(intent) if intent.run == Run::Running => {
            role::has_come_to_serve(wanted, intent, observed)
        }
        _ => Ok(false),
    }
}

/// True where no container of the role is up but what this intent wants.
pub fn is_alone(wanted: &Wanted, observed: &ObservedRole) -> bool {
    match &wanted.intent.desired {
        Desired::Role(intent) => role::is_alone(wanted, intent, observed),
        _ => true,
    }
}
