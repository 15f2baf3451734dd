//! That the schema says what the reader does. Both are made of the same, so what is left to check is what was written
//! beside: defaults, and that each key can be read.

use serde_json::Value;

use super::*;

/// Calls `visit` with each key that has a value of its own, and with what the schema says of it. Elements of lists are
/// `name[]`, what is under names of choice `name.NAME`.
pub(super) fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    if let Some(properties) = schema["properties"].as_object() {
        for (key, inner) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            walk(inner, &path, visit);
        }
    } else if schema["items"]["properties"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    } else if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}.NAME"), visit);
    } else {
        visit(path, schema);
    }
}

/// A file with nothing but this key.
pub(super) fn document(key: &str, value: &str) -> String {
    let mut text = String::new();
    let mut close = String::new();
    for part in key.split('.') {
        let name = part.strip_suffix("[]");
        text += &format!("{{{}: ", name.unwrap_or(part).replace("NAME", "name"));
        close.insert(0, '}');
        if name.is_some() {
            text += "[";
            close.insert(0, ']');
        }
    }
    // A list is wanted where the schema has one, which the reader says otherwise.
    let is_list = ["command", "env", "read_only", "writable", "hidden", "egress_allow", "admin_hosts", "events"]
        .iter()
        .any(|list| key.ends_with(list));
    if is_list && !value.starts_with('[') { format!("{text}[{value}]{close}") } else { format!("{text}{value}{close}") }
}

#[test]
fn a_default_that_the_schema_names_means_the_same_as_nothing() {
    let mut count = 0;
    walk(&super::super::schema(), "", &mut |key, schema| {
        let Some(default) = schema.get("default") else { return };
        // Of what only counts beside other keys, the other tests have examples.
        if ["routes", "access", "webhooks"].iter().any(|section| key.starts_with(section)) {
            return;
        }
        count += 1;
        let nothing = match key.rsplit_once('.') {
            Some((section, _)) if key.contains("NAME") => document(section, "{}"),
            _ => String::new(),
        };
        let written = load(&document(key, &default.to_string())).unwrap_or_else(|mistakes| panic!("{key}: {mistakes}"));
        let left_out = load(&nothing).unwrap_or_else(|mistakes| panic!("{key}: {mistakes}"));
        assert!(written.network == left_out.network, "{key}");
        assert!(written.tenants == left_out.tenants, "{key}");
        assert!(written.telemetry == left_out.telemetry, "{key}");
        let (pool, other) = (&written.pools[0], &left_out.pools[0]);
        assert!(pool.worker == other.worker && pool.resources == other.resources, "{key}");
        assert!(pool.sandbox == other.sandbox, "{key}");
    });
    assert!(count > 60, "only {count} keys have a default");
}

#[test]
fn defaults_of_lists_of_maps_mean_the_same_as_nothing() {
    let pairs = [
        ("routes[]", "pool: default, path_prefix: /x", vec!["strip_prefix"]),
        ("webhooks[]", "url: 'https://a/'", vec!["secret_file", "events", "timeout", "max_queue", "give_up_after"]),
        ("access.tokens[]", "name: a, file: /t", vec!["tenant"]),
        (
            "access.jwt",
            "algorithm: EdDSA, key_file: /k, audience: a",
            vec!["issuer", "tenant_claim", "session_claim", "leeway"],
        ),
    ];
    let mut defaults = std::collections::BTreeMap::new();
    walk(&super::super::schema(), "", &mut |key, schema| {
        defaults.extend(schema.get("default").map(|default| (key.to_owned(), default.to_string())));
    });
    for (section, needed, keys) in pairs {
        let left_out = load(&document(section, &format!("{{{needed}}}"))).unwrap_or_else(|found| panic!("{found}"));
        for key in keys {
            let default = &defaults[&format!("{section}.{key}")];
            let text = document(section, &format!("{{{needed}, {key}: {default}}}"));
            let written = load(&text).unwrap_or_else(|found| panic!("{text}: {found}"));
            assert!(written.routes == left_out.routes && written.access == left_out.access, "{text}");
            assert!(written.webhooks == left_out.webhooks, "{text}");
        }
    }
}

#[test]
fn every_key_is_described_and_has_a_title_that_is_its_path() {
    walk(&super::super::schema(), "", &mut |key, schema| {
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(description.ends_with('.') && description.len() > 10, "{key}: {description}");
        assert_eq!(schema["title"], key);
    });
}

#[test]
fn the_file_with_every_key_has_every_key_and_is_right() {
    let text = include_str!("../../../tests/data/every_key.yaml");
    load(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    walk(&super::super::schema(), "", &mut |key, _| {
        let name = key.rsplit('.').next().unwrap_or(key);
        let is_there = |line: &str| line.contains(&format!(" {name}:")) || line.contains(&format!("{{{name}:"));
        assert!(text.lines().any(is_there), "{key} is not in every_key.yaml");
    });
}
