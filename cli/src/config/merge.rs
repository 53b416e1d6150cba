//! Merges a destination over its base, and a role's section over the root's, as Rails does.

use super::yaml::{Map, Node, Value};

/// Merges `over` into `base`: maps recursively, anything else is replaced. Positions stay with the
/// values they belong to.
pub(crate) fn deep_merge(base: &mut Map, over: &Map) {
    for entry in &over.entries {
        let place = base.entries.iter_mut().find(|known| known.key.value == entry.key.value);
        let Some(known) = place else {
            base.entries.push(entry.clone());
            continue;
        };
        known.key.span = entry.key.span;
        match (&mut known.value.value, &entry.value.value) {
            (Value::Map(below), Value::Map(above)) => {
                deep_merge(below, above);
                known.value.span = entry.value.span;
                // Ruby makes a new hash; the two are no longer one object.
                known.value.id.0 |= 0x8000_0000;
            }
            _ => known.value = entry.value.clone(),
        }
    }
}

/// `over` merged over `base`, both kept.
pub(crate) fn merged(base: Option<&Node>, over: Option<&Node>) -> Map {
    let mut map = base.and_then(Node::as_map).cloned().unwrap_or_default();
    if let Some(over) = over.and_then(Node::as_map) {
        deep_merge(&mut map, over);
    }
    map
}
