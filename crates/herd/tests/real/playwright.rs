use std::time::Duration;

use serde_json::json;

use crate::{browser::Client, daemon::Daemon, gateway::Gateway, processes::Watch, provided};

/// `npx playwright-core run-server`, in the directory where npm installed it. A browser has more threads than workers
/// usually may.
pub(crate) fn browsers(flags: &[&str]) -> Daemon {
    let node_modules = provided("HERD_TEST_NODE_MODULES");
    let home = node_modules.parent().unwrap().to_str().unwrap();
    let flags = [&["--health-path", "/", "--pids", "-1", "--cwd", home], flags].concat();
    let server = ["npx", "playwright-core", "run-server", "--port", "{{.Port}}", "--host", "127.0.0.1"];
    Daemon::run(&flags, &server)
}

fn assert_renders(client: &mut Client, name: &str) {
    let seen = client.render(name, &format!("hello {name}"));
    let expected = json!({
        "title": format!("hello {name}"),
        "heading": format!("hello {name}"),
        "screenshot_is_png": true,
        "screenshot_shows_something": true,
        "second_title": "from a data URL, scripted",
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn each_session_has_a_browser_server_of_its_own_and_none_outlives_the_gateway() {
    let daemon = browsers(&["--drain-timeout", "1s"]);
    let mut client = Client::start();

    // Two sessions at once get two server processes, and each renders.
    client.connect("alice", daemon.gateway, "alice");
    client.connect("bob", daemon.gateway, "bob");
    let alice = daemon.worker_of("alice").await;
    let bob = daemon.worker_of("bob").await;
    assert_ne!(alice.0, bob.0);
    assert_ne!(alice.1, bob.1);
    assert_renders(&mut client, "alice");
    assert_renders(&mut client, "bob");

    // The session keeps its process across two connections.
    client.disconnect("alice");
    client.connect("alice again", daemon.gateway, "alice");
    assert_renders(&mut client, "alice again");
    assert_eq!(daemon.worker_of("alice").await, alice);
    assert_eq!(daemon.worker_of("bob").await, bob);

    // Two browsers are open when the gateway closes.
    let descendants = daemon.descendants();
    assert!(descendants.count("chromium") >= 2, "{descendants:?}");
    assert!(descendants.count("node") >= 2 || descendants.count("npm exec playw") >= 2, "{descendants:?}");
    let mark = daemon.marked();
    assert!(!mark.is_empty());
    let watch = Watch::of(descendants.pids().chain(mark.pids()));
    let variable = daemon.mark().to_owned();
    let status = daemon.terminate(Duration::from_secs(30));
    assert!(status.success(), "{status}");
    // The daemon ended after its workers did, so there is nothing to wait for.
    watch.wait_for_exits(Duration::ZERO);
    let left = crate::processes::Processes::with_variable(&variable);
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_repl_page_works_in_a_browser_and_shows_answers_as_text() {
    // The page is served by this host.
    let browsers = browsers(&["--workers", "0..1", "--spare", "0", "--network", "host"]);
    let repl = Daemon::serve(&["--session-key", "header:X-Session-ID,cookie:sid"]);
    let mut client = Client::start();
    client.connect("alice", browsers.gateway, "alice");
    let page: Gateway = repl.gateway;
    let seen = client.enter(
        "alice",
        page,
        &[("", "let x = 41"), ("", "x + 1"), ("bob", "x + 1"), ("", "\"<b>bold</b>\""), ("", "print(x);\nx * 2")],
    );
    let answers = json!([
        ["answer", ""],
        ["answer", "42"],
        ["failed", "Variable not found: x (line 1, position 1)"],
        ["answer", "<b>bold</b>"],
        ["answer", "41\n82"],
    ]);
    assert_eq!(seen["answers"], answers);
    assert_eq!(seen["markup"], 0, "an answer is never markup");
    assert_eq!(seen["requests"], json!(["", "eval", "eval", "eval", "eval", "eval"]), "the page needs nothing else");
    // The browser's own words about bob's 422.
    let complaints = seen["complaints"].as_array().unwrap();
    assert!(complaints.iter().all(|complaint| complaint.as_str().unwrap().contains("422")), "{complaints:?}");
}
