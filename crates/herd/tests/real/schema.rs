use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::provided;

fn herd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_herd"))
}

/// What `herd schema` prints.
fn schema() -> Value {
    let printed = herd().arg("schema").output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    serde_json::from_slice(&printed.stdout).unwrap()
}

/// What a validator of JSON schemas, and a parser of YAML, that are not herd's find wrong in the documents.
fn errors(documents: &BTreeMap<String, String>) -> BTreeMap<String, Vec<String>> {
    let mut python = Command::new(provided("HERD_TEST_CHECKERS"));
    python.args(["-c", include_str!("validate.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let given = json!({ "schema": schema(), "documents": documents }).to_string();
    child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the schema is none, or a document is no YAML; see above");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The blocks of YAML in a page.
fn snippets(page: &str) -> Vec<String> {
    let mut snippets = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match &mut open {
            Some(_) if line.trim() == "```" => snippets.extend(open.take()),
            Some(snippet) => *snippet += &format!("{line}\n"),
            None if line.trim() == "```yaml" => open = Some(String::new()),
            None => {}
        }
    }
    snippets
}

/// Every configuration that the documentation shows, and the one with every key.
fn documented() -> BTreeMap<String, String> {
    let root = repository();
    let mut documents = BTreeMap::new();
    let mut directories = vec![root.join("docs")];
    let mut pages = vec![root.join("README.md"), root.join("SECURITY.md")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => directories.push(path),
                Some("md") => pages.push(path),
                Some("yaml") => {
                    documents.insert(path.display().to_string(), fs::read_to_string(&path).unwrap());
                }
                _ => {}
            }
        }
    }
    for page in pages {
        for (index, snippet) in snippets(&fs::read_to_string(&page).unwrap()).into_iter().enumerate() {
            documents.insert(format!("{} snippet {index}", page.display()), snippet);
        }
    }
    documents.insert("every key".to_owned(), include_str!("../data/every_key.yaml").to_owned());
    documents
}

/// Whether `herd check` finds a mistake, and what it prints.
fn check(directory: &Path, text: &str) -> (bool, String) {
    let file = directory.join("herd.yaml");
    fs::write(&file, text).unwrap();
    // The examples have variables for what must have no default.
    let variable = ("ACME_TOKEN_SHA256", "5b".repeat(32));
    let checked = herd().arg("check").arg(&file).env(variable.0, variable.1).output().unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    (!checked.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_documented_configuration_is_right_for_the_schema_and_for_herd_check() {
    let documents = documented();
    for example in ["docs/herd.yaml", "examples/pools.yaml", "examples/tenants.yaml", "examples/v0.4.yaml"] {
        assert!(documents.keys().any(|name| name.contains(example)), "{example} is not among {:?}", documents.keys());
    }
    let directory = tempfile::tempdir().unwrap();
    let errors = errors(&documents);
    for (name, text) in &documents {
        assert!(errors[name].is_empty(), "{name}: {:?}", errors[name]);
        let (is_wrong, said) = check(directory.path(), text);
        assert!(!is_wrong, "{name}: {said}");
    }
}

#[test]
fn broken_configurations_are_wrong_for_the_schema_and_for_herd_check() {
    let broken = [
        "banana: 1",
        "network: {lookup_onyl: true}",
        "network: {data_bind: 8080}",
        "network: {data_bind: 127.0.0.1}",
        "network: {admin_bind: on}",
        "network: {session_key: banana}",
        "network: {session_key: [host, 5]}",
        "network: {lookup_only: 'true'}",
        "network: {max_connections: 0}",
        "network: {max_connections: '5'}",
        "network: {tls: {cert_file: /c}}",
        "network: {tls: {cert_file: c, key_file: /k}}",
        "network: {admin_hosts: herd.example.com}",
        "worker: {command: python3}",
        "worker: {env: [A]}",
        "worker: {listen: prot}",
        "worker: {port: 80}",
        "resources: {ttl: 5}",
        "resources: {ttl: 0s}",
        "resources: {ttl: 5 minutes}",
        "resources: {max_workers: -1}",
        "resources: {max_workers: 1.5}",
        "resources: {pids_limit: -2}",
        "resources: {open_files: 15}",
        "sandbox: {mode: none}",
        "sandbox: {network: public}",
        "sandbox: {read_only: [data]}",
        "sandbox: {egress_allow: [example.com]}",
        "pools: {Big: {}}",
        "pools: {a: {network: {}}}",
        "routes: [{path_prefix: /x}]",
        "routes: [{pool: default, path_prefix: /x/}]",
        "routes: [{pool: default, host: 'a b'}]",
        "routes: [{pool: default, header: 'X Y'}]",
        "access: {tokens: [{sha256: 0123}]}",
        "access: {tokens: [{name: a, sha256: 0123}]}",
        "access: {jwt: {algorithm: EdDSA, key_file: /k}}",
        "access: {jwt: {algorithm: none, key_file: /k, audience: a}}",
        "access: {query_parameter: 'a b'}",
        "tenants: {default: {max_sessions: 0}}",
        "tenants: {named: {'a b': {}}}",
        "webhooks: [{events: [draining]}]",
        "webhooks: [{url: ftp://a/x}]",
        "webhooks: [{url: 'https://a/x', events: [drained]}]",
        "webhooks: {url: 'https://a/x'}",
        "telemetry: {log_level: warning}",
        "telemetry: {trace_ratio: 2}",
        "telemetry: {metrics_path: metrics}",
        "telemetry: {otlp_endpoint: 'localhost:4318'}",
    ];
    let documents = broken.into_iter().map(|text| (text.to_owned(), text.to_owned())).collect();
    let directory = tempfile::tempdir().unwrap();
    for (text, errors) in errors(&documents) {
        assert!(!errors.is_empty(), "the schema allows {text}");
        let (is_wrong, said) = check(directory.path(), &text);
        assert!(is_wrong, "herd check allows {text}: {said}");
    }
}

#[test]
fn a_text_that_is_filled_in_later_is_right_wherever_a_value_is() {
    let mut documents = BTreeMap::new();
    for text in [
        "resources: {max_workers: '${MOST}', ttl: '${TTL:-5m}', pids_limit: '${PIDS}', cpu_limit_cores: '${CPU}'}",
        "network: {data_bind: '${LISTEN}', lookup_only: '${LOOKUP}', admin_bind: '${ADMIN}', threads: '${N}'}",
        "worker: {command: ['${A}'], env: ['${B}'], listen: '${C}'}\nsandbox: {mode: '${MODE}', read_only: ['${P}']}",
        "tenants: {default: {max_sessions: '${N}'}}\naccess: {tokens: [{name: a, sha256: '${file:/run/hash}'}]}",
    ] {
        documents.insert(text.to_owned(), text.to_owned());
    }
    for (text, errors) in errors(&documents) {
        assert!(errors.is_empty(), "{text}: {errors:?}");
    }
}
