//! PURE: one proxy per host, as all its apps want it.

use dhow_proto::model::template::ProxyTemplate;

use super::{Claim, Owner};

/// Two apps of a host ask for different proxies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{first} and {second} share a host but give different `proxy.run` settings; make them equal or remove one"
)]
pub struct ProxyConflict {
    /// One of them.
    pub first: Owner,
    /// The other.
    pub second: Owner,
}

/// The proxy that all claims agree on; none where no app has a proxied role. Settings that a config spells out beat
/// defaults; among defaults the newest image wins, so that the order of deploys makes no difference.
///
/// # Errors
///
/// [`ProxyConflict`] where two configs spell out different ones.
pub fn compose(claims: &[Claim]) -> Result<Option<ProxyTemplate>, ProxyConflict> {
    let wishes = claims.iter().filter_map(|c| c.proxy.as_ref().map(|p| (&c.owner, p)));
    let (explicit, defaults): (Vec<_>, Vec<_>) = wishes.partition(|(_, p)| p.explicit);
    if let Some((first, template)) = explicit.first() {
        if let Some((second, _)) = explicit.iter().find(|(_, other)| other != template) {
            return Err(ProxyConflict { first: (*first).clone(), second: (*second).clone() });
        }
        return Ok(Some((*template).clone()));
    }
    let newest = defaults.into_iter().max_by_key(|(owner, p)| {
        let number = |part: &str| part.trim_start_matches('v').parse::<u64>().unwrap_or(0);
        (p.image.tag.split('.').map(number).collect::<Vec<u64>>(), owner.to_string())
    });
    Ok(newest.map(|(_, p)| p.clone()))
}
