//! Which keys there are, by the settings' own types.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Settings;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<Settings>()
        .to_value()
});

/// What there is at a key.
#[derive(Clone, Copy)]
pub(super) struct Node(&'static Value);

impl Node {
    /// The whole of the settings.
    pub fn root() -> Self {
        Self(&SCHEMA)
    }

    /// What a table has under this name.
    pub fn child(self, name: &str) -> Option<Self> {
        let properties = self.0.get("properties");
        let named = properties.and_then(|properties| properties.get(name));
        let any = || {
            self.0
                .get("additionalProperties")
                .filter(|any| any.is_object())
        };
        Some(Self::present(named.or_else(any)?))
    }

    /// The names that a table has; none of one whose names are free, such as those of cameras.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let properties = self.0.get("properties").and_then(Value::as_object);
        properties
            .into_iter()
            .flat_map(|p| p.keys().map(String::as_str))
    }

    /// Whether keys lie below it.
    pub fn is_table(self) -> bool {
        self.0.get("properties").is_some()
            || self
                .0
                .get("additionalProperties")
                .is_some_and(Value::is_object)
    }

    /// Whether its value is text and nothing else.
    pub fn is_text(self) -> bool {
        match self.0.get("type") {
            Some(Value::String(kind)) => kind == "string",
            Some(Value::Array(kinds)) => kinds.iter().all(|k| k == "string" || k == "null"),
            _ => self.0.get("oneOf").is_some(),
        }
    }

    /// That which is not null, of what may be missing.
    fn present(schema: &'static Value) -> Self {
        let choices = schema.get("anyOf").and_then(Value::as_array);
        let present = choices.and_then(|choices| {
            let is_null = |choice: &Value| choice.get("type").is_some_and(|kind| kind == "null");
            match choices.as_slice() {
                [one, null] if is_null(null) => Some(one),
                _ => None,
            }
        });
        Self(present.unwrap_or(schema))
    }
}

/// The name that looks most like this one, if any does.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below these (0 to 1) a suggestion would puzzle.
    const SAME_BEGINNING: f64 = 0.75;
    const FEW_EDITS: f64 = 0.6;
    let alike = |known: &str| {
        let beginning = strsim::jaro_winkler(name, known);
        let edits = strsim::normalized_damerau_levenshtein(name, known);
        (beginning >= SAME_BEGINNING || edits >= FEW_EDITS).then(|| beginning.max(edits))
    };
    known
        .filter_map(|known| Some((alike(known)?, known)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// All keys that have values, with their tables; free names stand as `NAME`.
#[cfg(test)]
pub(super) fn all() -> Vec<String> {
    fn below(node: Node, path: &str, keys: &mut Vec<String>) {
        if !node.is_table() {
            keys.push(path.to_owned());
            return;
        }
        let joined = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        for name in node.names() {
            below(
                node.child(name).expect("a name has a node"),
                &joined(name),
                keys,
            );
        }
        if node.names().next().is_none() {
            below(
                node.child("NAME").expect("free names"),
                &joined("NAME"),
                keys,
            );
        }
    }
    let mut keys = Vec::new();
    below(Node::root(), "", &mut keys);
    keys
}
