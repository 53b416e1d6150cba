//! JSON Schema of `deploy.yml`, for editors: made from the table of keys.
//!
//! It says what one file may hold. Rules between keys, and what a destination adds, are beyond it;
//! `dhow config check` knows them.

use serde_json::{Map as JsonMap, Value as Json, json};

use super::{ENV, PATH_MAP, ROLE, ROOT, Section, Shape};

/// The schema (draft 2020-12).
#[must_use]
pub fn schema() -> Json {
    let mut builder = Builder::default();
    let mut root = builder.section(&ROOT);
    // Only a role may say just yes or no; at the root it is a section.
    root["properties"]["proxy"] = describe(builder.reference(&super::PROXY), &ROOT, "proxy");
    root["properties"]["x-dhow"] = json!({
        "type": "object",
        "description": "Settings that only dhow has",
        "additionalProperties": false,
        "properties": {
            "failure_policy": { "enum": ["stop", "rollback"] },
            "env_escaping": { "enum": ["exact", "kamal"] },
        },
    });
    root["patternProperties"] = json!({ "^x-": true });
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "deploy.yml of dhow and Kamal 2",
    });
    for (key, value) in root.as_object_mut().map(std::mem::take).unwrap_or_default() {
        schema[key] = value;
    }
    schema["$defs"] = Json::Object(builder.definitions);
    schema
}

#[derive(Default)]
struct Builder {
    definitions: JsonMap<String, Json>,
}

/// The name of a section's definition: letters and underscores only.
fn definition(section: &Section) -> String {
    section.name.replace(['.', ' '], "_")
}

fn describe(mut schema: Json, section: &Section, name: &str) -> Json {
    if let Some(key) = section.key(name) {
        schema["description"] = json!(key.about);
        if !key.default.is_empty() {
            let text = format!("{}. Default: {}", key.about, key.default);
            schema["description"] = json!(text.replace('`', ""));
        }
    }
    schema
}

impl Builder {
    fn section(&mut self, section: &'static Section) -> Json {
        let mut properties = JsonMap::new();
        for key in section.keys {
            let schema = self.shape(key.shape);
            properties.insert(key.name.to_owned(), describe(schema, section, key.name));
        }
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    }

    fn reference(&mut self, section: &'static Section) -> Json {
        let name = definition(section);
        if !self.definitions.contains_key(&name) {
            // A place holder first: `env` refers to itself by its tags.
            self.definitions.insert(name.clone(), Json::Null);
            let schema = self.section(section);
            self.definitions.insert(name.clone(), schema);
        }
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    fn shape(&mut self, shape: Shape) -> Json {
        match shape {
            Shape::Text => text(),
            Shape::Integer => json!({ "type": "integer" }),
            Shape::Boolean => json!({ "type": "boolean" }),
            Shape::TextList => list(text()),
            Shape::TextOrList => json!({ "anyOf": [text(), list(text())] }),
            Shape::AnyMap => json!({ "type": "object" }),
            Shape::TextMap => map(text()),
            Shape::Map(section) => self.reference(section),
            Shape::Hosts => hosts(),
            Shape::Servers => {
                let role = self.reference(&ROLE);
                json!({ "anyOf": [hosts(), map(json!({ "anyOf": [hosts(), role] }))] })
            }
            Shape::Named(section) => map(self.reference(section)),
            Shape::Env => self.env(),
            Shape::EnvTags => map(self.env()),
            Shape::Aliases => {
                let mut aliases = map(text());
                aliases["propertyNames"] = json!({ "pattern": "^[a-z0-9_-]+$" });
                aliases
            }
            Shape::Credential => json!({ "anyOf": [
                { "type": "string", "minLength": 1 },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 1 },
            ] }),
            Shape::Ssl(section) => {
                // Kamal does not look at other keys of the map.
                let mut map = self.section(section);
                map["additionalProperties"] = json!(true);
                json!({ "anyOf": [{ "type": "boolean" }, map] })
            }
            Shape::SshConfig => json!({ "anyOf": [text(), list(text())] }),
            Shape::Paths => {
                let mut path = self.section(&PATH_MAP);
                path["additionalProperties"] = json!(true);
                list(json!({ "anyOf": [text(), path] }))
            }
            Shape::HooksOutput => json!({ "anyOf": [text(), map(text())] }),
            Shape::ProxyOrBoolean(section) => {
                json!({ "anyOf": [{ "type": "boolean" }, self.reference(section)] })
            }
        }
    }

    /// Either form: with one of the three words only these are keys, else every key is a variable.
    fn env(&mut self) -> Json {
        let long = self.reference(&ENV);
        let words = ["clear", "secret", "tags"];
        let none: Vec<Json> = words.iter().map(|word| json!({ "required": [word] })).collect();
        let mut short = map(text());
        short["not"] = json!({ "anyOf": none });
        json!({ "anyOf": [long, short] })
    }
}

/// What Kamal takes for a string.
fn text() -> Json {
    json!({ "type": ["string", "number", "boolean"] })
}

fn list(items: Json) -> Json {
    json!({ "type": "array", "items": items })
}

fn map(values: Json) -> Json {
    json!({ "type": "object", "additionalProperties": values })
}

fn hosts() -> Json {
    let tagged = json!({
        "type": "object",
        "additionalProperties": { "anyOf": [text(), list(text())] },
        "minProperties": 1,
        "maxProperties": 1,
    });
    list(json!({ "anyOf": [text(), tagged] }))
}
