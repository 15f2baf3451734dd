//! What there is and how it changes, as those who look on are told.

use std::{collections::BTreeMap, net::SocketAddr};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    client::{Exchange, eval, get, request},
    daemon::Daemon,
};

/// One who applies what it is told, by `pool/tenant/id`, and by the workers' IDs.
#[derive(Debug, Default)]
struct Picture {
    sessions: BTreeMap<String, Value>,
    workers: BTreeMap<String, Value>,
    stats: Value,
}

fn name(session: &Value) -> String {
    format!("{}/{}/{}", session["pool"], session["tenant"], session["id"])
}

fn rows(list: &Value) -> impl Iterator<Item = Value> {
    list.as_array().unwrap().clone().into_iter()
}

impl Picture {
    /// Applies events until one of this name has been applied.
    #[track_caller]
    fn read_until(&mut self, stream: &mut Exchange, last: &str) -> Value {
        loop {
            let (id, event, data) = stream.event();
            assert_eq!(id, "", "nobody can come back by a number");
            match event.as_str() {
                "sessions" => self.sessions.extend(rows(&data["items"]).map(|row| (name(&row), row))),
                "workers" => self.workers.extend(rows(&data["items"]).map(|row| (row["id"].to_string(), row))),
                "gone" => {
                    rows(&data["sessions"]).for_each(|row| drop(self.sessions.remove(&name(&row))));
                    rows(&data["workers"]).for_each(|id| drop(self.workers.remove(&id.to_string())));
                }
                "stats" => self.stats.clone_from(&data),
                "hello" | "ready" | "end" => {}
                other => panic!("{other}: {data}"),
            }
            if event == last {
                return data;
            }
        }
    }

    /// Reads on until it has what the lists say, but for what has changed since the last look: what workers use, and
    /// times that are told from now.
    #[track_caller]
    fn read_until_it_is_what_the_lists_say(&mut self, stream: &mut Exchange, daemon: &Daemon) {
        loop {
            self.read_until(stream, "stats");
            let list = |page: &str| daemon.page(page)["items"].as_array().unwrap().clone();
            let of = |rows: Vec<Value>| rows.into_iter().map(settled).collect::<Vec<_>>();
            let sessions = of(self.sessions.values().cloned().collect());
            let workers = of(self.workers.values().cloned().collect());
            let mut listed = of(list("/v1/workers"));
            listed.sort_by_key(|row| row["id"].to_string());
            if sessions == of(list("/v1/sessions")) && workers == listed {
                return;
            }
        }
    }
}

fn settled(mut row: Value) -> Value {
    let changing = [
        "created",
        "last_used",
        "idle_until",
        "ends_by",
        "started",
        "cpu_time_ms",
        "memory_bytes",
        "memory_peak_bytes",
        "pids",
    ];
    for field in changing {
        if let Some(value) = row.get_mut(field) {
            *value = value.is_null().into();
        }
    }
    row
}

#[track_caller]
fn live(to: SocketAddr, query: &str) -> Exchange {
    let mut stream = Exchange::begin(to, "GET", &format!("/v1/live{query}"), &[]);
    let (status, head) = stream.head();
    assert_eq!(status, 200, "{head:?}");
    stream
}

fn end(daemon: &Daemon, session: &str) {
    assert_eq!(request(daemon.admin, "DELETE", &format!("/v1/sessions/{session}?force=true"), &[]).status, 200);
}

#[test]
fn who_looks_on_sees_what_there_is_and_what_changes() {
    let daemon = Daemon::run(&["--workers", "1..4", "--max-lifetime", "1h"], &["{{herd}}", "repl"]);
    eval(daemon.gateway, "alice", "1");
    let mut stream = live(daemon.admin, "?interval_ms=250");
    let mut picture = Picture::default();
    let hello = picture.read_until(&mut stream, "hello");
    assert_eq!((&hello["version"], &hello["interval_ms"]), (&env!("CARGO_PKG_VERSION").into(), &250.into()));
    let stats = daemon.page("/v1/stats");
    assert_eq!((&hello["started"], &hello["stats"]["pid"]), (&stats["started"], &stats["pid"]));
    picture.read_until(&mut stream, "ready");
    let alice = picture.sessions.values().next().unwrap().clone();
    assert_eq!((picture.sessions.len(), &alice["id"], &alice["leases"]), (1, &"alice".into(), &0.into()));
    assert!(alice["idle_until"].as_str() > alice["last_used"].as_str(), "{alice}");
    assert!(alice["ends_by"].as_str() > alice["idle_until"].as_str(), "{alice}");

    picture.read_until_it_is_what_the_lists_say(&mut stream, &daemon);
    eval(daemon.gateway, "alice", "2");
    eval(daemon.gateway, "bob", "1");
    picture.read_until_it_is_what_the_lists_say(&mut stream, &daemon);
    assert_eq!(picture.sessions.len(), 2);
    end(&daemon, "alice");
    picture.read_until_it_is_what_the_lists_say(&mut stream, &daemon);
    let only = picture.sessions.values().next().unwrap();
    assert_eq!((picture.sessions.len(), &only["id"]), (1, &"bob".into()));
    assert_eq!(picture.stats["sessions"], 1);
    // What workers use comes by itself.
    let used = |picture: &Picture| {
        picture.workers.values().find(|row| row["session"] == "bob").and_then(|row| row["memory_bytes"].as_u64())
    };
    while used(&picture).is_none() {
        picture.read_until(&mut stream, "stats");
    }
}

#[test]
fn pools_tell_what_their_sessions_are_treated_by_and_how_long_starts_took() {
    let daemon = Daemon::run(&["--workers", "1..4", "--ttl", "90s", "--acquire-timeout", "5s"], &["{{herd}}", "repl"]);
    let pool = daemon.page_when("/v1/pools/default", |pool| pool["spawn_ms"]["count"].as_u64() > Some(0));
    let settings = json!({
        "ttl_ms": 90_000, "idle_by": "lease", "max_lifetime_ms": null, "min_workers": 1, "spare": 1,
        "acquire_timeout_ms": 5000, "when_full": "wait", "max_workers": 4,
    });
    for (name, value) in settings.as_object().unwrap() {
        assert_eq!(&pool[name], value, "{name}: {pool}");
    }
    assert!(pool["max_waiting"].as_u64() > Some(0));
    let took = &pool["spawn_ms"];
    let (p50, p99) = (took["p50"].as_f64().unwrap(), took["p99"].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99 && p99 < 30_000.0, "{took}");
    let counted: u64 = took["buckets"].as_array().unwrap().iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
    assert_eq!(Some(counted), took["count"].as_u64());
}

#[test]
fn who_looks_on_hears_that_the_daemon_drains_and_stops() {
    let mut daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let mut stream = live(daemon.admin, "?interval_ms=250");
    let mut picture = Picture::default();
    picture.read_until(&mut stream, "ready");
    daemon.signal(Signal::TERM);
    let end = picture.read_until(&mut stream, "end");
    assert_eq!(end["reason"], "stopping");
    assert!(daemon.wait().success());
}

#[test]
fn a_wrong_interval_is_refused() {
    let daemon = Daemon::repl();
    for wrong in ["interval_ms=249", "interval_ms=60001", "interval_ms=x", "interval_ms=", "interval=1000"] {
        let refused = get(daemon.admin, &format!("/v1/live?{wrong}"));
        assert_eq!(refused.status, 400, "{wrong}");
        assert_eq!(refused.json()["type"], "urn:herd:problem:bad-query");
    }
}
