//! Replaces what differs from run to run by words.

use regex::Regex;
use serde_json::Value;

use super::containers::{strings, text};

/// What is replaced, in order: exact texts first, then patterns.
#[derive(Debug)]
pub(super) struct Masks {
    exact: Vec<(String, String)>,
    patterns: Vec<(Regex, &'static str)>,
}

/// Patterns and their replacements. A pattern that does not compile would fail the tests below.
const PATTERNS: [(&str, &str); 6] = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|UTC|[+-]\d\d:?\d\d))?", "<time>"),
    (r"_replaced_[0-9a-f]{8,}", "_replaced_<hex>"),
    (r"sha256:[0-9a-f]{64}", "<digest>"),
    (r"\b[0-9a-f]{64}\b", "<hex64>"),
    (r"-[0-9a-f]{12}\b", "-<hex12>"),
    (r"\b[0-9a-f]{32}\b", "<hex32>"),
];

impl Masks {
    pub(super) fn new(containers: &[Value], images: &[Value]) -> Self {
        let mut exact = Vec::new();
        for container in containers {
            let (id, name) = (text(container, "/Id"), text(container, "/Name"));
            let word = format!("<id of {}>", name.trim_start_matches('/'));
            exact.push((id.to_owned(), word.clone()));
            exact.push((id.get(..12).unwrap_or(id).to_owned(), word));
        }
        for image in images {
            let id = text(image, "/Id");
            let mut tags = strings(image, "RepoTags");
            tags.sort_unstable();
            let word = format!("<image {}>", tags.first().unwrap_or(&"without a tag"));
            exact.push((id.to_owned(), word));
        }
        exact.retain(|(id, _)| !id.is_empty());
        let patterns = PATTERNS.iter().filter_map(|(p, w)| Some((Regex::new(p).ok()?, *w)));
        Self { exact, patterns: patterns.collect() }
    }

    /// Replaces an address by `word`, where it is not part of a longer one.
    pub(super) fn address(mut self, address: &str, word: &'static str) -> Self {
        let pattern = format!(r"\b{}\b", regex::escape(address));
        self.patterns.extend(Regex::new(&pattern).ok().map(|pattern| (pattern, word)));
        self
    }

    pub(super) fn apply(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (id, word) in &self.exact {
            if line.contains(id.as_str()) {
                line = line.replace(id.as_str(), word);
            }
        }
        for (pattern, word) in &self.patterns {
            line = pattern.replace_all(&line, *word).into_owned();
        }
        line
    }
}

/// `text` without terminal colours.
pub(super) fn without_colours(text: &str) -> String {
    match Regex::new("\x1b\\[[0-9;]*m") {
        Ok(colour) => colour.replace_all(text, "").into_owned(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_patterns_are_there() {
        assert_eq!(Masks::new(&[], &[]).patterns.len(), PATTERNS.len());
    }

    #[test]
    fn an_id_says_whose_it_was() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let container = json!({"Id": id, "Name": "/shop-web-v1"});
        let masks = Masks::new(&[container], &[])
            .address("10.77.0.1", "<hub>")
            .address("10.77.0.11", "<host>");
        let check = |line: &str, masked: &str| assert_eq!(masks.apply(line), masked);
        check("route = 0123456789ab:80", "route = <id of shop-web-v1>:80");
        check("on 10.77.0.11 from 10.77.0.1:5000", "on <host> from <hub>:5000");
        check("shop-web-v1_replaced_00112233aabbccdd", "shop-web-v1_replaced_<hex>");
        check("10.77.0.11-0a1b2c3d4e5f", "<host>-<hex12>");
        check("[2026-11-24T00:00:00Z] [root] Booted", "[<time>] [root] Booted");
    }
}
