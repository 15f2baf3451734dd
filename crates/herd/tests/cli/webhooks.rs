//! Events that are posted, to receivers that are well and to others.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{PATIENCE, eval, get},
    daemon::{Daemon, failure, herd},
};

/// What was posted.
#[derive(Debug)]
struct Post {
    path: String,
    fields: HashMap<String, String>,
    body: String,
}

impl Post {
    fn document(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn events(&self) -> Vec<Value> {
        self.document()["events"].as_array().unwrap().clone()
    }
}

/// Answers each post with the next of these statuses, and further ones with the last.
fn receive(listener: TcpListener, answers: &'static [&'static str]) -> Receiver<Post> {
    let (sender, posts) = channel();
    thread::spawn(move || {
        let mut taken = 0;
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            while let Some(post) = read(&mut stream) {
                let answer = answers[taken.min(answers.len() - 1)];
                taken += 1;
                if sender.send(post).is_err() {
                    return;
                }
                let _ = write!(stream.get_mut(), "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    posts
}

/// The next post on a connection, unless that has ended.
fn read(stream: &mut BufReader<TcpStream>) -> Option<Post> {
    let mut head = stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let path = head.next()?.split(' ').nth(1)?.to_owned();
    let fields: HashMap<_, _> = head
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())))
        .collect();
    let mut body = vec![0; fields["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(Post { path, fields, body: String::from_utf8(body).unwrap() })
}

/// A daemon with the REPL and with these lines of configuration for its one webhook.
fn daemon(lines: &str) -> Daemon {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("herd.yaml");
    let lines = lines.replace("{{dir}}", directory.path().to_str().unwrap());
    fs::write(directory.path().join("key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let webhook = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n    ");
    fs::write(&file, format!("sandbox: {{mode: best-effort}}\nwebhooks:\n  - {webhook}\n")).unwrap();
    let socket = directory.path().join("control.sock");
    let args = ["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let args = [&args[..], &["--log-format", "json", "--control-socket", socket.to_str().unwrap()]].concat();
    Daemon::spawn(herd(&args, directory.path()), socket, directory)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads posts until an event is as wanted; the sequence numbers of all events that were seen.
#[track_caller]
fn until(posts: &Receiver<Post>, wanted: impl Fn(&Value) -> bool) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let post = posts.recv_timeout(PATIENCE).expect("another post");
        for event in post.events() {
            seen.push(event["sequence"].as_u64().unwrap());
            if wanted(&event) {
                return seen;
            }
        }
    }
}

fn is_end_of(session: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["kind"] == "session-ended" && event["session"] == session
}

/// The signature as another implementation makes it.
fn signed_by_python(post: &Post) -> String {
    let script = "import base64, hashlib, hmac, sys\n\
                  key, signed = sys.stdin.buffer.read().split(b'\\n', 1)\n\
                  print('v1,' + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode())";
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (id, timestamp) = (&post.fields["webhook-id"], &post.fields["webhook-timestamp"]);
    let input = format!("0123456789abcdef0123456789abcdef\n{id}.{timestamp}.{}", post.body);
    python.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn events_are_posted_in_order_and_signed() {
    let (listener, address) = listener();
    let posts = receive(listener, &["204 No Content"]);
    let daemon = daemon(&format!(
        "url: http://{address}/herd?key=in-the-url\nsecret_file: {{{{dir}}}}/key\nevents: [session-started, session-ended]"
    ));
    eval(daemon.gateway, "alice", "1");
    let post = posts.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (post.path.as_str(), post.fields["content-type"].as_str()),
        ("/herd?key=in-the-url", "application/json")
    );
    assert_eq!(post.fields["webhook-signature"], signed_by_python(&post));
    let events = post.events();
    assert_eq!(
        (events.len(), &events[0]["kind"], &events[0]["session"]),
        (1, &"session-started".into(), &"alice".into())
    );
    assert_eq!((&events[0]["pool"], &post.document()["missed"]), (&"default".into(), &0.into()));
    assert!(daemon.command(&["end", "alice"]).status.success());
    until(&posts, is_end_of("alice"));
}

#[test]
fn a_receiver_that_was_down_misses_nothing_and_slows_nobody() {
    let (listener, address) = listener();
    drop(listener);
    let mut daemon = daemon(&format!("url: http://{address}/secret-path"));
    for session in ["alice", "bob", "carol"] {
        assert_eq!(eval(daemon.gateway, session, "1 + 1").body, "2");
        assert!(daemon.command(&["end", session]).status.success());
    }
    let line =
        daemon.log_line(|line| line["message"].as_str().is_some_and(|text| text.contains("does not take events")));
    assert_eq!(line["to"], format!("http://{address}"));
    // It comes back, stumbles, and sends elsewhere, which is no yes.
    let posts = receive(
        TcpListener::bind(address).unwrap(),
        &["500 Internal Server Error", "302 Found\r\nlocation: http://127.0.0.1:1/", "200 OK"],
    );
    let first = posts.recv_timeout(PATIENCE).unwrap();
    let second = posts.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first.fields["webhook-id"], second.fields["webhook-id"], "it is the same post");
    assert!(!first.fields.contains_key("webhook-signature"), "nobody gave a key");
    let seen = until(&posts, is_end_of("carol"));
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    let begin = &first.events()[0];
    assert_eq!((&begin["kind"], &begin["sequence"]), (&"worker-starting".into(), &1.into()), "{begin}");
    assert!(!daemon.log.iter().any(|line| line.contains("secret-path")));
}

#[test]
fn beyond_its_bound_a_queue_drops_the_oldest_and_says_so() {
    let (listener, address) = listener();
    drop(listener);
    let mut daemon = daemon(&format!("url: http://{address}/\nmax_queue: 2\nevents: [session-started, session-ended]"));
    for session in ["alice", "bob"] {
        eval(daemon.gateway, session, "1");
        assert!(daemon.command(&["end", session]).status.success());
    }
    daemon.log_line(|line| line["message"].as_str().is_some_and(|text| text.contains("the oldest are dropped")));
    let posts = receive(TcpListener::bind(address).unwrap(), &["200 OK"]);
    // What was on its way meanwhile is not dropped.
    let (mut arrived, mut missed) = (Vec::new(), 0);
    while arrived.len() as u64 + missed < 4 {
        let post = posts.recv_timeout(PATIENCE).expect("another post");
        missed += post.document()["missed"].as_u64().unwrap();
        arrived.extend(post.events());
    }
    assert_eq!((arrived.len(), missed), (2, 2), "{arrived:?}");
    let sessions: Vec<_> = arrived.iter().map(|event| event["session"].as_str().unwrap()).collect();
    assert!(sessions == ["alice", "bob"] || sessions == ["bob", "bob"], "{arrived:?}");
}

#[test]
fn an_answer_counts_when_its_head_is_there() {
    let (listener, address) = listener();
    let daemon = daemon(&format!("url: http://{address}/\ntimeout: 2s\nevents: [session-started]"));
    eval(daemon.gateway, "alice", "1");
    let mut streams = Vec::new();
    // Its body never comes; each post is another connection then.
    let mut take = || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let post = read(&mut stream).expect("a post");
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").unwrap();
        streams.push(stream);
        post.events()[0]["session"].as_str().unwrap().to_owned()
    };
    assert_eq!(take(), "alice");
    eval(daemon.gateway, "bob", "1");
    assert_eq!(take(), "bob", "the first was taken");
}

#[test]
fn a_receiver_that_never_answers_holds_up_neither_sessions_nor_the_end() {
    let (listener, address) = listener();
    let mut daemon = daemon(&format!("url: http://{address}/"));
    let (_stalled, _) = listener.accept().unwrap();
    assert_eq!(eval(daemon.gateway, "alice", "1 + 1").body, "2");
    assert_eq!(get(daemon.admin, "/v1/sessions/alice").status, 200);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(daemon.log.iter().any(|line| line.contains("did not take its last events")), "{:?}", daemon.log);
}

#[test]
fn the_last_events_of_a_daemon_are_posted_before_it_ends() {
    let (listener, address) = listener();
    let posts = receive(listener, &["200 OK"]);
    let mut daemon = daemon(&format!("url: http://{address}/\nevents: [session-ended]"));
    eval(daemon.gateway, "alice", "1");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let ended = posts.recv_timeout(PATIENCE).unwrap().events();
    assert_eq!((&ended[0]["session"], &ended[0]["reason"]), (&"alice".into(), &"drained".into()), "{ended:?}");
}

#[test]
fn a_key_that_cannot_be_had_keeps_the_daemon_from_starting() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("herd.yaml");
    fs::write(&file, "webhooks: [{url: \"http://127.0.0.1:9/\", secret_file: /nonexistent/key}]\n").unwrap();
    let told = failure(&["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"], 1);
    assert!(told.contains("webhook") && told.contains("cannot read /nonexistent/key"), "{told}");
}
