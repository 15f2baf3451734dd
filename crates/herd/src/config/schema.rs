//! The JSON schema (draft 2020-12) of a configuration file: what the readers of its sections say of themselves.

use serde_json::{Map, Value, json};

use super::{
    fields::{About, Fields},
    file,
    form::Shape,
    mistake::Mistakes,
};

/// The schema of a whole file.
pub(crate) fn schema() -> Value {
    let mut none = Mistakes::default();
    let mut fields = Fields::described("", &mut none);
    file::document(&mut fields);
    let mut schema = fields.into_description().into_value();
    let root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "herd",
        "description": "The configuration of herd serve. Texts may have ${VAR}, ${VAR:-default} and ${file:/path} in \
                        them. A schema sees one value at a time: `herd check FILE` finds every mistake.",
        "$defs": {
            "interpolated": {
                "description": "A text into which variables of the environment or files are filled.",
                "type": "string",
                "pattern": r"\$\{",
            },
        },
    });
    for (key, value) in root.as_object().into_iter().flatten() {
        schema[key] = value.clone();
    }
    schema
}

/// What may be in one map.
#[derive(Clone, Debug)]
pub(super) struct MapSchema {
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

impl MapSchema {
    pub(super) fn new() -> Self {
        Self { properties: Map::new(), required: Vec::new() }
    }

    pub(super) fn require(&mut self, key: &'static str) {
        self.required.push(key);
    }

    pub(super) fn value(&mut self, path: &str, key: &str, shape: Shape, about: About) {
        self.add(path, key, json!({ "anyOf": forms(shape) }), about);
    }

    pub(super) fn nullable(&mut self, path: &str, key: &str, shape: Shape, about: About) {
        let mut forms = forms(shape);
        forms.push(json!({ "type": "null" }));
        self.add(path, key, json!({ "anyOf": forms }), about);
    }

    pub(super) fn list(&mut self, path: &str, key: &str, shape: Shape, about: About, or_one: bool) {
        let list = json!({ "type": "array", "items": { "anyOf": forms(shape) } });
        let schema = if or_one {
            let mut forms = forms(shape);
            forms.push(list);
            json!({ "anyOf": forms })
        } else {
            list
        };
        self.add(path, key, schema, about);
    }

    pub(super) fn section(&mut self, path: &str, key: &str, inner: Self, about: About) {
        self.add(path, key, inner.into_value(), about);
    }

    pub(super) fn sections(&mut self, path: &str, key: &str, inner: Self, about: About) {
        self.add(path, key, json!({ "type": ["array", "null"], "items": inner.into_value() }), about);
    }

    pub(super) fn named(&mut self, path: &str, key: &str, names: Shape, inner: Self, about: About) {
        let mut schema = json!({ "type": ["object", "null"], "additionalProperties": inner.into_value() });
        if let Shape::Pattern(pattern, _) = names {
            schema["propertyNames"] = json!({ "pattern": pattern });
        }
        self.add(path, key, schema, about);
    }

    fn add(&mut self, path: &str, key: &str, mut schema: Value, about: About) {
        let title = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        schema["title"] = title.into();
        schema["description"] = about.text.into();
        if let Some(default) = about.default {
            // A default that is no JSON is a text that would have to be quoted twice.
            schema["default"] = serde_json::from_str(default).unwrap_or_else(|_| default.into());
        }
        self.properties.insert(key.to_owned(), schema);
    }

    /// A section that is there and has nothing below it is an empty one; what has to be there is missing in it.
    fn into_value(self) -> Value {
        let types = if self.required.is_empty() { json!(["object", "null"]) } else { json!("object") };
        let mut schema = json!({ "type": types, "additionalProperties": false, "properties": self.properties });
        if !self.required.is_empty() {
            schema["required"] = json!(self.required);
        }
        schema
    }
}

/// The ways in which a value may be written.
fn forms(shape: Shape) -> Vec<Value> {
    let own = match shape {
        // Whatever text comes out of a variable is one as well.
        Shape::Text => return vec![json!({ "type": ["string", "number", "boolean"] })],
        Shape::Pattern(pattern, numbers) => {
            let mut forms = vec![json!({ "type": "string", "pattern": pattern })];
            if let Some((min, max)) = numbers {
                let mut number = json!({ "type": "integer", "minimum": min });
                if max < i64::MAX {
                    number["maximum"] = max.into();
                }
                forms.push(number);
            }
            forms
        }
        Shape::Words(words) => vec![json!({ "enum": words() })],
        Shape::Boolean => vec![json!({ "type": "boolean" })],
        Shape::Integer(min, max) => vec![json!({ "type": "integer", "minimum": min, "maximum": max })],
        Shape::Number(min, max) => vec![json!({ "type": "number", "minimum": min, "maximum": max })],
    };
    own.into_iter().chain([json!({ "$ref": "#/$defs/interpolated" })]).collect()
}
