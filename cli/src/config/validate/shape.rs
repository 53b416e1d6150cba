//! One value against one shape.

use super::super::diagnostic::Code;
use super::super::schema::{PATH_MAP, Section, Shape};
use super::super::yaml::{Map, Node, Value};
use super::Checker;

/// Whether Kamal lets it pass for a string.
pub(super) fn is_text(node: &Node) -> bool {
    matches!(
        node.value,
        Value::String(_) | Value::Symbol(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_)
    )
}

impl Checker {
    /// Checks a map with known keys: first which keys, then each value in the file's order.
    pub(super) fn map(&mut self, node: &Node, section: &Section) -> bool {
        let Some(map) = node.as_map() else {
            self.wrong_type("a hash", node);
            return false;
        };
        let before = self.problems.len();
        self.unknown_keys(map, section, false);
        self.values(map, section);
        self.problems.len() == before
    }

    pub(super) fn values(&mut self, map: &Map, section: &Section) {
        for entry in &map.entries {
            if let Some(key) = entry.key.as_text().and_then(|name| section.key(name)) {
                self.within(key.name, |this| this.shape(&entry.value, key.shape));
            }
        }
    }

    /// Checks a value of the schema. Sections that Kamal validates by themselves, later, are only
    /// looked at as a whole here; so the order of problems stays Kamal's.
    pub(super) fn shape(&mut self, node: &Node, shape: Shape) {
        match shape {
            Shape::Text => self.text(node),
            Shape::Integer => self.integer(node),
            Shape::Boolean => self.boolean(node),
            Shape::TextList => self.text_list(node),
            Shape::TextOrList => self.text_or_list(node),
            Shape::TextMap => self.text_map(node),
            Shape::Map(section) if is_nested(section) => {
                self.map(node, section);
            }
            Shape::AnyMap
            | Shape::Map(_)
            | Shape::Named(_)
            | Shape::Env
            | Shape::EnvTags
            | Shape::Aliases => self.any_map(node),
            Shape::Hosts => self.hosts(node),
            Shape::Servers => {
                if node.as_map().is_none() && node.as_list().is_none() {
                    self.wrong_type("an array or a hash", node);
                }
            }
            // Checked by the registry's own rules.
            Shape::Credential => {}
            Shape::Ssl(section) => self.ssl(node, section),
            Shape::SshConfig => self.ssh_config(node),
            Shape::Paths => self.paths(node),
            Shape::HooksOutput => self.hooks_output(node),
            Shape::ProxyOrBoolean(_) => {
                if node.as_bool().is_none() {
                    self.any_map(node);
                } else {
                    self.expected.insert(node.span);
                }
            }
        }
    }

    pub(super) fn text(&mut self, node: &Node) {
        if !is_text(node) {
            self.wrong_type("a string", node);
        }
    }

    fn integer(&mut self, node: &Node) {
        if node.as_int().is_none() {
            self.wrong_type("an integer", node);
        }
    }

    fn boolean(&mut self, node: &Node) {
        if node.as_bool().is_some() {
            self.expected.insert(node.span);
        } else {
            self.wrong_type("a boolean", node);
        }
    }

    pub(super) fn any_map(&mut self, node: &Node) {
        if node.as_map().is_none() {
            self.wrong_type("a hash", node);
        }
    }

    pub(super) fn text_list(&mut self, node: &Node) {
        let Some(items) = node.as_list() else {
            self.wrong_type("an array", node);
            return;
        };
        for (index, item) in items.iter().enumerate() {
            self.within(&index.to_string(), |this| this.text(item));
        }
    }

    fn text_or_list(&mut self, node: &Node) {
        let fits = match node.as_list() {
            Some(items) => items.iter().all(is_text),
            None => is_text(node),
        };
        if !fits {
            self.wrong_type("an array or a string", node);
        }
    }

    pub(super) fn text_map(&mut self, node: &Node) {
        let Some(map) = node.as_map() else {
            self.wrong_type("a hash", node);
            return;
        };
        for entry in &map.entries {
            self.within(&entry.key.to_text(), |this| this.text(&entry.value));
        }
    }

    pub(super) fn hosts(&mut self, node: &Node) {
        let Some(items) = node.as_list() else {
            self.wrong_type("an array", node);
            return;
        };
        for (index, item) in items.iter().enumerate() {
            self.within(&index.to_string(), |this| this.host(item));
        }
    }

    fn host(&mut self, node: &Node) {
        let Some(map) = node.as_map() else {
            if !is_text(node) {
                self.wrong_type("a string or a hash", node);
            }
            return;
        };
        let [entry] = map.entries.as_slice() else {
            self.report(Code::Invalid, "multiple hosts found", Some(node.span)).hint =
                Some("write one list item for each host".into());
            return;
        };
        self.within(&entry.key.to_text(), |this| match entry.value.as_list() {
            Some(_) => this.text_list(&entry.value),
            None if is_text(&entry.value) => {}
            None => this.wrong_type("a string or an array", &entry.value),
        });
    }

    fn hooks_output(&mut self, node: &Node) {
        let Some(map) = node.as_map() else {
            if !is_text(node) {
                self.wrong_type("a string or a symbol", node);
            }
            return;
        };
        for entry in map.entries.iter().filter(|entry| !is_text(&entry.value)) {
            self.within(&entry.key.to_text(), |this| {
                this.wrong_type("a string or a symbol", &entry.value);
            });
        }
    }

    fn ssl(&mut self, node: &Node, section: &Section) {
        if node.as_bool().is_some() {
            self.expected.insert(node.span);
        } else if node.as_map().is_none() {
            self.wrong_type("a boolean or a hash", node);
        }
        // Kamal does not look into the map. Names of secrets that are none would fail at boot.
        for entry in node.as_map().iter().flat_map(|map| &map.entries) {
            let known = entry.key.as_text().and_then(|name| section.key(name));
            if let Some(key) = known.filter(|_| !entry.value.is_blank()) {
                self.within(key.name, |this| this.text(&entry.value));
            }
        }
    }

    fn ssh_config(&mut self, node: &Node) {
        if node.as_bool().is_some() {
            self.expected.insert(node.span);
        } else if node.as_list().is_some() {
            self.text_list(node);
        } else if !matches!(node.value, Value::String(_)) {
            self.wrong_type("a boolean or a string or an array", node);
        }
    }

    fn paths(&mut self, node: &Node) {
        let Some(items) = node.as_list() else {
            self.wrong_type("an array", node);
            return;
        };
        for (index, item) in items.iter().enumerate() {
            self.within(&index.to_string(), |this| {
                let Some(map) = item.as_map() else {
                    if !is_text(item) {
                        this.wrong_type("a string or a hash", item);
                    }
                    return;
                };
                for key in PATH_MAP.keys {
                    if let Some(value) = map.get(key.name) {
                        this.within(key.name, |this| this.text(value));
                    }
                }
            });
        }
    }
}

/// Sections whose keys Kamal checks together with their parent: their titles have a dot.
fn is_nested(section: &Section) -> bool {
    section.name.contains('.')
}
