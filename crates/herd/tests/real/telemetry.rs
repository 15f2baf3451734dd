//! The metrics, and what is made of them in `deploy` and `docs`: as Prometheus' own checker sees them, and next to each
//! other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{daemon::Daemon, provided};

/// What has samples of as many metrics as one daemon can.
const CONFIGURATION: &str = "
sandbox: { mode: best-effort }
resources: { max_lifetime: 1s }
tenants: { named: { acme: { max_sessions: 1 } } }
webhooks: [{ url: 'http://127.0.0.1:9/nobody' }]
";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs Prometheus' checker, which must find nothing.
#[track_caller]
fn promtool(args: &[&str], input: &str) {
    let mut promtool = Command::new(provided("HERD_TEST_PROMTOOL"));
    promtool.args(args).current_dir(repository().join("deploy/prometheus"));
    let mut child = promtool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}");
}

/// The metrics of a daemon that has had something to do.
async fn page() -> String {
    let daemon = Daemon::configured(CONFIGURATION);
    daemon.gateway.eval("alice", "let x = 1").await;
    // One that the gateway answers itself.
    daemon.gateway.get(None, "/").await;
    let complete = async {
        loop {
            let page = daemon.gateway.get(None, "/metrics").await.body;
            let has = |sample: &str| page.lines().any(|line| line.starts_with(sample));
            let wanted = [
                "herd_request_seconds_count{pool=\"default\"} 2",
                "herd_pool_memory_bytes{",
                "herd_worker_exits_total{",
            ];
            if wanted.into_iter().all(has) {
                return page;
            }
            // What workers use is looked at when somebody asks, and told to whoever asks next.
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), complete).await.expect("the metrics have what has happened")
}

/// A metric, as the page or the documentation has it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The metrics of a page. Those without samples have no labels.
fn on_page(page: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            let metric = Metric { kind: kind.to_owned(), labels: BTreeSet::new() };
            assert!(metrics.insert(name.to_owned(), metric).is_none(), "{name} is there twice");
        } else if let Some((name, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.split_once('}').unwrap().0;
            let names = labels.split("\",").map(|label| label.split_once('=').unwrap().0.to_owned());
            let metric = metrics.get_mut(family(name)).unwrap_or_else(|| panic!("{name} is not declared"));
            metric.labels.extend(names.filter(|name| name != "le"));
        }
    }
    metrics
}

/// A sample's metric: that of a histogram has three kinds of samples.
fn family(sample: &str) -> &str {
    let suffixes = ["_bucket", "_sum", "_count"].into_iter();
    suffixes.filter_map(|suffix| sample.strip_suffix(suffix)).next().unwrap_or(sample)
}

/// The metrics of the tables in docs/metrics.md, but for those of traces, which only other builds have.
fn documented() -> BTreeMap<String, Metric> {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")).filter(|row| !row.starts_with("herd_trace_"));
    let metric = |row: &str| {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_end_matches('`'));
        let (name, kind, labels) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
        let labels = labels.split(", ").map(|label| label.trim_matches('`')).filter(|label| !label.is_empty());
        (name.to_owned(), Metric { kind: kind.to_owned(), labels: labels.map(str::to_owned).collect() })
    };
    rows.map(metric).collect()
}

/// The names of metrics in an expression or a sentence. What rules record has colons in its name, and is none.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_' || char == ':'));
    let words = words.map(|word| word.trim_end_matches(':'));
    words.filter(|word| word.starts_with("herd_") || word.starts_with("process_")).map(family)
}

/// Every expression in the dashboard, wherever it is.
fn expressions(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(fields) => {
            let own = ["expr", "query", "definition"].into_iter().filter_map(|key| fields.get(key)?.as_str());
            own.chain(fields.values().flat_map(expressions)).collect()
        }
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_metrics_are_as_prometheus_wants_them() {
    promtool(&["check", "metrics"], &page().await);
}

#[test]
fn alert_rules_are_valid_and_fire_when_they_should() {
    promtool(&["check", "rules", "herd.rules.yml"], "");
    promtool(&["test", "rules", "herd.rules.test.yml"], "");
    promtool(&["check", "config", "prometheus.yml"], "");
    let (rules, tests) = (read("deploy/prometheus/herd.rules.yml"), read("deploy/prometheus/herd.rules.test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in &alerts {
        assert!(tests.contains(alert) || alert.starts_with("HerdCertificate"), "no test makes {alert} fire");
    }
    for part in ["for: ", "severity: ", "summary: ", "description: ", "runbook: "] {
        let count = rules.lines().filter(|line| line.contains(part)).count();
        let (least, all) = (alerts.len() - 5, alerts.len());
        // What has happened already is told at once.
        assert!(if part == "for: " { count >= least } else { count == all }, "{part}{count} of {all}");
    }
}

#[tokio::test]
async fn every_metric_is_documented_with_its_labels_and_every_documented_one_is_there() {
    let (page, documented) = (on_page(&page().await), documented());
    assert_eq!(page.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (name, metric) in &page {
        let told = &documented[name];
        assert_eq!(metric.kind, told.kind, "{name}");
        // Some have samples only of what there is: certificates, and tenants that have come.
        assert!(metric.labels.is_empty() || metric.labels == told.labels, "{name}: {metric:?}, {told:?}");
    }
    let with_samples = page.values().filter(|metric| !metric.labels.is_empty()).count();
    let with_labels = documented.values().filter(|metric| !metric.labels.is_empty()).count();
    assert!(with_samples + 3 >= with_labels, "{with_samples} of {with_labels} were looked at");
}

#[tokio::test]
async fn rules_and_dashboard_ask_only_for_metrics_that_there_are() {
    let page = on_page(&page().await);
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/herd.json")).unwrap();
    let rules = read("deploy/prometheus/herd.rules.yml");
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 40, "{expressions:?}");
    let asked: BTreeSet<_> = expressions.into_iter().chain([&*rules]).flat_map(named).collect();
    for name in &asked {
        assert!(page.contains_key(*name), "{name} is no metric");
    }
    assert!(asked.len() > 30, "{asked:?}");
    // What rules record is used under the name that it got.
    let recorded: BTreeSet<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let words = rules.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_' || char == ':'));
    let used: BTreeSet<_> = words.filter(|word| word.starts_with("pool:")).collect();
    assert_eq!(used, recorded);
}

#[test]
fn the_dashboard_has_its_own_data_source_and_pools_to_choose_from() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/herd.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance", "pool"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{}", panel["title"]);
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{}", panel["title"]);
    }
}
