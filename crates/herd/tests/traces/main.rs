//! Traces, of the program that is built with the feature `otlp`.

#[path = "../cli/client.rs"]
#[expect(dead_code, reason = "not all of what the other tests need is needed here")]
mod client;
mod collector;
#[path = "../cli/daemon.rs"]
#[expect(dead_code, reason = "not all of what the other tests need is needed here")]
mod daemon;

use std::{fs, net::SocketAddr};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    client::{Response, get, request},
    collector::Collector,
    daemon::{Daemon, eventually},
};

const SESSION: &str = "session-5b0e7d";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Workers that answer with the trace fields that they were sent, with the status that the path asks for.
const ECHO: &str = r#"
import http.server, os
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = f'{self.headers["traceparent"]} {self.headers["tracestate"]}'
        self.send_response(503 if "broken" in self.path else 200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told.encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
"#;

/// A daemon that sends traces to this collector.
struct Traced {
    daemon: Daemon,
    _place: TempDir,
}

impl Traced {
    fn start(collector: SocketAddr, ratio: f64, telemetry: &str) -> Self {
        let place = TempDir::new().unwrap();
        let file = place.path().join("herd.yaml");
        let script = serde_json::to_string(ECHO).unwrap();
        let text = format!(
            "worker: {{ command: [/usr/bin/python3, -c, {script}], ready: tcp }}\n\
             resources: {{ min_workers: 0, spare: 0 }}\n\
             sandbox: {{ mode: best-effort }}\n\
             network: {{ session_key: 'path:1' }}\n\
             telemetry:\n  otlp_endpoint: http://{collector}{telemetry}\n  trace_ratio: {ratio}\n"
        );
        fs::write(&file, text).unwrap();
        let daemon = Daemon::serve(&["--config", file.to_str().unwrap()]);
        Self { daemon, _place: place }
    }

    /// What the worker was sent as `traceparent` and `tracestate`.
    #[track_caller]
    fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        request(self.daemon.gateway, "GET", &format!("/{SESSION}{path}"), fields)
    }

    fn sample(&self, name: &str) -> u64 {
        let page = get(self.daemon.admin, "/metrics").body;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name}:\n{page}"))
    }
}

#[test]
fn a_request_is_a_span_with_its_phases_and_continues_its_clients_trace() {
    let mut collector = Collector::start(&["200 OK"]);
    let traced = Traced::start(collector.address, 1.0, "");
    let from_client = format!("00-{TRACE}-{PARENT}-01");
    let fields = [("traceparent", &*from_client), ("tracestate", "vendor=1")];
    let answer = traced.ask("/some/path?token=secret", &fields);
    let span = collector.span();
    assert_eq!((span.trace(), span.parent()), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(answer.body, format!("00-{TRACE}-{}-01 vendor=1", span.id()), "the worker's parent is the span");
    assert_eq!((&*span.name, span.kind), ("GET", 2));
    let attributes = [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/some/path"),
        ("herd.pool", "default"),
        ("herd.session.new", "true"),
    ];
    for (key, value) in attributes {
        assert_eq!(span.attribute(key).as_deref(), Some(value), "{key}: {span:?}");
    }
    let phases: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
    assert_eq!(phases, ["lease", "connect", "send", "relay"]);
    let times: Vec<_> = span.events.iter().map(|event| event.at).collect();
    assert!(times.is_sorted() && span.begun <= times[0] && times[3] <= span.ended, "{span:?}");
    let told = format!("{span:?}");
    assert!(!told.contains(SESSION) && !told.contains("secret"), "{told}");
    // The worker came up for the first request, and lives on for the second.
    traced.ask("/", &fields);
    assert_eq!(collector.span().attribute("herd.session.new").as_deref(), Some("false"));
}

#[test]
fn a_request_without_a_trace_begins_one_and_a_failure_is_marked() {
    let mut collector = Collector::start(&["200 OK"]);
    let traced = Traced::start(collector.address, 1.0, "/otlp/?key=hidden");
    let answer = traced.ask("/broken", &[]);
    assert_eq!(answer.status, 503);
    let span = collector.span();
    assert_eq!(answer.body, format!("00-{}-{}-01 None", span.trace(), span.id()));
    assert!(span.parent().is_empty() && span.has_failed(), "{span:?}");
    // Whoever asks whether the gateway is there makes no spans.
    get(traced.daemon.gateway, "/healthz");
    traced.ask("/", &[]);
    let next = collector.span();
    assert_eq!(next.attribute("url.path").as_deref(), Some("/"));
    assert!(traced.daemon.log.iter().all(|line| !line.contains("hidden")), "an endpoint's query may be a secret");
    assert!(!next.has_failed() && next.trace() != span.trace(), "{next:?}");
}

#[test]
fn no_client_decides_whether_its_requests_are_traced() {
    let mut collector = Collector::start(&["200 OK"]);
    let all = Traced::start(collector.address, 1.0, "");
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let told = all.ask("/unsampled", &[("traceparent", &unsampled)]).body;
    let span = collector.span();
    assert_eq!(told, format!("00-{TRACE}-{}-01 None", span.id()), "the trace goes on, and is sampled from here on");
    assert_eq!((span.trace(), span.parent()), (TRACE.to_owned(), PARENT.to_owned()));
    drop(all);

    let mut none = Traced::start(collector.address, 0.0, "");
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let told = none.ask("/sampled", &[("traceparent", &sampled)]).body;
    // The worker hears that it need not sample what this daemon does not.
    assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00 None"), "{told}");
    let own = none.ask("/", &[]).body;
    assert!(own.starts_with("00-") && own.ends_with("-00 None"), "{own}");
    // What waits is sent before the daemon ends, so by then the collector would have it.
    none.daemon.signal(Signal::TERM);
    assert!(none.daemon.wait().success());
    assert!(collector.is_empty());
}

#[test]
fn a_collector_that_refuses_costs_requests_nothing_and_what_it_missed_is_counted() {
    let mut collector = Collector::start(&["400 Bad Request", "200 OK"]);
    let mut traced = Traced::start(collector.address, 1.0, "/v1/traces");
    traced.ask("/lost", &[]);
    let warned = traced.daemon.log_line(|line| line["message"].as_str().is_some_and(|text| text.contains("traces")));
    assert_eq!(warned["to"], format!("http://{}", collector.address));
    assert_eq!(traced.sample("herd_trace_spans_dropped_total"), 1);
    traced.ask("/kept", &[]);
    assert_eq!(collector.span().attribute("url.path").as_deref(), Some("/kept"));
    traced.daemon.log_line(|line| line["message"] == "the collector takes traces again");
}

#[test]
fn spans_that_do_not_fit_are_dropped_and_counted() {
    // It accepts connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let traced = Traced::start(silent.local_addr().unwrap(), 1.0, "");
    for _ in 0..5_000 {
        // Without a session no worker is troubled, and there is a span all the same.
        assert_eq!(request(traced.daemon.gateway, "GET", "/", &[]).status, 400);
    }
    eventually(|| traced.sample("herd_trace_spans_dropped_total") > 0);
    assert_eq!(traced.sample("herd_trace_spans_exported_total"), 0);
}

#[test]
fn spans_that_wait_are_sent_before_the_daemon_ends() {
    let mut collector = Collector::start(&["200 OK"]);
    let mut traced = Traced::start(collector.address, 1.0, "");
    traced.ask("/last", &[]);
    traced.daemon.signal(Signal::TERM);
    assert!(traced.daemon.wait().success());
    assert_eq!(collector.span().attribute("url.path").as_deref(), Some("/last"));
}

#[test]
fn without_an_endpoint_there_are_no_spans_and_no_metrics_of_them() {
    let daemon = Daemon::repl();
    assert!(!get(daemon.admin, "/metrics").body.contains("herd_trace"));
}
