//! Merges a destination over its base, and a role's section over the root's, as Rails does.

use super::yaml::read::MAX_KEYS;
use super::yaml::{Map, Node, Span, Value};

/// Merges `over` into `base`: maps recursively, anything else is replaced. Positions stay with the
/// values they belong to.
///
/// # Errors
///
/// The key that is one more than a map may have.
pub(crate) fn deep_merge(base: &mut Map, over: &Map) -> Result<(), Span> {
    merge_bounded(base, over, MAX_KEYS)
}

fn merge_bounded(base: &mut Map, over: &Map, limit: usize) -> Result<(), Span> {
    for entry in &over.entries {
        let place = base.entries.iter_mut().find(|known| known.key.value == entry.key.value);
        let Some(known) = place else {
            if base.entries.len() >= limit {
                return Err(entry.key.span);
            }
            base.entries.push(entry.clone());
            continue;
        };
        known.key.span = entry.key.span;
        match (&mut known.value.value, &entry.value.value) {
            (Value::Map(below), Value::Map(above)) => {
                merge_bounded(below, above, limit)?;
                known.value.span = entry.value.span;
                // Ruby makes a new hash; the two are no longer one object.
                known.value.id.0 |= 0x8000_0000;
            }
            _ => known.value = entry.value.clone(),
        }
    }
    Ok(())
}

/// `over` merged over `base`, both kept.
pub(crate) fn merged(base: Option<&Node>, over: Option<&Node>) -> Map {
    let mut map = base.and_then(Node::as_map).cloned().unwrap_or_default();
    if let Some(over) = over.and_then(Node::as_map) {
        // Two maps of one file, both bounded: there is nothing to refuse.
        let _ = merge_bounded(&mut map, over, usize::MAX);
    }
    map
}
