//! Tokens, tenants and their limits, as callers of the gateway meet them.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::Stdio,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Exchange, Response, get, request},
    daemon::{Daemon, failure, herd, output},
};

const ACME: &str = "herd_acme-4f1d7c2b9a08e635";
const GLOBEX: &str = "herd_globex-90c3e8d2175fb6a4";
const OPERATOR: &str = "herd_operator-7e20b4a91c3d586f";
const SECRET: &str = "a-shared-secret-of-herd-and-its-issuer-7d20";

/// Workers that tell everything that they were told: the request's target and fields, and their environment.
const ECHO: &str = r#"
import http.server, json, os
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = json.dumps({"target": self.path, "fields": self.headers.items(), "environment": dict(os.environ)})
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told.encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
"#;

/// A directory with a configuration and its secrets.
struct Place(TempDir);

impl Place {
    /// The sections of a configuration that follow those which all have.
    fn new(sections: &str) -> Self {
        let place = Self(TempDir::new().unwrap());
        fs::write(place.path("secret"), SECRET).unwrap();
        fs::write(place.path("globex"), format!("{GLOBEX}\n")).unwrap();
        place.configure(sections);
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn configure(&self, sections: &str) {
        let sections = sections.replace("{{place}}", self.0.path().to_str().unwrap());
        let sandbox = "sandbox: { mode: best-effort }\nresources: { min_workers: 0, spare: 0 }\n";
        fs::write(self.path("herd.yaml"), format!("{sandbox}{sections}")).unwrap();
    }

    fn serve(&self, flags: &[&str]) -> Daemon {
        Daemon::serve(&[&["--config", &self.path("herd.yaml")], flags].concat())
    }
}

fn sha256(token: &str) -> String {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One tenant's token is known by its hash, the other's is in a file.
fn two_tenants() -> String {
    format!(
        "access:\n  tokens:\n    - {{ name: first, tenant: acme, sha256: {} }}\n    \
         - {{ name: second, tenant: globex, file: '{{{{place}}}}/globex' }}\n",
        sha256(ACME)
    )
}

const JWT: &str = "\
access:
  jwt:
    algorithm: HS256
    key_file: '{{place}}/secret'
    audience: herd
    tenant_claim: org
    session_claim: sid
    leeway: 0s
  query_parameter: access_token
";

/// A JSON Web Token of the issuer, which expires so many seconds from now.
fn jwt(org: &str, sid: &str, lasts: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({ "aud": "herd", "org": org, "sid": sid, "exp": now.saturating_add_signed(lasts) });
    let message = format!("{}.{}", part(json!({ "alg": "HS256" })), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

/// A script for the REPL of the caller's session.
fn eval(daemon: &Daemon, token: &str, session: &str, script: &str) -> Response {
    let (authorization, length) = (format!("Bearer {token}"), script.len().to_string());
    let fields = [("authorization", &*authorization), ("x-session-id", session), ("content-length", &*length)];
    let mut exchange = Exchange::begin(daemon.gateway, "POST", "/eval", &fields);
    exchange.send(script);
    exchange.finish()
}

#[test]
fn one_session_id_of_two_tenants_is_two_sessions_with_two_workers() {
    let daemon = Place::new(&two_tenants()).serve(&[]);
    assert_eq!(eval(&daemon, ACME, "main", "let whose = \"acme's\"; whose").body, "acme's");
    let other = eval(&daemon, GLOBEX, "main", "whose");
    assert_eq!(other.status, 422, "nothing of the other tenant's session is there: {other:?}");
    assert_eq!(other.field("herd-session"), Some("new"));
    assert_eq!(eval(&daemon, ACME, "main", "whose").body, "acme's");

    let listed = daemon.page("/v1/sessions");
    let sessions: BTreeSet<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| {
            let text = |name: &str| session[name].as_str().unwrap().to_owned();
            (text("tenant"), text("id"), text("worker"))
        })
        .collect();
    let names: Vec<_> = sessions.iter().map(|(tenant, id, _)| (tenant.as_str(), id.as_str())).collect();
    assert_eq!(names, [("acme", "main"), ("globex", "main")], "{listed}");
    let workers: BTreeSet<_> = sessions.iter().map(|(.., worker)| worker).collect();
    assert_eq!(workers.len(), 2, "{listed}");
}

#[test]
fn the_log_names_who_was_let_in_and_who_was_refused_and_the_metrics_count_refusals() {
    let place = Place::new(&format!(
        "{}    - {{ name: operator, sha256: {} }}\ntenants: {{ named: {{ acme: {{ requests_per_second: 1 }} }} }}\n",
        two_tenants(),
        sha256(OPERATOR)
    ));
    let mut daemon = place.serve(&["--log-level", "trace"]);
    assert_eq!(eval(&daemon, GLOBEX, "main", "1").status, 200);
    let line = daemon.log_line(|line| line["message"] == "a caller was let in");
    assert_eq!((&line["caller"], &line["tenant"]), (&json!("second"), &json!("globex")), "{line}");
    let mut refusal = |status: u16, token: &str| {
        // The first request within a second is not one too many.
        let ask = || request(daemon.gateway, "GET", "/metrics", &[("authorization", token)]);
        let refused = (0..100).map(|_| ask()).find(|answer| answer.status == status).expect("it is refused so");
        let error = refused.field("herd-error").unwrap();
        let line = daemon.log_line(|line| line["error"] == error);
        assert!(line["message"].as_str().unwrap().starts_with("a caller was refused: "), "{line}");
        assert_eq!((&line["level"], &line["client"]), (&json!("DEBUG"), &json!("127.0.0.1")), "{line}");
        assert!(!line.to_string().contains(token.trim_start_matches("Bearer ")), "{line}");
        (error.to_owned(), line["caller"].clone(), line["tenant"].clone())
    };
    let unknown = "Bearer herd_acme-4f1d7c2b9a08e634";
    assert_eq!(refusal(401, unknown), ("unauthorized".to_owned(), Value::Null, Value::Null));
    let forbidden = ("forbidden-page".to_owned(), json!("second"), json!("globex"));
    assert_eq!(refusal(403, &format!("Bearer {GLOBEX}")), forbidden);
    let too_many = ("too-many-requests".to_owned(), json!("first"), Value::Null);
    assert_eq!(refusal(429, &format!("Bearer {ACME}")), too_many);
    // An operator's token gets the page.
    let page = request(daemon.gateway, "GET", "/metrics", &[("authorization", &format!("Bearer {OPERATOR}"))]);
    assert_eq!(page.status, 200);
    for (error, count) in [("unauthorized", 1), ("too-many-requests", 1), ("no-route", 0)] {
        let sample = format!("\nherd_gateway_failures_total{{error=\"{error}\"}} {count}\n");
        assert!(page.body.contains(&sample), "{sample}{}", page.body);
    }
}

#[test]
fn without_a_good_token_nothing_is_reached_and_no_worker_starts() {
    let daemon = Place::new(&two_tenants()).serve(&[]);
    let nothing = request(daemon.gateway, "GET", "/", &[("x-session-id", "main")]);
    assert_eq!(nothing.status, 401, "{nothing:?}");
    assert_eq!(nothing.field("www-authenticate"), Some("Bearer realm=\"herd\""));
    for token in ["herd_acme-4f1d7c2b9a08e634", &sha256(ACME), "a.b.c", "x"] {
        let refused = eval(&daemon, token, "main", "1");
        assert_eq!((refused.status, refused.field("herd-error")), (401, Some("unauthorized")), "{refused:?}");
        assert!(refused.field("www-authenticate").unwrap().contains("error=\"invalid_token\""), "{refused:?}");
        assert!(!refused.body.contains(token) || token == "x", "{refused:?}");
    }
    let authorization = format!("Bearer {ACME}");
    let twice = [("authorization", &*authorization), ("authorization", &*authorization), ("x-session-id", "main")];
    assert_eq!(request(daemon.gateway, "GET", "/", &twice).status, 401);
    let basic = [("authorization", "Basic YTpi"), ("x-session-id", "main")];
    assert_eq!(request(daemon.gateway, "GET", "/", &basic).status, 401);
    assert_eq!(daemon.page("/v1/workers")["items"], json!([]));
}

#[test]
fn a_signed_token_is_for_its_tenant_and_its_session_until_it_expires() {
    let daemon = Place::new(JWT).serve(&[]);
    let token = jwt("acme", "alice", 600);
    assert_eq!(eval(&daemon, &token, "alice", "1 + 1").body, "2");
    let other = eval(&daemon, &token, "bob", "1");
    assert_eq!((other.status, other.field("herd-error")), (403, Some("forbidden-session")), "{other:?}");
    // Who names no session means the token's.
    let fields = [("authorization", &*format!("Bearer {token}"))];
    assert_eq!(request(daemon.gateway, "GET", "/health", &fields).status, 200);
    // Where no field can be sent.
    let in_query = request(daemon.gateway, "GET", &format!("/health?access_token={token}"), &[]);
    assert_eq!(in_query.status, 200, "{in_query:?}");
    let expired = eval(&daemon, &jwt("acme", "alice", -1), "alice", "1");
    assert_eq!(expired.status, 401);
    assert!(expired.body.contains("expired"), "{expired:?}");
    let sessions = daemon.page("/v1/sessions");
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(1), "{sessions}");
}

#[test]
fn a_tenant_that_has_what_it_may_gets_429_and_the_others_go_on() {
    let limits = "tenants:\n  default: { max_sessions: 2 }\n  named:\n    acme: { max_sessions: 1 }\n";
    let daemon = Place::new(&format!("{}{limits}", two_tenants())).serve(&[]);
    assert_eq!(eval(&daemon, ACME, "one", "1").status, 200);
    let refused = eval(&daemon, ACME, "two", "1");
    assert_eq!((refused.status, refused.field("herd-error")), (429, Some("tenant-sessions")), "{refused:?}");
    assert!(refused.field("retry-after").is_some());
    assert_eq!(eval(&daemon, ACME, "one", "1").status, 200, "the session that it has is not touched");
    for session in ["one", "two"] {
        assert_eq!(eval(&daemon, GLOBEX, session, "1").status, 200);
    }
    assert_eq!(eval(&daemon, GLOBEX, "three", "1").status, 429);
    let listed = daemon.page("/v1/sessions");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{listed}");
}

#[test]
fn a_tenant_that_calls_too_often_gets_429_with_the_time_to_wait() {
    let limits = "tenants: { named: { acme: { requests_per_second: 2 } } }\n";
    let daemon = Place::new(&format!("{}{limits}", two_tenants())).serve(&[]);
    // However slow the machine is: of so many at once, some come too early.
    let answers: Vec<_> = (0..40)
        .map(|_| {
            Exchange::begin(
                daemon.gateway,
                "GET",
                "/health",
                &[("authorization", &format!("Bearer {ACME}")), ("x-session-id", "s")],
            )
        })
        .collect();
    let answers: Vec<_> = answers.into_iter().map(Exchange::finish).collect();
    assert!(answers.iter().filter(|answer| answer.status == 200).count() >= 2, "{answers:?}");
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!((refused.field("herd-error"), refused.field("retry-after")), (Some("too-many-requests"), Some("1")));
    for _ in 0..10 {
        assert_eq!(eval(&daemon, GLOBEX, "s", "1").status, 200, "another tenant is not held up");
    }
}

#[test]
fn a_token_is_replaced_by_a_reload_while_sessions_go_on() {
    let place = Place::new(&two_tenants());
    let mut daemon = place.serve(&[]);
    assert_eq!(eval(&daemon, GLOBEX, "main", "let kept = 41; kept").body, "41");
    let successor = "herd_globex-successor-51ab";
    fs::write(place.path("successor"), successor).unwrap();
    let both = format!("{}    - {{ name: third, tenant: globex, file: '{{{{place}}}}/successor' }}\n", two_tenants());
    place.configure(&both);
    assert_eq!(eval(&daemon, successor, "main", "1").status, 401, "nothing changes before the reload");
    reload(&mut daemon);
    assert_eq!(eval(&daemon, GLOBEX, "main", "kept").body, "41", "both are good");
    assert_eq!(eval(&daemon, successor, "main", "kept += 1; kept").body, "42");

    // What cannot be had changes nothing.
    fs::write(place.path("successor"), "short").unwrap();
    daemon.signal(Signal::HUP);
    let said = daemon.log_line(|line| line["message"].as_str().is_some_and(|text| text.contains("`third`")));
    assert!(said["message"].as_str().unwrap().contains("a token of 5 bytes can be guessed"), "{said}");
    assert_eq!(eval(&daemon, successor, "main", "kept").body, "42");

    // The file's content alone, without a change of the configuration.
    fs::write(place.path("successor"), successor).unwrap();
    fs::write(place.path("globex"), "herd_globex-yet-another-08").unwrap();
    reload(&mut daemon);
    assert_eq!(eval(&daemon, GLOBEX, "main", "kept").status, 401, "the old token is not believed any more");
    assert_eq!(eval(&daemon, successor, "main", "kept").body, "42");
}

/// Has the daemon read its configuration again, and waits until it has.
fn reload(daemon: &mut Daemon) {
    daemon.signal(Signal::HUP);
    daemon.log_line(|line| line["message"].as_str().is_some_and(|text| text.contains("was reloaded")));
}

#[test]
fn no_secret_shows_anywhere() {
    let script = "    - { name: file, tenant: globex, file: '{{place}}/globex' }\n";
    let sections = format!(
        "{JWT}  tokens:\n    - {{ name: hash, tenant: acme, sha256: {} }}\n{script}\
         worker: {{ command: [/usr/bin/python3, -c, {}], ready: tcp }}\n",
        sha256(ACME),
        json!(ECHO)
    );
    let place = Place::new(&sections);
    let mut daemon = place.serve(&["--log-level", "trace"]);
    let (good, expired) = (jwt("acme", "alice", 600), jwt("acme", "alice", -600));
    let unknown = "herd_unknown-c0ffee0123456789";
    let forged = format!("{}AAAAAAAAAAAAAAAA", &good[..good.len() - 16]);
    let mut shown = String::new();
    let mut statuses = Vec::new();
    for token in [ACME, GLOBEX, &good, &expired, unknown, &forged] {
        let authorization = format!("Bearer {token}");
        for (target, fields) in [
            ("/?q=1".to_owned(), vec![("authorization", &*authorization), ("x-session-id", "alice")]),
            (format!("/?q=1&access_token={token}"), vec![("x-session-id", "alice")]),
            (format!("/?access%5Ftoken={token}&q=1"), vec![("x-session-id", "alice")]),
            (format!("/?access_token={token}"), vec![("authorization", &*authorization), ("x-session-id", "alice")]),
            (format!("/?access_token={token}"), vec![("x-session-id", "a b")]),
        ] {
            let response = request(daemon.gateway, "GET", &target, &fields);
            statuses.push(response.status);
            shown += &format!("{response:?}\n");
        }
    }
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    // Three of five ways are good with three of six tokens; of the others, one has a session ID that is none.
    assert_eq!((count(200), count(400), count(401)), (9, 3, 18), "{statuses:?}");
    assert!(shown.contains("\\\"target\\\": \\\"/?q=1\\\""), "the worker told what it saw: {shown}");

    for page in ["/v1/sessions", "/v1/workers", "/v1/stats", "/metrics"] {
        shown += &get(daemon.admin, page).body;
    }
    let authorization = format!("Bearer {ACME}");
    let refused = request(daemon.gateway, "GET", "/metrics", &[("authorization", &authorization)]);
    assert_eq!(refused.status, 403, "the page tells of all tenants: {refused:?}");
    shown += &refused.body;
    for worker in daemon.page("/v1/workers")["items"].as_array().unwrap() {
        shown += &get(daemon.admin, &format!("/v1/workers/{}/logs", worker["id"].as_str().unwrap())).body;
    }
    let mut events = Exchange::begin(daemon.admin, "GET", "/v1/events", &[("last-event-id", "0")]);
    events.head();
    // Three sessions: of a known token for each of two tenants, and the JWT's, which is the first one's as well.
    let mut ready = 0;
    while ready < 2 {
        let (_, name, data) = events.event();
        ready += usize::from(name == "session-started" || name == "session-ready" || name == "session-created");
        shown += &data.to_string();
    }
    for args in [&["ps"][..], &["ps", "--json"]] {
        shown += &String::from_utf8(daemon.command(args).stdout).unwrap();
    }
    for pid in [vec![daemon.pid()], daemon.descendants()].concat() {
        for file in ["cmdline", "environ"] {
            let read = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            shown += &format!("{}\n", String::from_utf8_lossy(&read));
        }
    }
    daemon.signal(Signal::TERM);
    daemon.wait();
    shown += &daemon.stdout();
    shown += &daemon.log.join("\n");
    assert!(shown.contains("a caller was let in"), "the log has everything that it can have");

    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let claims = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let secrets = [
        ACME.to_owned(),
        GLOBEX.to_owned(),
        unknown.to_owned(),
        SECRET.to_owned(),
        signature(&good),
        signature(&expired),
        claims(&good),
        claims(&expired),
        sha256(ACME),
        sha256(GLOBEX),
    ];
    for secret in secrets {
        if let Some(at) = shown.find(&secret) {
            let from = (0..=at.saturating_sub(300)).rev().find(|at| shown.is_char_boundary(*at)).unwrap_or(0);
            panic!("{secret} shows in: {}", &shown[from..at + secret.len()]);
        }
    }
}

#[test]
fn a_secret_that_cannot_be_used_keeps_the_daemon_from_starting() {
    let place = Place::new(&two_tenants());
    fs::write(place.path("globex"), "short\n").unwrap();
    let config = place.path("herd.yaml");
    let said = failure(&["serve", "--config", &config, "--listen", "127.0.0.1:0", "--admin", "off"], 1);
    assert!(said.contains("access.tokens, `second`: ") && said.contains(&place.path("globex")), "{said}");
    assert!(said.contains("a token of 5 bytes can be guessed") && !said.contains("short"), "{said}");
    place.configure(JWT);
    fs::write(place.path("secret"), "0123456789").unwrap();
    let said = failure(&["serve", "--config", &config, "--listen", "127.0.0.1:0", "--admin", "off"], 1);
    assert!(said.contains("access.jwt.key_file: ") && said.contains("HS256 needs at least 32"), "{said}");
}

#[test]
fn herd_token_makes_a_token_that_the_configuration_takes_by_its_hash() {
    let directory = TempDir::new().unwrap();
    let made = output(&["token", "--json"], directory.path());
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (token, hash) = (made["token"].as_str().unwrap(), made["sha256"].as_str().unwrap());
    assert!(token.starts_with("herd_") && token.len() == 48, "{made}");
    assert_eq!(hash, sha256(token));
    let text = String::from_utf8(output(&["token"], directory.path()).stdout).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!((lines[0].0, lines[1]), ("token", ("sha256", &*sha256(lines[0].1))));
    assert_ne!(lines[0].1, token);

    let tokens = format!("access: {{ tokens: [{{ name: made, sha256: {hash} }}] }}\n");
    let daemon = Place::new(&tokens).serve(&[]);
    assert_eq!(eval(&daemon, token, "main", "6 * 7").body, "42");
}

#[test]
fn herd_token_hashes_a_token_from_standard_input_and_takes_none_as_an_argument() {
    let directory = TempDir::new().unwrap();
    let hash = |input: &str| {
        let mut command = herd(&["token", "--hash"], directory.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let hashed = hash(&format!("{ACME}\n"));
    assert_eq!(String::from_utf8(hashed.stdout).unwrap(), format!("sha256: {}\n", sha256(ACME)));
    let refused = hash("hunter2\n");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("a token of 7 bytes can be guessed") && !said.contains("hunter2"), "{said}");
    failure(&["token", ACME], 2);
    failure(&["token", "--hash", ACME], 2);
}
